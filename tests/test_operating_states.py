"""Operating states are found where there are any, nowhere else, and no fault makes one."""

import dataclasses
import itertools

import numpy as np
import pytest

from control.anomaly.calibration import calibrate
from fusion.errors import ConfigError
from fusion.plant import Plant, Role, Signal
from fusion.records import Energy, Origin
from fusion.state import dump_state, load_state
from fusion.training.settings import TrainConfig
from fusion.training.splitting import split_runs
from models.networks.size import preset
from models.operating.fit import fit_states
from models.operating.levels import Operating, StateLevels
from models.operating.states import OperatingStates, StateCarry
from models.plant_model import ModelState, PlantModel
from models.training.fitter import build
from tests.grid_runs import from_process_grid
from tests.small_plants import SMALL, small_values
from tests.state_plants import CLEANS, RUNS, STANDS, STATE_PLANTS


@pytest.fixture(scope="module", params=sorted(STATE_PLANTS))
def known(request):
    """A plant, its ticks, the true state of each, and the states found in the first two weeks."""
    made = STATE_PLANTS[request.param]
    run, true = made.ticks(seed=5)
    weeks = round(2 / 3 * len(run))
    return request.param, made.plant, run, true, fit_states([run[:weeks]], made.plant)


def test_the_states_of_a_plant_are_found_and_told(known):
    name, _, run, true, states = known
    state = states.of(run)
    settled = state < len(states)
    assert settled.mean() > 0.8
    for k in range(len(states)):
        there = true[state == k]
        assert (there == np.bincount(there).argmax()).mean() > 0.9
    told = {int(np.bincount(true[state == k]).argmax()) for k in range(len(states))}
    assert told == ({RUNS, STANDS, CLEANS} if name == "reactor" else {RUNS, STANDS})
    assert all(len(words.split(", ")) == len(states.tags) for words in states.names)


def test_pieces_tell_what_the_whole_tells(known):
    *_, run, _, states = known
    carry, state = StateCarry(), states.of(run)
    pieces = [states.step(run[a : a + 997], carry) for a in range(0, len(run), 997)]
    assert np.array_equal(np.concatenate(pieces), state)


def test_a_transition_is_told_and_ends(known):
    *_, run, _, states = known
    passes = states.of(run) == len(states)
    edges = np.flatnonzero(np.diff(np.concatenate([[0], passes, [0]])))
    stays = (edges[1::2] - edges[::2])[1:]
    assert len(stays) > 1
    assert stays.max() <= 1.5 * states.longest + 61


