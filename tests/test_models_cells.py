import json
from types import SimpleNamespace

import numpy as np
import pytest

from control.anomaly.calibration import SurpriseConfig
from fusion.dashboard.places import place
from fusion.plant import Modality
from fusion.records import Origin, Statistic
from fusion.state import dump_state, load_state
from models.features.cells import CUTS
from models.linear.core import LinearConfig
from models.linear.fit import fit_core
from models.monitors.cells import PENALTY, Cells, fit_cells, residual_matrix
from models.monitors.fit import fit_monitors
from models.monitors.monitors import MonitorCarry
from models.monitors.piece import piece
from models.monitors.residual import WARM_UP_TICKS
from tests.models_plant import SHAPES, make_plant, make_run, replaced

FAMILIES = {"camera": "cell", "microphone": "band", "silo_lidar": "spot"}
TICKS, ONSET = 500, 300
SPOT = (slice(16, 20), slice(32, 36))  # of the picture: the cell in row 4 and column 8


class Facts:
    def names(self, signal):
        return tuple(f"{signal}_{i}" for i in range(4))

    def level_like(self, signal):
        return np.zeros(4, bool)

    def health(self, signal):
        return np.zeros(0, np.int64)

    def quality(self, signal):
        return np.arange(4) == 1


def shown(seed, spot=0.0, ticks=TICKS):
    """Media that follow the flow as a whole, each place in its own way, and in one place something more."""
    rng, fixed = np.random.default_rng(seed), np.random.default_rng(5)
    run = make_run(seed, ticks)
    light = 0.5 + 0.02 * run.tags[:, 1] + 0.02 * np.sin(np.arange(ticks) / 40)
    patches, media = {}, {}
    for name, shape in SHAPES.items():
        values = light.reshape(-1, 1, 1, 1) * fixed.uniform(0.3, 0.9, shape) + rng.normal(0, 0.02, (ticks, *shape))
        if name == "silo_lidar":
            values[:, 1] = 1.0
        patches[name] = values.astype(np.float16)
        media[name] = np.c_[light, rng.normal(0, 1, (ticks, 3))]
    patches["camera"][(slice(ONSET, None), 0, *SPOT)] += np.float16(spot)
    return replaced(run, patches=patches, media=media, present={n: np.ones(ticks, bool) for n in SHAPES})


@pytest.fixture(scope="module")
def monitors():
    runs = [shown(seed) for seed in range(4)]
    core = fit_core(runs, make_plant(), LinearConfig(ranks=(4,), variates=16))
    return fit_monitors(runs, core, make_plant(), Facts())


def heard(monitors):
    return monitors.hearing([e.name for e in monitors.energies if e.family in FAMILIES.values()])


def judged(monitors, ticks, *, explain=False):
    return monitors.step(ticks, monitors.core.encode(ticks)[0], explain=explain)[0]


def of(found, medium, label="0.1"):
    return found.values[:, found.names.index(f"{FAMILIES[medium]}.{medium}.{label}")]


def test_every_medium_has_its_cells_at_each_speed(monitors):
    energies = [e for e in monitors.energies if e.family in FAMILIES.values()]
    assert {(e.source, e.speed) for e in energies} >= {(name, alpha) for name in SHAPES for alpha in (0.1, 0.02)}
    assert all(e.origin is Origin.ACROSS and e.statistic is Statistic.LARGEST for e in energies)
    assert {e.modality for e in energies if e.source == "silo_lidar"} == {Modality.LIDAR}


def test_normal_pictures_are_normal(monitors):
    found = judged(heard(monitors), shown(50))
    assert np.isnan(found.values[:WARM_UP_TICKS]).all()
    assert np.isfinite(found.values[WARM_UP_TICKS:]).all()
    assert np.median(found.values[WARM_UP_TICKS:]) < 1.5


def test_a_drawn_patch_raises_its_cell_and_no_other_sense_and_is_named(monitors):
    well, ill = shown(51), shown(51, spot=0.15)
    calm, found = judged(monitors, well, explain=True), judged(monitors, ill, explain=True)
    for label in ("0.1", "0.02"):
        assert of(found, "camera", label)[ONSET + 60 :].min() > 5 * np.nanmax(of(calm, "camera", label))
        for other in ("microphone", "silo_lidar"):
            np.testing.assert_array_equal(of(found, other, label), of(calm, other, label))
    place_of = found.signals.index("camera")
    assert {row[place_of] for row in found.where[ONSET + 30 :]} == {"cell row 4 column 8 light"}
    assert found.residual[ONSET + 30 :, place_of].min() > 5.0
    shares = found.shares[-1, found.names.index("cell.camera.0.1")]
    assert shares[place_of] == shares.sum() == 1.0


