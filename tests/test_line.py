"""The whole line on a small plant model: record, train, replay through the daemon, evaluate, and run it live."""

import contextlib
import json
import signal
import socket
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import paho.mqtt.client as mqtt
import pytest

from control.advice.advisor import AdvisorConfig
from control.advice.drift import DriftConfig
from control.advice.licence import Level, Licence, SignalLicence
from fusion.checkpoint import load_checkpoint
from fusion.cli import main
from fusion.daemon.start import replay
from fusion.errors import ConfigError
from fusion.inference import Engine
from fusion.outlook import Cadence
from fusion.plant import Modality, Role
from fusion.plant_file import dump_plant, load_plant
from fusion.recordings.recording import Recording
from fusion.records import NS_PER_S, AdviceKind, AnomalyKind, AnomalyState, HoldReason, Origin, Verdict
from fusion.timeline.history import frames

ROOT = Path(__file__).parent.parent
PLANT = load_plant(ROOT / "configs" / "plant" / "lime.yaml")


def test_training_leaves_a_model_and_a_report_that_stands_alone(model):
    checkpoint = load_checkpoint(model, PLANT)
    report = (model / "report.html").read_text()
    assert checkpoint.meta["licence"]["level"] in ("observe", "shadow", "advise")
    assert checkpoint.model_id in report
    assert report.count("data:image/png;base64") >= 4
    assert "http" not in report
    assert not model.with_name("model.work").exists()


@pytest.fixture(scope="module")
def spoken(model, slipping):
    """What inference says at every tick of a slipping belt."""
    engine = Engine(load_checkpoint(model, PLANT))
    return [engine.step(frame) for frame in frames(Recording(slipping))]


def test_other_words_of_a_site_change_no_number_and_its_limits_are_taken(model, slipping, spoken):
    signals = (replace(s, description=f"Другие слова {i}") for i, s in enumerate(PLANT.signals))
    site = replace(PLANT, signals=tuple(replace(s, high=99.0) if s.name == "TT101" else s for s in signals))
    engine = Engine(load_checkpoint(model, site))
    assert engine.plant.by_name["TT101"] == site.by_name["TT101"]
    for before in spoken[:150]:
        np.testing.assert_array_equal(engine.step(before.frame).surprise.standardised, before.surprise.standardised)


def test_a_slipping_belt_is_raised_after_its_onset_and_its_signals_are_named(model, slipping, spoken):
    recording = Recording(slipping)
    onset_ns = recording.events[0].onset_ns
    raised = [a for outcome in spoken for a in outcome.anomalies]
    after = [a for a in raised if a.state is AnomalyState.RAISED and a.t_ns > onset_ns]
    assert after
    assert after[0].t_ns - onset_ns < 60e9
    assert after[0].energies[0][1] > 1.0
    named = {blame.signal for blame in after[0].top_signals}
    assert named & set(recording.events[0].signals)


def test_ticks_at_once_say_what_they_say_one_by_one(model, slipping, spoken):
    raised = [a for outcome in spoken for a in outcome.anomalies]
    at_once = Engine(load_checkpoint(model, PLANT))
    ticks, changes = at_once.catch_up(list(frames(Recording(slipping))))
    assert ticks is not None
    assert raised
    assert at_once._state.carry.learns is not bool(at_once.detector.open)
    assert [(a.t_ns, a.state, a.kind) for a in changes] == [(a.t_ns, a.state, a.kind) for a in raised]
    for one, other in zip(changes, raised, strict=True):
        assert [blame.signal for blame in one.top_signals] == [blame.signal for blame in other.top_signals]
        assert one.p_value == pytest.approx(other.p_value, rel=1e-2)


def test_replay_through_the_daemon_says_what_inference_says_and_says_it_twice(model, slipping, tmp_path):
    first, second = tmp_path / "first.jsonl", tmp_path / "second.jsonl"
    counted = replay(slipping, model, 0.0, None, first)
    replay(slipping, model, 0.0, None, second)
    assert first.read_bytes() == second.read_bytes()
    assert counted.ticks == len(list(frames(Recording(slipping))))
    assert counted.skipped_ticks == 0
    kinds = [json.loads(line)["schema"] for line in first.read_text().splitlines()]
    assert "fusion.anomaly/1" in kinds
    assert "fusion.recommendation/1" in kinds


