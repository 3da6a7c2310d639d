"""Plants of random flowsheets: what is drawn, what flows, what operators and faults do, and what instruments say."""

import itertools

import numpy as np
import pytest

from fusion.errors import ConfigError
from fusion.plant import Role
from fusion.simulator.flowsheets.blocks import Exchanger, Feed, Filter, Kettle, Pipe, Stream, Vessel, joined
from fusion.simulator.flowsheets.drawing import draw
from fusion.simulator.flowsheets.playing import SENSOR_FAULTS, Course, Trouble, played, troubles_of

ROOM = np.full(1, 20.0)


def stream(flow=1.0, temperature=20.0, share=0.5):
    return Stream(np.full(1, flow), np.full(1, temperature), np.full(1, share))


def tank(**more):
    made = Kettle(mass=200.0, capacity=2.0, usual=20.0, loss_kw_k=0.0, pumped=True, **more)
    return Vessel(1, made, share=0.5, opening=0.5, heat=0.5, lag_s=2.0)


def run(block, seconds, inlet, *more):
    for _ in range(seconds):
        block.second(inlet, *more)
    return block


def test_streams_join_by_their_mass():
    both = joined([stream(1.0, 20.0, 0.0), stream(3.0, 60.0, 1.0)])
    assert (both.flow[0], both.temperature[0], both.share[0]) == (4.0, 50.0, 0.75)


def test_a_vessel_keeps_its_mass_balance():
    vessel = tank()
    vessel.valve.command[:] = 0.4
    before, out = vessel.mass.copy(), 0.0
    for _ in range(100):
        vessel.second(stream(1.0), ROOM)
        out += vessel.outlet.flow
    assert vessel.mass - before == pytest.approx(100.0 - out)
    assert vessel.level == pytest.approx(50.0 * vessel.mass / 200.0)


def test_what_leaks_is_missing_at_the_outlet():
    whole, leaking = tank(), tank()
    leaking.wrong["leak"] = np.ones(1)
    for vessel in (whole, leaking):
        run(vessel, 100, stream(1.0), ROOM)
    assert whole.mass - leaking.mass == pytest.approx(0.2 * 100.0)


def test_a_heater_reaches_the_temperature_of_its_heat_balance():
    heater = run(tank(duty_kw=167.2), 3000, stream(1.0), ROOM)
    assert heater.temperature[0] == pytest.approx(20.0 + 0.5 * 167.2 / 4.18, abs=0.1)
    heater.wrong["fouled"] = np.ones(1)
    assert run(heater, 3000, stream(1.0), ROOM).temperature[0] == pytest.approx(30.0, abs=0.1)


def test_a_reaction_turns_its_component_and_warms():
    reactor = run(tank(rate_s=0.01, activation_k=0.0, adiabatic_k=30.0), 5000, stream(1.0, share=0.6), ROOM)
    assert reactor.share[0] == pytest.approx(0.2, abs=0.01)  # c = c0 / (1 + k tau), tau 200 s
    assert reactor.temperature[0] == pytest.approx(20.0 + 30.0 * 0.4, abs=0.3)


def test_an_exchanger_nears_its_utility_the_more_it_opens():
    exchanger = Exchanger(1, utility=100.0, ua_kw_k=4.18, opening=0.5, hold_s=20.0, lag_s=2.0)
    run(exchanger, 500, stream(1.0))
    assert exchanger.outlet.temperature[0] == pytest.approx(100.0 - 80.0 * np.exp(-0.5), abs=0.1)


def test_a_pipe_is_late_and_a_belt_too():
    pipe = Pipe(1, delay_s=30, loss=0.0)
    seen = [run(pipe, 1, stream(temperature=50.0), ROOM).outlet.temperature[0] for _ in range(40)]
    assert seen.index(50.0) == 30
    feed = Feed(1, capacity=2.0, start=0.5, temperature=20.0, share=0.5, lag_s=1.0, belt_s=10)
    feed.drive.command[:] = 1.0
    flows = []
    for _ in range(20):
        feed.second(np.ones(1), np.zeros(1), np.zeros(1))
        flows.append(float(feed.outlet.flow[0]))
    assert flows[:10] == [1.0] * 10
    assert flows[10] == 2.0


