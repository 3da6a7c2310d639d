import json
from dataclasses import replace

import numpy as np
import pytest

from control.anomaly.calibration import (
    Calibration,
    SurpriseConfig,
    block_maxima,
    calibrate,
    rate_bound,
    sustained,
)
from control.anomaly.tail import fit_tail
from fusion.errors import CheckpointError, ConfigError
from fusion.plant import Modality
from fusion.records import Energy, Origin
from fusion.state import dump_state, load_state

ENERGIES = (
    Energy(name="cross.process.0.02", origin=Origin.ACROSS, family="cross", speed=0.02),
    Energy(name="cross.microphone.0.02", origin=Origin.ACROSS, family="cross", modality=Modality.AUDIO, speed=0.02),
    Energy(name="innovation.8", origin=Origin.AHEAD, family="innovation", speed=0.02),
    Energy(name="health.process", origin=Origin.ALIVE, family="health"),
)
LATENT = Energy(name="net.shell", origin=Origin.LATER, family="shell")


def slow_noise(hours, seed, columns=4, alpha=0.05):
    """Squared autocorrelated noise, as energies of averaged residuals are."""
    rng = np.random.default_rng(seed)
    ticks = int(hours * 3600)
    x = rng.standard_normal((ticks, columns, 3))
    x[0] *= np.sqrt(alpha / (2 - alpha))
    for t in range(1, ticks):
        x[t] = (1 - alpha) * x[t - 1] + alpha * x[t]
    return np.square(x * np.sqrt((2 - alpha) / alpha)).sum(2)


def raises_in(calibration, values, apart=300):
    level = sustained(calibration.peaks(values), SurpriseConfig(), 1.0)
    at = np.flatnonzero(level >= calibration.threshold)
    return int(len(at) > 0) + int((np.diff(at) > apart).sum())


def test_the_budget_of_false_raises_holds_on_autocorrelated_noise():
    config = SurpriseConfig(false_raises_per_day=12.0, safety=0.0)
    raises, hours = 0, 0.0
    for seed in range(4):
        calibration = calibrate(slow_noise(6, seed), ENERGIES, config)
        fresh = slow_noise(6, 100 + seed)
        raises += raises_in(calibration, fresh)
        hours += 6
    per_day = 24 * raises / hours
    assert 12.0 / 3 < per_day < 12.0 * 2


def test_a_tight_budget_extrapolates_beyond_what_was_seen():
    data = slow_noise(3, 5)
    loose = calibrate(data, ENERGIES, SurpriseConfig(false_raises_per_day=24))
    tight = calibrate(data, ENERGIES, SurpriseConfig(false_raises_per_day=0.2))
    assert tight.threshold > loose.threshold
    assert tight.raises == 0
    assert tight.bound_per_day == pytest.approx(24 * 2.996 / 3, rel=0.01)


def test_an_absent_energy_takes_no_part():
    data = slow_noise(2, 1)
    calibration = calibrate(data, ENERGIES)
    row = data[100].copy()
    row[1] = 1e9
    assert calibration.score(row).p_value < 1e-3
    row[1] = np.nan
    quiet = calibration.score(row)
    assert np.isnan(quiet.factor[1])
    assert quiet.peak < calibration.threshold
    nothing = calibration.score(np.full(4, np.nan))
    assert nothing.p_value == 1.0
    assert np.isnan(nothing.peak)


def test_an_energy_hardly_seen_in_calibration_is_not_calibrated():
    data = slow_noise(2, 2)
    data[60:, 1] = np.nan
    calibration = calibrate(data, ENERGIES)
    assert calibration.uncalibrated == ("cross.microphone.0.02",)
    assert np.isnan(calibration.score(np.array([0, 1e9, 0, 0.0])).factor[1])


def test_one_wild_energy_does_not_set_the_limit_of_all():
    data = slow_noise(3, 3)
    tame = calibrate(data, ENERGIES, SurpriseConfig(false_raises_per_day=8))
    data[5000:5060, 3] += 5000.0
    wild = calibrate(data, ENERGIES, SurpriseConfig(false_raises_per_day=8))
    assert wild.threshold < 2 * tame.threshold


