import dataclasses

import numpy as np
import pytest
from control_worlds import small_plant

from control.anomaly.calibration import SurpriseConfig, calibrate
from control.anomaly.detector import FOREIGN, STANDING, Contributions, Detector, DetectorConfig
from control.anomaly.evidence import EvidenceConfig, decide_kind, find
from control.anomaly.seam import Seam
from fusion.errors import ConfigError
from fusion.plant import Modality, Plant, Signal
from fusion.records import AnomalyKind, AnomalyState, Energy, Origin, SignalBlame, Statistic


def across(source, modality):
    name = f"cross.{source}.0.02"
    return Energy(name=name, origin=Origin.ACROSS, family="cross", source=source, modality=modality)


def alive(source, modality):
    return Energy(name=f"health.{source}", origin=Origin.ALIVE, family="health", source=source, modality=modality)


ENERGIES = (
    across("process", Modality.PROCESS),
    across("camera", Modality.VIDEO),
    across("microphone", Modality.AUDIO),
    Energy(name="innovation.8", origin=Origin.AHEAD, family="innovation"),
    Energy(name="balance.tank.120s", origin=Origin.LAW, family="balance", statistic=Statistic.LARGEST),
)
NAMES = tuple(energy.name for energy in ENERGIES)
SIGNALS = ("T", "L", "F", "camera", "microphone")
HEALTH = (alive("process", Modality.PROCESS), alive("camera", Modality.VIDEO))
S = 1_000_000_000
RAISED, HELD, CLEARED = AnomalyState.RAISED, AnomalyState.HELD, AnomalyState.CLEARED


@pytest.fixture(scope="module")
def calibration():
    x = np.random.default_rng(0).standard_normal((7200, 5, 3))
    x[0] *= 0.16
    for t in range(1, len(x)):
        x[t] = 0.95 * x[t - 1] + 0.05 * x[t]
    return calibrate(np.square(x).sum(2), ENERGIES, SurpriseConfig(false_raises_per_day=6))


@pytest.fixture
def detector(calibration):
    return Detector(DetectorConfig(), calibration, small_plant(), "m1")


def row(calibration, **factors):
    """Energies at the given factors of the limit, by the place of the energy; the others at their median."""
    made = calibration.median.copy()
    for name, factor in factors.items():
        e = next(i for i, n in enumerate(NAMES) if name in n)
        made[e] += factor * calibration.threshold * calibration.scale[e]
    return made


def contributions(**shares):
    blame = np.zeros((len(NAMES), len(SIGNALS)))
    for name, share in shares.items():
        blame[:, SIGNALS.index(name)] = share
    return Contributions(signals=SIGNALS, shares=blame, residual=np.array([2.5, 0.1, 0.0, 0.0, 0.0]))


def drive(detector, energies, seconds, start=0, **extra):
    """Feed one row for some seconds; all changes with the second at which they came."""
    found = []
    for t in range(start, start + seconds):
        found += [(t, a) for a in detector.step(t * S, energies, **extra)]
    return found


def test_raised_after_the_on_delay_with_the_onset_of_the_first_exceedance(detector, calibration):
    drive(detector, row(calibration), 20)
    changes = drive(detector, row(calibration, microphone=3.0), 12, start=20)
    ((second, anomaly),) = changes
    assert second == 29
    assert anomaly.state is RAISED
    assert anomaly.t_onset_ns == 20 * S
    assert anomaly.by_modality["audio"] > 0.9
    assert sum(anomaly.by_modality.values()) == pytest.approx(1.0)
    assert anomaly.energies[0][0] == "cross.microphone.0.02"
    assert anomaly.energies[0][1] == pytest.approx(3.0, rel=0.05)
    assert anomaly.p_value < 1e-3
    assert anomaly.model_id == "m1"
    assert detector.open == (anomaly,)


def test_a_short_burst_does_not_raise(detector, calibration):
    assert drive(detector, row(calibration, microphone=5.0), 9) == []
    assert drive(detector, row(calibration), 1, start=9) == []
    assert drive(detector, row(calibration, microphone=5.0), 9, start=10) == []


