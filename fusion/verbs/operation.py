"""Verbs that put a model to use: on a plant, on recordings of it, and on the page."""

from __future__ import annotations

import argparse
import getpass
import json
from pathlib import Path
from typing import Any

from fusion.command import CONFIGS, Verb, broker_arguments, broker_settings, finite, plant_argument, say
from fusion.errors import ConfigError
from fusion.files import check_place, is_device, whole_file


def _run(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--config", type=Path, default=CONFIGS / "demo.yaml", help="daemon YAML")
    verb.add_argument("overrides", nargs="*", help="hydra overrides, e.g. publish.port=1884")


def run_daemon(arguments: argparse.Namespace) -> None:
    """The daemon on real sources."""
    from fusion.daemon.settings import load_daemon_config
    from fusion.daemon.start import run

    run(load_daemon_config(arguments.config, arguments.overrides))


def _replay(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("recording", type=Path)
    verb.add_argument("--model", type=Path, required=True)
    verb.add_argument("--speed", type=finite, default=0.0, help="times real time; 0 is as fast as possible")
    verb.add_argument("--publish", metavar="HOST:PORT", help="also publish on this MQTT broker")
    broker_arguments(verb)
    verb.add_argument("--json", type=Path, help="write anomalies, recommendations and trends, one JSON per line")


def run_replay(arguments: argparse.Namespace) -> None:
    """A recording through the daemon path."""
    from fusion.daemon.start import replay
    from fusion.progress import working
    from fusion.publish.publisher import PublisherConfig

    address = arguments.publish
    publish = PublisherConfig(outbox="", **broker_settings(address, arguments)) if address else None
    with working(f"replaying {arguments.recording}"):
        replay(arguments.recording, arguments.model, arguments.speed, publish, arguments.json)


def _verify(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--config", type=Path, required=True, help="verifier YAML")
    verb.add_argument("overrides", nargs="*", help="settings, e.g. broker.port=1884")


def run_verify(arguments: argparse.Namespace) -> None:
    """The verifier between accepted advice and the control system."""
    from fusion.verifier.service import run
    from fusion.verifier.settings import load_verifier_config

    run(load_verifier_config(arguments.config, arguments.overrides))


def _evaluate(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--model", type=Path, required=True)
    verb.add_argument("--recording", type=Path, nargs="+", default=[], action="extend")
    verb.add_argument("--pairs", type=Path, help="minimal pairs instead of recordings: a folder of `fusion pairs`")
    verb.add_argument("--without", help="modalities to do without, e.g. video,audio")
    verb.add_argument("--only", choices=("latent", "classical"), help="part of the model that judges")
    verb.add_argument("--licence", action="store_true", help="the licence: as enforced, and as the recordings earn it")
    verb.add_argument("--json", type=Path, help="write the report here")


def run_evaluate(arguments: argparse.Namespace) -> None:
    """Recordings through inference, scored against their truth; or minimal pairs."""
    from fusion.evaluation.ablation import Ablation
    from fusion.evaluation.evaluate import evaluate, in_words
    from fusion.evaluation.pairs import judge_pairs
    from fusion.progress import working
    from fusion.recordings.recording import recordings_in

    recordings = recordings_in(arguments.recording)
    if arguments.json:
        check_place("--json", arguments.json)
    if arguments.licence:
        from fusion.training.licensing import licence_report

        if arguments.pairs is not None or arguments.without or arguments.only:
            raise ConfigError("evaluate --licence takes --model and --recording alone")
        write_report(licence_report(arguments.model, recordings), arguments.json)
        return
    ablation = Ablation.parse(arguments.without, arguments.only)
    if arguments.pairs is not None:
        if recordings:
            raise ConfigError("evaluate takes --recording or --pairs, not both")
        with working(f"judging {arguments.pairs}"):
            report = judge_pairs(arguments.model, arguments.pairs, ablation=ablation)
    else:
        with working(f"evaluating {len(recordings)} recordings"):
            report = evaluate(arguments.model, recordings, ablation=ablation)
        if arguments.json:
            say(in_words(report))
    write_report(report, arguments.json)


def _steptest(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--model", type=Path, required=True)
    verb.add_argument("--recording", type=Path, nargs="+", required=True, action="extend")
    verb.add_argument("--json", type=Path, help="write the proposal here")


def run_steptest(arguments: argparse.Namespace) -> None:
    """The smallest tests that would let the licence be granted; proposed, never run."""
    from fusion.recordings.recording import recordings_in
    from fusion.training.licensing import step_tests

    if arguments.json:
        check_place("--json", arguments.json)
    write_report({"tests": step_tests(arguments.model, recordings_in(arguments.recording))}, arguments.json)


def _whatif(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("--broker", metavar="HOST:PORT", help="ask the running daemon that publishes here")
    plant_argument(verb)
    verb.add_argument("--model", type=Path, help="or ask a model of a moment of a recording")
    verb.add_argument("--recording", type=Path)
    verb.add_argument("--at", type=finite, help="moment, in s after the start of the recording")
    verb.add_argument("--set", nargs="+", default=[], action="extend", metavar="SIGNAL=VALUE", help="engineering units")
    verb.add_argument("--horizon", type=finite, default=600.0, help="how far to look ahead in a recording [s]")
    verb.add_argument("--json", type=Path, help="write the answer here")
    broker_arguments(verb)


def run_whatif(arguments: argparse.Namespace) -> None:
    """Two forecasts from now, or from one moment of a recording."""
    if arguments.json:
        check_place("--json", arguments.json)
    past = {name: getattr(arguments, name) for name in ("model", "recording", "at")}
    if arguments.broker is not None:
        if given := [f"--{name}" for name, value in past.items() if value is not None]:
            raise ConfigError(f"whatif takes --broker or {given[0]}, not both")
        write_report(_asked_now(arguments), arguments.json)
        return
    if missing := [f"--{name}" for name, value in past.items() if value is None]:
        raise ConfigError(f"whatif: {', '.join(missing)} missing; or --broker HOST:PORT asks a running daemon")
    from fusion.evaluation.whatif import whatif

    moves = arguments.set
    write_report(whatif(arguments.model, arguments.recording, arguments.at, moves, arguments.horizon), arguments.json)


def _asked_now(arguments: argparse.Namespace) -> dict[str, Any]:
    """What the running daemon answers."""
    from fusion.mqtt.broker import Broker
    from fusion.plant import parse_moves
    from fusion.plant_file import load_plant
    from fusion.publish.asking import ask

    plant = load_plant(arguments.plant)
    broker = Broker(**broker_settings(arguments.broker, arguments))
    return ask(broker, plant.name, parse_moves(arguments.set, plant), getpass.getuser())


def _dashboard(verb: argparse.ArgumentParser) -> None:
    plant_argument(verb)
    verb.add_argument("--host", default="127.0.0.1", help="address to serve on; any but loopback needs --users")
    verb.add_argument("--port", type=int, default=8080)
    verb.add_argument("--users", default="", metavar="FILE", help="who may log in, as `fusion user` writes it")
    verb.add_argument("--session-s", type=finite, default=43_200.0, help="a login lasts this long [s]")
    verb.add_argument("--origin", action="append", default=[], help="another address of the page, such as a proxy's")
    verb.add_argument("--https-certificate", default="", metavar="FILE", help="serve over TLS")
    verb.add_argument("--https-key", default="", metavar="FILE")
    verb.add_argument("--recordings", default="", metavar="FOLDER", help="record.folder of the daemon, to look back")
    verb.add_argument("--state", default="", metavar="FOLDER", help="state of the daemon, for who did what")
    verb.add_argument("--models", default="", metavar="FOLDER", help="learn.models of the daemon, to show them")
    verb.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT")
    broker_arguments(verb)


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
        recordings=arguments.recordings,
        state=arguments.state,
        models=arguments.models,
        broker=broker,
    )
    run(config, load_plant(arguments.plant))


def write_report(report: dict[str, Any], file: Path | None) -> None:
    """A report as JSON: on standard output, or in a file that takes its place when it is whole."""
    from fusion.plain import plain

    text = json.dumps(plain(report), indent=1)
    if file is None:
        say(text)
    elif is_device(file):
        file.write_text(text)
    else:
        with whole_file(file) as aside:
            aside.write_text(text)


VERBS = (
    Verb("run", "run the daemon on the sources of a configuration", _run, run_daemon),
    Verb("verify", "check accepted advice once more and write it to the control system", _verify, run_verify),
    Verb("replay", "play a recording through the daemon", _replay, run_replay),
    Verb("evaluate", "replay recordings and report detection, false raises and forecasts", _evaluate, run_evaluate),
    Verb("steptest", "propose the smallest tests of setpoints that a licence still needs", _steptest, run_steptest),
    Verb("whatif", "what happens next if a signal is set, and if nothing is", _whatif, run_whatif),
    Verb("dashboard", "serve the operator page; reads MQTT only", _dashboard, run_dashboard),
)
