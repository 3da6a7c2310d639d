import dataclasses

import numpy as np
import pytest

from fusion.plant import Plant, Role, Signal
from fusion.state import dump_state, load_state
from models.linear.fit import fit_core
from models.monitors.piece import piece
from models.monitors.relations import Relations
from tests.grid_runs import from_process_grid

TAGS = ("SPEED", "FLOW", "POWER", "TEMP_A", "TEMP_B", "OTHER")
EDGES = (("SPEED", "FLOW"), ("SPEED", "POWER"), ("FLOW", "POWER"), ("TEMP_A", "TEMP_B"), ("TEMP_B", "FLOW"))


def make_plant(edges=EDGES):
    signals = [Signal(name=name, machine=name == "SPEED") for name in TAGS]
    signals[1] = dataclasses.replace(signals[1], device="meter")
    return Plant(
        name="pump", signals=(*signals, Signal(name="SP", role=Role.MANIPULATED, low=0.0, high=2.0)), edges=edges
    )


def run(plant, seed, ticks=1500, **offsets):
    """A pump: power is a product of speed and flow, which no linear relation holds; offsets come half-way."""
    rng = np.random.default_rng(seed)
    sp = rng.uniform(0.5, 1.5, ticks)[np.cumsum(rng.random(ticks) < 1 / 80) % ticks]
    speed = np.convolve(sp, np.ones(10) / 10, "full")[:ticks]
    flow = speed * (1.0 + 0.2 * np.sin(np.arange(ticks) / 200))
    warm = np.convolve(flow, np.ones(40) / 40, "full")[:ticks]
    values = {"SPEED": speed, "FLOW": flow, "POWER": speed * flow, "TEMP_A": 80 + warm, "TEMP_B": 80 + warm, "SP": sp}
    values["OTHER"] = rng.normal(size=ticks)
    for name in TAGS[:5]:
        values[name] = values[name] + rng.normal(0, 0.01, ticks)
        values[name][ticks // 2 :] += offsets.get(name, 0.0)
    return from_process_grid(plant, (np.arange(ticks) + 1) * 10**9, values)


def fitted(plant):
    runs = [run(plant, seed) for seed in range(4)]
    core = fit_core(runs, plant)
    known = [(core.encode(r)[0], r.observed) for r in runs]
    return core, Relations.fit(known, plant, core.past_scaler.scale)


@pytest.fixture(scope="module")
def learned():
    return fitted(make_plant())


def judged(learned, ticks):
    core, relations = learned
    return charts(relations, piece(ticks, core.encode(ticks)[0], core.scaling, {}, {}), relations.begin())


def charts(relations, read, carry):
    """Residuals over their limits and shares, by energy."""
    made = relations.step(read, carry)
    return {r.energy.name: (r.chart.values, r.chart.contributions(len(TAGS) + 1)) for r in made}


def test_normal_runs_stay_within_their_limits(learned):
    for over, _ in judged(learned, run(make_plant(), 9)).values():
        assert np.abs(over[120:]).max() < 2.5


def test_a_product_is_learned_so_that_a_small_offset_of_power_stands_out(learned):
    over, share = judged(learned, run(make_plant(), 9, POWER=0.05))["relation.0.02"]
    assert np.abs(over[1000:]).max() > 3
    assert share[1400, TAGS.index("POWER")] > 0.8


def test_the_share_names_the_wrong_thermometer_and_its_partner_only(learned):
    _, share = judged(learned, run(make_plant(), 9, TEMP_A=0.3))["relation.0.02"]
    last = share[1400]
    assert last[TAGS.index("TEMP_A")] > 0.8
    assert last[TAGS.index("POWER")] < 0.2


def test_a_tag_without_neighbours_has_no_relation_and_an_unobserved_one_no_residual(learned):
    _, relations = learned
    assert TAGS.index("OTHER") not in {r.tag for r in relations.relations}
    ticks = run(make_plant(), 9)
    blind = dataclasses.replace(ticks, observed=np.zeros_like(ticks.observed))
    over, _ = judged(learned, blind)["relation.0.1"]
    assert not over.any()


def test_without_a_graph_the_most_correlated_signals_are_neighbours():
    _, relations = fitted(make_plant(edges=()))
    assert {r.tag for r in relations.relations} == set(range(len(TAGS))) - {TAGS.index("OTHER")}


def test_state_round_trip_and_chunks(learned):
    core, relations = learned
    again = load_state(Relations, *dump_state(relations, ("plant",)), {"plant": make_plant()})
    ticks = run(make_plant(), 9, POWER=0.05)
    whole = judged(learned, ticks)
    encoding, carry, parts = core.encode(ticks)[0], relations.begin(), []
    for start in range(0, len(ticks), 37):
        part = slice(start, start + 37)
        parts.append(charts(again, piece(ticks[part], encoding[part], core.scaling, {}, {}), carry))
    for name in whole:
        for i in range(2):
            joined = np.concatenate([p[name][i] for p in parts])
            np.testing.assert_allclose(joined, whole[name][i], atol=1e-9)