def test_the_patch_is_told_by_its_cell_alone(monitors):
    cells = next(g for g in monitors.others if isinstance(g, Cells))
    ticks = shown(52, spot=0.15)
    encoding = monitors.core.encode(ticks)[0]
    carry = cells.begin()
    cells.step(piece(ticks, encoding, monitors.core.scaling, ticks.present, {}), carry)
    over = np.abs(carry.fresh["camera"][-1]).reshape(12, 12, -1).max(2)
    assert np.unravel_index(over.argmax(), over.shape) == (4, 8)
    assert np.sort(over.ravel())[-2] < 0.5 * over.max()


def test_what_is_over_is_forgotten(monitors):
    ticks = shown(53, spot=0.15)
    ended = ticks.patches["camera"].copy()
    ended[400:] = shown(53).patches["camera"][400:]
    found = judged(heard(monitors), replaced(ticks, patches=ticks.patches | {"camera": ended}))
    usual = np.nanmax(of(judged(heard(monitors), shown(53)), "camera", "0.02"))
    assert of(found, "camera", "0.02")[390] > 5 * usual
    assert of(found, "camera", "0.02")[440:].max() < 2 * usual


def test_a_wrong_tag_accuses_no_cell(monitors):
    ticks = shown(54)
    wrong = replaced(ticks, tags=ticks.tags + np.array([0.0, 5.0, 3.0]))
    np.testing.assert_array_equal(judged(heard(monitors), ticks).values, judged(heard(monitors), wrong).values)


@pytest.mark.parametrize("sizes", [(1,), (7, 50, 3)])
def test_streaming_is_the_whole(monitors, sizes):
    ticks = shown(55, spot=0.15, ticks=ONSET + 40)
    there = np.ones(len(ticks), bool)
    there[180:220] = False
    ticks = replaced(ticks, present=ticks.present | {"camera": there})
    small = heard(monitors)
    whole = judged(small, ticks, explain=True)
    carry, past, first, parts, words = MonitorCarry(), None, 0, [], []
    while first < len(ticks):
        part = ticks[first : first + sizes[len(parts) % len(sizes)]]
        encoding, past = small.core.encode(part, past)
        made, carry = small.step(part, encoding, carry, explain=True)
        parts.append(made.values)
        words += made.where
        first += len(part)
    np.testing.assert_allclose(np.concatenate(parts), whole.values, rtol=1e-6, atol=1e-9)
    assert tuple(words) == whole.where


@pytest.mark.parametrize("how", ["absent", "doubted"])
def test_a_medium_that_is_out_takes_no_part(monitors, how):
    ticks = shown(56)
    out = np.zeros(TICKS, bool)
    out[350:400] = True
    if how == "absent":
        blank = np.where(out.reshape(-1, 1, 1, 1), np.float16(0), ticks.patches["camera"])
        changed = replaced(ticks, present=ticks.present | {"camera": ~out}, patches=ticks.patches | {"camera": blank})
    else:
        changed = replaced(ticks, doubted={"camera": out})
    found, whole = judged(heard(monitors), changed), judged(heard(monitors), ticks)
    assert np.isnan(of(found, "camera")[350:400]).all()
    assert np.isfinite(of(found, "camera")[430:]).all()
    assert np.nanmax(of(found, "camera")[400:]) < 2 * np.nanmax(of(whole, "camera"))
    np.testing.assert_array_equal(of(found, "microphone"), of(whole, "microphone"))


def test_a_stream_without_patches_is_not_judged(monitors):
    found = judged(heard(monitors), replaced(shown(57), patches={}))
    assert np.isnan(found.values).all()


def test_a_plant_without_media_has_no_cells():
    plain = [make_run(seed, 400) for seed in range(3)]
    core = fit_core(plain, make_plant(), LinearConfig(ranks=(4,), variates=16))
    made = fit_monitors(plain, core, make_plant(), Facts())
    assert not any(e.family in FAMILIES.values() for e in made.energies)
    pieces = [piece(run, core.encode(run)[0], core.scaling, {}, {}) for run in plain]
    assert fit_cells(pieces, (), make_plant()) is None


