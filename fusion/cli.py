"""The command line: one verb per thing a user does; every known error is one sentence and an exit code."""

from __future__ import annotations

import argparse
import getpass
import importlib
import json
import logging
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from fusion import keys
from fusion.command import (
    broker_arguments,
    broker_settings,
    carry_out,
    duration,
    finite,
    flat,
    say,
    start_logging,
    training_arguments,
)
from fusion.errors import ConfigError
from fusion.files import check_place, is_device, whole_file
from fusion.plain import plain
from fusion.site import command as site
from fusion.site.command import discover, discover_arguments, doctor, doctor_arguments, init, init_arguments

ROOT = Path(__file__).resolve().parent.parent
DEFAULT_PLANT = ROOT / "configs" / "plant" / "lime.yaml"
DEFAULT_CONFIG = ROOT / "configs" / "demo.yaml"
MARKER = "fusion-world-model"


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of the `fusion` command."""
    arguments = build_parser().parse_args(argv)
    start_logging(logging.DEBUG if arguments.verbose else logging.INFO)
    _quiet_drivers()

    def command() -> int | None:
        _check_names()
        verb: Callable[[argparse.Namespace], int | None] = arguments.command
        return verb(arguments)

    return carry_out(command)


def build_parser() -> argparse.ArgumentParser:
    """The whole surface of the command line; tests/golden/cli.txt holds what it says."""
    parser = argparse.ArgumentParser(prog="fusion", description="A world model for industrial plants.")
    parser.add_argument("--verbose", action="store_true", help="log every detail")
    verbs = parser.add_subparsers(title="verbs", required=True, metavar="VERB")
    start = (_init, _discover, _doctor)
    lime = (_demo, _plant, _fault, _record)
    learning = (_train, _learn, _model)
    for add in (*start, *lime, _import, _pairs, *learning, _run, _replay, _evaluate, _whatif, _dashboard):
        add(verbs)
    for name, text, arguments, command in (*site.VERBS, *keys.VERBS):
        arguments(_verb(verbs, name, command, text))
    return parser


_Verbs = argparse._SubParsersAction  # noqa: SLF001 - argparse has no public name for it


def _verb(
    verbs: _Verbs[argparse.ArgumentParser], name: str, command: Callable[[argparse.Namespace], int | None], text: str
) -> argparse.ArgumentParser:
    verb = verbs.add_parser(name, help=text, description=text)
    verb.set_defaults(command=command)
    return verb


def _init(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    init_arguments(
        _verb(verbs, "init", init, "begin the folder of a site: a plant and a daemon configuration to fill in")
    )


def _discover(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    text = "look what servers, brokers, cameras and LiDARs have, and propose the plant and its connectors"
    discover_arguments(_verb(verbs, "discover", discover, text))


def _doctor(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    text = "whether everything of a site fits: one line for each check, with what to do"
    doctor_arguments(_verb(verbs, "doctor", doctor, text))


def _demo(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(verbs, "demo", run_demo, "simulated plant, commissioning, daemon and page, all on this machine")
    verb.add_argument("--dir", type=Path, default=Path("var/demo"), help="where recordings and the model are cached")
    verb.add_argument("--scenario", type=Path, help="scenario the live plant follows")
    verb.add_argument("--port", type=int, default=8080, help="port of the page")
    verb.add_argument("--again", action="store_true", help="commission again even where a model is cached")


def _plant(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(verbs, "plant", run_plant, "run the simulated plant on OPC UA, MQTT, RTSP and LiDAR UDP")
    _plant_argument(verb)
    verb.add_argument("--scenario", type=Path, help="scenario YAML; without it normal operation for ever")
    for name, port in (("opcua", 4840), ("mqtt", 1883), ("rtsp", 8554), ("lidar", 2368)):
        verb.add_argument(f"--{name}-port", type=int, default=port)
    verb.add_argument("--broker", metavar="HOST:PORT", help="an MQTT broker that runs already; else one is started")
    broker_arguments(verb)


def _fault(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(verbs, "fault", run_fault, "inject a fault into the simulated plant, or clear it")
    verb.add_argument("name", help="fault name, or `clear` to end all faults, or `list`")
    verb.add_argument("--severity", type=finite, default=1.0, help="0..1")
    verb.add_argument("--ramp-s", type=finite, default=0.0, help="time to full severity [s]")
    verb.add_argument("--signal", help="the signal a sensor fault acts on")
    verb.add_argument("--plant", default="lime", help="name of the plant")
    verb.add_argument("--broker", metavar="HOST:PORT", help="default: that of the running demo, or 127.0.0.1:1883")
    broker_arguments(verb)


def _record(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    text = "record what a plant delivers, or a scenario of the simulated plant faster than real time"
    verb = _verb(verbs, "record", run_record, text)
    _plant_argument(verb)
    what = verb.add_mutually_exclusive_group(required=True)
    what.add_argument("--config", type=Path, help="daemon YAML: its sources are recorded, nothing else of it is used")
    what.add_argument("--scenario", type=Path, help="scenario of the simulated plant")
    verb.add_argument("--for", dest="for_s", type=duration, metavar="TIME", help="such as 8h; else until Ctrl-C")
    verb.add_argument(
        "--out", type=Path, help="folder to write, which is not there yet; of a configuration: else record.folder"
    )


def _import(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(
        verbs, "import", run_import, "read what a historian exports into recordings, a proposed plant and a report"
    )
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
    verb.add_argument("--name", default="", help="name of the import; default: that of the first file")
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
    verb.add_argument("--accept-losses", action="store_true", help="exit with 0 though not all of the files was taken")


def _train(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(verbs, "train", run_train, "train a model on recordings; continues where a killed run stopped")
    training_arguments(verb)
    verb.add_argument(
        "--multirun",
        action="store_true",
        help="train every combination of settings (seed=0,1,2) into OUT/0, OUT/1 ...",
    )


def _learn(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    text = "learn from a folder of recordings, and use the model where it is no worse than the one in use"
    verb = _verb(verbs, "learn", run_learn, text)
    _plant_argument(verb)
    verb.add_argument("--records", type=Path, required=True, help="folder of recordings: record.folder of a daemon")
    verb.add_argument("--models", type=Path, required=True, help="folder of models: learn.models of a daemon")
    verb.add_argument("overrides", nargs="*", help="settings of the training, e.g. seconds=600")


def _model(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(verbs, "model", run_model, "list the models of a plant, put one to use, or go back to the one before")
    verb.add_argument("what", choices=("list", "accept", "rollback"))
    verb.add_argument("name", nargs="?", help="the model to accept, such as 0003")
    verb.add_argument("--models", type=Path, required=True, help="folder of models: learn.models of a daemon")
    verb.add_argument("--by", default=getpass.getuser(), help="who decides; default: the user of this machine")


def _run(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(verbs, "run", run_daemon, "run the daemon on the sources of a configuration")
    verb.add_argument("--config", type=Path, default=DEFAULT_CONFIG, help="daemon YAML")
    verb.add_argument("overrides", nargs="*", help="hydra overrides, e.g. publish.port=1884")


def _replay(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(verbs, "replay", run_replay, "play a recording through the daemon")
    verb.add_argument("recording", type=Path)
    verb.add_argument("--model", type=Path, required=True)
    verb.add_argument("--speed", type=finite, default=0.0, help="times real time; 0 is as fast as possible")
    verb.add_argument("--publish", metavar="HOST:PORT", help="also publish on this MQTT broker")
    broker_arguments(verb)
    verb.add_argument("--json", type=Path, help="write every anomaly and recommendation, one JSON per line")


def _evaluate(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(verbs, "evaluate", run_evaluate, "replay recordings and report detection, false raises and forecasts")
    verb.add_argument("--model", type=Path, required=True)
    verb.add_argument("--recording", type=Path, nargs="+", default=[], action="extend")
    verb.add_argument("--pairs", type=Path, help="minimal pairs instead of recordings: a folder of `fusion pairs`")
    verb.add_argument("--without", help="modalities to do without, e.g. video,audio")
    verb.add_argument("--only", choices=("latent", "classical"), help="part of the model that judges")
    verb.add_argument("--json", type=Path, help="write the report here")


def _pairs(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(verbs, "pairs", run_pairs, "record minimal pairs: a lawful run and one that breaks one law")
    _plant_argument(verb)
    verb.add_argument("--seed", type=int, default=0)
    verb.add_argument("--count", type=int, default=20, help="number of pairs")
    verb.add_argument("--out", type=Path, required=True, help="folder to write; must not exist")


def _whatif(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(verbs, "whatif", run_whatif, "what happens next if a signal is set, and if nothing is")
    verb.add_argument("--model", type=Path, required=True)
    verb.add_argument("--recording", type=Path, required=True)
    verb.add_argument("--at", type=finite, required=True, help="moment, in s after the start of the recording")
    verb.add_argument("--set", nargs="+", default=[], action="extend", metavar="SIGNAL=VALUE", help="engineering units")
    verb.add_argument("--horizon", type=finite, default=600.0, help="how far to look ahead [s]")
    verb.add_argument("--json", type=Path, help="write the answer here")


def _dashboard(verbs: _Verbs[argparse.ArgumentParser]) -> None:
    verb = _verb(verbs, "dashboard", run_dashboard, "serve the operator page; reads MQTT only")
    _plant_argument(verb)
    verb.add_argument("--host", default="127.0.0.1", help="address to serve on; any but loopback needs --users")
    verb.add_argument("--port", type=int, default=8080)
    verb.add_argument("--users", default="", metavar="FILE", help="who may log in, as `fusion user` writes it")
    verb.add_argument("--session-s", type=finite, default=43_200.0, help="a login lasts this long [s]")
    verb.add_argument("--origin", action="append", default=[], help="another address of the page, such as a proxy's")
    verb.add_argument("--https-certificate", default="", metavar="FILE", help="serve over TLS")
    verb.add_argument("--https-key", default="", metavar="FILE")
    verb.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT")
    broker_arguments(verb)


def _plant_argument(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--plant", type=Path, default=DEFAULT_PLANT, help="plant YAML")


def run_demo(arguments: argparse.Namespace) -> int:
    """Simulated plant, commissioning, daemon and page."""
    from fusion.demo import Demo

    return Demo(arguments.dir, page_port=arguments.port, scenario=arguments.scenario).run(again=arguments.again)


def run_plant(arguments: argparse.Namespace) -> None:
    """The simulated plant on its real servers, until asked to stop."""
    import asyncio

    from fusion.command import stop_on_signals
    from fusion.mqtt.broker import Broker
    from fusion.plant_file import load_plant
    from fusion.simulator.live import LiveConfig, serve
    from fusion.simulator.scenario import load_scenario
    from fusion.simulator.simulation import Simulation

    plant = load_plant(arguments.plant)
    simulation = Simulation(load_scenario(arguments.scenario or ROOT / "configs" / "scenario" / "live.yaml"), plant)
    config = LiveConfig(
        opcua_port=arguments.opcua_port,
        mqtt_port=arguments.mqtt_port,
        rtsp_port=arguments.rtsp_port,
        lidar_port=arguments.lidar_port,
        broker=Broker(**broker_settings(arguments.broker, arguments)) if arguments.broker else None,
    )

    async def until_stopped() -> None:
        stop = asyncio.Event()
        with stop_on_signals(stop):
            await serve(simulation, plant, config, stop)

    asyncio.run(until_stopped())


def run_fault(arguments: argparse.Namespace) -> None:
    """Tell the running plant to misbehave, or to stop it."""
    from fusion.mqtt.broker import Broker
    from fusion.simulator.line.faults import FAULTS
    from fusion.simulator.orders import send_order

    if arguments.name == "list":
        for name, fault in FAULTS.items():
            say(f"{name:22} {fault.description}")
        return
    if arguments.name != "clear" and arguments.name not in FAULTS:
        raise ConfigError(f"fault {arguments.name!r} is not known; accepted: clear, list, {', '.join(FAULTS)}")
    order: dict[str, Any] = {"op": "clear"}
    if arguments.name != "clear":
        order = {"op": "fault", "name": arguments.name, "severity": arguments.severity, "ramp_s": arguments.ramp_s}
    if arguments.signal:
        order["signal"] = arguments.signal
    address = arguments.broker or f"127.0.0.1:{_demo_port() or 1883}"
    send_order(Broker(**broker_settings(address, arguments)), arguments.plant, order)
    say(f"{arguments.plant}: {arguments.name}")


def _demo_port() -> int | None:
    """MQTT port of the demo that runs in this folder, if there is one."""
    try:
        return int(json.loads(Path("var/demo/demo.json").read_text())["mqtt"])
    except (OSError, KeyError, ValueError):
        return None


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
    from rich.progress import Progress

    from fusion.plant_file import load_plant
    from fusion.simulator.record import record
    from fusion.simulator.scenario import load_scenario

    scenario = load_scenario(arguments.scenario)
    with Progress(transient=True) as bar:
        task = bar.add_task(f"recording {scenario.name}", total=scenario.duration_s)
        record(scenario, load_plant(arguments.plant), arguments.out, progress=lambda t: bar.update(task, completed=t))
    say(f"{arguments.out}: {scenario.duration_s:.0f} s of {scenario.name}")


def run_import(arguments: argparse.Namespace) -> int:
    """Exports of a historian in, recordings and a report out; the exit code says whether all was taken."""
    from fusion.importing.importer import LOSSY, ImportConfig, import_files, losses_of

    names = ("tz", "dates", "plant", "states", "name", "parts", "kind", "query", "start", "end", "again", "epoch")
    config = ImportConfig(
        step_s=arguments.step,
        series=tuple(arguments.series),
        bad=tuple(arguments.bad),
        accept_losses=arguments.accept_losses,
        **{name: getattr(arguments, name) for name in names},
    )
    place = import_files(arguments.files, arguments.site, config)
    say(
        f"{place}: read report.html, correct {arguments.site / 'plant.yaml'}, then "
        f"fusion train --recording {place}/recordings/*"
    )
    lost = [] if config.accept_losses else losses_of(place)
    if lost:
        sys.stderr.write("fusion: not all was taken: " + "; ".join(lost) + " (--accept-losses, if that is right)\n")
    return LOSSY if lost else 0


def run_train(arguments: argparse.Namespace) -> None:
    """Recordings in, model and report out; or a sweep of them and its table."""
    from fusion.training.train import run

    if arguments.multirun:
        _sweep(arguments)
    else:
        run(arguments)


def _sweep(arguments: argparse.Namespace) -> None:
    from rich.console import Console

    from fusion.training.sweep import sweep, table

    rows = sweep(flat(arguments.recording), arguments.out, arguments.overrides)
    Console().print(table(rows))


def run_learn(arguments: argparse.Namespace) -> None:
    """Recordings in, a model in the store, and the verdict on it."""
    from fusion.learning import learn
    from fusion.model_store import ModelStore
    from fusion.plant_file import load_plant
    from fusion.training.settings import train_config

    config = train_config(arguments.overrides)
    verdict = learn(arguments.records, ModelStore(arguments.models), load_plant(arguments.plant), config)
    say(f"model {verdict.model} {'is in use' if verdict.taken else 'is not used'}: {verdict.reason}")


def run_model(arguments: argparse.Namespace) -> None:
    """What models there are, and which is in use; a running daemon takes what is chosen within seconds."""
    from fusion.clock import iso_time
    from fusion.model_store import ModelStore

    store = ModelStore(arguments.models)
    if (arguments.what == "accept") != (arguments.name is not None):
        raise ConfigError("model: accept needs the name of a model, list and rollback take none")
    if arguments.what == "accept":
        store.choose(arguments.name, arguments.by)
    elif arguments.what == "rollback":
        store.roll_back(arguments.by)
    last = {choice.model: choice for choice in store.history()}
    for name in store.names():
        used = last.get(name)
        said = f"used since {iso_time(used.t_ns)} by {used.by}  {used.reason}" if used else "never used"
        say(f"{'*' if store.current == store.folder / name else ' '} {name}  {said}")


def run_daemon(arguments: argparse.Namespace) -> None:
    """The daemon on real sources."""
    from fusion.daemon.service import run
    from fusion.daemon.settings import load_daemon_config

    run(load_daemon_config(arguments.config, arguments.overrides))


def run_replay(arguments: argparse.Namespace) -> None:
    """A recording through the daemon path."""
    from fusion.daemon.service import replay
    from fusion.publish.publisher import PublisherConfig

    address = arguments.publish
    publish = PublisherConfig(outbox="", **broker_settings(address, arguments)) if address else None
    replay(arguments.recording, arguments.model, arguments.speed, publish, arguments.json)


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Recordings through inference, scored against their truth; or minimal pairs."""
    from fusion.evaluation.ablation import Ablation
    from fusion.evaluation.evaluate import evaluate
    from fusion.evaluation.pairs import judge_pairs

    if arguments.json:
        check_place("--json", arguments.json)
    ablation = Ablation.parse(arguments.without, arguments.only)
    if arguments.pairs is not None:
        if arguments.recording:
            raise ConfigError("evaluate takes --recording or --pairs, not both")
        _write(judge_pairs(arguments.model, arguments.pairs, ablation=ablation), arguments.json)
    else:
        _write(evaluate(arguments.model, flat(arguments.recording), ablation=ablation), arguments.json)


