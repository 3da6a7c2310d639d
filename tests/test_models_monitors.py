import dataclasses
import itertools
import json

import numpy as np
import pytest

from fusion.errors import ConfigError
from fusion.plant import Balance, Modality, Plant, Role, Signal
from fusion.records import Origin
from fusion.state import dump_state, load_state
from models.linear.core import LinearConfig
from models.linear.fit import fit_core
from models.monitors.averaged import AverageCarry, Limits, averaged
from models.monitors.balance import Laws
from models.monitors.distance import Distance
from models.monitors.fit import fit_monitors
from models.monitors.health import SignsOfLife
from models.monitors.monitors import MonitorCarry, Monitors
from models.monitors.residual import WARM_UP_TICKS
from models.ticks import Ticks

TICKS = 1000
FEATURES = {"cam": 6, "mic": 8}


class Facts:
    def names(self, signal):
        return tuple(f"{signal}_{i}" for i in range(FEATURES[signal]))

    def level_like(self, signal):
        return np.arange(FEATURES[signal]) == 0

    def health(self, signal):
        return np.array([FEATURES[signal] - 1] if signal == "cam" else [], np.int64)

    def quality(self, signal):
        return np.arange(FEATURES[signal]) == 1


def make_plant():
    return Plant(
        name="synthetic",
        signals=(
            Signal(name="IN", unit="L/s"),
            Signal(name="OUT", unit="L/s"),
            Signal(name="LEVEL"),
            Signal(name="SPEED"),
            Signal(name="POWER"),
            Signal(name="SP", role=Role.MANIPULATED, low=0.0, high=2.0, max_rate=1.0),
            Signal(name="cam", modality=Modality.VIDEO, shape=(4, 4)),
            Signal(name="mic", modality=Modality.AUDIO, shape=(100,)),
        ),
        balances=(
            Balance(
                name="tank", level="LEVEL", capacity=1000.0, flows={"IN": 1.0, "OUT": -1.1}, window_s=(60.0, 240.0)
            ),
        ),
    )


def run(seed, ticks=TICKS, fault=None, onset=500):
    """A tank with inflow by setpoint, a machine whose speed camera and microphone see."""
    rng = np.random.default_rng(seed)
    maps = np.random.default_rng(99)
    sp = rng.uniform(0.5, 1.5, ticks)[np.cumsum(rng.random(ticks) < 1 / 60) % ticks]
    inflow = speed = sp[0]
    level, tags, states = 0.5, np.zeros((ticks, 5)), np.zeros((ticks, 2))
    for t in range(ticks):
        bad = fault if t >= onset else None
        inflow += (sp[t] - inflow) / 10
        speed += (sp[t] + 0.3 * np.sin(t / 90) - speed) / 5
        out = inflow + 2.0 * (level - 0.5)
        level += (inflow - out - (0.1 if bad == "leak" else 0.0)) / 1000
        true = np.array([inflow, out, level, speed, 2 * speed + inflow])
        true[3] += 0.3 if bad == "sensor" else 0.0
        tags[t] = true + rng.normal(0, [0.01, 0.01, 0.0005, 0.01, 0.02])
        states[t] = speed + (0.3 if bad == "machine" else 0.0), inflow
    media = {m: states @ maps.normal(size=(2, n)) + rng.normal(0, 0.05, (ticks, n)) for m, n in FEATURES.items()}
    media["cam"][:, -1] = 0.0
    return Ticks(
        t_ns=np.arange(1, ticks + 1) * 10**9,
        tags=tags,
        observed=np.ones((ticks, 5), bool),
        age_s=np.zeros((ticks, 5)),
        quality=np.full((ticks, 5), 2, np.uint8),
        action=sp[:, None],
        media=media,
        present={m: np.ones(ticks, bool) for m in media},
        patches={},
    )


@pytest.fixture(scope="module")
def plant():
    return make_plant()


@pytest.fixture(scope="module")
def monitors(plant):
    runs = [run(s) for s in range(9)]
    core = fit_core(runs, plant, LinearConfig(ranks=(6,), variates=24))
    return fit_monitors(runs, core, plant, Facts())


def judged(monitors, ticks, *, explain=False):
    return monitors.step(ticks, monitors.core.encode(ticks)[0], explain=explain)[0]


@pytest.fixture(scope="module")
def limits(monitors):
    normal = [judged(monitors, run(s)).values for s in range(200, 216)]
    return np.nanmax(np.concatenate(normal), 0) * 1.4


def raised(monitors, limits, ticks):
    found = judged(monitors, ticks, explain=True)
    return found, dict(zip(found.names, (found.values > limits).T, strict=True))


