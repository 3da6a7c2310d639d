"""Verbs that make recordings: of a plant or a scenario, from a historian, in minimal pairs."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from fusion.command import Verb, duration, finite, plant_argument, say
from fusion.errors import ConfigError


def _record(verb: argparse.ArgumentParser) -> None:
    plant_argument(verb)
    what = verb.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, help="daemon YAML: its sources are recorded, nothing else of it is used")
    what.add_argument("--scenario", type=Path, help="scenario of the simulated plant")
    verb.add_argument("--for", dest="for_s", type=duration, metavar="TIME", help="such as 8h; else until Ctrl-C")
    verb.add_argument(
        "--out", type=Path, help="folder to write, which is not there yet; of a configuration: else record.folder"
    )


def run_record(arguments: argparse.Namespace) -> None:
    """One scenario, one recording; or segments of what the sources of a configuration deliver."""
    if arguments.config is not None:
        from fusion.daemon.recording import record_sources

        say(record_sources(arguments.config, arguments.out, arguments.for_s))
        return
    if arguments.out is None:
        raise ConfigError("--out: is required with --scenario")
    if arguments.for_s is not None:
        raise ConfigError("--for: goes with --config; a scenario has its own duration_s")
    from fusion.plant_file import load_plant
    from fusion.progress import Bars
    from fusion.simulator.record import record
    from fusion.simulator.scenario import load_scenario

    scenario = load_scenario(arguments.scenario)
    with Bars(transient=True) as bar:
        task = bar.add_task(f"recording {scenario.name}", total=scenario.duration_s)
        record(scenario, load_plant(arguments.plant), arguments.out, progress=lambda t: bar.update(task, completed=t))
    say(f"{arguments.out}: {scenario.duration_s:.0f} s of {scenario.name}")


def _import(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("files", nargs="+", metavar="FILE", help="exports, or sqlite:, postgresql: or opc.tcp: URIs")
    verb.add_argument(
        "--site", type=Path, required=True, help="folder of the site; the import goes to its imports/NAME"
    )
    verb.add_argument("--tz", default="", metavar="ZONE", help="zone of stamps that carry none, such as Europe/Berlin")
    verb.add_argument("--dates", default="", metavar="ORDER", help="day-first or month-first, where no stamp decides")
    verb.add_argument(
        "--plant", type=Path, help="plant YAML to use; default: plant.yaml of the site, else one is proposed"
    )
    verb.add_argument("--states", type=Path, help="digital state sets: server,set,state0,state1,... or 0,Off")
    verb.add_argument(
        "--name", default="", help="name of the import; default: that of the file, or the folder of several"
    )
    verb.add_argument("--step", type=finite, help="step of a proposed plant [s]; default: from the data")
    verb.add_argument("--parts", type=int, default=12, help="recordings to cut the time into")
    verb.add_argument("--kind", default="normal", choices=("normal", "fault"), help="fault: not for training")
    verb.add_argument("--query", default="", help="SQL for a database; node ids for OPC UA; or @FILE with either")
    verb.add_argument("--from", dest="start", default="", metavar="TIME", help="first time asked of a server, ISO 8601")
    verb.add_argument("--to", dest="end", default="", metavar="TIME", help="last time asked of a server")
    verb.add_argument("--again", action="store_true", help="replace an import of the same name")
    verb.add_argument("--epoch", default="", metavar="NAME", help="what stamps count: excel, excel-1904, labview, ...")
    verb.add_argument(
        "--series", action="append", default=[], metavar="COLUMN", help="a column that tells series of one tag apart"
    )
    verb.add_argument(
        "--bad", action="append", default=[], type=finite, metavar="NUMBER", help="a number that means no value"
    )
    verb.add_argument(
        "--label", action="append", default=[], metavar="COLUMN", help="no tag: not zero where something was wrong"
    )
    verb.add_argument("--accept-losses", action="store_true", help="exit with 0 though not all of the files was taken")


def run_import(arguments: argparse.Namespace) -> int:
    """Exports of a historian in, recordings and a report out; the exit code says whether all was taken."""
    from fusion.importing.importer import LOSSY, ImportConfig, import_files, losses_of

    names = ("tz", "dates", "plant", "states", "name", "parts", "kind", "query", "start", "end", "again", "epoch")
    config = ImportConfig(
        step_s=arguments.step,
        series=tuple(arguments.series),
        bad=tuple(arguments.bad),
        labels=tuple(arguments.label),
        accept_losses=arguments.accept_losses,
        **{name: getattr(arguments, name) for name in names},
    )
    place = import_files(arguments.files, arguments.site, config)
    say(f"{place}: read report.html, correct {arguments.site / 'plant.yaml'}, then {_next(place, arguments.site)}")
    lost = [] if config.accept_losses else losses_of(place)
    if lost:
        sys.stderr.write("fusion: not all was taken: " + "; ".join(lost) + " (--accept-losses, if that is right)\n")
    return LOSSY if lost else 0


def _next(place: Path, site: Path) -> str:
    """What to do with recordings: normal ones are learned from, the others tell what a model finds."""
    from fusion.recordings.recording import Recording

    kinds = {Recording(folder).kind for folder in (place / "recordings").iterdir()}
    recordings = f"--recording {place}/recordings/*"
    if kinds == {"fault"}:
        return f"fusion evaluate --model {site}/model {recordings} --json {site}/found.json"
    return f"fusion train {recordings} --out {site}/model"


def _pairs(verb: argparse.ArgumentParser) -> None:
    plant_argument(verb)
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--count", type=int, default=20, help="number of pairs")
    verb.add_argument("--out", type=Path, required=True, help="folder to write; must not exist")


def run_pairs(arguments: argparse.Namespace) -> None:
    """Minimal pairs of the simulated plant."""
    from fusion.plant_file import load_plant
    from fusion.simulator.pairs import record_pairs

    pairs = record_pairs(load_plant(arguments.plant), arguments.seed, arguments.count, arguments.out)
    say(f"{arguments.out}: {len(pairs)} pairs")


VERBS = (
    Verb(
        "record",
        "record what a plant delivers, or a scenario of the simulated plant faster than real time",
        _record,
        run_record,
    ),
    Verb("import", "read what a historian exports into recordings, a proposed plant and a report", _import, run_import),
    Verb("pairs", "record minimal pairs: a lawful run and one that breaks one law", _pairs, run_pairs),
)
