from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from fusion.errors import ConfigError
from fusion.plant import Modality
from fusion.plant_file import load_plant
from fusion.records import Columns
from fusion.simulator.fleet import Fleet
from fusion.simulator.line.faults import FAULTS
from fusion.simulator.line.physics import DT_S, Line, Parameters
from fusion.simulator.scenario import ExcitationSettings, FaultEvent, Scenario, Sensors
from fusion.simulator.simulation import Simulation

PLANT = load_plant(Path(__file__).parent.parent / "configs" / "plant" / "lime.yaml")
CALM = Scenario(media=False, warmup_s=60, seed=3)


def run(seconds, *scenarios):
    """Readings [T, B] by tag."""
    fleet = Fleet(scenarios, PLANT)
    rows = [fleet.second() for _ in range(seconds)]
    return {name: np.stack([row[name] for row in rows]) for name in rows[0]}


def with_fault(name, onset_s=30.0, **changes):
    return replace(CALM, faults=(FaultEvent(name=name, onset_s=onset_s, **changes),))


def test_the_loops_settle_at_their_setpoints_without_oscillating():
    read = run(5400, replace(CALM, warmup_s=0, drift=0.0, parameters={"demand_l_s": 1.0, "reactivity": 1.0}))
    last = {name: values[-1200:, 0] for name, values in read.items()}
    assert abs(last["TT101"].mean() - 80.0) < 0.5
    assert last["TT101"].std() < 0.3
    assert abs(last["LT101"].mean() - 0.62) < 0.02
    assert last["LT101"].std() < 0.01
    assert last["WT101"].std() < 0.01
    assert abs(last["DT201"].mean() - 0.18) < 0.005


def test_the_tank_keeps_its_balance():
    line = Line([Parameters()])
    before = line.tank_l.copy()
    flows = 0.0
    line.fault = {"leak": np.array([0.5])}
    line.begin()
    for _ in range(600):
        line.step()
        flows += DT_S * (line.slurry_l_s + line.dilution_l_s - line.demand - 0.06)
    np.testing.assert_allclose(line.tank_l - before, flows, rtol=1e-9)


