import dataclasses
import json

import numpy as np
import pytest

from fusion.checkpoint import save_checkpoint
from fusion.errors import ConfigError, PlantMismatch
from fusion.evaluation.ablation import Ablation
from fusion.evaluation.evaluate import (
    ForecastSums,
    Played,
    detection,
    evaluate,
    event_row,
    evidence,
    false_raises,
    ignored_raises,
    in_words,
    normal_hours,
    normal_spans,
    open_at,
    play_all,
    raises,
    skills,
    summary,
)
from fusion.plant import Plant, Signal
from fusion.recordings.recording import Event
from fusion.recordings.writer import RecordingWriter
from fusion.records import NS_PER_S, Anomaly, AnomalyKind, AnomalyState, Columns, Quality, SignalBlame
from models.ticks import TickBuilder

RAISED, HELD, CLEARED = AnomalyState.RAISED, AnomalyState.HELD, AnomalyState.CLEARED
T0_S = 1_000_000


def at(seconds):
    return round((T0_S + seconds) * NS_PER_S)


def change(seconds, state=RAISED, name="a", kind=AnomalyKind.UNKNOWN, by=None, signals=()):
    return Anomaly(
        id=name,
        t_onset_ns=at(seconds) - 10 * NS_PER_S,
        t_ns=at(seconds),
        state=state,
        p_value=1e-6,
        kind=kind,
        by_modality=by or {"process": 1.0},
        top_signals=tuple(SignalBlame(signal=s, residual=1.0, share=0.5) for s in signals),
        energies=(("innovation.tags", 2.0),),
        model_id="m",
    )


def fault(onset_s=300, end_s=600, **more):
    end_ns = None if end_s is None else at(end_s)
    values = {"name": "leak", "ramp_s": 5.0, "severity": 1.0, "kind": "process", "modalities": ("process",)}
    return Event(onset_ns=at(onset_s), end_ns=end_ns, **(values | more))


def played(changes=(), events=(), length_s=1800, **more):
    return Played(recording="r", t0_ns=at(0), t1_ns=at(length_s), events=tuple(events), changes=tuple(changes), **more)


def test_the_first_raise_during_a_fault_is_its_detection():
    run = played([change(320), change(400, name="b")], [fault()])
    assert detection(run, run.events[0]).id == "a"
    assert event_row(run, run.events[0])["delay_s"] == 20.0


@pytest.mark.parametrize(("seconds", "found"), [(299, False), (300, True), (660, True), (661, False)])
def test_a_raise_counts_from_the_onset_until_a_minute_after_the_end(seconds, found):
    run = played([change(seconds)], [fault()])
    assert (detection(run, run.events[0]) is not None) is found


def test_an_anomaly_open_at_onset_detects_nothing_even_when_it_is_continued():
    standing = [change(200), change(250, HELD)]
    again = [*standing, change(350, CLEARED), change(400)]
    assert open_at(again, at(300)) == {"a"}
    for changes in (standing, again):
        run = played(changes, [fault()])
        assert detection(run, run.events[0]) is None
    other = played([*standing, change(420, name="b")], [fault()])
    assert detection(other, other.events[0]).id == "b"


def test_an_anomaly_cleared_before_the_onset_may_be_raised_again():
    run = played([change(200), change(250, CLEARED), change(310)], [fault()])
    assert event_row(run, run.events[0])["delay_s"] == 10.0


def test_blame_is_taken_from_the_last_report_within_a_minute():
    changes = [
        change(310, by={"process": 1.0}),
        change(340, HELD, kind=AnomalyKind.SENSOR, by={"process": 0.2, "video": 0.8}, signals=("camera", "TT101")),
        change(345, HELD, name="b", by={"audio": 1.0}),
        change(371, HELD, by={"lidar": 1.0}),
    ]
    run = played(changes, [fault(signals=("camera",))])
    row = event_row(run, run.events[0])
    assert (row["blamed_modality"], row["blamed_signals"], row["verdict"]) == ("video", ["camera", "TT101"], "sensor")
    assert (row["true_modalities"], row["true_signals"], row["true_kind"]) == (["process"], ["camera"], "process")


def test_blame_stays_with_the_raise_when_it_is_cleared_before_it_is_held():
    changes = [change(310, by={"audio": 1.0}), change(330, CLEARED), change(350, RAISED), change(360, HELD)]
    assert evidence(changes, changes[0]) is changes[0]


def test_a_missed_fault_blames_nobody():
    run = played([], [fault()])
    row = event_row(run, run.events[0])
    assert row["detected"] is False
    assert row["delay_s"] is row["blamed_modality"] is row["verdict"] is None
    assert row["blamed_signals"] == []


def test_normal_time_begins_after_the_warm_up_and_leaves_out_faults_and_settling():
    run = played(events=[fault()])
    assert normal_spans(run) == [(at(180), at(300)), (at(900), at(1800))]
    assert normal_hours(run) == pytest.approx((120 + 900) / 3600)