def changed(ticks, **arrays):
    kept = {n: getattr(ticks, n) for n in Ticks.__dataclass_fields__}
    return Ticks(**(kept | arrays))


def test_normal_energies_are_finite_and_about_one(monitors):
    found = judged(monitors, run(77))
    assert np.isnan(found.values[:WARM_UP_TICKS]).all()
    late = found.values[400:]
    assert np.isfinite(late).all()
    cross = [i for i, n in enumerate(found.names) if n.startswith(("cross", "innovation"))]
    assert 0.3 < np.median(late[:, cross]) < 2.0
    assert {e.source for e in found.energies} == {"process", "cam", "mic"}
    assert found.energies[found.names.index("cross.mic.0.1")].modality is Modality.AUDIO
    assert found.energies[found.names.index("health.cam")].origin is Origin.ALIVE


def test_one_tick_at_a_time_equals_bulk(monitors):
    ticks = run(78, 420)
    holes = np.ones(420, bool)
    holes[200:260] = False
    ticks = changed(ticks, present=ticks.present | {"cam": holes})
    bulk = judged(monitors, ticks)
    past, carry, parts = None, MonitorCarry(), []
    for at in [*range(300), 300]:
        piece = ticks[at : at + 1] if at < 300 else ticks[300:]
        encoding, past = monitors.core.encode(piece, past)
        found, carry = monitors.step(piece, encoding, carry)
        parts.append(found.values)
    np.testing.assert_allclose(np.concatenate(parts), bulk.values, rtol=1e-9, atol=1e-9)
    assert np.isnan(bulk.values[200:260, bulk.names.index("cross.cam.0.1")]).all()
    assert np.isfinite(bulk.values[200:260, bulk.names.index("cross.mic.0.1")]).all()


def test_wrong_sensor_is_blamed_alone(monitors, limits):
    found, over = raised(monitors, limits, run(60, fault="sensor"))
    assert not [n for n, v in over.items() if v[:500].any()]
    assert over["cross.process.0.1"][520:].all()
    assert not over["cross.mic.0.1"].any() or found.values[-1].argmax() != found.names.index("cross.mic.0.1")
    shares = found.shares[600:, found.names.index("cross.process.0.1")]
    assert found.signals[int(shares.mean(0).argmax())] == "SPEED"
    assert shares[:, found.signals.index("SPEED")].mean() > 0.8
    assert np.abs(found.residual[600:, found.signals.index("SPEED")]).max() < 1.0


def test_machine_fault_is_seen_by_both_media(monitors, limits):
    _, over = raised(monitors, limits, run(61, fault="machine"))
    assert over["cross.process.0.1"][540:].any()
    assert not [n for n, v in over.items() if v[:500].any()]


def test_leak_is_found_by_the_balance_within_minutes(monitors, limits):
    found, over = raised(monitors, limits, run(62, fault="leak"))
    assert over["balance.tank.240s"][560:740].any()
    assert not over["balance.tank.240s"][:500].any()
    share = found.shares[-1, found.names.index("balance.tank.240s")]
    (laws,) = (other for other in monitors.others if isinstance(other, Laws))
    assert {s for s, v in zip(found.signals, share, strict=True) if v > 0} == {"IN", "OUT", "LEVEL"}
    assert laws.monitors[0].coefficients.sum() == pytest.approx(0.0, abs=0.01)  # refined from -0.1


def test_values_that_come_late_break_no_law(monitors, limits):
    ticks = run(64)
    tags, observed = ticks.tags.copy(), ticks.observed.copy()
    tags[:5], observed[:5] = 0.0, False
    late = changed(ticks, tags=tags, observed=observed)
    _, over = raised(monitors, limits, late)
    assert not [n for n, v in over.items() if n.startswith("balance") and v.any()]
    (laws,) = (other for other in monitors.others if isinstance(other, Laws))
    carry, parts = None, []
    for first, end in itertools.pairwise((0, 3, 5, 6, 200, TICKS)):
        made, carry = laws.monitors[0].step(late[first:end], monitors.plant, carry)
        parts.append(made)
    np.testing.assert_allclose(np.concatenate(parts), laws.monitors[0].step(late, monitors.plant, None)[0], atol=1e-9)


def test_lost_camera_leaves_the_rest_calibrated_and_quiet(monitors, limits):
    ticks = run(63)
    gone = np.arange(TICKS) < 400
    dark = {**ticks.media, "cam": np.where(gone[:, None], ticks.media["cam"], 0.0)}
    _, over = raised(monitors, limits, changed(ticks, media=dark, present=ticks.present | {"cam": gone}))
    assert not [n for n, v in over.items() if v.any()]