def test_held_while_it_lasts_and_cleared_below_the_deadband(detector, calibration):
    drive(detector, row(calibration, microphone=3.0), 10)
    held = drive(detector, row(calibration, microphone=3.0), 61, start=10)
    assert [(t, a.state) for t, a in held] == [(39, HELD), (69, HELD)]
    between = drive(detector, row(calibration, microphone=0.8), 120, start=71)
    assert {a.state for _, a in between} == {HELD}
    cleared = [x for x in drive(detector, row(calibration), 60, start=191) if x[1].state is CLEARED]
    assert [t for t, _ in cleared] == [221]
    assert cleared[0][1].id == held[0][1].id
    assert cleared[0][1].energies[0][0] == "cross.microphone.0.02"
    assert detector.open == ()


def test_a_slow_average_that_decays_lets_it_clear_within_minutes(detector, calibration):
    drive(detector, row(calibration, process=20.0), 30)
    found = []
    for t in range(400):
        decayed = 20.0 * 0.98 ** (2 * t)
        found += [(t, a) for a in detector.step((30 + t) * S, row(calibration, process=decayed))]
    assert next(t for t, a in found if a.state is CLEARED) < 180


def test_a_raise_after_the_end_is_an_event_of_its_own_that_names_the_earlier_one(detector, calibration):
    first = drive(detector, row(calibration, microphone=3.0), 10)[0][1]
    drive(detector, row(calibration), 40, start=10)
    again = drive(detector, row(calibration, microphone=3.0), 10, start=50)[0][1]
    assert again.state is RAISED
    assert again.id != first.id
    assert again.earlier == first.id
    assert again.t_onset_ns > first.t_onset_ns


def test_another_modality_joins_a_young_anomaly_and_opens_a_new_one_later(detector, calibration):
    drive(detector, row(calibration, microphone=3.0), 20)
    joined = drive(detector, row(calibration, microphone=3.0, camera=3.0), 12, start=20)
    assert len(detector.open) == 1
    assert any(a.by_modality.get("video", 0) > 0 for _, a in joined)
    drive(detector, row(calibration, microphone=3.0, camera=3.0), 200, start=32)
    later = drive(detector, row(calibration, microphone=3.0, camera=3.0, process=4.0), 12, start=232)
    fresh = [a for _, a in later if a.state is RAISED]
    assert len(detector.open) == 2
    assert set(fresh[0].by_modality) == {"process"}


def test_a_lost_sensor_raises_nothing_and_does_not_clear_what_it_showed(detector, calibration):
    lost = row(calibration)
    lost[1] = np.nan
    assert drive(detector, lost, 100) == []
    drive(detector, row(calibration, camera=3.0), 10, start=100)
    blind = drive(detector, lost, 300, start=110)
    assert {a.state for _, a in blind} == {HELD}
    assert len(detector.open) == 1
    assert [a.state for _, a in drive(detector, lost, 400, start=410)][-1] is CLEARED


@pytest.mark.parametrize("step_s", [60.0, 3600.0])
def test_on_a_plant_of_long_steps_one_tick_that_is_lost_clears_nothing(calibration, step_s):
    detector = Detector(DetectorConfig(), dataclasses.replace(calibration, step_s=step_s), small_plant(), "m1")
    shown, lost, now = row(calibration, camera=3.0), row(calibration), 0
    lost[1] = np.nan
    for energies, ticks, states in (
        (shown, 1, [RAISED]),
        (lost, 5, [HELD]),
        (shown, 2, [HELD]),
        (lost, 12, [HELD, CLEARED]),
    ):
        found = []
        for now in range(now + 1, now + 1 + ticks):  # noqa: B020  # time goes on
            found += [change.state for change in detector.step(round(now * step_s) * S, energies)]
        assert list(dict.fromkeys(found)) == states
    assert [found.index(CLEARED)] == [9]


def test_delays_last_ticks_where_steps_are_long_and_seconds_where_they_are_short():
    usual = DetectorConfig()
    assert usual.of_step(1.0) == usual
    assert usual.of_step(0.1) == usual
    slow = usual.of_step(60.0)
    assert (slow.residue_s, slow.join_s, slow.settling_s, slow.off_delay_s) == (3000.0, 300.0, 600.0, usual.off_delay_s)


