import time
from pathlib import Path

import numpy as np
import pytest

from fusion.plant import Modality, Plant, Signal
from fusion.state import dump_state, load_state
from models.features.audio import AudioStem
from models.features.lidar import LidarStem
from models.features.stem import FeatureRange, FeatureStem, stem_of
from models.features.video import VideoStem

RATE_HZ = 16000


def texture(seed=0, rows=400, columns=96):
    rng = np.random.default_rng(seed)
    noise = rng.normal(size=(rows, columns))
    smooth = noise + np.roll(noise, 1, 0) + np.roll(noise, 1, 1)
    return 120 + 20 * smooth


def scene(shift_rows=0.0, shift_columns=0, pictures=10, seed=0):
    """Pictures of a texture that moves; half rows by linear interpolation."""
    base = texture(seed)
    rng = np.random.default_rng(seed + 1)
    shots = []
    for i in range(pictures):
        at = 200 - i * shift_rows
        whole, part = int(np.floor(at)), at - np.floor(at)
        cut = (1 - part) * base[whole : whole + 96] + part * base[whole + 1 : whole + 97]
        shots.append(np.roll(cut, i * shift_columns, 1) + rng.normal(0, 2, (96, 96)))
    return np.clip(shots, 0, 255).astype(np.uint8)


def video(pictures):
    stem = VideoStem()
    return dict(zip(stem.names, stem.compute(pictures)[0], strict=True))


def sound(hz=(440.0,), noise=0.01, seed=0, ticks=RATE_HZ):
    t = np.arange(ticks) / RATE_HZ
    rng = np.random.default_rng(seed)
    return (sum(0.1 * np.sin(2 * np.pi * f * t) for f in hz) + rng.normal(0, noise, ticks)).astype(np.float32)


def audio(value):
    stem = AudioStem(RATE_HZ)
    return dict(zip(stem.names, stem.compute(value)[0], strict=True))


def heap(level=2.0, cone=0.3, points=4000, seed=0):
    """A conical heap in a round vessel, seen from 6 m above its floor."""
    rng = np.random.default_rng(seed)
    radius, angle = 1.5 * np.sqrt(rng.random(points)), rng.uniform(0, 2 * np.pi, points)
    z = level - cone * radius + rng.normal(0, 0.01, points)
    return np.stack([radius * np.cos(angle), radius * np.sin(angle), z - 6.0, rng.uniform(80, 100, points)], 1)


def lidar(cloud, pose=(0, 0, 6.0, 0, 0, 0)):
    stem = LidarStem(pose)
    return dict(zip(stem.names, stem.compute(cloud)[0], strict=True))


@pytest.mark.parametrize(("rows", "columns"), [(2.0, 0), (2.5, 0), (0.0, 3), (-1.0, -2)])
def test_motion_is_measured_to_a_fraction_of_a_pixel(rows, columns):
    found = video(scene(rows, columns))
    assert found["motion_y"] == pytest.approx(rows, abs=0.2)
    assert found["motion_x"] == pytest.approx(columns, abs=0.2)


