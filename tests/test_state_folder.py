"""The state folder: a damaged alarm list is set aside and said, ticks are kept and used while they are fresh."""

import errno
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scripted_daemon import PLANT, event

from control.anomaly.alarms import AlarmConfig
from control.anomaly.detector import FOREIGN
from fusion.alarms import Alarm
from fusion.checkpoint import load_checkpoint
from fusion.daemon import memory as memory_module
from fusion.daemon import store as store_module
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.glance import Signs, plant_state
from fusion.daemon.memory import TickMemory
from fusion.daemon.resume import memory_of, resumed
from fusion.daemon.settings import DaemonConfig
from fusion.daemon.store import Store
from fusion.errors import ConfigError, ModelError
from fusion.health import PlantState, SourceHealth, SourceState
from fusion.inference import Engine
from fusion.recordings.recording import Recording
from fusion.records import NS_PER_S, AnomalyState
from fusion.timeline.history import frames
from models.ticks import Ticks
from tests.grid_runs import from_process_grid

S = NS_PER_S
NOW_S = 1_800_000_000


# --- the alarm list


@pytest.fixture
def store(tmp_path):
    store = Store(tmp_path, "kiln", lambda: NOW_S * S)
    yield store
    store.close()


def written(store):
    alarms = (Alarm(anomaly=replace(event("a", 5 * S), p_value=np.float64("nan")), raised_ns=5 * S),)
    store.write(alarms, 7, {"a"}, {"level": 1.5})
    return alarms


def test_what_is_written_is_read_again_numbers_that_are_none_included(store):
    (alarm,) = written(store)
    kept = store.read(AlarmConfig())
    (again,) = kept.alarms.alarms
    assert np.isnan(again.anomaly.p_value)
    assert replace(again, anomaly=replace(again.anomaly, p_value=0)) == replace(
        alarm, anomaly=replace(alarm.anomaly, p_value=0)
    )
    assert (kept.sequence, kept.untold, kept.notes, kept.flags) == (7, {"a"}, {"level": 1.5}, ())


@pytest.mark.parametrize(
    "spoil",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "",
        lambda text: "[" * 100_000,
        lambda text: text.replace("kiln", "oven"),
        lambda text: text.replace("fusion-alarms/1", "fusion-alarms/9"),
        lambda text: text.replace('"sequence": 7', '"sequence": "7"'),
        lambda text: text.replace('"raised_ns": 5', '"raised_ns": "x5'),
        lambda text: text.replace('"state": "raised"', '"state": "lost"'),
        lambda text: text.replace('"alarms": [', '"alarms": [3, '),
    ],
)
def test_a_file_that_cannot_be_used_is_set_aside_and_said_and_no_number_comes_again(store, tmp_path, spoil, caplog):
    written(store)
    spoiled = spoil((tmp_path / "alarms.json").read_text())
    (tmp_path / "alarms.json").write_text(spoiled)
    kept = AlarmDesk(None, store)
    assert (kept.log.alarms, kept.sequence, kept.flags) == ((), NOW_S, ("state:set_aside",))
    (aside,) = tmp_path.glob("*.aside")
    assert aside.read_text() == spoiled
    assert aside.name in caplog.text
    assert store.read(AlarmConfig()).sequence == NOW_S  # also if it is killed before anything happens


def test_a_folder_has_one_daemon_and_one_that_cannot_be_made_is_named(store, tmp_path):
    with pytest.raises(ConfigError, match="used by another daemon"):
        Store(tmp_path, "kiln")
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigError, match="cannot be used"):
        Store(tmp_path / "file", "kiln")


def test_a_full_disk_is_said_and_the_list_is_written_when_there_is_room(store, monkeypatch):
    def full(_path):
        raise OSError(errno.ENOSPC, "No space left on device")

    desk = AlarmDesk(None, store)
    desk.untold.add("a")
    with monkeypatch.context() as patched:
        patched.setattr(store_module, "whole_file", full)
        desk.save((), {"a"}, 1, {})
    assert "No space left" in desk.trouble
    assert desk.stale
    desk.save((), {"a"}, 1, {})
    assert (desk.trouble, desk.stale) == ("", False)