@pytest.mark.parametrize(("step_s", "ahead", "law"), [(1.0, 120, 600), (60.0, 40, 40)])
def test_what_looks_ahead_is_not_trusted_for_as_many_ticks_as_it_looks_back(step_s, ahead, law):
    seam = Seam(ENERGIES, step_s)
    seam.begin(0)
    distrusted = np.zeros(len(ENERGIES))
    for tick in range(700):
        distrusted += np.isnan(seam.trusted(np.ones(len(ENERGIES)), round(tick * step_s * S)))
    assert distrusted.tolist() == [0, 0, 0, ahead, law]
    assert seam.left_s(0) == ahead * step_s


def test_everything_absent_is_no_anomaly(detector):
    assert drive(detector, np.full(5, np.nan), 30) == []


def test_a_modality_outside_its_calibrated_range_does_not_raise(detector, calibration):
    flags = ("uncalibrated:video",)
    assert drive(detector, row(calibration, camera=9.0), 60, flags=flags) == []
    assert drive(detector, row(calibration, camera=9.0), 10, start=60)[0][1].state is RAISED


def test_settling_widens_the_limit_of_innovations_only(calibration):
    flags = ("settling",)
    config, plant = DetectorConfig(), small_plant()
    quiet = Detector(config, calibration, plant, "m1")
    assert drive(quiet, row(calibration, innovation=2.5), 60, flags=flags) == []
    strong = Detector(config, calibration, plant, "m1")
    assert drive(strong, row(calibration, innovation=3.3), 60, flags=flags)
    other = Detector(config, calibration, plant, "m1")
    assert drive(other, row(calibration, microphone=1.3), 60, flags=flags)


def test_a_gap_in_time_restarts_the_on_delay(detector, calibration):
    energies = row(calibration, microphone=3.0)
    drive(detector, energies, 8)
    assert drive(detector, energies, 5, start=100) == []


def test_contributions_name_signals_with_residuals(detector, calibration):
    made = dataclasses.replace(contributions(T=0.8, L=0.2), sensor=np.full(len(NAMES), 0.9))
    anomaly = drive(detector, row(calibration, process=3.0), 10, contributions=made)[0][1]
    assert anomaly.top_signals[0] == SignalBlame(signal="T", residual=2.5, share=pytest.approx(0.8))
    assert anomaly.kind is AnomalyKind.SENSOR


def test_attentive_asks_for_contributions_in_time(detector, calibration):
    detector.step(0, row(calibration))
    assert not detector.attentive
    detector.step(S, row(calibration, process=0.9))
    assert detector.attentive


def test_open_anomalies_are_taken_over_after_a_restart(detector, calibration):
    before = drive(detector, row(calibration, microphone=3.0), 10)[0][1]
    fresh = Detector(DetectorConfig(), calibration, small_plant(), "m1")
    fresh.resume(detector.open)
    assert fresh.open == (before,)
    still = drive(fresh, row(calibration, microphone=3.0), 45, start=20)
    assert {a.id for _, a in still} == {before.id}
    cleared = drive(fresh, row(calibration), 40, start=65)[-1][1]
    assert (cleared.id, cleared.state) == (before.id, CLEARED)


@pytest.mark.parametrize(
    ("factors", "sensor", "kind"),
    [
        ({"health.camera": 2.0, "cross.camera.0.02": 3.0, "cross.process.0.02": 2.0}, {}, AnomalyKind.SENSOR),
        ({"cross.process.0.02": 2.0, "cross.microphone.0.02": 1.8}, {"cross.process.0.02": 1.0}, AnomalyKind.PROCESS),
        ({"cross.microphone.0.02": 4.0, "cross.process.0.02": 1.1}, {}, AnomalyKind.PROCESS),
        ({"cross.microphone.0.02": 4.0}, {"cross.microphone.0.02": 0.8}, AnomalyKind.SENSOR),
        ({"cross.microphone.0.02": 4.0}, {"cross.process.0.02": 0.9}, AnomalyKind.PROCESS),
        ({"cross.process.0.02": 2.0}, {"cross.process.0.02": 0.2}, AnomalyKind.PROCESS),
        ({"balance.tank.120s": 1.5}, {}, AnomalyKind.PROCESS),
        ({}, {}, AnomalyKind.UNKNOWN),
    ],
)
def test_kind_follows_the_first_rule_that_applies(factors, sensor, kind):
    energies = (*ENERGIES, *HEALTH)
    factor = np.array([factors.get(e.name, 0.2) for e in energies])
    told = np.array([sensor.get(e.name, np.nan) for e in energies])
    assert decide_kind(factor, energies, told, EvidenceConfig()) is kind


