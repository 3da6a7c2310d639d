"""Verbs of a site: begun, found, examined, up; and what its stretches of time were."""

from __future__ import annotations

import argparse
import contextlib
import getpass
import json
import logging
import sys
from collections.abc import Iterator
from pathlib import Path

from fusion.command import Verb, duration, finite, moment, say
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
    from fusion.progress import working
    from fusion.site.discover import DiscoverConfig, look
    from fusion.site.folder import begin
    from fusion.site.screen import outcome, table
    from fusion.site.write_up import Site, write_up

    names = ("seconds", "only", "most", "username", "password_file", "insecure")
    files = ("certificate", "private_key", "peer_certificate")
    config = DiscoverConfig(**{name: getattr(arguments, name) for name in ("site", *names, *files)})
    begin(arguments.site)
    site = Site.read(arguments.site)  # whoever has a fault in it hears of that first
    with working(f"asking {len(arguments.urls)} addresses and listening for {config.seconds:g} s"):
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
    from fusion.progress import working
    from fusion.site.doctor import State, examine
    from fusion.site.folder import DAEMON

    if (arguments.site is None) == (arguments.config is None):
        raise ConfigError("doctor takes a SITE or --config FILE")
    listening = working(f"looking at everything and listening for {arguments.seconds:g} s")
    with listening, contextlib.nullcontext() if arguments.verbose else _silent("connectors"):
        checks = examine(arguments.config or arguments.site / DAEMON, arguments.seconds)
    if arguments.json:
        say(json.dumps(plain(checks), indent=1))
    for check in [] if arguments.json else checks:
        advice = f" -> {check.advice}" if check.advice else ""
        say(f"{check.state.value:5} {check.what}: {check.text}{advice}")
    return 1 if any(check.state is State.FAIL for check in checks) else 0


@contextlib.contextmanager
def _silent(name: str) -> Iterator[None]:
    """Nothing below an error in a log meanwhile: what is lost is said on the screen, once."""
    log = logging.getLogger(name)
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


def _up(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("site", type=Path, metavar="SITE", help="folder of the site")
    verb.add_argument("--port", type=int, default=8080, help="port of the page, or the next that is free")


def _mark(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("name", help="what happened, in a word or two; the last word on a name holds")
    verb.add_argument("--kind", required=True, choices=("fault", "maintenance", "good"), help="good: learn from it")
    verb.add_argument("--from", dest="start", type=moment, metavar="TIME", help="ISO 8601; default: now, or as before")
    end = verb.add_mutually_exclusive_group()
    end.add_argument("--to", dest="end", type=moment, metavar="TIME", help="ISO 8601 or now; default: still so")
    end.add_argument("--for", dest="for_s", type=duration, metavar="TIME", help="from the beginning on, such as 10m")
    verb.add_argument("--by", default=getpass.getuser(), help="who says so; default: the user of this machine")
    verb.add_argument("--config", type=Path, required=True, metavar="FILE", help="daemon YAML of the site")


def run_up(arguments: argparse.Namespace) -> None:
    """A site, all of it."""
    from fusion.site.up import run_site

    run_site(arguments.site, arguments.port)


def run_mark(arguments: argparse.Namespace) -> None:
    """What a stretch of time was."""
    from fusion.alarms import MarkKind, MarkOrder
    from fusion.clock import CLOCK
    from fusion.daemon.settings import load_daemon_config
    from fusion.plant_file import load_plant
    from fusion.records import NS_PER_S
    from fusion.site.marking import put_mark

    start_ns, end_ns = arguments.start, arguments.end
    if arguments.for_s is not None:
        start_ns = CLOCK.now_ns() if start_ns is None else start_ns
        end_ns = start_ns + round(arguments.for_s * NS_PER_S)
    order = MarkOrder(
        name=arguments.name, kind=MarkKind(arguments.kind), by=arguments.by, t_from_ns=start_ns, t_to_ns=end_ns
    )
    config = load_daemon_config(arguments.config)
    said_by = put_mark(config, load_plant(Path(config.plant)), order)
    say(f"{config.record.folder}: {order.name} is marked {order.kind} by {said_by}")


VERBS = (
    Verb("init", "begin the folder of a site: a plant and a daemon configuration to fill in", _init, run_init),
    Verb(
        "discover",
        "look what servers, brokers, cameras and LiDARs have, and propose the plant and its connectors",
        _discover,
        run_discover,
    ),
    Verb("doctor", "whether everything of a site fits: one line for each check, with what to do", _doctor, run_doctor),
    Verb("up", "run a site: the daemon, the page and, where none answers, a broker", _up, run_up),
    Verb("mark", "say what a stretch of time was, for what is learned from it", _mark, run_mark),
)