def test_a_constant_energy_keeps_a_finite_scale():
    data = slow_noise(2, 4)
    data[:, 3] = 0.0
    calibration = calibrate(data, ENERGIES)
    assert calibration.score(np.array([0, 0, 0, 0.5])).factor[3] > 10


def test_p_values_are_empirical_inside_and_fall_smoothly_beyond():
    data = slow_noise(3, 7)
    calibration = calibrate(data, ENERGIES)
    peaks = calibration.peaks(data)
    p = calibration.p_values(np.quantile(peaks, [0.5, 0.9, 0.98]))
    assert p == pytest.approx([0.5, 0.1, 0.02], rel=0.1)
    top = peaks.max()
    beyond = calibration.p_values(np.array([top, 1.5 * top, 3 * top]))
    assert 0 < beyond[2] < beyond[1] < beyond[0] < 0.01


def test_streaming_equals_bulk():
    data = slow_noise(1, 8)
    calibration = calibrate(data, ENERGIES)
    scores = [calibration.score(row) for row in data[:50]]
    assert np.array([s.peak for s in scores]) == pytest.approx(calibration.peaks(data[:50]))
    assert np.array([s.p_value for s in scores]) == pytest.approx(calibration.p_values(calibration.peaks(data[:50])))


def test_state_survives_json():
    data = slow_noise(1, 9)
    data[:, 1] = np.nan
    calibration = calibrate([data[:1800], data[1800:]], ENERGIES)
    arrays, tree = dump_state(calibration)
    again = load_state(Calibration, arrays, json.loads(json.dumps(tree, allow_nan=False)))
    assert again.score(data[7]).p_value == calibration.score(data[7]).p_value
    assert again.threshold == calibration.threshold
    with pytest.raises(CheckpointError, match=r"another version; train again \('median'"):
        load_state(Calibration, {}, tree)


def test_bad_calibration_data_are_refused_by_name():
    with pytest.raises(ConfigError, match="4"):
        calibrate(np.zeros((100, 3)), ENERGIES)
    with pytest.raises(ConfigError, match="no energies"):
        calibrate(np.full((100, 4), np.nan), ENERGIES)
    with pytest.raises(ConfigError, match="normal data"):
        calibrate(slow_noise(0.1, 1), ENERGIES)
    with pytest.raises(ConfigError, match="false_raises_per_day"):
        SurpriseConfig(false_raises_per_day=0)


def test_the_bound_is_that_of_a_poisson_rate():
    assert rate_bound(0, 7.3) == pytest.approx(2.996 / 7.3, rel=1e-3)
    assert rate_bound(3, 1.0) == pytest.approx(7.754, rel=1e-3)
    assert rate_bound(0, 0.0) == np.inf


def test_tail_recovers_an_exponential_and_a_heavy_tail():
    rng = np.random.default_rng(0)
    tail = fit_tail(rng.exponential(2.0, 4000), 0.5, 10.0)
    assert tail.level(0.01) == pytest.approx(2 * np.log(1000), rel=0.15)
    heavy = fit_tail(rng.pareto(5.0, 4000), 0.5, 10.0)
    assert heavy.shape == pytest.approx(0.2, abs=0.1)
    assert heavy.rate_above(np.array([heavy.level(0.01)]))[0] == pytest.approx(0.01, rel=1e-6)


def test_an_extrapolation_carries_a_margin_for_each_power_of_ten_where_no_law_holds():
    data = [np.abs(slow_noise(1.0, seed)) for seed in range(4)]
    origins = (Origin.LAW, Origin.ACROSS, Origin.BESIDE, Origin.LATER)
    energies = tuple(replace(e, origin=o) for e, o in zip(ENERGIES, origins, strict=True))
    once = 24 / calibrate(data, energies).hours

    def margin(per_day):
        config = SurpriseConfig(false_raises_per_day=per_day, safety=0.0)
        plain, safe = calibrate(data, energies, config), calibrate(data, energies, replace(config, safety=0.5))
        assert safe.threshold == plain.threshold
        return (safe.scale / plain.scale).round(3).tolist()

    wanted = {10.0: 1.0, 1.0: 1.0, 0.1: 1.5, 0.01: 2.0}
    assert {share: margin(once * share) for share in wanted} == {s: [1.0, m, 1.0, m] for s, m in wanted.items()}