def test_finding_without_evidence_is_empty():
    found = find(np.zeros(5), ENERGIES, np.zeros(0), None, EvidenceConfig())
    assert (dict(found.by_modality), found.top_signals, found.energies) == ({}, (), ())


def test_configurations_refuse_nonsense():
    with pytest.raises(ConfigError, match="settling: 'net' is not accepted; expected some of ahead, across"):
        DetectorConfig(settling=("ahead", "net"))
    with pytest.raises(ConfigError, match="deadband"):
        DetectorConfig(deadband=1.2)
    with pytest.raises(ConfigError, match="alone"):
        EvidenceConfig(alone=0)


FAST = tuple(dataclasses.replace(energy, speed=0.1) for energy in ENERGIES)


@pytest.fixture
def quick(calibration):
    """A detector whose energies across are fast; those ahead and of laws remember. T and L are neighbours, F is not."""
    plant = dataclasses.replace(small_plant(), edges=(("T", "L"),))
    return Detector(DetectorConfig(), dataclasses.replace(calibration, energies=FAST), plant, "m1")


def test_it_clears_by_what_is_fast_and_what_slow_averages_still_hold_raises_nothing(quick, calibration):
    drive(quick, row(calibration, **{"cross.process": 50.0, "innovation": 80.0}), 60)
    ended = drive(quick, row(calibration, innovation=40.0), 40, start=60)
    assert [a.state for _, a in ended if a.state is CLEARED] == [CLEARED]
    assert not drive(quick, row(calibration, innovation=20.0), 300, start=100)
    drive(quick, row(calibration), 1, start=400)
    assert [a.state for _, a in drive(quick, row(calibration, innovation=5.0), 12, start=401)] == [RAISED]


def test_what_only_slow_energies_saw_clears_by_them(quick, calibration):
    drive(quick, row(calibration, innovation=3.0), 60)
    assert not [a for _, a in drive(quick, row(calibration, innovation=0.8), 60, start=60) if a.state is CLEARED]
    assert CLEARED in [a.state for _, a in drive(quick, row(calibration), 40, start=120)]


def test_another_fault_in_the_same_sense_is_an_event_of_its_own_while_the_first_stands(quick, calibration):
    process = {"cross.process": 3.0}
    drive(quick, row(calibration, **process), 200, contributions=contributions(T=1.0))
    (first,) = quick.open
    both = contributions(T=0.45, F=0.55)
    told = drive(quick, row(calibration, **{"cross.process": 9.0}), 15, start=200, contributions=both)
    second = next(a for _, a in told if a.state is RAISED)
    assert first.top_signals[0].signal == "T"
    assert second.top_signals[0].signal == "F"
    assert second.t_onset_ns == 200 * S
    ended = drive(quick, row(calibration, **process), 60, start=215, contributions=contributions(F=1.0))
    assert [a.id for _, a in ended if a.state is CLEARED] == [first.id]
    assert [a.id for a in quick.open] == [second.id]


def test_kind_and_blame_are_those_of_its_worst_moment_and_revised_with_a_reason(quick, calibration):
    drive(quick, row(calibration, **{"cross.process": 4.0}), 90, contributions=contributions(T=1.0))
    drive(quick, row(calibration, **{"cross.process": 1.1}), 120, start=90, contributions=contributions(L=1.0))
    (held,) = quick.open
    assert held.top_signals[0].signal == "T"
    assert held.revision == STANDING
    worse, told = row(calibration, **{"cross.process": 12.0}), contributions(L=1.0)
    drive(quick, worse, 120, start=210, contributions=dataclasses.replace(told, sensor=np.ones(5)))
    (held,) = quick.open
    assert held.kind is AnomalyKind.SENSOR
    assert "process at T -> sensor at L: cross.process.0.02 rose to" in held.revision