def test_level_outside_training_is_not_an_alarm(monitors, limits):
    ticks = run(64)
    lifted = ticks.media["cam"].copy()
    lifted[500:, 0] += 50.0
    found, over = raised(monitors, limits, changed(ticks, media={**ticks.media, "cam": lifted}))
    assert not found.calibrated["cam"][500:].any()
    assert found.calibrated["cam"][:500].all()
    plain = raised(monitors, limits, ticks)[1]
    assert not [n for n, v in over.items() if v.any() and not plain[n].any()]


def test_frozen_picture_and_stuck_tag_show_as_sensor_health(monitors, limits):
    ticks = run(65)
    frozen, stuck = ticks.media["cam"].copy(), ticks.tags.copy()
    frozen[600:, -1] = 1.0
    stuck[700:, 1] = stuck[700, 1]
    found, over = raised(monitors, limits, changed(ticks, tags=stuck, media={**ticks.media, "cam": frozen}))
    assert over["health.cam"][600:].all()
    assert over["health.process"][730:].all()
    assert found.shares[-1, found.names.index("health.process"), found.signals.index("OUT")] > 0.9


def test_a_tag_may_rest_at_its_limit_and_not_far_beyond(monitors, plant):
    life = next(other for other in monitors.others if isinstance(other, SignsOfLife))
    signals = tuple(dataclasses.replace(s, low=0.0, high=10.0) if s.name == "OUT" else s for s in plant.signals)
    limited = dataclasses.replace(life, plant=dataclasses.replace(plant, signals=signals))
    ticks = run(65, ticks=8)
    tags = ticks.tags.copy()
    tags[:, 1] = -1.0, -0.2, 0.005, 5.0, 9.995, 10.2, 11.0, 400.0
    found = limited._saturated(changed(ticks, tags=tags))
    assert found[:, 1].tolist() == [False, True, True, False, True, True, False, False]
    assert not found[:, 0].any()


def test_state_round_trip(monitors, plant):
    shared = {"plant": plant, "core": monitors.core, "stem": Facts()}
    arrays, tree = dump_state(monitors, shared)
    again = load_state(Monitors, arrays, json.loads(json.dumps(tree)), shared)
    ticks = run(66, 300)
    first, second = judged(monitors, ticks, explain=True), judged(again, ticks, explain=True)
    np.testing.assert_array_equal(first.values, second.values)
    assert first.energies == second.energies
    np.testing.assert_array_equal(first.shares, second.shares)


def test_tags_only_plants_work_and_short_runs_are_refused(plant):
    runs = [run(s).without_media() for s in range(4)]
    core = fit_core(runs, plant, LinearConfig(ranks=(6,), variates=24))
    found = judged(fit_monitors(runs, core, plant, Facts()), runs[0])
    assert np.isfinite(found.values[400:]).all()
    with pytest.raises(ConfigError, match="monitors"):
        fit_monitors([runs[0][:100]], core, plant, Facts())


def test_distance_names_the_column_that_must_be_ignored():
    rng = np.random.default_rng(0)
    samples = rng.normal(size=(5000, 3)) @ np.array([[1, 0.9, 0], [0, 0.3, 0], [0, 0, 1.0]])
    distance = Distance.fit(np.c_[samples, np.zeros(5000)], np.array([0, 1, 2, 2]))
    odd = np.array([[0.0, 4.0, 0.0, 0.0]])
    assert distance.energy(odd)[0] > 10 * distance.energy(samples.mean(0, keepdims=True) @ np.eye(3, 4))[0]
    shares = distance.contributions(odd, 4)[0]
    assert shares.argmax() == 1
    assert shares[3] == 0.0


def test_what_is_not_heard_is_not_made_and_changes_no_number(monitors):
    kept = {"cross.mic.0.02", "feature.process.0.1", "relation.shift", "lagged.loose", "balance.tank.60s", "state.0.1"}
    fewer, ticks = monitors.hearing(kept), run(66, 400)
    whole, part = judged(monitors, ticks, explain=True), judged(fewer, ticks, explain=True)
    assert set(part.names) == kept
    columns = [whole.names.index(name) for name in part.names]
    np.testing.assert_array_equal(part.values, whole.values[:, columns])
    np.testing.assert_array_equal(part.shares, whole.shares[:, columns])
    np.testing.assert_array_equal(part.residual, whole.residual)  # evidence that no energy has to give
    assert len(fewer.others) == 4
    nothing = judged(monitors.hearing(()), ticks, explain=True)
    assert nothing.values.shape == (400, 0)
    tags = len(monitors.plant.tags)
    np.testing.assert_array_equal(nothing.residual[:, :tags], whole.residual[:, :tags])
    assert not nothing.residual[:, tags:].any()  # what of a medium is off is known by its residuals alone


