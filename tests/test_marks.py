"""What people say of a time is what is learned from and what is found: from `fusion mark` to `fusion evaluate`."""

import json
import time
from datetime import UTC, datetime

import numpy as np
import pytest

from fusion.alarms import MarkKind, MarkOrder
from fusion.checkpoint import load_checkpoint
from fusion.cli import main
from fusion.daemon.settings import load_daemon_config
from fusion.plant_file import dump_plant
from fusion.recordings.marks import alarm_mark
from fusion.recordings.recorder import Recorder
from fusion.recordings.recording import Recording, recordings_in
from fusion.records import NS_PER_S, Anomaly, AnomalyKind, AnomalyState, Columns, Quality
from tests.small_plants import SMALL, small_values

T0_S = 1_780_000_200
SEGMENT_S = 1800
CLEANED, FAULT, TRIP, OTHER = (5000, 5300), (10300, 11100), (12900, 13020), (13800, 14200)
DAEMON = """
plant: plant.yaml
connectors: {}
record: {folder: records, segment_s: 1800, slice_s: 600}
learn: {models: models}
state: var
"""


class Hands:
    t_ns = T0_S * NS_PER_S

    def __call__(self):
        return self.t_ns


def at(seconds):
    return (T0_S + seconds) * NS_PER_S


def iso(seconds):
    return datetime.fromtimestamp(T0_S + seconds, UTC).isoformat()


def told(folder, *arguments):
    assert main(["mark", *arguments, "--by", "kim", "--config", str(folder / "daemon.yaml")]) == 0


def measured():
    """Four hours and a half: a pressure that is off while it is cleaned, is off in a fault, in a trip and once more."""
    values = small_values(3, 9 * SEGMENT_S)
    values["PT1"][slice(*CLEANED)] = 60.0
    for stretch in (FAULT, TRIP, OTHER):
        values["PT1"][slice(*stretch)] += 1.0
    return values


def record(folder, values, first, last):
    """What arrives from one second to another, as a daemon records it."""
    clock, names = Hands(), tuple(values)
    clock.t_ns = at(first)
    recorder = Recorder(load_daemon_config(folder / "daemon.yaml").record, SMALL, clock)
    recorder.start()
    for start in range(first, last, 600):
        t_ns = np.repeat(at(0) + np.arange(start, start + 600) * NS_PER_S, len(names))
        columns = Columns(
            signals=names,
            index=np.tile(np.arange(len(names), dtype=np.int32), 600),
            t_ns=t_ns,
            received_ns=t_ns,
            value=np.stack([values[name][start : start + 600] for name in names], 1).reshape(-1),
            quality=np.full(600 * len(names), Quality.GOOD, np.uint8),
        )
        recorder.add(columns)
        while recorder._waiting:
            time.sleep(0.01)
        clock.t_ns = at(start + 600)
        while (
            recorder._slice is not None or (clock.t_ns - at(first)) % (SEGMENT_S * NS_PER_S) == 0 < recorder._segment_ns
        ):
            time.sleep(0.01)
    return recorder


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site that was cleaned once, has learned from the first half, and whose people have marked the second."""
    folder = tmp_path_factory.mktemp("site")
    dump_plant(SMALL, folder / "plant.yaml")
    (folder / "daemon.yaml").write_text(DAEMON)
    values = measured()
    record(folder, values, 0, 5 * SEGMENT_S).close()
    told(folder, "pump cleaned", "--kind", "maintenance", "--from", iso(CLEANED[0]), "--to", iso(CLEANED[1]))
    places = ["--records", str(folder / "records"), "--models", str(folder / "models")]
    assert main(["learn", *places, "--plant", str(folder / "plant.yaml"), "steps=0", "threads=1"]) == 0
    recorder = record(folder, values, 5 * SEGMENT_S, 9 * SEGMENT_S)
    recorder.obey(MarkOrder(name="pressure off", kind=MarkKind.FAULT, by="kim", t_from_ns=at(FAULT[0])))
    while recorder._waiting:
        time.sleep(0.01)
    recorder.mark(alarm_mark(alarm("small-1", *FAULT)))
    recorder.mark(alarm_mark(alarm("small-2", *TRIP)))
    recorder.close()
    told(folder, "pressure off", "--kind", "fault", "--from", iso(FAULT[0]), "--to", iso(FAULT[1]))
    return folder


def alarm(name, onset, cleared):
    return Anomaly(
        id=name,
        t_onset_ns=at(onset),
        t_ns=at(cleared),
        state=AnomalyState.CLEARED,
        p_value=1e-6,
        kind=AnomalyKind.SENSOR,
        by_modality={"process": 1.0},
        top_signals=(),
        energies=(),
        model_id="m",
    )


def test_a_maintenance_costs_learning_what_it_covers(site):
    recordings = [Recording.verified(path) for path in recordings_in([site / "records"])]
    assert [r.kind for r in recordings[:5]] == ["normal", "normal", "marked", "marked", "normal"]
    made = load_checkpoint(site / "models" / "0001")
    learned_s = 3600 * sum(made.meta["hours"].values())
    whole_s = 4 * SEGMENT_S - (CLEANED[1] - CLEANED[0]) - 300
    assert whole_s - 3 * 256 <= learned_s <= whole_s  # the last is kept back, and two gaps lie between parts


def test_what_was_marked_is_what_is_to_be_found(site, tmp_path, capsys):
    """The fault reaches from one recording into the next; of the trip there is an alarm on which nobody has decided."""
    report = tmp_path / "report.json"
    where = ["--model", str(site / "models" / "0001"), "--recording", str(site / "records")]
    assert main(["evaluate", *where, "--json", str(report)]) == 0
    found = json.loads(report.read_text())
    (row,) = found["events"]
    assert (row["fault"], row["detected"], row["stood_already"]) == ("pressure off", True, False)
    assert 0 < row["delay_s"] < 120
    assert row["blamed_signals"][0] == "PT1"
    assert len(row["recording"].split()) == 2
    assert row["onset_s"] == pytest.approx(FAULT[0] - 5 * SEGMENT_S, abs=2)
    assert found["ignored_raises"] >= 1
    assert found["false_raises"] >= 1
    said = capsys.readouterr().out
    assert "1 of 1 faults found" in said
    assert "count as neither" in said

    told(site, "was a test", "--kind", "good", "--from", iso(TRIP[0] - 60), "--to", iso(TRIP[1] + 60))
    told(site, "pressure off again", "--kind", "fault", "--from", iso(OTHER[0]), "--to", iso(OTHER[1]))
    later = [str(path) for path in recordings_in([site / "records"])[5:]]
    assert main(["evaluate", *where[:2], "--recording", *later, "--json", str(report)]) == 0
    after = json.loads(report.read_text())
    assert [row["fault"] for row in after["events"]] == ["pressure off", "pressure off again"]
    assert all(row["detected"] for row in after["events"])
    assert after["false_raises"] >= 1