@pytest.mark.parametrize(("times", "said"), [(5.0, STANDING), (500.0, FOREIGN)])
def test_what_stands_when_judging_begins_is_told_from_what_is_foreign_altogether(quick, calibration, times, said):
    drive(quick, row(calibration, **{"cross.process": times, "innovation": times, "balance": times}), 12)
    assert [a.revision for a in quick.open] == [said]


def test_setpoints_and_other_senses_are_not_blamed_and_the_shares_are_whole(quick, calibration):
    blame = contributions(T=0.3, camera=0.9)
    names, shares = (*SIGNALS, "T.SP"), np.concatenate([blame.shares, np.full((len(NAMES), 1), 0.9)], 1)
    seen = np.array([80.0, 0.5, 1.0, np.nan, np.nan, 81.0])
    known = Contributions(signals=names, shares=shares, residual=np.append(blame.residual, 0.0), seen=seen)
    drive(quick, row(calibration, **{"cross.process": 4.0}), 30, contributions=known)
    (held,) = quick.open
    assert [(b.signal, b.share, b.seen, b.expected) for b in held.top_signals] == [("T", 1.0, 80.0, 77.5)]


def test_no_id_is_used_twice_whatever_was_before(calibration):
    ids = []
    for start in range(3):
        detector = Detector(DetectorConfig(), calibration, small_plant(), "m1", sequence=start)
        drive(detector, row(calibration, microphone=3.0), 12)
        ids.append(detector.open[0].id)
        assert detector.sequence == start + 1
    assert len(set(ids)) == 3


@pytest.fixture
def dying(calibration):
    """A detector that hears when the camera dies, and the rows of a strange and of a dead camera."""
    energies = (*FAST[:4], alive("camera", Modality.VIDEO))
    detector = Detector(DetectorConfig(), dataclasses.replace(calibration, energies=energies), small_plant(), "m1")
    strange = row(calibration, camera=3.0)
    dead = strange.copy()
    dead[4] += 50.0 * calibration.threshold * calibration.scale[4]
    return detector, strange, dead


def test_a_sense_that_dies_is_an_event_of_its_own_while_another_stands_in_it(dying, calibration):
    detector, strange, dead = dying
    drive(detector, strange, 20, contributions=contributions(camera=1.0))
    assert [a.kind for a in detector.open] == [AnomalyKind.PROCESS]
    told = drive(detector, dead, 15, start=20, contributions=contributions(camera=1.0))
    second = next(a for _, a in told if a.state is RAISED)
    assert (second.kind, second.t_onset_ns) == (AnomalyKind.SENSOR, 20 * S)
    ended = drive(detector, row(calibration), 40, start=35, contributions=contributions(camera=1.0))
    assert {a.id for _, a in ended if a.state is CLEARED} == {a.id for _, a in told if a.state is RAISED} | {
        "small-19700101T000000-1"
    }


@pytest.mark.parametrize(
    ("after", "blamed", "kind"),
    [(60, "camera", AnomalyKind.SENSOR), (300, "camera", AnomalyKind.PROCESS), (60, "T", AnomalyKind.PROCESS)],
)
def test_a_sign_of_life_explains_what_has_just_been_raised_of_the_same_signal(dying, after, blamed, kind):
    detector, strange, dead = dying
    drive(detector, strange, after, contributions=contributions(**{blamed: 1.0}))
    told = drive(detector, dead, 60, start=after, contributions=contributions(camera=1.0))
    raised_s, second = next((t, a) for t, a in told if a.state is RAISED)
    first = detector.open[0]
    assert first.kind is kind
    assert (second.id in first.revision) == (kind is AnomalyKind.SENSOR)
    assert ((raised_s, first.id) in [(t, a.id) for t, a in told if a.kind is AnomalyKind.SENSOR]) == bool(
        second.id in first.revision
    )


