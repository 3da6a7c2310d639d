"""The command line: one verb per thing a user does; every known error is one sentence and an exit code."""

from __future__ import annotations

import argparse
import importlib
import logging
import os
import sys
from collections.abc import Sequence

from fusion.command import Verb, carry_out, start_logging
from fusion.errors import ConfigError
from fusion.verbs import fleet, keys, learning, operation, recordings, reports, simulated, site

MARKER = "fusion-world-model"
COMPLETING = "_ARGCOMPLETE"
EPILOG = """exit codes:
  0    done, or ended as asked
  1    failed; of doctor: something fails; of discover: an address did not answer; of status: nothing is known
  2    bad arguments or configuration, or a model or recording of another plant
  3    import: not all of the files was taken
  130  interrupted

completion, for bash and zsh: eval "$(register-python-argcomplete fusion)"
"""
VERBS: tuple[Verb, ...] = (
    *site.VERBS,
    *simulated.VERBS,
    *recordings.VERBS,
    *learning.VERBS,
    *fleet.VERBS,
    *operation.VERBS,
    *reports.VERBS,
    *keys.VERBS,
)


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `fusion` command."""
    parser = build_parser()
    if COMPLETING in os.environ:
        import argcomplete

        argcomplete.autocomplete(parser)
    arguments = parser.parse_args(argv)
    start_logging(logging.DEBUG if arguments.verbose else logging.INFO)
    _quiet_drivers()
    return carry_out(lambda: _carry_out(arguments.verb, arguments))


def _carry_out(verb: Verb, arguments: argparse.Namespace) -> int | None:
    _check_names()
    return verb.command(arguments)


def build_parser() -> argparse.ArgumentParser:
    """The whole surface of the command line; tests/golden/cli.txt holds what it says."""
    parser = argparse.ArgumentParser(
        prog="fusion",
        description="A world model for industrial plants.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--verbose", action="store_true", help="log every detail")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    for verb in VERBS:
        words = verbs.add_parser(verb.name, help=verb.text, description=verb.text)
        words.set_defaults(verb=verb)
        verb.arguments(words)
    return parser


def _check_names() -> None:
    """Our four packages have everyday names; another distribution must not answer to them."""
    for name in ("connectors", "models", "control"):
        module = importlib.import_module(name)
        if getattr(module, "MARKER", None) != MARKER:
            place = getattr(module, "__file__", None) or "a namespace package"
            raise ConfigError(f"{name!r} resolves to {place}: another distribution shadows it; use its own environment")


def _quiet_drivers() -> None:
    """Drivers log each retry; the source supervisor says once when a source is lost and once when it is back."""
    for name in ("asyncua", "amqtt", "transitions", "nicegui", "uvicorn", "httpx", "libav", "matplotlib"):
        logging.getLogger(name).setLevel(logging.CRITICAL if name == "asyncua" else logging.ERROR)


if __name__ == "__main__":
    sys.exit(main())
