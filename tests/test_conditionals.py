"""Rules that no line tells: found in data, heard when broken, silent where there are none."""

import dataclasses

import numpy as np
import pytest
from scipy.signal import lfilter

from fusion.plant import Modality, Plant, Role, Signal
from fusion.state import dump_state, load_state
from models.features.stem import FeatureStem
from models.linear.fit import fit_core
from models.monitors.conditionals import LEVELS, Conditionals, Table, _edges
from models.monitors.fit import fit_monitors
from models.monitors.monitors import MonitorCarry
from models.monitors.piece import piece
from tests.grid_runs import from_process_grid

PLANT = Plant(
    name="flap",
    signals=(
        *(Signal(name=name) for name in ("XS1", "XS2", "ZS3", "TT1", "TT2", "TT3")),
        Signal(name="FC1.SP", role=Role.MANIPULATED, low=0.0, high=10.0),
    ),
)
CAMERA = Signal(name="cam", modality=Modality.VIDEO, shape=(8, 8))
TICKS = 1500


def dwell(rng, ticks=TICKS):
    return (rng.random(ticks) < 0.01).cumsum() % 2


def ruled_run(seed, broken=slice(0, 0), rule=True, observed=None):
    """ZS3 is on where exactly one of XS1 and XS2 is, unless ``broken``; three temperatures move together."""
    rng = np.random.default_rng(seed)
    one, two = dwell(rng), dwell(rng)
    three = one ^ two if rule else dwell(rng)
    three[broken] = 1 - three[broken]
    warm = np.cumsum(rng.normal(0, 0.05, TICKS))
    names = ("XS1", "XS2", "ZS3", "TT1", "TT2", "TT3")
    values = np.stack([one, two, three, warm, 2 * warm, -warm], 1) + rng.normal(0, 0.03, (TICKS, 6))
    t_ns = np.arange(1, TICKS + 1) * 10**9
    given = {**dict(zip(names, values.T, strict=True)), "FC1.SP": np.full(TICKS, 5.0)}
    return from_process_grid(PLANT, t_ns, given, observed=observed)


@pytest.fixture(scope="module")
def core():
    return fit_core([ruled_run(seed) for seed in range(6)], PLANT)


@pytest.fixture(scope="module")
def found(core):
    return Conditionals.fit([read(core, ruled_run(seed)) for seed in range(6)], (), PLANT)


def read(core, run):
    return piece(run, core.encode(run)[0], core.scaling, {}, {})


def energy(found, core, run):
    return found.step(read(core, run), found.begin())[0].chart


def test_a_rule_of_three_is_found_and_its_breach_is_heard_and_blamed(core, found):
    assert {table.target for table in found.tables["process"]} == {0, 1, 2}
    calm = energy(found, core, ruled_run(50)).energy()[200:]
    chart = energy(found, core, ruled_run(50, slice(700, 800)))
    assert chart.energy()[715:800].min() > 2 * calm.max()
    assert chart.contributions(7)[750, :3].sum() == pytest.approx(1.0)
    assert chart.energy()[900:].max() < 1.5 * calm.max()


def test_linear_relations_make_no_tables(core):
    pieces = [read(core, ruled_run(seed, rule=False)) for seed in range(6)]
    none = Conditionals.fit(pieces, (), PLANT)
    assert none.tables == {"process": ()}
    assert not energy(none, core, ruled_run(50, slice(700, 800))).energy().any()


def wandering_runs(seed, count=9, memory=9000):
    """Pieces of one course: seven levels that wander for hours, each by itself."""
    rng, ticks = np.random.default_rng(seed), count * TICKS
    pushed = rng.normal(0, np.sqrt(2 / memory), (ticks, 7))
    levels = lfilter([1.0], [1.0, 1 / memory - 1], pushed, axis=0) + rng.normal(0, 0.03, (ticks, 7))
    names = [signal.name for signal in PLANT.signals]
    for k in range(count):
        part = slice(k * TICKS, (k + 1) * TICKS)
        yield from_process_grid(
            PLANT, np.arange(part.start + 1, part.stop + 1) * 10**9, dict(zip(names, levels[part].T, strict=True))
        )


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_levels_that_wander_each_by_itself_make_no_tables(core, seed):
    pieces = [read(core, run) for run in wandering_runs(seed)]
    assert Conditionals.fit(pieces, (), PLANT).tables == {"process": ()}


