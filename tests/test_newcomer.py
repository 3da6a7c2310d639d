"""A stranger's path in four commands: labelled exports of a rig in, a model out, the others judged and replayed."""

import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest

from fusion.checkpoint import load_checkpoint
from fusion.cli import main
from fusion.continuity import WARMING_UP
from fusion.evaluation.evaluate import in_words
from fusion.inference import KNOWS_LITTLE, Engine
from fusion.recordings.recording import Recording
from fusion.timeline.history import frames

ROWS, FAULT = 600, (420, 500)
START_S = 1_780_000_000


def export(file: Path, number: int, level: float, fault: tuple[int, int] = FAULT) -> None:
    """A run of a small rig at a level of its own, one row a second; while labelled its pressure is too low."""
    random = np.random.default_rng(number)
    noise = random.normal(0.0, 1.0, (4, ROWS))
    wander = np.convolve(noise[0], np.ones(20) / 20, "same")
    flow = level + 0.4 * wander + 0.02 * noise[1]
    wrong = (np.arange(ROWS) >= fault[0]) & (np.arange(ROWS) < fault[1])
    pressure = 0.5 * flow * np.where(wrong, 0.8, 1.0) + 0.02 * noise[2]
    current = 2.0 + 0.3 * flow + 0.02 * noise[3]
    lines = ["datetime;Flow;Pressure;Current;anomaly;changepoint"]
    for i in range(ROWS):
        t = datetime.fromtimestamp(START_S + 1200 * number + i, UTC)
        values = f"{flow[i]:.5g};{pressure[i]:.5g};{current[i]:.5g}"
        lines.append(f"{t:%Y-%m-%d %H:%M:%S};{values};{float(wrong[i])};{float(i == fault[0])}")
    file.write_text("\n".join(lines))


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site with a model of seven runs, beside two more and one at a foreign operating point."""
    folder = tmp_path_factory.mktemp("rig")
    (folder / "runs").mkdir()
    for number in range(9):
        export(folder / "runs" / f"{number}.csv", number, 5.0 + 0.2 * (number % 4))
    export(folder / "far.csv", 20, 60.0, (10_000, 10_000))
    files, site = [str(folder / "runs" / f"{i}.csv") for i in range(9)], folder / "site"
    assert main(["import", *files, "--site", str(site), "--tz", "UTC", "--label", "anomaly"]) == 0
    runs = [str(path) for path in sorted((site / "imports" / "runs" / "recordings").iterdir())]
    assert [Recording(Path(run)).kind for run in runs] == ["labelled"] * 9
    assert main(["train", "--recording", *runs[:7], "--out", str(site / "model"), "steps=0", "threads=1"]) == 0
    return site, runs[7:], folder / "far.csv"


def test_the_rest_of_the_runs_is_judged(site, capsys):
    place, kept, _ = site
    report = place / "found.json"
    assert main(["evaluate", "--model", str(place / "model"), "--recording", *kept, "--json", str(report)]) == 0
    assert "2 of 2 faults found, 0 false raises" in capsys.readouterr().out
    assert json.loads(report.read_text())["knows_little"] == {}


def test_limits_rest_on_all_runs_and_not_on_the_last_alone(site):
    made = load_checkpoint(site[0] / "model").meta
    assert made["hours"]["calibration"] < 0.25
    assert made["calibration"]["hours"] > 1.5 * made["hours"]["calibration"]


def test_a_replay_raises_in_the_fault_and_not_before(site):
    place, kept, _ = site
    lines = place / "lines.json"
    assert main(["replay", kept[0], "--model", str(place / "model"), "--json", str(lines)]) == 0
    told = [json.loads(line) for line in lines.read_text().splitlines()]
    raised = [t["t_onset_ns"] for t in told if t.get("state") == "raised"]
    (fault,) = Recording(Path(kept[0])).events
    assert raised
    assert min(raised) >= fault.onset_ns


def flags_of(model, recording):
    engine, seen = Engine(load_checkpoint(model)), []
    for frame in frames(Recording(recording)):
        engine.step(frame)
        seen.append(engine.flags)
    return seen


def test_a_stream_begins_with_learning_its_level(site):
    place, kept, _ = site
    flags = flags_of(place / "model", Path(kept[0]))
    assert any(flag.startswith(WARMING_UP) for flag in flags[200])
    assert not any(flag.startswith((WARMING_UP, KNOWS_LITTLE)) for flag in flags[300])


def test_of_a_foreign_operating_point_a_model_says_that_it_knows_little(site, capsys):
    place, _, far = site
    assert main(["import", str(far), "--site", str(place), "--tz", "UTC", "--label", "anomaly", "--parts", "1"]) == 0
    (recording,) = (place / "imports" / "far" / "recordings").iterdir()
    assert any(flag.startswith(KNOWS_LITTLE) for flag in flags_of(place / "model", recording)[300])
    report = place / "far.json"
    given = ["evaluate", "--model", str(place / "model"), "--recording", str(recording), "--json", str(report)]
    assert main(given) == 0
    assert "in 1 recordings the model knows little" in in_words(json.loads(report.read_text()))