def test_what_few_exceedances_predict_comes_as_often_as_they_say():
    rng = np.random.default_rng(1)
    tails = [fit_tail(rng.exponential(1.0, 12), 0.5, 10.0) for _ in range(3000)]
    true = np.mean([10.0 * np.exp(-tail.level(0.5)) for tail in tails])
    assert true == pytest.approx(0.5, rel=0.25)


def test_the_fewer_are_known_the_higher_the_level():
    rng = np.random.default_rng(2)
    made = rng.exponential(1.0, (400, 12))
    levels = [np.median([fit_tail(row[:n], 0.5, 10.0).level(0.5) for row in made]) for n in (2, 4, 6, 12)]
    assert levels == sorted(levels, reverse=True)


def test_blocks_and_sustained_levels():
    assert block_maxima(np.array([1.0, 5.0, 2.0, 3.0, 9.0]), 2).tolist() == [5.0, 3.0, 9.0]
    config = SurpriseConfig(on_delay_s=3)
    level = sustained(np.array([1.0, 2.0, 3.0, np.nan, 4.0, 5.0, 6.0]), config, 1.0)
    assert level.tolist() == [-np.inf, -np.inf, 1.0, -np.inf, -np.inf, -np.inf, 4.0]


def test_an_energy_that_may_not_raise_changes_no_limit():
    data, config = slow_noise(3, 3), SurpriseConfig(false_raises_per_day=8)
    alone = calibrate(data, ENERGIES, config)
    for wild in (1e-3, 1.0, 30.0):
        beside = np.abs(np.random.default_rng(1).standard_normal((len(data), 3))) ** wild
        both = calibrate(np.hstack([data, beside]), (*ENERGIES, *[LATENT] * 3), config)
        assert both.threshold == alone.threshold
        assert both.raising.tolist() == [True] * 4 + [False] * 3
    heard = both.heard()
    assert heard.energies == alone.energies
    assert heard.score(data[9]).factor.tolist() == alone.score(data[9]).factor.tolist()
    loud = np.append(data[9], [1e9] * 3)
    assert both.score(loud).peak == alone.score(data[9]).peak
    assert both.restricted(~both.raising).raising.tolist() == [False] * 4 + [True] * 3


def test_the_configuration_says_by_record_what_may_raise():
    config = SurpriseConfig(silent=("innovation", "alive"), least_speed=0.03)
    fast = replace(ENERGIES[0], speed=0.05)
    assert [config.lets_raise(e) for e in (*ENERGIES, fast, LATENT)] == [False] * 4 + [True, True]
    with pytest.raises(ConfigError, match="least_speed"):
        SurpriseConfig(least_speed=1.0)


def test_media_decide_what_may_raise_where_it_is_left_open():
    lagged = Energy(name="lagged.tight", origin=Origin.BESIDE, family="lagged", speed=0.3)
    camera = replace(ENERGIES[0], modality=Modality.VIDEO)
    open_, slow = SurpriseConfig(), SurpriseConfig(least_speed=0.1)
    both = [open_.closed([LATENT]), open_.closed([LATENT, camera])]
    assert [[c.lets_raise(e) for c in both] for e in (lagged, LATENT, *ENERGIES[::2])] == [
        [True, False],
        [False, False],
        [False, True],
        [False, True],
    ]
    assert slow.closed([LATENT]).least_speed == 0.1
    assert SurpriseConfig(silent=()).closed([camera]).silent == ()


def test_a_word_that_silences_nothing_is_refused():
    with pytest.raises(ConfigError, match=r"surprise\.silent: 'net' is not accepted; expected some of innovation, "):
        SurpriseConfig(silent=("net", "lagged"))
