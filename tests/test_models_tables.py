"""What a plant of tags alone needs: rhythm, tags all at once, relief, averages from their start."""

import dataclasses

import numpy as np
import pytest
import torch

from control.anomaly.calibration import SurpriseConfig, calibrate
from fusion.records import Energy, Origin
from fusion.state import dump_state, load_state
from models.actions import HORIZONS
from models.features.stem import FeatureStem
from models.linear.core import Encoding, LinearCore
from models.linear.fit import fit_core
from models.linear.past import TAG_ALPHAS, past
from models.linear.rhythm import AHEAD, WINDOW, Rhythm
from models.monitors import relief
from models.monitors.distance import Distance
from models.monitors.fit import fit_monitors, widened
from models.monitors.piece import Piece
from models.monitors.relief import Local, LocalCarry
from models.monitors.steadiness import Steadiness
from models.monitors.two_ticks import Lagged
from models.networks.linear_head import LinearHead
from models.scaling import Scaling
from tests.benchmarks.tables import plant_of, run_of
from tests.grid_runs import from_process_grid

HOUR = 3600.0


def encoding(tags):
    nothing = np.zeros((len(tags), 0))
    return Encoding(nothing, nothing, nothing, np.asarray(tags, np.float64), nothing, nothing[:, None])


def days(rows: int, seed: int = 0):
    random = np.random.default_rng(seed)
    t = np.arange(rows)
    return np.stack([np.sin(2 * np.pi * t / 24), np.cos(2 * np.pi * t / 24)], 1) + 0.1 * random.normal(size=(rows, 2))


def test_a_rhythm_foretells_days_and_streams():
    tags = days(2200)
    rhythm = Rhythm.fit([tags[:1800]], HOUR)
    assert rhythm is not None
    made = rhythm.ahead(tags[1800:1900], tags[:1800])
    assert made.shape == (100, AHEAD, 2)
    true = np.stack([tags[1800 + k : 1900 + k] - tags[1800:1900] for k in range(1, AHEAD + 1)], 1)
    assert ((made - true) ** 2).mean() < 0.1 * (true**2).mean()
    again = rhythm.ahead(tags[1850:1900], tags[1850 - WINDOW + 1 : 1850])
    np.testing.assert_allclose(again, made[50:], atol=1e-12)


def test_a_window_shorter_than_a_day_holds_no_rhythm():
    assert Rhythm.fit([days(3000)], 1.0) is None
    assert Rhythm.fit([days(500)], HOUR) is None


def test_a_core_with_rhythm_is_kept_and_streams():
    plant = plant_of("days", ("a", "b"), HOUR)
    run = run_of(plant, days(2400))
    core = fit_core([run[:2000]], plant)
    assert core.rhythm is not None
    whole, _ = core.encode(run)
    first, carry = core.encode(run[:2100])
    rest, _ = core.encode(run[2100:], carry)
    np.testing.assert_allclose(np.concatenate([first.past, rest.past]), whole.past, atol=1e-9)
    kept = load_state(LinearCore, *dump_state(core))
    np.testing.assert_allclose(kept.encode(run)[0].past, whole.past)


def test_averages_of_a_stream_start_in_equal_parts():
    plant = plant_of("p", ("a",), 1.0)
    values = np.random.default_rng(1).normal(size=(300, 1))
    run = run_of(plant, values)
    scaling = Scaling.fit([run], plant)
    made, _ = past(run, scaling)
    slowest = made.features[:, len(TAG_ALPHAS)] + made.tags[:, 0]
    assert slowest[20] == pytest.approx(made.tags[:21, 0].mean(), abs=0.05)  # not the first value


def test_tags_all_at_once_see_a_broken_relation_and_blame_it():
    random = np.random.default_rng(2)
    common = random.normal(size=(900, 1))
    tags = common + 0.05 * random.normal(size=(900, 4))
    plant = plant_of("four", "abcd", 1.0)
    lagged = Lagged.fit([encoding(tags[:600])], plant)
    wrong = tags[600:].copy()
    wrong[150:, 2] += 0.5  # half of its usual spread: no limit on the tag itself sees it

    def chart(rows, carry):
        (tight, _) = lagged.step(Piece(run_of(plant, rows), encoding(rows), None), carry)
        assert tight.energy.name == "lagged.tight"
        return tight.chart

    made = chart(wrong, lagged.begin())
    energy, share = made.energy(), made.contributions(4)
    assert energy[160:].min() > 5 * energy[20:150].max()
    assert (share[200:].mean(0).argmax()) == 2
    carry = lagged.begin()
    parts = [chart(rows, carry).energy() for rows in (wrong[:100], wrong[100:])]
    np.testing.assert_allclose(np.concatenate(parts), energy)


def test_an_energy_that_is_far_out_from_the_start_is_judged_by_what_is_usual_here():
    values = np.abs(np.random.default_rng(3).normal(size=(2000, 3)))
    found = Local.fit(values, np.ones(3, bool), np.array([True, True, False]))
    today = np.abs(np.random.default_rng(4).normal(size=(600, 3)))
    today[:, [0, 2]] *= 20.0
    today[400:, 1] *= 20.0  # begins later: a fault
    made = found.step(today, LocalCarry(begins_well=True))
    assert np.median(made[relief.FIRST_TICKS :, 0]) < found.upper[0]
    np.testing.assert_allclose(made[:, 1:], today[:, 1:])
    carry = LocalCarry(begins_well=True)
    parts = [found.step(part, carry) for part in (today[:30], today[30:31], today[31:])]
    np.testing.assert_allclose(np.concatenate(parts), made)
    assert carry.relieved is not None
    assert carry.relieved.tolist() == [True, False, False]
    assert 10.0 < carry.beyond(np.ones(3, bool)) < 40.0
    assert carry.beyond(np.array([False, True, True])) == LocalCarry().beyond(np.ones(3, bool)) == 1.0
    own = dataclasses.replace(found, begins_well=True)
    np.testing.assert_allclose(own.step(today, LocalCarry()), made)
    np.testing.assert_allclose(own.step(today, LocalCarry(begins_well=False)), today)


