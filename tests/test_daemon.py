"""The daemon's wires: what a source, an operator and a broker do reaches whom it concerns."""

import asyncio
import time
from pathlib import Path

import pytest
from scripted_daemon import Scripted, Ticking
from test_clock import PLANT, Listening, Teller

from connectors.base import Source
from connectors.settings import Supervision
from fusion.daemon import start
from fusion.daemon.recording import record
from fusion.daemon.service import Daemon
from fusion.daemon.settings import load_daemon_config
from fusion.errors import FusionError, SourceError
from fusion.health import PlantState
from fusion.recordings.recorder import Recorder, RecorderConfig
from fusion.records import Answer, AnswerKind
from fusion.timeline.timeline import Timeline

DEMO = Path(__file__).parent.parent / "configs" / "demo.yaml"
QUICK = Supervision(backoff_min_s=0.05, backoff_max_s=0.1)


class Breaking(Teller):
    """Loses its connection once."""

    lost = False

    async def read(self):
        if not Breaking.lost:
            Breaking.lost = True
            await asyncio.sleep(0.3)
            raise SourceError("pulled out")
        return await super().read()


def run(listening, driver, seconds):
    async def scenario():
        stop = asyncio.Event()
        daemon = Daemon([Source("plc", PLANT.signals, driver, QUICK)], Timeline(PLANT), listening, listening)
        running = asyncio.create_task(daemon.run(stop))
        await asyncio.sleep(seconds)
        stop.set()
        await running

    asyncio.run(scenario())


def daemon_of(source, recorder):
    async def scenario():
        stop = asyncio.Event()
        daemon = Daemon([source], Timeline(PLANT), Listening(), Listening(), recorder=recorder)
        running = asyncio.create_task(daemon.run(stop))
        await asyncio.sleep(1.0)
        stop.set()
        await running

    asyncio.run(scenario())


def recording_of(source, recorder):
    asyncio.run(record([source], recorder, for_s=1.0))


@pytest.mark.parametrize("process", [daemon_of, recording_of])
def test_sources_hear_what_an_earlier_run_has_recorded_last(process, tmp_path):
    heard = []
    for _ in range(2):
        recorder = Recorder(RecorderConfig(folder=str(tmp_path)), PLANT)
        process(Source("plc", PLANT.signals, Teller, QUICK, resume=lambda *told: heard.append(told)), recorder)
    ((newest, ended_ns),) = heard
    (first, _) = recorder.segments()
    assert newest == first.newest_ns()
    assert ended_ns == first.span_ns[1]


def test_a_gap_that_is_over_goes_out():
    listening = Listening()
    run(listening, Breaking, 1.5)
    (gap,) = listening.gaps
    assert (gap.source, gap.reason) == ("plc", "pulled out")
    assert gap.t_from_ns < gap.t_to_ns


@pytest.mark.parametrize(
    ("override", "message"),
    [
        (
            "connectors.skid.topics=[{topic: a, signal: NOPE}]",
            r"connectors\.skid: mqtt\.topics: 'NOPE' is no process si",
        ),
        ("connectors.camera.signal=NOPE", r"connectors\.camera: video\.signal: 'NOPE' is no video signal"),
        ("connectors.past={kind: replay, path: none}", r"connectors\.past: .*none/manifest\.json: missing"),
    ],
)
def test_a_connector_that_does_not_fit_the_plant_is_named(monkeypatch, override, message):
    monkeypatch.setattr(start, "first_checkpoint", lambda *_: (None, None))
    with pytest.raises(FusionError, match=f"^{message}"):
        start.run(load_daemon_config(DEMO, [override]))


def test_an_answer_reaches_inference_with_the_next_tick():
    listening = Listening()
    listening.to_answer.append(Answer(id="a", answer=AnswerKind.ACCEPTED))
    run(listening, Teller, 2.5)
    assert [a.id for a in listening.answered] == ["a"]


def test_ticks_that_are_skipped_reach_inference_and_health_says_so_for_a_minute():
    def slow(engine, t_ns):
        time.sleep(0.3)
        return []

    async def scenario():
        engine, stop = Scripted(play=slow), asyncio.Event()
        daemon = Daemon([], Ticking(), engine, Listening())
        running = asyncio.create_task(daemon.run(stop))
        await asyncio.sleep(1.5)
        stop.set()
        await running
        assert engine.skips > 0
        said = daemon.health("online")
        daemon.statistics.skipped_ns.appendleft(time.monotonic_ns() - 61 * 10**9)
        assert daemon.health("online").reason == said.reason
        return said

    said = asyncio.run(scenario())
    assert said.plant_state is PlantState.DEGRADED
    assert f"{said.skipped_ticks} ticks skipped in the last minute" in said.reason
