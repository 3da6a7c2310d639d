import numpy as np
import pytest
import torch

from fusion.plant import Modality, Plant, Role, Signal
from fusion.records import Quality
from fusion.state import dump_state, load_state
from models.networks.clips import run_view
from models.scaling import Scaler, Scaling
from models.ticks import TickBuilder, Ticks
from tests.grid_runs import frame_of


class FakeStem:
    def names(self, signal):
        return ("mean", "std")

    def patch_shape(self, signal):
        return (1, 2, 2)

    def compute(self, signal, value):
        return (np.array([value.mean(), value.std()]), np.full((1, 2, 2), 3, np.float16)) if value.size else None


@pytest.fixture
def plant():
    return Plant(
        name="two",
        signals=(
            Signal(name="T", unit="Cel"),
            Signal(name="SP", role=Role.MANIPULATED, low=10.0, high=20.0),
            Signal(name="F"),
            Signal(name="cam", modality=Modality.VIDEO, shape=(4, 4)),
        ),
    )


def frames(plant):
    picture = np.ones((2, 4, 4), np.uint8)
    yield frame_of(plant, 1, {"T": 5.0, "cam": picture})
    yield frame_of(plant, 2, {"T": 6.0, "SP": 12.0, "F": 1.0})
    doubt = {"T": Quality.BAD, "cam": Quality.UNCERTAIN}
    yield frame_of(plant, 3, {"T": 6.0, "SP": 12.0, "F": 2.0, "cam": picture * 3}, doubt)
    yield frame_of(plant, 4, {"T": 6.0, "F": 2.0, "SP": 13.0, "cam": picture[:0]}, {"F": Quality.BAD})


def test_builder_takes_what_the_frame_holds_and_says_what_was_seen(plant):
    builder = TickBuilder(plant, FakeStem())
    for f in frames(plant):
        builder.add(f)
    ticks = builder.ticks()
    assert ticks.tags.tolist() == [[5, 0], [6, 1], [6, 2], [6, 2]]
    assert ticks.observed.tolist() == [[True, False], [True, True], [False, True], [True, False]]
    assert ticks.action[1:, 0].tolist() == [12, 12, 13]
    assert ticks.present["cam"].tolist() == [True, False, True, False]
    assert ticks.doubted["cam"].tolist() == [False, False, True, False]
    assert ticks.media["cam"][:, 0].tolist() == [1, 0, 3, 0]
    assert ticks.patches["cam"].shape == (4, 1, 2, 2)
    assert ticks.patches["cam"].dtype == np.float16
    assert np.isinf(ticks.age_s[0, 1])


def test_columns_follow_the_plant_however_a_frame_lists_its_signals(plant):
    turned = Plant(name="two", signals=plant.signals[::-1])
    values = {"T": 5.0, "SP": 12.0, "F": 1.0}
    one, other = (TickBuilder(plant).tick(frame_of(p, 1, values)) for p in (plant, turned))
    for name, value in one.arrays().items():
        np.testing.assert_array_equal(other.arrays()[name], value)


def test_one_frame_at_a_time_equals_bulk(plant):
    bulk, live = TickBuilder(plant, FakeStem()), TickBuilder(plant, FakeStem())
    for f in frames(plant):
        bulk.add(f)
    parts = Ticks.concat([live.tick(f) for f in frames(plant)])
    for name, value in bulk.drain().arrays().items():
        np.testing.assert_array_equal(parts.arrays()[name], value)
    with pytest.raises(ValueError, match="no ticks"):
        bulk.drain()


def test_slices_and_cache_round_trip(plant, tmp_path):
    builder = TickBuilder(plant, FakeStem())
    for f in frames(plant):
        builder.add(f)
    ticks = builder.ticks()
    ticks.save(tmp_path / "run.npz")
    again = Ticks.concat([Ticks.load(tmp_path / "run.npz")[:1], ticks[1:]])
    assert len(again) == 4
    for name, value in ticks.arrays().items():
        np.testing.assert_array_equal(again.arrays()[name], value)
    assert not ticks.without_media().media


def test_scaler_is_immune_to_nan_constants_outliers_and_unobserved_columns():
    rng = np.random.default_rng(0)
    x = rng.normal(5.0, 2.0, (4000, 5))
    x[:20, 0] = 1e6
    x[:, 1] = 7.0
    x[::2, 2] = np.nan
    x[:, 4] = np.where(np.arange(4000) < 100, 1.0, 0.0)
    seen = np.ones(x.shape, bool)
    seen[:, 3] = False
    scaler = Scaler.fit(x, seen)
    assert scaler.centre[0] == pytest.approx(5.0, abs=0.2)
    assert scaler.scale[0] == pytest.approx(2.0, rel=0.1)
    assert scaler.scale[1] == 1.0
    assert scaler.scale[2] == pytest.approx(2.0, rel=0.1)
    assert (scaler.centre[3], scaler.scale[3]) == (0.0, 1.0)
    assert scaler.scale[4] == pytest.approx(1 / 4.653, rel=0.01)
    np.testing.assert_allclose(scaler.engineering(scaler.scaled(x[:, :1][:, [0] * 5])), x[:, [0] * 5])


def test_a_view_scales_and_hides_what_is_masked(plant):
    builder = TickBuilder(plant, FakeStem())
    for f in frames(plant):
        builder.add(f)
    ticks = builder.ticks()
    scaling = Scaling.fit([ticks], plant)
    scaling = load_state(Scaling, *dump_state(scaling))
    view = run_view(ticks, scaling)
    assert view.media["cam"].rows.tolist() == [0, 2]
    assert not run_view(ticks.without_media(), scaling).media
    assert torch.count_nonzero(view.tags_NS[~view.observed_NS]) == 0
    assert view.media["cam"].patches.shape == (2, 1, 2, 2)
    assert torch.isfinite(view.to(torch.device("cpu")).age_s_NS).all()