@pytest.mark.parametrize(("since", "kind"), [(0, AnomalyKind.SENSOR), (-400, AnomalyKind.PROCESS)])
def test_what_begins_to_arrive_late_is_the_instruments_and_a_clock_that_is_long_known_excuses_nothing(
    quick, calibration, since, kind
):
    known, late = contributions(camera=1.0), ("clock:camera",)
    drive(quick, row(calibration), 400 + since, contributions=known)
    drive(quick, row(calibration), -since, start=400 + since, contributions=known, flags=late)
    drive(quick, row(calibration, camera=3.0), 60, start=400, contributions=known, flags=late)
    assert [a.kind for a in quick.open] == [kind]


def test_what_is_known_to_arrive_late_excuses_no_other_signal(quick, calibration):
    late = ("clock:T",)
    drive(quick, row(calibration, process=3.0), 60, contributions=contributions(T=1.0), flags=late)
    assert [a.kind for a in quick.open] == [AnomalyKind.SENSOR]
    drive(quick, row(calibration, process=40.0), 200, start=60, contributions=contributions(L=1.0), flags=late)
    assert [(a.kind, a.top_signals[0].signal) for a in quick.open] == [(AnomalyKind.PROCESS, "L")]


def test_an_event_that_a_clock_explained_is_the_instruments_after_a_restart(quick, calibration):
    known, late = contributions(camera=1.0), ("clock:camera",)
    drive(quick, row(calibration, camera=3.0), 60, contributions=known, flags=late)
    again = Detector(DetectorConfig(), quick._calibration, small_plant(), "m1")
    again.resume(quick.open)
    drive(again, row(calibration, camera=40.0), 200, start=300, contributions=known, flags=late)
    assert [(a.kind, a.top_signals[0].signal) for a in again.open] == [(AnomalyKind.SENSOR, "camera")]


def test_a_signal_that_dies_while_another_has_long_been_dead_explains_its_own_event(calibration):
    names = ("T0", "T1", "T2", "T3")
    edges = (("T0", "T1"), ("T2", "T3"))
    plant = Plant(name="wide", signals=tuple(Signal(name=n) for n in names), edges=edges)
    energies = (FAST[0], alive("T0", Modality.PROCESS), alive("T2", Modality.PROCESS), *FAST[3:])
    detector = Detector(DetectorConfig(), dataclasses.replace(calibration, energies=energies), plant, "m1")
    shares = np.zeros((5, 4))
    shares[:, 2], shares[1] = 1.0, (1.0, 0.0, 0.0, 0.0)
    known = Contributions(signals=names, shares=shares, residual=np.zeros(4))
    said = row(calibration)
    for e, factor, since, seconds in ((1, 50.0, 0, 400), (0, 3.0, 400, 60), (2, 9.0, 460, 60)):
        said[e] += factor * calibration.threshold * calibration.scale[e]
        drive(detector, said, seconds, start=since, contributions=known)
    first, event, second = detector.open
    assert [a.top_signals[0].signal for a in (first, event, second)] == ["T0", "T2", "T2"]
    assert event.kind is AnomalyKind.SENSOR
    assert second.id in event.revision


def test_an_event_of_all_tags_stands_beside_another_in_the_same_sense(calibration):
    names = tuple(f"T{i}" for i in range(20))
    plant = Plant(name="wide", signals=tuple(Signal(name=n) for n in names), edges=(("T0", "T1"),))
    energies = (*FAST[:4], alive("process", Modality.PROCESS))
    detector = Detector(DetectorConfig(), dataclasses.replace(calibration, energies=energies), plant, "m1")
    strange = row(calibration, **{"cross.process": 3.0})
    replayed = strange.copy()
    replayed[4] += 50.0 * calibration.threshold * calibration.scale[4]
    shares = np.zeros((5, 20))
    shares[:4, 0], shares[4] = 1.0, 0.05
    known = Contributions(signals=names, shares=shares, residual=np.zeros(20))
    drive(detector, strange, 20, contributions=known)
    told = drive(detector, replayed, 200, start=20, contributions=known)
    assert [a.kind for _, a in told if a.state is RAISED] == [AnomalyKind.SENSOR]
    assert not [a for _, a in told if a.state is CLEARED]
    assert [a.kind for a in detector.open] == [AnomalyKind.SENSOR] * 2
