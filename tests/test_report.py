from types import SimpleNamespace

import numpy as np
import pytest

from fusion.training.baselines import floor_skills
from fusion.training.figures import SHOWN_H, JudgedStretch, chosen, raised_spans
from fusion.training.report import shown_tags
from fusion.training.splitting import Split, hours
from models.actions import HORIZONS
from tests.models_plant import held_out_runs, make_core, make_plant, make_run, replaced, small
from tests.small_plants import SMALL, wide_plant

MODEL = SimpleNamespace(core=make_core(), plant=make_plant(), networks=SimpleNamespace(config=small()))


@pytest.fixture(scope="module")
def floors():
    return floor_skills(MODEL, [make_run(s) for s in range(8)], held_out_runs())


def test_floors_that_know_the_moves_beat_persistence_where_moves_matter(floors):
    row = HORIZONS.index(32)
    assert set(floors) == {"arx", "cva", "pca"}
    assert all(skill.shape == (len(HORIZONS), 3) for skill in floors.values())
    assert floors["arx"][row, 0] > 0.6
    assert floors["cva"][row, 0] > 0.6
    assert floors["pca"][row, 0] < min(floors["arx"][row, 0], floors["cva"][row, 0])


def test_a_floor_finds_what_returns_to_its_mean_and_says_nothing_beyond_the_runs(floors):
    noise = [skill[HORIZONS.index(8), 2] for skill in floors.values()]
    assert noise == pytest.approx([0.5] * 3, abs=0.1)
    assert all(np.isnan(skill[HORIZONS.index(600)]).all() for skill in floors.values())


def test_the_training_period_is_shown_evenly_and_within_its_bound():
    run = make_run(0, ticks=3600)
    runs = [replaced(run, t_ns=run.t_ns + i * 10**13) for i in range(20)]
    pieces = chosen(Split(training=runs[:16], held_out=runs[16:]), with_media=False)
    assert hours([piece for _, piece in pieces]) <= SHOWN_H
    assert len(pieces) >= SHOWN_H - 1
    starts = [int(piece.t_ns[0]) for _, piece in pieces]
    assert starts[0] == runs[0].t_ns[0]
    assert starts[-1] == runs[-1].t_ns[0]
    assert {use for use, _ in pieces} == {"training", "held_out"}
    assert chosen(Split(training=runs[:2]), with_media=True) == []


def test_spans_above_the_limit_are_told_with_their_date_and_leader():
    level = np.zeros(100)
    level[20:25], level[60:70] = 3.0, 5.0
    peak = level + 0.5
    part = JudgedStretch("training", 10**9 * np.arange(100), peak, level, np.array(["a"] * 50 + ["b"] * 50))
    calibration = SimpleNamespace(threshold=2.0, step_s=1.0, on_delay_s=10.0)
    first, second = raised_spans([part], calibration)
    assert (first.t_ns, first.seconds, first.leading) == (60 * 10**9, 20.0, "b")
    assert (second.t_ns, second.seconds, second.leading) == (20 * 10**9, 15.0, "a")
    assert first.factor == pytest.approx(5.5 / 2.0)


def test_controlled_tags_are_shown_and_without_any_the_best_forecast():
    assert shown_tags(SMALL, {"skill": [[0.0, 0.9, 0.9]]}) == [0]
    assert shown_tags(wide_plant(3), {"skill": [[0.1, None, 0.3], [0.1, 0.5, 0.3]]}) == [1, 2, 0]
    assert shown_tags(wide_plant(0), {"skill": [[]]}) == []