def test_what_is_ignored_is_neither_normal_nor_to_be_found():
    """Maintenance, or an alarm on which nobody has decided; a fault in it is to be found all the same."""
    ignored = fault(300, 600, name="cleaned", ignore=True)
    run = played([change(400), change(550, name="b"), change(1000, name="c")], [ignored, fault(500, 520)])
    assert [event.name for event in run.faults] == ["leak"]
    assert normal_spans(run) == [(at(180), at(300)), (at(900), at(1800))]
    assert (detection(run, run.faults[0]).id, [a.id for a in false_raises(run)]) == ("b", ["c"])
    assert [a.id for a in ignored_raises(run)] == ["a", "b"]
    report = summary([run], {"gauges": {}})
    assert (len(report["events"]), report["ignored_raises"]) == (1, 2)
    assert "2 raises in maintenance" in in_words(report)
    assert played(events=[fault(-500, -100)]).faults == ()  # of a recording before


def test_overlapping_faults_leave_no_normal_time_between_them():
    run = played(events=[fault(700, 1000), fault(300, 500), fault(350, 400)])
    assert normal_spans(run) == [(at(180), at(300)), (at(1300), at(1800))]


def test_a_fault_without_end_lasts_to_the_end_of_the_recording():
    run = played([change(1790)], [fault(end_s=None)])
    assert normal_spans(run) == [(at(180), at(300))]
    assert detection(run, run.events[0]) is not None


@pytest.mark.parametrize(
    ("seconds", "false"), [(100, False), (200, True), (300, False), (599, False), (899, False), (901, True)]
)
def test_false_raises_lie_in_normal_time(seconds, false):
    run = played([change(seconds)], [fault()])
    assert bool(false_raises(run)) is false


def test_nuisances_are_normal_and_no_events():
    run = played([change(320)], [fault(nuisance=True)])
    assert normal_spans(run) == [(at(180), at(1800))]
    assert len(false_raises(run)) == 1
    assert run.faults == ()


def test_held_and_cleared_are_no_raises():
    assert raises([change(1, HELD), change(2, CLEARED)]) == []


def test_the_report_has_its_keys_and_is_json():
    runs = [played([change(320)], [fault()]), played([change(500)], length_s=180 + 3600 * 12)]
    report = summary(runs, {"gauges": {"rank_me": 3.0}})
    assert set(report) == {
        *("events", "false_raises_per_day", "normal_hours", "false_raises", "forecast", "gauges"),
        *("knows_little", "ignored_raises"),
    }
    assert report["false_raises"] == 1
    assert report["false_raises_per_day"] == pytest.approx(24 / report["normal_hours"], abs=1e-2)
    assert set(report["events"][0]) == {
        *("recording", "fault", "severity", "onset_s", "detected", "stood_already", "delay_s"),
        "true_modalities",
        *("blamed_modality", "true_signals", "blamed_signals", "true_kind", "verdict"),
    }
    json.dumps(report, allow_nan=False)


def test_faults_that_nobody_could_find_since_an_anomaly_stood_already_are_said():
    standing = played([change(200)], [fault()])
    found = summary([standing, played([change(320)], [fault()]), played([], [fault()])], {"gauges": {}})
    assert [row["stood_already"] for row in found["events"]] == [True, False, False]
    assert in_words(found).startswith(
        "1 of 3 faults found, 1 false raises in 0.85 h of normal operation; at 1 of those"
    )
    assert "stood already" not in in_words(summary([played([change(320)], [fault()])], {"gauges": {}}))


@pytest.mark.parametrize("found", [(True, True), (True, False), (False, True), (False, False)])
def test_a_fault_that_goes_on_after_a_gap_is_one(found):
    """As where a daemon was restarted in it; one of the same name and time in a run of its own is another."""
    leak = fault(300, 2600)
    first = played([change(320)] if found[0] else [], [leak])
    later = Played(
        recording="l", t0_ns=at(2000), t1_ns=at(3000), events=(leak,), changes=(change(2100),) if found[1] else ()
    )
    (row,) = summary([first, later], {"gauges": {}})["events"]
    assert (row["detected"], row["delay_s"]) == (any(found), 20.0 if found[0] else 1800.0 if found[1] else None)
    assert len(summary([first, first], {"gauges": {}})["events"]) == 2


def test_without_normal_time_there_is_no_rate():
    assert summary([played(length_s=100)], {"gauges": {}})["false_raises_per_day"] is None


def sums(**more):
    names = ("own", "linear", "arx", "persistence", "count", "inside", "judged")
    values = {name: np.ones((4, 1)) for name in names} | {"tags": ("TT101",)}
    return ForecastSums(**(values | more))


def test_skills_pool_the_runs():
    first = sums(own=np.full((4, 1), 0.5), persistence=np.full((4, 1), 3.0), arx=np.full((4, 1), 2.0))
    table = skills([first, sums()], step_s=1.0)["TT101"]
    assert set(table) == {"8", "32", "64", "256"}
    assert table["8"] == {"skill_persistence": 0.625, "skill_arx": 0.5, "skill_linear": 0.25, "coverage_90": 1.0}