def test_too_few_pictures_make_no_cells():
    ticks = shown(58)
    scaling = SimpleNamespace(media={n: SimpleNamespace(centre=np.zeros(4), scaled=lambda v: v) for n in SHAPES})
    encoding = SimpleNamespace(tags=ticks.tags, action=ticks.action)
    one = piece(ticks, encoding, scaling, ticks.present, {})
    assert fit_cells([one], tuple(SHAPES), make_plant()) is None


def test_cells_are_read_back_as_they_were(monitors):
    cells = next(g for g in monitors.others if isinstance(g, Cells))
    arrays, tree = dump_state(cells)
    back = load_state(Cells, arrays, json.loads(json.dumps(tree)))
    ticks = shown(59, spot=0.1)
    read = piece(ticks, monitors.core.encode(ticks)[0], monitors.core.scaling, ticks.present, {})
    for a, b in zip(cells.step(read, cells.begin()), back.step(read, back.begin()), strict=True):
        assert a.energy == b.energy
        np.testing.assert_array_equal(a.chart.energy(), b.chart.energy())


def test_one_inverse_makes_the_ridge_of_every_cell():
    cut = CUTS[Modality.AUDIO]
    rng = np.random.default_rng(0)
    columns = cut.cells * len(cut.names)
    values = rng.normal(size=(900, columns + 4)) @ rng.normal(size=(columns + 4, columns + 4)) / 10
    moments = values.T @ values / len(values)
    made = residual_matrix(moments, cut)
    cell = 9
    around = np.isin(np.arange(columns + 4) // 3, cut.around(cell)) & (np.arange(columns + 4) < columns)
    rest = np.flatnonzero(~around)
    own = np.arange(3 * cell, 3 * cell + 3)
    penalised = moments[np.ix_(rest, rest)] + PENALTY * np.eye(len(rest))
    direct = values[:, own] - values[:, rest] @ np.linalg.solve(penalised, moments[np.ix_(rest, own)])
    np.testing.assert_allclose(values @ made[:, own], direct, atol=1e-8)


def test_a_picture_is_cut_where_it_says():
    planes = np.zeros((1, 2, 48, 48), np.float32)
    planes[(0, 0, *SPOT)] = 1.0
    light = CUTS[Modality.VIDEO].features(planes)[0, :, 0].reshape(12, 12)
    assert light[4, 8] == 1.0
    assert light.sum() == 1.0
    assert set(CUTS[Modality.VIDEO].around(0)) == {0, 1, 12, 13}


@pytest.mark.parametrize(
    ("modality", "where", "text"),
    [
        (Modality.VIDEO, (56, 0), "brightness at 38 % of the height from the top and 71 % of the width from the left"),
        (Modality.AUDIO, (24, 2), "peaks above the loudness at 3.8 to 4.4 kHz"),
        (Modality.LIDAR, (56, 0), "height at 71 % of the extent along x and 38 % along y"),
    ],
)
def test_the_words_of_a_cell_are_a_place(modality, where, text):
    found = place(modality, CUTS[modality].where(*where), 16_000.0)
    assert found.text == text
    if modality is Modality.VIDEO:
        assert found.rows == (4 / 12, 5 / 12)
        assert found.columns == (8 / 12, 9 / 12)


def test_of_very_much_the_first_part_of_every_run_is_learned(monkeypatch):
    monkeypatch.setattr("models.monitors.cells.MOST_TICKS", 1_800)  # of 2,000: nine tenths of each of four
    scaling = SimpleNamespace(media={n: SimpleNamespace(centre=np.zeros(4), scaled=lambda v: v) for n in SHAPES})
    pieces = []
    for seed in range(4):
        ticks = shown(60 + seed)
        ticks.patches["microphone"][450:] = np.float16(9.0)
        encoding = SimpleNamespace(tags=ticks.tags, action=ticks.action)
        pieces.append(piece(ticks, encoding, scaling, ticks.present, {}))
    made = fit_cells(pieces, ("microphone",), make_plant())
    assert made.fields["microphone"].centre[0] < 1.0


def test_what_is_not_heard_is_not_computed_and_pictures_alone_raise(monitors):
    names = [e.name for e in monitors.energies if SurpriseConfig().closed(monitors.energies).lets_raise(e)]
    assert {e.source for e in heard(monitors.hearing(names)).energies} == {"camera"}
    ticks = shown(70, spot=0.15)
    found = judged(monitors.hearing(names), ticks, explain=True)
    np.testing.assert_array_equal(of(found, "camera"), of(judged(monitors, ticks), "camera"))
    assert found.where[-1][found.signals.index("camera")] == "cell row 4 column 8 light"
