"""Balances that nobody declared: found in normal runs, broken by what is lost or measured wrongly, otherwise quiet."""

import numpy as np
import pytest

from fusion.state import dump_state, load_state
from models.linear.fit import fit_core
from models.monitors.accumulation import MEMORY_S, SETTLED, Accumulations
from models.monitors.piece import piece
from tests.benchmarks.tables import plant_of, run_of

TAGS = ("LEVEL", "IN", "OUT", "ELSEWHERE")
PLANT = plant_of("tank", TAGS, 1.0)
LEVEL, OUT = TAGS.index("LEVEL"), TAGS.index("OUT")


def run(seed, ticks=3000, leak=0.0, bias=0.0):
    """A tank whose level a loop keeps with its outflow; what is wrong comes half-way."""
    random = np.random.default_rng(seed)
    feed = 1.0 + 0.3 * np.cumsum(0.03 * random.normal(size=ticks)) / 3.0
    level, total, rows = 50.0, 0.0, []
    for now in range(ticks):
        late = now >= ticks // 2
        seen = level + bias * late
        total += 0.0002 * (seen - 50.0)
        out = float(np.clip(1.0 + 0.05 * (seen - 50.0) + total, 0.0, 3.0))
        level += 0.1 * (feed[now] - out - leak * late)
        rows.append((seen, feed[now], out))
    values = np.concatenate([np.array(rows), random.normal(size=(ticks, 1))], 1)
    values += np.array([0.1, 0.01, 0.01, 0.0]) * random.normal(size=values.shape)
    return run_of(PLANT, values)


def fitted(core, runs):
    return Accumulations.fit([(core.encode(r)[0], r.observed) for r in runs], PLANT)


@pytest.fixture(scope="module")
def learned():
    runs = [run(seed) for seed in range(6)]
    core = fit_core(runs, PLANT)
    return core, fitted(core, runs)


def judged(learned, ticks, pieces=1):
    """The energy [T] and shares [T, S] of a stream that comes in so many pieces."""
    core, found = learned
    encoding, carry, made = core.encode(ticks)[0], found.begin(), []
    for part in np.array_split(np.arange(len(ticks)), pieces):
        rows = slice(int(part[0]), int(part[-1]) + 1)
        made.append(found.step(piece(ticks[rows], encoding[rows], core.scaling, {}, {}), carry)[0].chart)
    return np.concatenate([c.energy() for c in made]), np.concatenate([c.contributions(len(TAGS)) for c in made])


def test_the_balance_of_the_tank_is_found_and_no_other(learned):
    level = next(one for one in learned[1].found if one.tag == LEVEL)
    assert {TAGS[i] for i in level.inputs} >= {"IN", "OUT"}
    assert all(one.tag != TAGS.index("ELSEWHERE") for one in learned[1].found)


def test_normal_runs_close_it(learned):
    for seed in (20, 21):
        energy, _ = judged(learned, run(seed))
        assert not energy[: round(SETTLED * MEMORY_S)].any()
        assert energy.max() < 2.0


def test_a_leak_that_the_loop_makes_up_for_stands_out_and_stays(learned):
    energy, share = judged(learned, run(22, leak=0.15))
    assert energy[:1500].max() < 2.0
    assert energy[2500:].min() > 3.0
    assert share[2800].sum() == pytest.approx(1.0)
    assert share[2800].argmin() == TAGS.index("ELSEWHERE")


def test_a_level_measured_wrongly_stands_out_while_the_loop_follows_it(learned):
    energy, _ = judged(learned, run(23, bias=4.0))
    assert energy[1500:1600].max() > 3.0
    assert energy[2500:].max() < 2.0


def test_in_pieces_as_at_once_and_kept_in_a_checkpoint(learned):
    core, found = learned
    ticks = run(24, ticks=900, leak=0.2)
    whole = judged(learned, ticks)[0]
    assert np.allclose(whole, judged(learned, ticks, pieces=23)[0])
    again = load_state(Accumulations, *dump_state(found, ("plant",)), {"plant": PLANT})
    assert np.allclose(whole, judged((core, again), ticks)[0])


def test_what_is_not_observed_says_nothing(learned):
    ticks = run(25, leak=0.2)
    ticks.observed[2000:, OUT] = False
    energy, _ = judged(learned, ticks)
    assert energy[1990] > 3.0
    assert energy[2200:].max() < 1.0


def test_of_few_runs_too_and_nothing_of_none():
    runs = [run(30)]
    core = fit_core(runs, PLANT)
    assert fitted(core, runs).found
    assert not fitted(core, []).found
    assert not fitted(core, [run(31, ticks=200)]).found


def test_a_tag_whose_values_come_late_breaks_no_balance(learned):
    ticks = run(26)
    ticks.observed[:50] = False
    ticks.observed[:120, OUT] = False
    ticks.tags[~ticks.observed] = 0.0
    for pieces in (1, 40):
        energy, _ = judged(learned, ticks, pieces)
        assert energy.max() < 2.0
    ticks.observed[:, OUT] = False
    assert not judged(learned, ticks)[0].any()