def test_a_row_of_a_batch_is_the_run_alone():
    scenarios = [
        replace(CALM, seed=s, excitation=ExcitationSettings(enabled=True, mean_interval_s=60)) for s in (1, 2, 3)
    ]
    together, alone = run(120, *scenarios), run(120, scenarios[1])
    for name, values in alone.items():
        np.testing.assert_allclose(together[name][:, 1], values[:, 0], rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", sorted(FAULTS))
def test_a_fault_changes_nothing_before_its_onset(name):
    calm, faulty = run(50, CALM), run(50, with_fault(name))
    for tag, values in calm.items():
        np.testing.assert_array_equal(values[:30], faulty[tag][:30])


@pytest.mark.parametrize(
    ("name", "tag", "least", "after_s"),
    [
        ("bridging", "IT102", 1.0, 60),
        ("chute_block", "IT101", 0.3, 60),
        ("belt_slip", "SC101", 0.05, 60),
        ("scale_drift", "WT101", 0.005, 20),
        ("agitator_blade", "IT103", 0.5, 20),
        ("thermometer_drift", "TT101", 4.0, 20),
        ("boil_over", "TT102", 10.0, 20),
        ("water_valve_blocked", "FT101", 0.02, 20),
        ("line_scaling", "FT102", 0.02, 20),
        ("leak", "LT201", 0.002, 200),
        ("low_reactivity", "TT101", 0.3, 300),
    ],
)
def test_a_process_fault_moves_its_tag(name, tag, least, after_s):
    both = run(31 + after_s, replace(CALM), with_fault(name))
    moved = np.abs(both[tag][-10:, 1] - both[tag][-10:, 0]).mean()
    assert moved > least


def test_a_frozen_tag_rests_and_replayed_tags_repeat():
    frozen = run(80, with_fault("frozen_tag", signal="LT101"))["LT101"][:, 0]
    assert np.unique(frozen[31:]).size == 1
    replayed = run(300, with_fault("replayed_tags", onset_s=130.0))["TT101"][:, 0]
    np.testing.assert_array_equal(replayed[131:180], replayed[251:300])


def test_a_fault_ends():
    read = run(120, with_fault("thermometer_drift", end_s=60.0), CALM)["TT101"]
    assert abs(read[50, 0] - read[50, 1]) > 4
    assert abs(read[100, 0] - read[100, 1]) < 3


# --- sensors


def items(scenario, seconds):
    simulation = Simulation(replace(scenario, media=True, sensors=Sensors(lidar_hz=1)), PLANT)
    return [item for item in simulation.advance(seconds) if not isinstance(item, Columns)]


def of(found, signal):
    return [item.value for item in found if item.signal == signal]


def test_twins_see_and_hear_the_same_until_the_onset():
    calm, faulty = items(CALM, 4), items(with_fault("bearing", onset_s=2.0), 4)
    for signal in (s.name for s in PLANT.media):
        a, b = of(calm, signal), of(faulty, signal)
        half = len(a) // 2
        assert all(np.array_equal(x, y) for x, y in zip(a[:half], b[:half], strict=True))
    assert not np.array_equal(of(calm, "microphone")[-1], of(faulty, "microphone")[-1])


def test_every_stream_has_the_shape_and_rate_the_plant_declares():
    found = items(CALM, 3)
    for signal in PLANT.media:
        values = of(found, signal.name)
        assert len(values) == (3 if signal.modality is Modality.LIDAR else 30)
        if signal.modality is not Modality.LIDAR:
            assert values[0].shape == signal.shape
    cloud = of(found, "silo_lidar")[0]
    assert cloud.dtype == np.float32
    assert 1000 < len(cloud) <= 5760


@pytest.mark.parametrize(
    ("name", "signal", "judge"),
    [
        ("frozen_camera", "camera", lambda v: np.array_equal(v[-1], v[-2])),
        ("dirty_camera", "camera", lambda v: v[-1].std() < 0.8 * v[0].std()),
        ("dead_microphone", "microphone", lambda v: not v[-1].any()),
        ("blocked_lidar", "silo_lidar", lambda v: len(v[-1]) < 0.8 * len(v[0])),
        ("belt_drift", "camera", lambda v: abs(v[-1].astype(float).mean(0) - v[0].mean(0)).max() > 10),
        ("cavitation", "microphone", lambda v: v[-1].std() > 1.2 * v[0].std()),
        ("tramp_lump", "microphone", lambda v: np.abs(np.concatenate(v[20:])).max() > 1.2 * np.abs(v[0]).max()),
    ],
)
def test_a_fault_is_in_the_sensor_that_should_see_it(name, signal, judge):
    assert judge(of(items(with_fault(name, onset_s=2.0), 6), signal))


def twins(name, severity, seconds=6):
    """All that a medium sent with a fault from the start, and without; seeds draw the same noise."""
    return items(with_fault(name, onset_s=0.0, severity=severity), seconds), items(CALM, seconds)


@pytest.mark.parametrize(
    "name",
    [
        *("build_up", "stalled_bed", "skewed_bed", "caught_object", "spill", "person", "steam"),
        *("dark_corner", "lens_spot"),
    ],
)
def test_what_is_wrong_in_a_picture_is_in_one_place_and_grows_with_its_severity(name):
    shares, depths = [], []
    for severity in (0.3, 1.0):
        ill, well = twins(name, severity)
        pairs = zip(of(ill, "camera"), of(well, "camera"), strict=True)
        apart = np.mean([np.abs(a.astype(float) - b) for a, b in pairs], axis=0)
        shares.append((apart > 3.0).mean())
        depths.append(apart.sum())
        assert np.array_equal(of(ill, "microphone"), of(well, "microphone"))
    assert 0.0 < shares[1] < 0.6
    assert depths[0] < depths[1]


def test_a_torn_edge_comes_by_once_a_turn_of_the_belt():
    ill, well = twins("torn_edge", 1.0, 26)
    seen = [not np.array_equal(a, b) for a, b in zip(of(ill, "camera"), of(well, "camera"), strict=True)]
    assert 0.1 < np.mean(seen[:204]) < 0.6  # 5.12 m at 0.25 m/s
    assert seen[:50] == seen[205:255]


def test_a_dry_idler_squeals_at_one_pitch():
    ill, well = (np.concatenate(of(found, "microphone")) for found in twins("squeal", 1.0))
    power = np.abs(np.fft.rfft(ill - well)) ** 2
    hz = np.fft.rfftfreq(len(ill), 1 / 16_000)
    assert power[np.abs(hz - 3140) < 30].sum() > 0.9 * power.sum()


def test_a_splice_chirps_once_a_turn_of_the_belt():
    ill, well = (np.concatenate(of(found, "microphone")) for found in twins("belt_chirp", 1.0, 45))
    when = np.flatnonzero(np.abs(ill - well) > 0.01) / 16_000
    starts = when[np.append(True, np.diff(when) > 1.0)]
    np.testing.assert_allclose(np.diff(starts), 491.5 / 24.0, atol=0.1)
    assert all(np.ptp(when[np.abs(when - start) < 1.0]) <= 0.1 for start in starts)


def test_a_crust_hangs_at_the_wall_and_moves_no_lime():
    ill, well = twins("wall_crust", 1.0, 2)
    crusted, bare = (np.linalg.norm(of(found, "silo_lidar")[0][:, :3], axis=1) for found in (ill, well))
    nearer = bare - crusted > 0.05
    assert 0.005 < nearer.mean() < 0.3
    np.testing.assert_allclose(crusted[~nearer], bare[~nearer], atol=0.06)
    assert all(np.array_equal(a, b) for a, b in zip(of(ill, "camera"), of(well, "camera"), strict=True))


def test_unknown_faults_and_signals_are_refused_by_name():
    simulation = Simulation(CALM, PLANT)
    with pytest.raises(ConfigError, match=r"'gremlins' is not known; accepted: rat_hole"):
        simulation.inject("gremlins")
    with pytest.raises(ConfigError, match=r"'TT101' cannot be set; accepted: TIC101.SP"):
        simulation.set("TT101", 3.0)
    simulation.set("TIC101.SP", 200.0)
    readings = next(i for i in simulation.advance(1) if isinstance(i, Columns))
    assert readings.value[readings.signals.index("TIC101.SP")] == 90.0