# --- ticks


def run(first_s, ticks):
    t_ns = (first_s + np.arange(ticks, dtype=np.int64)) * S
    return from_process_grid(PLANT, t_ns, {"TT1": np.arange(ticks, dtype=float) + first_s})


def fed(memory, first_s, ticks):
    made = run(first_s, ticks)
    for i in range(ticks):
        memory.add(made[i : i + 1])


def test_ticks_are_kept_for_a_time_and_used_while_they_are_fresh(tmp_path):
    memory = TickMemory(tmp_path, "m", 300)
    assert memory.recall(0, 600) is None
    fed(memory, 1000, 500)
    memory.close()
    files = sorted(tmp_path.glob("*.npz"))
    assert sum(len(Ticks.load(file)) for file in files) < 300 + 3 * memory_module.CHUNK_TICKS
    found = TickMemory(tmp_path, "m", 300).recall(1600 * S, 600)
    assert (found.t_ns[0], found.t_ns[-1], len(found)) == (1200 * S, 1499 * S, 300)
    assert np.array_equal(found.tags[:, 0], np.arange(1200.0, 1500.0))
    assert TickMemory(tmp_path, "other", 300).recall(1600 * S, 600) is None
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize("now_s", [2200, 1400])
def test_ticks_of_long_ago_or_of_the_future_are_forgotten(tmp_path, now_s):
    memory = TickMemory(tmp_path, "m", 3600)
    fed(memory, 1000, 500)
    memory.close()
    assert TickMemory(tmp_path, "m", 3600).recall(now_s * S, 600) is None
    assert not list(tmp_path.glob("*.npz"))