def test_a_filter_fills_and_is_cleaned():
    cake = Filter(1, drop_kpa=20.0, usual_flow=1.0, full_s=100.0, start=0.0)
    drops = [float(run(cake, 1, stream(1.0)).drop[0]) for _ in range(210)]
    assert max(drops) == pytest.approx(40.0, abs=0.5)
    assert sum(b < a for a, b in itertools.pairwise(drops)) == 2


def test_a_stuck_valve_stays_where_it_is():
    vessel = tank()
    vessel.wrong["valve_stuck"] = np.ones(1)
    vessel.valve.command[:] = 1.0
    assert run(vessel, 60, stream(1.0), ROOM).valve.position[0] == 0.5


@pytest.mark.parametrize("seed", range(12))
def test_each_seed_is_a_plant_that_runs(seed):
    plant, again = draw(seed).plant, draw(seed).plant
    assert plant == again
    assert 8 <= len(plant.signals) <= 80
    assert plant.actions or seed
    read = played(seed, [Course(seed=1, interval_s=600.0), Course(seed=2)], 900, warm_up_s=900)
    assert read.shape == (900, len(plant.signals), 2)
    assert np.isfinite(read).all()
    low, high = (np.array([getattr(s, side) for s in plant.signals]) for side in ("low", "high"))
    inside = (read > (low - 0.05 * (high - low))[:, None]) & (read < (high + 0.2 * (high - low))[:, None])
    assert inside.mean() > 0.99
    for i, signal in enumerate(plant.signals):
        if signal.role is Role.MANIPULATED:
            assert np.abs(np.diff(read[:, i], axis=0)).max() <= signal.max_rate * (1 + 1e-9)


def test_plants_differ():
    plants = [draw(seed).plant for seed in range(12)]
    assert len({tuple(s.name for s in p.signals) for p in plants}) > 10


def test_rows_are_alike_but_for_their_own_fault():
    signal = next(s.name for s in draw(3).plant.tags if s.name.startswith("TT"))
    fault = Trouble(name="bias", at=signal, onset_s=100.0, end_s=200.0)
    read = played(3, [Course(seed=1), Course(seed=1, troubles=(fault,))], 150, warm_up_s=60)
    at = [s.name for s in draw(3).plant.signals].index(signal)
    span = draw(3).plant.by_name[signal].high - draw(3).plant.by_name[signal].low
    apart = read[:, :, 1] - read[:, :, 0]
    assert not apart[:100].any()
    assert apart[100, at] == pytest.approx(0.06 * span)


@pytest.mark.parametrize("name", SENSOR_FAULTS)
def test_faults_of_instruments(name):
    free = next(s.name for s in draw(3).plant.tags if s.role is Role.DISTURBANCE)  # no loop answers to it
    fault = Trouble(name=name, at=free, onset_s=60.0)
    at = [s.name for s in draw(3).plant.signals].index(fault.at)
    read = played(3, [Course(seed=1), Course(seed=1, troubles=(fault,))], 400, warm_up_s=60)[:, at]
    good, wrong = read[60:, 0], read[60:, 1]
    told = {
        "bias": (wrong - good).min() > 0,
        "drift": (wrong - good).max() < 0,
        "scaled": np.allclose(wrong, 1.12 * good),
        "noisy": np.diff(wrong).std() > 4 * np.diff(good).std(),
        "frozen": np.ptp(wrong) == 0,
    }
    assert told[name]


def test_troubles_are_some_that_the_plant_can_have():
    troubles = troubles_of(7, 20, 100.0, 200.0)
    assert troubles == troubles_of(7, 20, 100.0, 200.0)
    assert len({t.name for t in troubles}) > 5
    played(7, [Course(seed=1, troubles=(t,)) for t in troubles], 1, warm_up_s=1)


def test_a_fault_that_cannot_be_is_refused():
    fault = Trouble(name="leak", at="Feed 1", onset_s=0.0)
    with pytest.raises(ConfigError, match=r"fault 'leak' of 'Feed 1': expected one of bias"):
        played(0, [Course(seed=1, troubles=(fault,))], 1)
