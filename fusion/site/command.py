"""`fusion init`, `discover` and `doctor`: their arguments, and what carries them out."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from fusion.command import finite


def init_arguments(verb: argparse.ArgumentParser) -> None:
    """Arguments of `fusion init`."""
    verb.add_argument("site", type=Path, metavar="SITE", help="folder to make, or to complete")


def discover_arguments(verb: argparse.ArgumentParser) -> None:
    """Arguments of `fusion discover`."""
    verb.add_argument(
        "urls", nargs="+", metavar="URL", help="opc.tcp://, mqtt://, mqtts://, rtsp:// or lidar:// and HOST:PORT"
    )
    verb.add_argument("--site", type=Path, required=True, help="folder of the site; begun where there is none")
    verb.add_argument("--seconds", type=finite, default=60.0, help="how long to listen; default: 60")
    verb.add_argument("--only", default="", metavar="PATTERN", help="names or paths, e.g. '*/TIC*'; MQTT also 'line/#'")
    verb.add_argument("--most", type=int, default=2000, help="tags to take of one address; default: 2000")
    verb.add_argument("--username")
    verb.add_argument("--password-file", metavar="FILE", help="holds the password alone")
    verb.add_argument("--insecure", action="store_true", help="OPC UA without encryption")
    verb.add_argument("--certificate", metavar="FILE", help="our own certificate; default for OPC UA: that of the site")
    verb.add_argument("--private-key", metavar="FILE", help="our own key")
    verb.add_argument(
        "--peer-certificate", metavar="FILE", help="of the OPC UA server; for mqtts:// the broker's authority"
    )


def doctor_arguments(verb: argparse.ArgumentParser) -> None:
    """Arguments of `fusion doctor`."""
    verb.add_argument("site", type=Path, nargs="?", metavar="SITE", help="folder of the site")
    verb.add_argument("--config", type=Path, metavar="FILE", help="daemon YAML instead of that of a site")
    verb.add_argument("--seconds", type=finite, default=10.0, help="how long to listen; default: 10")
    verb.add_argument("--json", action="store_true", help="say it as JSON")


def init(arguments: argparse.Namespace) -> None:
    """Begin a site."""
    from fusion.site.folder import begin
    from fusion.site.pki import own_certificate

    site = arguments.site
    written = begin(site)
    certificate, _ = own_certificate(site)
    _say(f"{site}: {', '.join(file.name for file in written) or 'every file is there already'}")
    _say(f"an OPC UA server with encryption has to trust {certificate}")
    _say(f"next: fusion discover opc.tcp://HOST:4840 mqtt://HOST:1883 --site {site}")


def discover(arguments: argparse.Namespace) -> int:
    """Look around and propose; 1 where an address did not answer."""
    from fusion.site.discover import DiscoverConfig, look
    from fusion.site.folder import begin
    from fusion.site.screen import outcome, table
    from fusion.site.write_up import Site, write_up

    names = ("seconds", "only", "most", "username", "password_file", "insecure")
    files = ("certificate", "private_key", "peer_certificate")
    config = DiscoverConfig(**{name: getattr(arguments, name) for name in ("site", *names, *files)})
    begin(arguments.site)
    site = Site.read(arguments.site)  # whoever has a fault in it hears of that first
    found, failed = look(arguments.urls, config)
    written = write_up(site, found, config.seconds)
    table(found, written)
    for line in failed:
        sys.stderr.write(f"fusion: {line}\n")
    _say("\n".join(outcome(arguments.site, found, written)))
    return 1 if failed else 0


def doctor(arguments: argparse.Namespace) -> int:
    """Examine a site; 1 where something fails."""
    from fusion.errors import ConfigError
    from fusion.plain import plain
    from fusion.site.doctor import State, examine
    from fusion.site.folder import DAEMON

    if not arguments.verbose:
        logging.getLogger("connectors").setLevel(logging.ERROR)  # what is lost is said below, once
    if (arguments.site is None) == (arguments.config is None):
        raise ConfigError("doctor takes a SITE or --config FILE")
    checks = examine(arguments.config or arguments.site / DAEMON, arguments.seconds)
    if arguments.json:
        _say(json.dumps(plain(checks), indent=1))
    for check in [] if arguments.json else checks:
        advice = f" -> {check.advice}" if check.advice else ""
        _say(f"{check.state.value:5} {check.what}: {check.text}{advice}")
    return 1 if any(check.state is State.FAIL for check in checks) else 0


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