@pytest.mark.parametrize("damage", [b"", b"PK\x03\x04 and no more", None])
def test_a_damaged_file_takes_what_was_before_it_along(tmp_path, damage, caplog):
    memory = TickMemory(tmp_path, "m", 3600)
    for first_s in (1000, 1060, 1120):
        fed(memory, first_s, 60)
        memory._writing.result()
    memory.close()
    middle = sorted(tmp_path.glob("*.npz"))[1]
    content = bytearray(middle.read_bytes())
    content[len(content) // 2] ^= 1
    middle.write_bytes(content if damage is None else damage)
    (tmp_path / "0.npz.partial").write_bytes(b"torn")
    found = TickMemory(tmp_path, "m", 3600).recall(1200 * S, 600)
    assert (found.t_ns[0], len(found)) == (1120 * S, 60)
    assert "cannot be read" in caplog.text
    assert len(list(tmp_path.iterdir())) == 1


def test_a_disk_that_takes_no_ticks_is_said(tmp_path, monkeypatch):
    def full(_path):
        raise OSError(errno.ENOSPC, "No space left on device")

    memory = TickMemory(tmp_path, "m", 3600)
    monkeypatch.setattr(memory_module, "whole_file", full)
    fed(memory, 1000, 60)
    memory.close()
    assert "No space left" in memory.trouble


# --- an engine that goes on


def rows(outcomes):
    return np.stack([outcome.surprise.standardised for outcome in outcomes])


@pytest.fixture(scope="module")
def never_stopped(model, slipping):
    engine = Engine(load_checkpoint(model, Recording(slipping).plant))
    return [engine.step(frame) for frame in frames(Recording(slipping))]


def test_an_engine_resumed_from_memory_says_what_one_says_that_never_stopped(model, never_stopped, tmp_path):
    cut = 150
    before, after = never_stopped[:cut], never_stopped[cut:]
    checkpoint = load_checkpoint(model)
    config = DaemonConfig(plant="", model="", state=str(tmp_path), memory_gap_s=1e12)
    (tmp_path / "ticks").mkdir()
    memory = memory_of(config, checkpoint.plant)
    for outcome in before:
        if outcome.ticks is not None:
            memory.add(outcome.ticks)
    memory.close()
    engine = resumed(config, checkpoint, AlarmDesk(), memory_of(config, checkpoint.plant))
    again = [engine.step(outcome.frame) for outcome in after]
    np.testing.assert_allclose(rows(again), rows(after), rtol=1e-5, atol=1e-6)
    assert np.isfinite(rows(again)[0]).any()
    assert not any(flag.startswith("warming up") for flag in again[0].flags)
    assert [(a.t_ns, a.state) for o in again for a in o.anomalies] == [
        (a.t_ns, a.state) for o in after for a in o.anomalies
    ]


def test_a_gap_behind_the_memory_is_no_fault_and_is_said(model, never_stopped):
    engine = Engine(load_checkpoint(model))
    seen = Ticks.concat([o.ticks for o in never_stopped[:120] if o.ticks is not None])
    engine.recall(seen)
    with pytest.raises(ModelError, match="not ticks of this plant"):
        Engine(load_checkpoint(model)).recall(seen.without_media())
    later = [outcome.frame for outcome in never_stopped[210:250]]
    outcomes = [engine.step(frame) for frame in later]
    assert "warming up, 120 s left" in outcomes[0].flags
    assert [a.state for o in outcomes for a in o.anomalies if a.state is AnomalyState.RAISED] == []
    assert np.isfinite(rows(outcomes)).any()  # what does not look back goes on


def test_a_gap_within_the_memory_is_not_forgotten(model, never_stopped):
    engine = Engine(load_checkpoint(model))
    parts = [never_stopped[:60], never_stopped[80:120]]
    engine.recall(Ticks.concat([o.ticks for part in parts for o in part if o.ticks is not None]))
    assert "warming up, 80 s left" in engine.step(never_stopped[120].frame).flags


def test_an_action_that_is_not_heard_of_again_is_as_it_was(model, never_stopped):
    engine = Engine(load_checkpoint(model))
    last = never_stopped[119]
    engine.recall(Ticks.concat([o.ticks for o in never_stopped[:120] if o.ticks is not None]))
    frame = never_stopped[120].frame
    unheard = np.array([name == "TIC101.SP" for name in frame.signals])
    engine._stream._waiting_ticks = 0
    dumb = replace(
        frame,
        value_S=np.where(unheard, 0.0, frame.value_S),
        observed_S=frame.observed_S & ~unheard,
        age_s_S=np.where(unheard, np.inf, frame.age_s_S),
    )
    outcome = engine.step(dumb)
    assert np.array_equal(outcome.ticks.action, last.ticks.action)
    assert "settling" not in outcome.flags
    assert np.array_equal(engine.step(never_stopped[121].frame).ticks.action, never_stopped[121].ticks.action)


def test_a_tag_that_was_dead_before_a_restart_is_not_waited_for(model, never_stopped):
    engine, frame = Engine(load_checkpoint(model)), never_stopped[120].frame
    dead = np.array([name == "FT101" for name in frame.signals])
    without = replace(frame, observed_S=frame.observed_S & ~dead)
    assert "waiting for first values" in Engine(load_checkpoint(model)).step(without).flags
    ticks = Ticks.concat([o.ticks for o in never_stopped[:120] if o.ticks is not None])
    column = [signal.name for signal in engine.plant.tags].index("FT101")
    engine.recall(replace(ticks, observed=ticks.observed & (np.arange(ticks.observed.shape[1]) != column)))
    other = np.array([name == "TT101" for name in frame.signals])
    assert "waiting for first values" in engine.step(replace(without, observed_S=without.observed_S & ~other)).flags
    assert engine.step(without).ticks is not None


# --- the plant at a glance


def source(name="plc", state=SourceState.LIVE):
    return SourceHealth(
        name=name,
        state=state,
        alive=state is SourceState.LIVE,
        rate_hz=1.0,
        expected_hz=1.0,
        age_s=0.1,
        received=1,
        dropped={},
        epoch=1,
    )


WELL = Signs(
    t_ns=NOW_S * S,
    step_s=1.0,
    tick_age_s=0.5,
    sources=(source(), source("camera")),
    alarms=(),
    skipped=0,
    latency_p99_s=0.1,
    flags=("settling",),
    trouble=(),
)
STANDS = Alarm(anomaly=event("a", S), raised_ns=S)
FROM_THE_START = replace(STANDS, anomaly=replace(STANDS.anomaly, revision=FOREIGN))
SHELVED = replace(STANDS, shelved_until_ns=(NOW_S + 1) * S)
RETURNED = Alarm(anomaly=event("b", S, AnomalyState.CLEARED), raised_ns=S)


@pytest.mark.parametrize(
    ("signs", "state", "reason"),
    [
        ({}, PlantState.NORMAL, ""),
        ({"alarms": (SHELVED, RETURNED)}, PlantState.NORMAL, ""),
        ({"flags": ("warming up, 84 s left",)}, PlantState.WARMING_UP, "warming up, 84 s left"),
        ({"flags": ("no model: 0.20 of 1 h",)}, PlantState.LEARNING, "no model: 0.20 of 1 h"),
        ({"skipped": 3, "flags": ("warming up, 9 s left",)}, PlantState.DEGRADED, "3 ticks skipped in the last minute"),
        ({"latency_p99_s": 1.2}, PlantState.DEGRADED, "results are 1.2 s late"),
        ({"sources": (source(), source("camera", SourceState.STALE))}, PlantState.DEGRADED, "source camera is stale"),
        ({"flags": ("clock:host",), "trouble": ("disk full",)}, PlantState.DEGRADED, "clock host is off; disk full"),
        ({"alarms": (STANDS,), "skipped": 3}, PlantState.ALARM, "1 alarm: process process"),
        ({"alarms": (FROM_THE_START,)}, PlantState.ALARM, f"1 alarm: process process; {FOREIGN}"),
        ({"flags": ("knows little: why",)}, PlantState.DEGRADED, "the model knows little: why"),
        (
            {"flags": ("uncalibrated:video",)},
            PlantState.DEGRADED,
            "no picture is judged: it is unlike all that the model was trained on",
        ),
        (
            {"flags": ("state not judged",)},
            PlantState.DEGRADED,
            "nothing is judged in this operating state, of which too little was recorded",
        ),
        ({"alarms": (STANDS, STANDS)}, PlantState.ALARM, "2 alarms: process process, process process"),
        ({"alarms": (STANDS,), "tick_age_s": 10.4}, PlantState.NO_DATA, "no tick for 10 s"),
        ({"step_s": 60.0, "tick_age_s": 200.0}, PlantState.NORMAL, ""),
        ({"tick_age_s": None}, PlantState.NO_DATA, "no tick yet"),
        (
            {"sources": (source(state=SourceState.DOWN),)},
            PlantState.NO_DATA,
            "no source is alive: plc is down",
        ),
    ],
)
def test_the_plant_at_a_glance_is_the_first_that_applies_and_says_why(signs, state, reason):
    assert plant_state(replace(WELL, **signs)) == (state, reason)


def test_paths_of_the_state_begin_at_the_configuration(tmp_path):
    from fusion.daemon.settings import load_daemon_config

    (tmp_path / "site.yaml").write_text(
        "defaults: [daemon_schema, _self_]\nplant: p.yaml\nmodel: m\nalarms: {keep: 9, longest_shelf_s: 60}\n"
    )
    config = load_daemon_config(tmp_path / "site.yaml")
    assert (Path(config.state), config.alarms.keep) == (tmp_path / "var/state", 9)
    assert load_daemon_config(tmp_path / "site.yaml", ["state="]).state == ""
    with pytest.raises(ConfigError, match="memory_s"):
        load_daemon_config(tmp_path / "site.yaml", ["memory_s=-1"])


def test_the_file_is_plain_json_for_people(store, tmp_path):
    written(store)
    data = json.loads((tmp_path / "alarms.json").read_text())
    assert data["alarms"][0]["anomaly"]["state"] == "raised"