def run_pairs(arguments: argparse.Namespace) -> None:
    """Minimal pairs of the simulated plant."""
    from fusion.plant_file import load_plant
    from fusion.simulator.pairs import record_pairs

    pairs = record_pairs(load_plant(arguments.plant), arguments.seed, arguments.count, arguments.out)
    say(f"{arguments.out}: {len(pairs)} pairs")


def run_whatif(arguments: argparse.Namespace) -> None:
    """Two forecasts from one moment of a recording."""
    from fusion.evaluation.whatif import whatif

    if arguments.json:
        check_place("--json", arguments.json)
    moves = _flat_texts(arguments.set)
    _write(whatif(arguments.model, arguments.recording, arguments.at, moves, arguments.horizon), arguments.json)


def _write(report: dict[str, Any], file: Path | None) -> None:
    text = json.dumps(plain(report), indent=1)
    if file is None:
        say(text)
    elif is_device(file):
        file.write_text(text)
    else:
        with whole_file(file) as aside:
            aside.write_text(text)


def _flat_texts(nested: Sequence[Sequence[str]] | Sequence[str]) -> list[str]:
    return [text for part in nested for text in ([part] if isinstance(part, str) else part)]


def run_dashboard(arguments: argparse.Namespace) -> None:
    """The operator page."""
    from fusion.dashboard.app import DashboardConfig, run
    from fusion.mqtt.broker import Broker
    from fusion.plant_file import load_plant

    broker = Broker(**broker_settings(arguments.broker, arguments))
    config = DashboardConfig(
        host=arguments.host,
        port=arguments.port,
        users=arguments.users,
        session_s=arguments.session_s,
        origins=arguments.origin,
        certificate=arguments.https_certificate,
        key=arguments.https_key,
        broker=broker,
    )
    run(config, load_plant(arguments.plant))


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