def test_a_rest_that_ended_by_itself_was_no_dead_sensor():
    plant = plant_of("p", ("a",), 1.0)
    random = np.random.default_rng(5)
    fine = random.normal(size=(1000, 1))
    steady = Steadiness.fit([run_of(plant, fine)])
    coarse = np.repeat(random.normal(size=(40, 1)), 30, 0)  # today the tag is recorded coarsely
    assert steady.step(run_of(plant, coarse), None)[0][60:].max() == 0.0
    dead = fine.copy()
    dead[300:] = dead[300]
    assert steady.step(run_of(plant, dead), None)[0][-1, 0] > 1.0
    assert steady.step(run_of(plant, np.ones((300, 1))), None)[0][-1, 0] > 1.0  # dead from the start


def test_raises_of_slow_plants_are_apart_by_ticks():
    random = np.random.default_rng(6)
    energy = np.repeat(random.exponential(size=(400, 1)), 10, 0)
    known = {"energies": (Energy(name="a", origin=Origin.AHEAD, family="innovation"),), "step_s": HOUR}
    apart = calibrate(energy, config=SurpriseConfig(apart_ticks=10), **known)
    each = calibrate(energy, config=SurpriseConfig(apart_ticks=1), **known)
    assert apart.blocks.shape[0] * 10 == each.blocks.shape[0]
    assert apart.threshold < each.threshold


def test_a_plant_with_one_short_run_and_no_actions_has_a_core():
    plant = plant_of("short", ("a", "b", "c"), 60.0)
    run = from_process_grid(
        plant,
        (np.arange(300) * 60_000_000_000).astype(np.int64),
        dict(zip("abc", np.random.default_rng(7).normal(size=(3, 300)), strict=True)),
    )
    core = fit_core([run], plant)
    assert np.isfinite(core.past_weights).all()
    head, nothing = LinearHead(core, torch.float64), torch.zeros(4, 60, 0, dtype=torch.float64)
    encoding, _ = core.encode(run)
    last = [torch.from_numpy(x[-1].copy()) for x in (encoding.past, encoding.tags, encoding.action, encoding.waiting)]
    course = head.course(last[0], last[1], nothing, *last[2:])
    made = core.scaling.tags.engineering(encoding.tags[-1] + head.between_GH.numpy() @ core.base(encoding[-1:])[0])
    np.testing.assert_allclose(course, np.tile(made, (4, 1, 1)))
    assert head.summary(nothing, *last[2:]).shape == (4, len(HORIZONS), 0)


def test_a_column_that_later_leaves_its_spread_by_far_does_not_deafen_the_others():
    """The output of a controller follows exactly from its tags while nobody moves its setpoint."""
    random = np.random.default_rng(11)
    tight = random.normal(size=(2000, 3)) * [1.0, 1.0, 1e-4]
    later = random.normal(size=(1000, 3)) * [1.5, 1.0, 0.5]
    narrow = Distance.fit(tight, np.arange(3))
    assert np.median(narrow.energy(later)) > 1e5
    wide = narrow.widened(later)
    assert 0.2 < np.median(wide.energy(later)) < 2.0
    off = later + np.array([0.0, 8.0, 0.0])
    assert np.quantile(wide.energy(later), 0.99) < np.median(wide.energy(off))
    assert (wide.contributions(off, 3)[:, 1] > 0.5).mean() > 0.9
    np.testing.assert_array_equal(np.diag(wide.precision)[:2], np.diag(narrow.precision)[:2])  # within its spread


def test_a_distance_that_holds_later_stays_as_it_is():
    random = np.random.default_rng(12)
    fitted = Distance.fit(random.normal(size=(2000, 3)))
    assert fitted.widened(random.normal(size=(500, 3)) * 5.0) is fitted
    assert fitted.widened(np.zeros((0, 3))) is fitted
    still = Distance.fit(np.zeros((100, 2)))
    assert still.widened(np.ones((50, 2))) is still


def test_limits_that_later_normal_runs_leave_by_far_are_widened_and_others_are_not():
    """Of a whole plant: an output follows its tag exactly until its setpoint is moved, which is no fault."""
    plant = plant_of("p", ("a", "b", "out"), 1.0)

    def made(seed, setpoint):
        random = np.random.default_rng(seed)
        a, b = (np.cumsum(random.normal(size=1500)) * 0.05 + random.normal(size=1500) * 0.05 for _ in range(2))
        return run_of(plant, np.stack([a, a + b, 2.0 * (setpoint - a)], 1))

    runs, later = [made(i, 0.0) for i in range(4)], [made(i, np.repeat([0.0, 30.0, -30.0], 500)) for i in (7, 8)]
    core = fit_core(runs, plant)
    narrow = fit_monitors(runs, core, plant, FeatureStem(plant))

    same, wide = widened(narrow, [made(9, 0.0)]), widened(narrow, later)
    names, moved = [energy.name for energy in narrow.energies], made(10, np.repeat([0.0, 30.0, -30.0], 500))

    def typical(monitors):
        return np.nanquantile(monitors.step(moved, core.encode(moved)[0])[0].values, 0.9, axis=0)

    before, unmoved, after = (typical(monitors) for monitors in (narrow, same, wide))
    np.testing.assert_array_equal(unmoved, before)
    for name in ("innovation.1", "relation.0.1"):
        row = names.index(name)
        assert before[row] > 20.0, name
        assert after[row] < 0.2 * before[row], name