def test_a_camera_that_came_late_costs_the_tags_no_table(core):
    seen = dataclasses.replace(PLANT, signals=(*PLANT.signals, CAMERA))
    pieces = []
    for seed in range(6):
        made = read(core, ruled_run(seed))
        values = made.blocks.values | {"cam": np.random.default_rng(seed).normal(size=(TICKS, 8))}
        blocks = dataclasses.replace(made.blocks, values=values, present={"cam": np.full(TICKS, seed == 0)})
        pieces.append(dataclasses.replace(made, blocks=blocks))
    found = Conditionals.fit(pieces, ("cam",), seen)
    assert {table.target for table in found.tables["process"]} == {0, 1, 2}
    assert found.tables["cam"] == ()


def test_too_few_ticks_make_no_tables(core):
    assert Conditionals.fit([read(core, ruled_run(0))], (), PLANT).tables == {"process": ()}


def test_a_stream_is_judged_alike_in_pieces(core, found):
    run = ruled_run(51, slice(700, 800))
    whole, carry = energy(found, core, run).energy(), found.begin()
    made = read(core, run)
    cut = []
    for start in range(0, TICKS, 77):
        rows = slice(start, start + 77)
        blocks = dataclasses.replace(
            made.blocks, values={n: v[rows] for n, v in made.blocks.values.items()}, observed=made.blocks.observed[rows]
        )
        part = dataclasses.replace(made, ticks=made.ticks[rows], encoding=made.encoding[rows], blocks=blocks)
        cut.append(found.step(part, carry)[0].chart.energy())
    np.testing.assert_allclose(np.concatenate(cut), whole, atol=1e-9)


def test_a_missing_value_accuses_nobody(core, found):
    gone = np.ones(TICKS, bool)
    gone[690:810] = False
    run = ruled_run(50, slice(700, 800), observed={"ZS3": gone})
    calm = energy(found, core, ruled_run(50)).energy()
    assert energy(found, core, run).energy()[700:800].max() <= calm.max()


def test_a_checkpoint_keeps_them(core, found):
    arrays, tree = dump_state(found, given=("plant",))
    again = load_state(Conditionals, arrays, tree, {"plant": PLANT})
    run = ruled_run(52, slice(700, 800))
    np.testing.assert_array_equal(energy(again, core, run).energy(), energy(found, core, run).energy())


def test_the_monitors_raise_it_and_say_who(core):
    monitors = fit_monitors([ruled_run(seed) for seed in range(6)], core, PLANT, FeatureStem(PLANT))
    run = ruled_run(53, slice(700, 800))
    judged, _ = monitors.step(run, core.encode(run)[0], MonitorCarry(), explain=True)
    at = judged.names.index("conditional.process")
    calm = monitors.step(ruled_run(53), core.encode(ruled_run(53))[0], MonitorCarry())[0].values[200:, at]
    assert judged.values[750, at] > 2 * np.nanmax(calm)
    assert set(np.argsort(-judged.shares[750, at])[:3]) == {0, 1, 2}


def test_levels_are_cut_between_what_is_apart():
    rng = np.random.default_rng(0)
    edges = _edges(np.repeat([0.0, 1.0, 2.0, 5.0], 500) + rng.normal(0, 0.02, 2000))
    assert len(edges) == LEVELS - 1
    for gap in ((0.1, 0.9), (1.1, 1.9), (2.1, 4.9)):
        assert any(gap[0] < edge < gap[1] for edge in edges)


def test_a_cell_seen_in_one_visit_is_not_believed_as_one_seen_in_many():
    value = np.zeros((1000, 3))
    value[:500, 1] = np.arange(500) // 20 % 2
    value[600:, 1] = 3
    value[:, 0] = value[:, 1] > 0
    edges, nothing = np.tile([0.5, 1.5, 2.5, 9.0, 9.0], (2, 1)), np.zeros(0)
    table = Table(0, 1, 2, edges, nothing, nothing).filled(value)
    often, once = table.mean[LEVELS], table.mean[3 * LEVELS]
    assert often > 0.8
    assert once < 0.5
