"""Limits from what was fitted on: each part by monitors that have not seen it."""

import dataclasses
from types import SimpleNamespace

import numpy as np
import pytest

from fusion.training import crossing
from fusion.training.crossing import ENOUGH_H, FOLDS, FOLDS_OF_MANY, LEAST_TICKS, Part, _without, crossed, folds
from fusion.training.settings import TrainConfig
from fusion.training.splitting import FEW, SHORTEST, Split
from models.features.stem import FeatureStem
from models.linear.fit import fit_core
from models.monitors.fit import fit_monitors
from models.operating.levels import Operating
from tests.grid_runs import from_process_grid
from tests.small_plants import SMALL, small_values

START_NS = 1_700_000_000 * 10**9


def small_run(seed, ticks):
    return from_process_grid(SMALL, START_NS + seed * 10**13 + np.arange(ticks) * 10**9, small_values(seed, ticks))


@pytest.fixture(scope="module")
def runs():
    return [small_run(seed, 1200) for seed in range(2)]


@pytest.fixture(scope="module")
def model(runs):
    monitors = fit_monitors(runs, fit_core(runs, SMALL), SMALL, FeatureStem(SMALL))
    return SimpleNamespace(plant=SMALL, monitors=monitors, energies=monitors.energies, operating=Operating())


def test_many_runs_are_left_out_whole_and_few_by_quarters_of_the_time():
    assert folds([500] * FEW, FOLDS) == [[Part(0, 0, 500), Part(1, 0, 500)], *([Part(i, 0, 500)] for i in (2, 3, 4))]
    assert folds([4000], FOLDS) == [[Part(0, 1000 * i, 1000 * (i + 1))] for i in range(FOLDS)]
    two = folds([1500, 2500], FOLDS)
    assert two[1] == [Part(0, 1000, 1500), Part(1, 0, 500)]
    assert sum(p.end - p.start for fold in two for p in fold) == 4000
    assert folds([], FOLDS) == []
    assert all(p.end - p.start >= SHORTEST for fold in folds([SHORTEST * 4 + 10, 90], FOLDS) for p in fold)


def test_what_is_left_without_a_fold_is_runs_of_their_own():
    kept = _without([small_run(0, 1000), small_run(1, 400)], [Part(0, 400, 600)])
    assert [len(run) for run in kept] == [400, 400, 400]
    assert all(len(run) >= LEAST_TICKS for run in _without([small_run(0, 1000)], [Part(0, 100, 350)]))


def test_two_runs_of_a_first_hour_set_limits_by_all_their_ticks(runs, model):
    split = Split(training=runs, held_out=[], calibration=[small_run(9, 300)])
    found = crossed(model, split, TrainConfig())
    assert sum(map(len, found)) == sum(map(len, runs))
    assert {part.shape[1] for part in found} == {len(model.energies)}
    relations = [e.name for e in model.energies].index("relation.0.1")
    known = np.concatenate([part[:, relations] for part in found])
    own = np.concatenate(
        [model.monitors.step(r, model.monitors.core.encode(r)[0])[0].values[:, relations] for r in runs]
    )
    assert np.isfinite(known).sum() == np.isfinite(own).sum()
    assert np.nanquantile(known, 0.99) > np.nanquantile(own, 0.99)


@pytest.mark.parametrize(("many", "fits"), [(1, FOLDS_OF_MANY), (len(SMALL.tags), FOLDS)])
def test_many_tags_are_fitted_on_halves_and_all_ticks_judged_all_the_same(runs, model, monkeypatch, many, fits):
    count = []
    fitted = crossing._fitted
    monkeypatch.setattr(crossing, "MANY_TAGS", many)
    monkeypatch.setattr(crossing, "_fitted", lambda *given: count.append(1) or fitted(*given))
    found = crossed(model, Split(training=runs, calibration=[]), TrainConfig())
    assert len(count) == fits
    assert sum(map(len, found)) == sum(map(len, runs))


def test_hours_that_calibrate_are_enough(runs, model):
    hours = dataclasses.replace(runs[0], t_ns=runs[0].t_ns[0] + np.arange(1200) * round(ENOUGH_H * 3.1e9))
    assert crossed(model, Split(training=runs, calibration=[hours]), TrainConfig()) == []


def test_runs_too_short_to_learn_from_set_no_limits(model):
    assert crossed(model, Split(training=[small_run(i, 200) for i in range(3)]), TrainConfig()) == []