def test_a_horizon_no_run_is_long_enough_for_is_null():
    names = ("own", "linear", "arx", "persistence", "count", "inside", "judged")
    table = skills([dataclasses.replace(sums(), **{name: np.zeros((4, 1)) for name in names})], step_s=1.0)["TT101"]
    assert set(table["256"].values()) == {None}
    assert skills([], step_s=1.0) == {}


# --- replay


def write(path, plant, kind="normal", events=(), seconds=30):
    t_ns = (T0_S + np.arange(1, seconds + 1)) * NS_PER_S
    with RecordingWriter(path, plant, kind=kind, events=events) as writer:
        writer.process(
            Columns(
                signals=("T",),
                index=np.zeros(seconds, np.int32),
                t_ns=t_ns,
                received_ns=t_ns,
                value=np.linspace(20.0, 21.0, seconds),
                quality=np.full(seconds, Quality.GOOD, np.uint8),
            )
        )
    return path


def tiny(unit="Cel"):
    return Plant(name="tiny", signals=(Signal(name="T", unit=unit, low=0.0, high=100.0),))


def test_a_recording_of_another_plant_is_refused_before_any_replay(tmp_path):
    save_checkpoint(tmp_path / "model", tiny(), {"x": np.zeros(1)}, {})
    foreign = write(tmp_path / "foreign", tiny("K"))
    with pytest.raises(PlantMismatch, match=r"foreign: recorded on plant 'tiny'"):
        evaluate(tmp_path / "model", [foreign])


def test_a_recording_that_has_more_than_the_model_knows_is_played_without_it(tmp_path, monkeypatch):
    engines = []
    monkeypatch.setattr(Ablation, "engine", lambda self, found: engines.append(Scripted(found)) or engines[-1])
    monkeypatch.setattr("fusion.evaluation.evaluate.foresee", lambda model, run: run.tags.shape)
    save_checkpoint(tmp_path / "model", tiny(), {"x": np.zeros(1)}, {})
    more = dataclasses.replace(tiny(), signals=(Signal(name="P", unit="bar"), *tiny().signals))
    sited = dataclasses.replace(tiny(), signals=(dataclasses.replace(tiny().signals[0], high=150.0),))
    paths = [write(tmp_path / "more", more), write(tmp_path / "sited", sited)]
    assert [played.forecast[1] for played in play_all(tmp_path / "model", paths, workers=1)] == [1, 1]
    assert [engine.plant.signals[0].high for engine in engines] == [100.0, 150.0]


def test_without_recordings_there_is_nothing_to_evaluate(tmp_path):
    save_checkpoint(tmp_path / "model", tiny(), {"x": np.zeros(1)}, {})
    with pytest.raises(ConfigError, match="at least one recording"):
        evaluate(tmp_path / "model", [])


class Scripted:
    """An engine that raises at its twentieth tick."""

    flags = ("knows little: of all this",)

    def __init__(self, checkpoint):
        self.model, self.plant = None, checkpoint.plant
        self._ticks = 0

    def catch_up(self, frames):
        said, builder = [], TickBuilder(self.plant)
        for frame in frames:
            self._ticks += 1
            said += [change(frame.t_ns / NS_PER_S - T0_S)] if self._ticks == 20 else []
            builder.add(frame)
        return builder.ticks(), said


def test_every_tick_of_a_recording_passes_a_fresh_engine_and_only_normal_ones_are_forecast(tmp_path, monkeypatch):
    monkeypatch.setattr(Ablation, "engine", lambda self, checkpoint: Scripted(checkpoint))
    monkeypatch.setattr("fusion.evaluation.evaluate.foresee", lambda model, run: len(run))
    plant = tiny()
    save_checkpoint(tmp_path / "model", plant, {"x": np.zeros(1)}, {})
    paths = [write(tmp_path / "a", plant), write(tmp_path / "b", plant, "fault", [fault(10, 25)])]
    normal, wrong = play_all(tmp_path / "model", paths, workers=1)
    ticks = round((normal.t1_ns - normal.t0_ns) / NS_PER_S) + 1
    assert normal.forecast == ticks
    assert in_words(summary([dataclasses.replace(normal, forecast=None), wrong], {"gauges": {}})).endswith(
        "\nin 2 recordings the model knows little: of all this"
    )
    assert wrong.forecast is None
    assert [len(p.changes) for p in (normal, wrong)] == [1, 1]
    assert event_row(wrong, wrong.events[0])["delay_s"] == pytest.approx(10.0, abs=1.0)


def test_a_fault_that_was_entered_by_hand_is_scored(tmp_path, monkeypatch):
    monkeypatch.setattr(Ablation, "engine", lambda self, checkpoint: Scripted(checkpoint))
    save_checkpoint(tmp_path / "model", tiny(), {"x": np.zeros(1)}, {})
    file = write(tmp_path / "a", tiny(), "fault") / "manifest.json"
    entered = [{"name": "blocked screen", "onset_ns": at(10), "end_ns": at(25)}]
    file.write_text(json.dumps(json.loads(file.read_text()) | {"events": entered}))
    (row,) = summary(play_all(tmp_path / "model", [tmp_path / "a"]), {"gauges": {}})["events"]
    assert (row["fault"], row["detected"], row["true_modalities"]) == ("blocked screen", True, [])
