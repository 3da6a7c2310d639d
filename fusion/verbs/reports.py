"""Verbs that say how a plant is, and give away what is known of it."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from fusion.command import Verb, broker_arguments, broker_settings, finite, plant_argument, say
from fusion.errors import ConfigError

WHAT = ("alarms", "acts", "advice", "tags", "energies")


def _status(verb: argparse.ArgumentParser) -> None:
    verb.add_argument(
        "site", type=Path, nargs="?", metavar="SITE", help="folder of a site, which says plant and broker"
    )
    plant_argument(verb)
    verb.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT")
    verb.add_argument("--wait", type=finite, default=5.0, help="how long to wait for the daemon's word [s]; default: 5")
    verb.add_argument("--json", action="store_true", help="the daemon's word as it came")
    broker_arguments(verb)


def run_status(arguments: argparse.Namespace) -> int:
    """How the plant is, on one screen; 1 where nobody says so or nothing is known of it now."""
    from fusion.daemon.settings import load_daemon_config
    from fusion.dashboard.screen import heard, screen
    from fusion.health import PlantState
    from fusion.mqtt.broker import Broker
    from fusion.plant_file import load_plant
    from fusion.site.folder import DAEMON

    if arguments.site is not None:
        config = load_daemon_config(arguments.site / DAEMON)
        board = heard(replace(config.publish, client_id=""), load_plant(Path(config.plant)), arguments.wait)
    else:
        broker = Broker(**broker_settings(arguments.broker, arguments))
        board = heard(broker, load_plant(arguments.plant), arguments.wait)
    say(json.dumps(_plain(board.health), indent=1) if arguments.json else screen(board))
    known = board.told and board.health is not None and board.health.plant_state != PlantState.NO_DATA
    return 0 if known else 1


def _plain(message: Any) -> Any:
    import msgspec

    return msgspec.to_builtins(message)


def _export(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("what", choices=WHAT)
    verb.add_argument("--out", type=Path, required=True, metavar="FILE", help="FILE.csv or FILE.parquet")
    verb.add_argument("--records", type=Path, metavar="FOLDER", help="record.folder of the daemon: alarms")
    verb.add_argument("--state", type=Path, metavar="FOLDER", help="state of the daemon: acts, advice")
    verb.add_argument("--recording", type=Path, metavar="FOLDER", help="one recording: tags, energies")
    verb.add_argument("--model", type=Path, metavar="FOLDER", help="the model that judges: energies; else as recorded")


def run_export(arguments: argparse.Namespace) -> None:
    """What is known, as a table."""
    from fusion.files import check_place, whole_file
    from fusion.progress import working

    needs = {"alarms": ("records",), "acts": ("state",), "advice": ("state",), "tags": ("recording",)}
    for name in needs.get(arguments.what, ("recording",)):
        if getattr(arguments, name) is None:
            raise ConfigError(f"export {arguments.what}: --{name} is required")
    if arguments.out.suffix not in (".csv", ".parquet"):
        raise ConfigError(f"--out {arguments.out}: expected a name that ends with .csv or .parquet")
    check_place("--out", arguments.out)
    with working(f"exporting {arguments.what}"):
        table = _table(arguments)
    with whole_file(arguments.out) as aside:
        table.write_csv(aside) if arguments.out.suffix == ".csv" else table.write_parquet(aside)
    say(f"{arguments.out}: {len(table)} rows of {arguments.what}")


def _table(arguments: argparse.Namespace) -> Any:
    from fusion import tables

    match arguments.what:
        case "alarms":
            return tables.alarms(arguments.records)
        case "acts":
            return tables.acts(arguments.state)
        case "advice":
            return tables.advice(arguments.state)
    from fusion.frames import Model, surprise, values

    if arguments.what == "tags":
        return values(arguments.recording)
    if arguments.model is None:
        return surprise(arguments.recording)
    return Model(arguments.model).energies(arguments.recording)


VERBS = (
    Verb("status", "how a plant is, on one screen: state, alarms, sources, model and advice", _status, run_status),
    Verb("export", "alarms, acts, advice, tags or energies as CSV or Parquet", _export, run_export),
)