def test_a_plant_that_only_runs_has_one_state():
    rng, t = np.random.default_rng(0), np.arange(20_000)
    steps = np.repeat(rng.choice([82.0, 84, 85, 86, 88], 200), 100)
    values = {
        "wave": np.sin(t / 300) + rng.normal(0, 0.02, len(t)),
        "saw": (t % 997) / 997.0,
        "noise": rng.normal(size=len(t)),
        "follows": steps + rng.normal(0, 0.4, len(t)),
        "blinks": (t // 20 % 2).astype(float),
        "still": np.full(len(t), 21.4),
        "dead": np.full(len(t), np.nan),
    }
    plant = Plant(name="p", signals=tuple(Signal(name=n) for n in values))
    states = fit_states([from_process_grid(plant, t * 10**9, values)], plant)
    assert len(states) == 1
    assert states.names == ("",)


def test_a_short_record_has_one_state():
    values = small_values(0, 3500)  # few setpoints: what follows them stands on levels
    assert len(fit_states([from_process_grid(SMALL, np.arange(3500) * 10**9, values)], SMALL)) == 1
    assert len(fit_states([], SMALL)) == 1


def test_a_fault_makes_no_state():
    made = STATE_PLANTS["dryer"]
    run, true = made.ticks(seed=5)
    states = fit_states([run], made.plant)
    start = int(np.flatnonzero((true == RUNS) & (np.arange(len(true)) > 4000))[2000])
    lost = run.tags.copy()
    lost[start:, 1] = 0.0  # the feed stops; nothing else says that the plant stands
    broken = dataclasses.replace(run, tags=lost)[: start + 500]
    assert set(states.of(broken)[start:]) == {int(states.of(run)[start - 1])}


def test_a_state_is_told_by_what_is_known():
    made = STATE_PLANTS["dryer"]
    run, _ = made.ticks(seed=5)
    states = fit_states([run], made.plant)
    blind = run.observed.copy()
    blind[:, 4] = False  # what says that it runs is never there
    told = states.of(dataclasses.replace(run, observed=blind))
    assert (told == states.of(run)).mean() > 0.99
    nothing = dataclasses.replace(run, observed=np.zeros_like(blind))
    assert set(states.of(nothing)) == {len(states)}


def test_what_a_plant_declares_is_taken():
    made = STATE_PLANTS["dryer"]
    run, _ = made.ticks(seed=5)
    signals = tuple(dataclasses.replace(s, operating_state=s.name == "XV1") for s in made.plant.signals)
    declared = dataclasses.replace(made.plant, signals=signals)
    states = fit_states([run], declared)
    assert states.tags == ("XV1",)
    assert len(states) == 2
    assert declared.fingerprint == made.plant.fingerprint
    assert states.names[0] in ("XV1 above 0.5", "XV1 below 0.5")


@pytest.mark.parametrize("role", [Role.MANIPULATED, Role.MEASURED])
def test_only_a_tag_can_declare_a_state(role):
    bounds = {"low": 0.0, "high": 1.0} if role is Role.MANIPULATED else {}
    if role is Role.MEASURED:
        assert Signal(name="MODE", operating_state=True).operating_state
        return
    with pytest.raises(ConfigError, match=r"'MODE': operating_state is for process tags that nobody manipulates"):
        Signal(name="MODE", role=role, operating_state=True, **bounds)


def test_energies_are_told_in_units_of_their_state():
    rng = np.random.default_rng(1)
    state = np.repeat([0, 1, 0], 1000)
    values = np.where(state == 0, 10.0, 1.0)[:, None] * (1 + rng.random((3000, 2)))
    levels = StateLevels.fit(("a", "b"), values, state, 2)
    told = levels.told(values, state)
    assert np.quantile(told[state == 0], 0.995) == pytest.approx(1.0, abs=0.01)
    assert np.quantile(told[state == 1], 0.995) == pytest.approx(1.0, abs=0.01)
    assert levels.heard(["b"]).told(values[:, 1:], state)[7, 0] == told[7, 1]
    assert list(levels.unknown) == [False, False, True]
    assert np.isnan(levels.told(values, np.full(3000, 2))).all()


def test_a_sign_of_life_that_is_always_zero_raises_in_a_state_like_everywhere():
    state = np.repeat([0, 1, 0], 1000)
    levels = StateLevels.fit(("health.process",), np.zeros((3000, 1)), state, 2)
    energies = [Energy(name="health.process", origin=Origin.ALIVE, family="health")]
    calibration = calibrate([levels.told(np.zeros((3000, 1)), state)], energies)
    dead = levels.told(np.array([[0.25]]), np.array([1]))
    assert np.isfinite(dead).all()
    assert calibration.score(dead[0]).factor[0] > 1.0


def test_what_calibrates_reaches_back_to_each_state():
    made = STATE_PLANTS["dryer"]
    run, _ = made.ticks(seed=5)
    weeks = run[: round(2 / 3 * len(run))]  # they end with a weekend
    edges = np.linspace(0, len(weeks), 13, dtype=int)
    runs = [weeks[a:b] for a, b in itertools.pairwise(edges)]
    states = fit_states(runs, made.plant)
    short = TrainConfig(calibration_share=0.14)  # the weekend alone
    plain, reaching = split_runs(runs, short), split_runs(runs, short, states)
    few = split_runs([weeks], short, states)
    running = int(states.of(runs[2]).min())
    share = [np.concatenate([states.of(r) for r in split.calibration]) == running for split in (plain, reaching, few)]
    assert share[0].mean() < 0.05
    assert share[1].mean() > 0.3
    assert share[2].mean() > 0.3


@pytest.fixture(scope="module")
def dryer_model():
    """A whole model of the dryer with networks that were never trained, and ticks it was not fitted on."""
    from rich.progress import Progress

    from fusion.training.train import fit_closed_form

    made = STATE_PLANTS["dryer"]
    run, true = made.ticks(seed=5)
    weeks = round(2 / 3 * len(run))
    edges = np.linspace(0, weeks, 13, dtype=int)
    runs = [run[a:b] for a, b in itertools.pairwise(edges)]
    states, config = fit_states(runs, made.plant), TrainConfig()
    split = split_runs(runs, config, states)
    with Progress(disable=True) as bar:
        core, monitors = fit_closed_form(made.plant, split, config.linear, bar)
    networks = build(made.plant, core, split.training, preset("demo"), 0)
    parts = (made.plant, core, monitors, networks, split.calibration, split.fitted, split.held_out)
    return PlantModel.assemble(*parts, states), run[weeks:], true[weeks:]


def test_a_model_tells_every_state_alike_and_says_when_it_changes(dryer_model):
    model, run, true = dryer_model
    names = [e.name for e in model.energies]
    heard = model.hearing([n for n in names if n.startswith(("cross", "feature", "relation", "lagged"))])
    energies, state = heard.judge(run), heard.operating.states.of(run)
    usual = [np.nanquantile(energies[state == k], 0.9, axis=0) for k in range(2)]
    assert np.all((usual[0] < 3.0) & (usual[1] < 3.0))
    seen = heard.step(run, ModelState())
    told = np.array([s.energies for s in seen])
    assert np.allclose(told, energies, equal_nan=True)
    flagged = np.array(["transition" in s.flags for s in seen])
    assert np.array_equal(flagged, state == len(heard.operating.states))
    assert flagged[1:].any()
    assert {STANDS, RUNS} == set(true[~flagged])


def test_states_and_levels_are_kept(dryer_model):
    model, run, _ = dryer_model
    arrays, tree = dump_state(model.operating)
    again = load_state(Operating, arrays, tree)
    assert again.states.names == model.operating.states.names
    assert np.array_equal(again.states.of(run[:3000]), model.operating.states.of(run[:3000]))
    arrays, tree = dump_state(Operating())
    assert load_state(Operating, arrays, tree).levels is None
    assert len(OperatingStates()) == 1