def test_a_strong_fault_is_forgotten_as_fast_as_a_weak_one(monitors, limits):
    back = {}
    for size in (3.0, 300.0):
        ticks = run(71, 900)
        wrong = ticks.tags.copy()
        wrong[400:600, 2] += size
        over = raised(monitors, limits, changed(ticks, tags=wrong))[1]
        named = {n: v for n, v in over.items() if n.startswith(("cross", "feature", "relation"))}
        assert any(v[420:600].any() for v in named.values())
        back[size] = max(int(np.flatnonzero(v)[-1]) for v in named.values() if v.any()) - 599
    assert back[300.0] <= back[3.0] + 10, back


def test_a_dead_sense_accuses_nobody_and_comes_back_without_a_trace(monitors, limits):
    ticks = run(72, 900)
    frozen = ticks.media["cam"].copy()
    frozen[400:600] = frozen[400]
    frozen[400:600, -1] = 1.0
    over = raised(monitors, limits, changed(ticks, media={**ticks.media, "cam": frozen}))[1]
    plain = raised(monitors, limits, ticks)[1]
    assert over["health.cam"][400:600].all()
    others = {n for n, v in over.items() if v[400:].any() and not plain[n][400:].any()}
    assert {n for n in others if not n.startswith("joint")} == {
        "health.cam"
    }  # what is joint has no jury, and is silent


def test_a_sense_that_its_source_doubts_accuses_nobody(monitors, limits):
    ticks = run(75, 900)
    wild, doubted = ticks.media["cam"].copy(), np.zeros(900, bool)
    wild[400:600, 1:-1], doubted[400:600] = wild[400:600, 1:-1] + 2.0, True
    odd = changed(ticks, media={**ticks.media, "cam": wild})
    plain, believed = raised(monitors, limits, ticks)[1], raised(monitors, limits, odd)[1]
    over = raised(monitors, limits, changed(odd, doubted={"cam": doubted}))[1]
    assert any(v[400:600].any() for n, v in believed.items() if n.startswith("cross.cam"))
    assert not {n for n, v in over.items() if v[400:].any() and not plain[n][400:].any() and not n.startswith("joint")}


def test_what_is_usual_follows_a_plant_that_changes_but_no_fault_that_stands():
    rng, known = np.random.default_rng(3), np.ones(50, bool)
    fitted = averaged(rng.normal(size=(6000, 2)), np.ones(6000, bool), AverageCarry())
    limits = Limits.fit(fitted.fresh, fitted.smooth, 0.99)

    def usual(first, last, size, noticed_after=None):
        """What is usual of the first column, in its limits, every 50 ticks; a fault that is noticed is not learned."""
        carry, levels = AverageCarry(), []
        residual = rng.normal(size=(6000, 2))
        residual[first:last, 0] += size * limits.fresh[0]
        for start in range(0, 6000, 50):
            learns = noticed_after is None or not first + noticed_after <= start < last + 50
            averaged(residual[start : start + 50], known, carry, limits, learns=learns)
            levels.append(carry.usual / limits.fresh)
        return np.array(levels)

    changed, noticed = usual(1000, 6000, 3.0), usual(1000, 1400, 30.0, noticed_after=50)
    assert changed[-1, 0] > 2.5
    assert np.abs(changed[:, 1]).max() < 0.5
    assert noticed[20, 0] > 0.5  # until somebody notices
    assert np.abs(noticed[21:]).max() < 0.5


def test_what_an_operator_accepts_is_usual_from_then_on(monitors):
    ticks = run(73, 700)
    high = ticks.tags.copy()
    high[:, 2] += 2.0
    carry, odd = MonitorCarry(), changed(ticks, tags=high)
    encoding, _ = monitors.core.encode(odd)
    before, _ = monitors.step(odd[:500], encoding[:500], carry)
    column = before.names.index("relation.0.02")
    monitors.local.accept(np.array([n == "relation.0.02" for n in before.names]), carry.local)
    after, _ = monitors.step(odd[500:], encoding[500:], carry)
    assert np.median(after.values[:, column]) <= 1.2 * monitors.local.upper[column]
    assert np.median(before.values[300:, column]) > 1.5 * monitors.local.upper[column]
    other = before.names.index("relation.0.1")
    assert np.median(after.values[:, other]) == pytest.approx(np.median(before.values[300:, other]), rel=0.2)
