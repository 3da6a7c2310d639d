"""Whether the interval of a gain is honest: of many models of one plant, how many hold the true saving in it."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch

from control.advice.objective import Objective, ObjectiveConfig
from fusion.plant import Plant, Role, Signal
from fusion.records import ACTION_STEPS
from fusion.state import dump_state, load_state
from fusion.targets import Target
from models.actions import HORIZONS, course_ticks
from models.linear.core import LinearConfig, LinearCore
from models.linear.fit import fit_core
from models.linear.standing import HEEDED, Lately, averaged_ticks, standing_error
from models.networks.linear_head import LinearHead
from models.networks.plan_head import PlanHead
from tests.grid_runs import from_process_grid

TICKS, LAG_TICKS, GAIN, STEP_S = 420, 8.0, 2.0, 10.0
COURSE_S = tuple(k * STEP_S for k in course_ticks(STEP_S))


def make_plant():
    return Plant(
        name="wandering",
        step_s=STEP_S,
        signals=(
            Signal(name="T", unit="Cel", role=Role.CONTROLLED, period_s=STEP_S),
            Signal(name="SP", role=Role.MANIPULATED, low=0.0, high=10.0, max_rate=1.0, period_s=STEP_S),
        ),
        targets=(Target(signal="T", setpoint=63.0, scale=1.0, weight=1.0),),
    )


def wandering_run(seed, ticks=TICKS, levels=None):
    """T follows SP with a lag, on a load that wanders slowly and that nobody measures."""
    rng = np.random.default_rng(seed)
    sp = levels or rng.uniform(3, 7, ticks)[np.cumsum(rng.random(ticks) < 1 / 40)]
    slow, load, seen = GAIN * sp[0], rng.normal(0, 0.5), np.zeros(ticks)
    for t in range(ticks):
        slow += (GAIN * sp[t] - slow) / LAG_TICKS
        load += -load / 50 + rng.normal(0, 0.1)
        seen[t] = 50 + slow + load + rng.normal(0, 0.02)
    return from_process_grid(make_plant(), np.arange(1, ticks + 1) * round(STEP_S * 1e9), {"T": seen, "SP": sp})


@dataclass
class Told:
    """What one model says of a move, by its own fits and by its band alone."""

    by_fits: tuple[float, float, float]
    by_band: tuple[float, float, float]
    true: float


class Learned:
    """A model of runs of its own, at rest on a load of that day."""

    def __init__(self, seed):
        self.plant = make_plant()
        runs = [wandering_run(1000 * seed + i) for i in range(6)]
        self.core = fit_core(runs, self.plant, LinearConfig(ranks=(4,), variates=8))
        still = np.ones(self.core.offset.shape, bool)
        self.head, self.plan = LinearHead(self.core, torch.float64, still), PlanHead(self.core, still)
        self.now = wandering_run(1000 * seed + 900, levels=[5.0] * TICKS)
        self.trail = self.core.encode(self.now)[0]

    def told(self, move):
        """A lasting move, against the saving that is to be expected."""
        paths = torch.full((2, ACTION_STEPS, 1), 5.0, dtype=torch.float64)
        paths[0] += move
        seen = self.trail
        last = [torch.from_numpy(x[-1].copy()) for x in (seen.past, seen.tags, seen.action, seen.waiting)]
        missed = self.plan.along(self.plan.standing(seen))
        course = (self.head.course(*last[:2], paths, *last[2:]) + missed).float()
        objective = Objective(self.plant, ("T",), ("SP",), COURSE_S, ObjectiveConfig(gain_error=0.0))
        half = np.interp(COURSE_S, np.array(HORIZONS) * STEP_S, self.core.band()[:, 0])
        band = torch.from_numpy(half).float()[:, None]
        gains = [objective.gain(*course, band, 0.0, fits) for fits in (self.plan.fits(seen, paths).float(), None)]
        cost = objective.outcome(self.expected(move))
        return Told(*gains, true=float(cost[1] - cost[0]))

    def expected(self, move):
        """With the move and without [2, G, 1]: the load is to be expected to fade."""
        k = np.arange(1, ACTION_STEPS + 1)
        free = 60.0 + (float(self.now.tags[-1, 0]) - 60.0) * (1 - 1 / 50) ** k
        moved = free + GAIN * move * (1 - (1 - 1 / LAG_TICKS) ** k)
        return torch.from_numpy(np.stack([moved, free])).float()[..., None]


@pytest.fixture(scope="module")
def models():
    return [Learned(seed) for seed in range(30)]


@pytest.mark.parametrize("move", [0.5, 1.5])
def test_the_interval_holds_the_true_saving_about_as_often_as_it_says(models, move):
    told = [model.told(move) for model in models]
    inside = np.mean([t.by_fits[1] <= t.true <= t.by_fits[2] for t in told])
    assert 0.7 <= inside <= 0.98
    widths = [[high - low for _, low, high in (t.by_fits, t.by_band)] for t in told]
    assert np.median(widths, axis=0)[0] < 0.7 * np.median(widths, axis=0)[1]


def test_fits_differ_and_lie_about_the_model(models):
    model, tags = models[0], make_plant().tags
    paths = torch.full((1, ACTION_STEPS, 1), 5.0, dtype=torch.float64)
    fits = model.plan.fits(model.trail, paths)
    assert fits.shape == (6, 1, len(COURSE_S), len(tags))
    assert torch.isfinite(fits).all()
    assert (fits.std(0) > 0).all()
    kept = load_state(LinearCore, *dump_state(model.core))
    np.testing.assert_array_equal(kept.folds.planned, model.core.folds.planned)


def test_of_signals_that_fits_do_not_tell_of_the_band_counts():
    plant = make_plant()
    objective = Objective(plant, ("T",), ("SP",), COURSE_S, ObjectiveConfig(gain_error=0.0))
    plan, rest = torch.full((60, 1), 61.0), torch.full((60, 1), 60.0)
    band = torch.full((60, 1), 0.5)
    unknown = torch.full((6, 2, 60, 1), torch.nan)
    assert objective.gain(plan, rest, band, 0.0, unknown) == objective.gain(plan, rest, band, 0.0)
    agreed = torch.stack([plan, rest]).expand(6, -1, -1, -1)
    assert objective.gain(plan, rest, band, 0.0, agreed) == pytest.approx((5.0, 5.0, 5.0))


def test_what_was_missed_lately_is_made_good_for_by_half(models):
    core, trail = models[0].core, models[0].trail
    ticks = averaged_ticks(core.step_s)
    known = standing_error(core, trail)
    rows = [row for row, k in enumerate(HORIZONS) if k + ticks < len(trail)]
    for row in rows:
        foretold, came = core.hindcast(trail[-HORIZONS[row] - ticks :], HORIZONS[row])
        np.testing.assert_allclose(known[row], HEEDED * (came - foretold).mean(0))
    np.testing.assert_array_equal(known[-1], known[rows[-1]])


def test_a_stream_keeps_its_last_ticks_whatever_the_pieces(models):
    trail, lately = models[0].trail, Lately(50)
    for begin in range(0, 300, 7):
        lately.take(trail[begin : begin + 7])
    np.testing.assert_array_equal(lately.trail().tags[-50:], trail.tags[251:301])
    assert len(lately.trail()) < 57
    lately.restart()
    assert len(lately.trail()) == lately.ticks == 1