def test_frozen_dark_and_blurred_pictures_are_told_apart():
    live, one = video(scene(2.0)), scene(2.0)[:1]
    assert live["frozen"] == 0
    assert video(np.repeat(one, 5, 0))["frozen"] == 1
    assert video(one)["frozen"] == 0  # a single picture says nothing about it
    dark = video((scene(2.0) // 8).astype(np.uint8))
    assert dark["dark_fraction"] > 0.9 > live["dark_fraction"]
    flat = np.repeat(np.repeat(scene(2.0)[:, ::4, ::4], 4, 1), 4, 2)
    assert video(np.full((3, 96, 96), 90, np.uint8))["sharpness"] < video(flat)["sharpness"]


def test_edges_follow_what_moves_sideways():
    def strip(left):
        picture = np.full((2, 96, 96), 30, np.uint8)
        picture[:, :, left : left + 40] = 200
        return video(picture)

    assert strip(40)["column_rise_position"] - strip(20)["column_rise_position"] == pytest.approx(40 / 96, abs=0.02)
    assert strip(20)["column_fall_position"] > strip(20)["column_rise_position"]
    assert strip(20)["row_rise_strength"] == pytest.approx(0, abs=1e-3)


def test_large_and_odd_pictures_are_accepted():
    rng = np.random.default_rng(0)
    for shape in ((4, 480, 640), (1, 17, 31), (3, 200, 90)):
        features, patches = VideoStem().compute(rng.integers(0, 255, shape).astype(np.uint8))
        assert np.isfinite(features).all()
        assert patches.shape == (2, 48, 48)
    assert VideoStem().compute(np.zeros((0, 96, 96), np.uint8)) is None


def test_tones_move_the_mel_bands_and_the_centroid():
    low, high = audio(sound((300.0,))), audio(sound((5000.0,)))
    bands = [f"mel_mean_{i}" for i in range(32)]
    assert max(bands, key=low.get) != max(bands, key=high.get)
    assert high["centroid"] > low["centroid"] + 20
    assert low["log_rms"] == pytest.approx(np.log10(0.1 / np.sqrt(2)), abs=0.02)


def test_impacts_show_in_kurtosis_and_envelope():
    t = np.arange(RATE_HZ) / RATE_HZ
    ring = np.exp(-t[:200] * 1800) * np.sin(2 * np.pi * 2800 * t[:200])
    train = np.zeros(RATE_HZ)
    train[:: RATE_HZ // 40] = 1.0
    knocking = (np.convolve(train, ring)[:RATE_HZ] * 0.5 + sound()).astype(np.float32)
    plain, hit = audio(sound()), audio(knocking)
    assert hit["kurtosis"] > plain["kurtosis"] + 0.3
    assert hit["envelope_2000_4000hz_at_25_50hz"] > plain["envelope_2000_4000hz_at_25_50hz"] + 1
    assert hit["envelope_2000_4000hz_at_peak"] > plain["envelope_2000_4000hz_at_peak"] + 1


def test_silence_is_finite_and_named():
    silent = audio(np.zeros(RATE_HZ, np.float32))
    assert silent["silent"] == 1
    assert np.isfinite(list(silent.values())).all()
    assert audio(sound())["silent"] == 0
    assert AudioStem(RATE_HZ).compute(np.zeros(0, np.float32)) is None
    assert np.isfinite(AudioStem(8000).compute(sound(ticks=500))[0]).all()


def test_rings_say_shape_and_level_says_level():
    high, low = lidar(heap(3.0)), lidar(heap(1.0))
    assert high["level"] - low["level"] == pytest.approx(2.0, abs=0.02)
    assert high["volume"] - low["volume"] == pytest.approx(2.0, abs=0.02)
    rings = [f"ring_{i}" for i in range(8)]
    np.testing.assert_allclose([high[r] for r in rings], [low[r] for r in rings], atol=0.02)
    pit = heap(3.0)
    inner = np.hypot(pit[:, 0], pit[:, 1]) < 0.4
    pit[inner, 2] -= 1.0
    assert lidar(pit)["ring_0"] < high["ring_0"] - 0.5
    assert lidar(pit)["ring_7"] == pytest.approx(high["ring_7"], abs=0.1)


def test_pose_turns_the_cloud_into_the_plant_frame():
    cloud = heap()
    turned = cloud.copy()
    turned[:, 1], turned[:, 2] = cloud[:, 2], -cloud[:, 1]  # the sensor looks along its y axis
    found = lidar(turned, (0, 0, 6.0, np.pi / 2, 0, 0))
    for name, value in lidar(cloud).items():
        assert found[name] == pytest.approx(value, abs=1e-6), name


def test_dust_shows_as_isolated_and_near_returns():
    rng = np.random.default_rng(1)
    cloud = heap()
    dusty = cloud.copy()
    floating = rng.random(len(cloud)) < 0.2
    dusty[floating, :3] *= rng.uniform(0.1, 0.9, (floating.sum(), 1))
    clear, dust = lidar(cloud), lidar(dusty)
    assert dust["isolated_fraction"] > clear["isolated_fraction"] + 0.1
    assert dust["near_fraction"] > clear["near_fraction"]
    assert dust["level"] == pytest.approx(clear["level"], abs=0.05)


def test_empty_cloud_is_absent_and_zero_returns_are_ignored():
    stem = LidarStem()
    assert stem.compute(np.zeros((0, 4), np.float32)) is None
    assert stem.compute(np.zeros((500, 4), np.float32)) is None
    padded = np.concatenate([heap(), np.zeros((300, 4)), np.full((5, 4), np.nan)])
    np.testing.assert_allclose(stem.compute(padded)[0], stem.compute(heap())[0])


def test_stem_of_a_plant_serves_each_signal_and_names_every_feature():
    plant = Plant(
        name="p",
        signals=(
            Signal(name="v", modality=Modality.VIDEO, shape=(96, 96)),
            Signal(name="a", modality=Modality.AUDIO, shape=(1600,), period_s=0.1),
            Signal(name="l", modality=Modality.LIDAR, shape=(4000, 4)),
        ),
    )
    stem = FeatureStem(plant)
    for signal, value in (("v", scene()), ("a", sound()), ("l", heap())):
        features, patches = stem.compute(signal, value)
        assert len(features) == len(stem.names(signal)) == len(set(stem.names(signal))) == len(stem.level_like(signal))
        assert patches.shape == stem.patch_shape(signal)
        assert patches.dtype == np.float16
        assert np.isfinite(patches).all()
        again, _ = stem.compute(signal, value)
        np.testing.assert_array_equal(features, again)
        assert (stem.health(signal) < len(features)).all()
        assert type(stem_of(plant.by_name[signal])).__name__ in ("VideoStem", "AudioStem", "LidarStem")


def test_every_feature_is_documented():
    text = (Path(__file__).parents[1] / "docs" / "features.md").read_text()
    for stem in (VideoStem(), AudioStem(RATE_HZ), LidarStem()):
        for name in stem.names:
            family = name.rstrip("0123456789").rstrip("_") if name[-1].isdigit() else name
            family = "envelope_" if family.startswith("envelope") else family
            assert (
                f"`{name}`" in text or family.removesuffix("_q").removeprefix("row_").removeprefix("column_") in text
            ), name


def test_range_tells_what_was_never_seen_and_survives_a_checkpoint():
    x = np.random.default_rng(0).normal(size=(5000, 2))
    span = load_state(FeatureRange, *dump_state(FeatureRange.fit(x)))
    assert span.calibrated(x).mean() > 0.995
    assert span.calibrated(np.array([0.0, 20.0])).tolist() == [True, False]


def test_features_of_a_tick_are_cheap():
    jobs = [(VideoStem(), scene()), (AudioStem(RATE_HZ), sound()), (LidarStem(), heap())]
    for stem, value in jobs:
        stem.compute(value)
    start = time.process_time()
    for _ in range(10):
        for stem, value in jobs:
            stem.compute(value)
    assert (time.process_time() - start) / 10 < 0.1  # generous: shared machines
