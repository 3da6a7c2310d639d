"""Verbs that set up a site: begun, found, examined."""

from __future__ import annotations

import argparse
import json
import logging
import sys
from pathlib import Path

from fusion.command import Verb, finite, say
from fusion.errors import ConfigError


def _init(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("site", type=Path, metavar="SITE", help="folder to make, or to complete")


def run_init(arguments: argparse.Namespace) -> None:
    """Begin a site."""
    from fusion.site.folder import begin
    from fusion.site.pki import own_certificate

    site = arguments.site
    written = begin(site)
    certificate, _ = own_certificate(site)
    say(f"{site}: {', '.join(file.name for file in written) or 'every file is there already'}")
    say(f"an OPC UA server with encryption has to trust {certificate}")
    say(f"next: fusion discover opc.tcp://HOST:4840 mqtt://HOST:1883 --site {site}")


def _discover(verb: argparse.ArgumentParser) -> None:
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


def run_discover(arguments: argparse.Namespace) -> int:
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
    say("\n".join(outcome(arguments.site, found, written)))
    return 1 if failed else 0


def _doctor(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("site", type=Path, nargs="?", metavar="SITE", help="folder of the site")
    verb.add_argument("--config", type=Path, metavar="FILE", help="daemon YAML instead of that of a site")
    verb.add_argument("--seconds", type=finite, default=10.0, help="how long to listen; default: 10")
    verb.add_argument("--json", action="store_true", help="say it as JSON")


def run_doctor(arguments: argparse.Namespace) -> int:
    """Examine a site; 1 where something fails."""
    from fusion.plain import plain
    from fusion.site.doctor import State, examine
    from fusion.site.folder import DAEMON

    if not arguments.verbose:
        logging.getLogger("connectors").setLevel(logging.ERROR)  # what is lost is said below, once
    if (arguments.site is None) == (arguments.config is None):
        raise ConfigError("doctor takes a SITE or --config FILE")
    checks = examine(arguments.config or arguments.site / DAEMON, arguments.seconds)
    if arguments.json:
        say(json.dumps(plain(checks), indent=1))
    for check in [] if arguments.json else checks:
        advice = f" -> {check.advice}" if check.advice else ""
        say(f"{check.state.value:5} {check.what}: {check.text}{advice}")
    return 1 if any(check.state is State.FAIL for check in checks) else 0


VERBS = (
    Verb("init", "begin the folder of a site: a plant and a daemon configuration to fill in", _init, run_init),
    Verb(
        "discover",
        "look what servers, brokers, cameras and LiDARs have, and propose the plant and its connectors",
        _discover,
        run_discover,
    ),
    Verb("doctor", "whether everything of a site fits: one line for each check, with what to do", _doctor, run_doctor),
)