def test_advice_is_withheld_while_an_anomaly_stands(spoken):
    during = [o.recommendation for o in spoken if o.open_anomalies and o.recommendation is not None]
    assert during
    assert all(advice.verdict is Verdict.HOLD for advice in during)


def test_advice_on_a_tick_that_is_old_by_the_clock_is_withheld(model, slipping):
    *before, last = list(frames(Recording(slipping)))[:120]
    engine = Engine(load_checkpoint(model, PLANT), clock_ns=lambda: last.t_ns + 60 * NS_PER_S)
    engine.catch_up(before)
    advice = engine.step(last).recommendation
    assert (advice.verdict, advice.reason) == (Verdict.HOLD, HoldReason.STALE_DATA)
    assert "more than 5 s old" in advice.text


def test_what_is_accepted_as_normal_is_no_ground_for_advice_while_it_stands(model, slipping):
    engine = Engine(load_checkpoint(model, PLANT), cadence=Cadence(advise_every_s=1))
    granted = {s.name: SignalLicence(signal=s.name, level=Level.ADVISE) for s in PLANT.actions}
    engine.outlook.licence = Licence(signals=granted)
    accepted_ns, before, after = None, [], []
    for frame in frames(Recording(slipping)):
        outcome = engine.step(frame)
        process = [a for a in outcome.open_anomalies if a.kind is AnomalyKind.PROCESS]
        if accepted_ns is None and process and frame.t_ns - process[0].t_ns > 5e9:
            assert engine.accept(process[0].id)
            accepted_ns = frame.t_ns
        said = after if accepted_ns is not None and not outcome.open_anomalies else before
        if engine.outlook._advisor is not None:
            said.append(engine.outlook._advisor.said)
    assert after
    texts = {said.text for said in after if said.reason is HoldReason.OUT_OF_REGION}
    assert any("accepted as normal" in text for text in texts)
    assert not [said for said in after if said.verdict is Verdict.ADVISE and said.kind is AdviceKind.PLAN]
    assert not any("accepted as normal" in said.text for said in before)


def test_nothing_is_judged_or_advised_while_it_warms_up(spoken):
    warm = [o for o in spoken if any(flag.startswith("warming up") for flag in o.flags)]
    assert 110 < len(warm) < 130
    assert not [o for o in warm if o.anomalies or o.recommendation]
    assert warm[-1].forecast or any(o.forecast for o in warm)
    assert spoken[len(warm) + 5].surprise.peak > -np.inf


def test_what_looks_back_over_skipped_ticks_says_nothing_and_that_is_said(model, slipping):
    *before, last, after = list(frames(Recording(slipping)))[:202]
    engine = Engine(load_checkpoint(model, PLANT))
    engine.catch_up(before)
    looking_back = np.array([e.origin in (Origin.AHEAD, Origin.LAW) for e in engine.calibration.energies])
    assert np.isfinite(engine.step(last).surprise.standardised[looking_back]).any()
    engine.note_skipped()
    told = engine.step(after)
    assert np.isnan(told.surprise.standardised[looking_back]).all()
    assert np.isfinite(told.surprise.standardised[~looking_back]).any()
    assert "skipped" in told.flags


def test_a_plant_that_leaves_the_bands_takes_the_licence_to_advise(model, slipping):
    config = AdvisorConfig(drift=DriftConfig(horizon_s=8, window_s=30, least_coverage=0.85))
    engine = Engine(load_checkpoint(model, PLANT), advisor=config, cadence=Cadence(forecast_every_s=1))
    engine.outlook.licence = Licence(
        signals={s.name: SignalLicence(signal=s.name, level=Level.ADVISE) for s in PLANT.actions}
    )
    every = list(frames(Recording(slipping)))[:180]
    engine.catch_up(every[:120])
    controlled = np.array([s.role is Role.CONTROLLED for s in PLANT.of(Modality.PROCESS)])
    wild = (
        replace(f, value_S=f.value_S + np.where(controlled, (-1) ** i * 40.0, 0)) for i, f in enumerate(every[120:])
    )
    outcomes = [engine.step(frame) for frame in wild]
    assert "drift" not in outcomes[0].flags
    assert "drift" in outcomes[-1].flags
    assert engine.level is Level.SHADOW
    assert "90 % bands" in engine.outlook.licence.reasons[-1]


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda meta: meta["model"].pop("core"), "model.core is missing"),
        (lambda meta: meta.pop("calibration"), "calibration is missing"),
        (lambda meta: meta["calibration"]["energies"].reverse(), "its calibration is of other energies"),
        (lambda meta: meta["calibration"]["energies"].pop(), "not of all its energies"),
        (lambda meta: meta["model"]["world"]["config"].update(latent=64), "the networks are not those"),
        (lambda meta: meta["model"]["world"]["config"].update(latent="x"), "model.latent"),
    ],
)
def test_a_checkpoint_is_read_as_it_was_written_or_refused(model, spoil, message):
    checkpoint = load_checkpoint(model, PLANT)
    spoil(checkpoint.meta)
    with pytest.raises(ConfigError, match=message):
        Engine(checkpoint)


