"""Entry points: logs, an error the user can act on as one sentence, an exit code, and arguments that several take.

Exit codes: 0 asked for and done, 1 failed, 2 bad configuration, bad arguments or a foreign checkpoint.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import math
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

from fusion.errors import ConfigError, FusionError

CONFIGS = Path(__file__).resolve().parent.parent / "configs"
SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


class Verb(NamedTuple):
    """One thing a user does: `fusion NAME`, its line of help, its arguments, and what carries it out."""

    name: str
    text: str
    arguments: Callable[[argparse.ArgumentParser], None]
    command: Callable[[argparse.Namespace], int | None]


def start_logging(level: int) -> None:
    """To standard error, with the time of day."""
    logging.basicConfig(level=level, format="%(asctime)s %(levelname)-7s %(name)s: %(message)s", datefmt="%H:%M:%S")


def say(text: str) -> None:
    """The program's answer, on standard output."""
    sys.stdout.write(text + "\n")


def carry_out(command: Callable[[], int | None]) -> int:
    """The exit code of a command."""
    try:
        return command() or 0
    except FusionError as error:
        sys.stderr.write(f"fusion: {error}\n")
        return error.exit_code
    except KeyboardInterrupt:
        return 130


def plant_argument(parser: argparse.ArgumentParser) -> None:
    """The file of a plant; that of the simulated one where none is named."""
    parser.add_argument("--plant", type=Path, default=CONFIGS / "plant" / "lime.yaml", help="plant YAML")


def training_arguments(parser: argparse.ArgumentParser) -> None:
    """Arguments of `fusion train` and of `torchrun -m fusion.training`."""
    parser.add_argument("--recording", type=Path, nargs="+", required=True, action="extend")
    parser.add_argument("--out", type=Path, required=True, help="model folder to write")
    parser.add_argument("overrides", nargs="*", help="settings, e.g. seconds=600 fit.learning_rate=1e-3")


def duration(text: str) -> float:
    """A time [s] from the command line: `90`, `90s`, `15m`, `8h`, `2d`."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?)([smhd]?)", text.strip())
    if found is None or float(found[1]) <= 0:
        raise argparse.ArgumentTypeError(f"{text!r} is not accepted; expected a time such as 90s, 15m, 8h, 2d")
    return float(found[1]) * SECONDS[found[2] or "s"]


def finite(text: str) -> float:
    """A number as an argument; nan and inf are none."""
    with contextlib.suppress(ValueError):
        if math.isfinite(number := float(text)):
            return number
    raise argparse.ArgumentTypeError(f"{text!r} is not accepted; expected a finite number")


def broker_arguments(parser: argparse.ArgumentParser) -> None:
    """How to reach an MQTT broker whose address is another argument."""
    group = parser.add_argument_group("MQTT broker")
    group.add_argument("--protocol", default="auto", help="5, 3.1.1 or auto")
    group.add_argument("--username")
    group.add_argument("--password-file", metavar="FILE", help="holds the password alone")
    group.add_argument("--tls", action="store_true", help="encrypt; the broker's certificate is verified")
    group.add_argument("--tls-ca", metavar="FILE", help="authority that signed the broker's certificate")
    group.add_argument("--tls-certificate", metavar="FILE", help="our own certificate")
    group.add_argument("--tls-key", metavar="FILE", help="our own key")


def broker_settings(address: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """Settings of a broker at `HOST:PORT`, from the arguments above.

    Raises:
        ConfigError: the address is none.
    """
    host, _, port = address.rpartition(":")
    if not host or not port.isdecimal():
        raise ConfigError(f"{address!r} is not an address; expected HOST:PORT such as 127.0.0.1:1883")
    names = ("protocol", "username", "password_file", "tls", "tls_ca", "tls_certificate", "tls_key")
    return {"host": host, "port": int(port), **{name: getattr(arguments, name) for name in names}}