def test_a_foreign_model_is_refused_with_exit_code_2(model, tmp_path, capsys):
    (tmp_path / "plant").mkdir()
    dump_plant(replace(PLANT, name="lemon"), tmp_path / "plant" / "lime.yaml")
    config = (ROOT / "configs" / "demo.yaml").read_text()
    (tmp_path / "demo.yaml").write_text(config)
    assert main(["run", "--config", str(tmp_path / "demo.yaml"), f"model={model}"]) == 2
    assert "this model was trained on plant 'lime'" in capsys.readouterr().err


def free_port(kind=socket.SOCK_STREAM):
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Listener:
    """Keeps the last message of every topic."""

    def __init__(self, port):
        self.last = {}
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.on_connect = lambda client, *_: client.subscribe("fusion/#")
        self.client.on_message = self.take
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()

    def take(self, _client, _data, message):
        self.last[message.topic] = message.payload

    def wait(self, condition, timeout_s):
        deadline = time.monotonic() + timeout_s
        while not condition(self.last):
            assert time.monotonic() < deadline, sorted(self.last)
            time.sleep(0.1)

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@contextlib.contextmanager
def process(log, *arguments):
    """`fusion ARGUMENTS`, ended by SIGINT; its exit code must be 0 and its log without a traceback."""
    with log.open("w") as output:
        child = subprocess.Popen(
            [sys.executable, "-m", "fusion.cli", *map(str, arguments)], stdout=output, stderr=output
        )
    try:
        yield child
        child.send_signal(signal.SIGINT)
        assert child.wait(10) == 0, log.read_text()
        assert "Traceback" not in log.read_text()
    finally:
        child.kill()
        child.wait()


def test_the_daemon_lives_on_the_protocols_of_the_plant_and_says_goodbye(model, tmp_path):
    opcua, broker, rtsp, lidar = free_port(), free_port(), free_port(), free_port(socket.SOCK_DGRAM)
    calm = tmp_path / "calm.yaml"
    calm.write_text("name: calm\nduration_s: 100000\nwarmup_s: 60\n")
    ports = ("--opcua-port", opcua, "--mqtt-port", broker, "--rtsp-port", rtsp, "--lidar-port", lidar)
    overrides = (
        f"model={model}",
        f"publish.port={broker}",
        f"publish.outbox={tmp_path / 'outbox.sqlite'}",
        f"state={tmp_path / 'state'}",
        f"connectors.plc.url=opc.tcp://127.0.0.1:{opcua}",
        f"connectors.skid.port={broker}",
        f"connectors.camera.url=rtsp://127.0.0.1:{rtsp}/camera",
        f"connectors.microphone.url=rtsp://127.0.0.1:{rtsp}/microphone",
        f"connectors.silo_lidar.port={lidar}",
    )
    with process(tmp_path / "plant.log", "plant", "--scenario", calm, *ports):
        wait_for_port(opcua, 60)
        listener = Listener(broker)
        try:
            with process(tmp_path / "daemon.log", "run", *overrides):
                listener.wait(all_alive, 60)
                listener.wait(lambda last: b'"TT101"' in last.get("fusion/lime/v1/frame", b""), 20)
                listener.wait(lambda last: "fusion/lime/v1/preview/camera" in last, 20)
            listener.wait(lambda last: state(last) == "offline", 10)
        finally:
            listener.close()


def wait_for_port(port, timeout_s):
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.5):
            return
        time.sleep(0.2)
    raise AssertionError(f"nothing listens on {port}")


def health(last):
    return json.loads(last.get("fusion/lime/v1/health", b"{}"))


def state(last):
    return health(last).get("state")


def all_alive(last):
    sources = health(last).get("sources", [])
    return len(sources) == 5 and all(source["alive"] for source in sources)
