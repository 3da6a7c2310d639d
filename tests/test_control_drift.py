"""Live forecasts against what came."""

import numpy as np
import pytest

from control.advice.drift import BandWatch, DriftConfig
from fusion.errors import ConfigError
from fusion.records import NS_PER_S, Forecast

QUICK = DriftConfig(horizon_s=8.0, window_s=60.0, least_coverage=0.7)


def forecast(t_s):
    mean = np.array([[0.0, 5.0], [0.0, 5.0]])
    return Forecast(
        t_ns=t_s * NS_PER_S, horizon_s=(1.0, 8.0), signals=("B", "A"), mean=mean, low=mean - 1, high=mean + 1
    )


def watched(values, seconds=120, observed=(True, True)):
    watch = BandWatch(QUICK, ["A", "B"])
    for t in range(seconds):
        watch.foretell(forecast(t))
        watch.see(t * NS_PER_S, np.array(values), np.array(observed))
    return watch


def test_values_inside_their_bands_are_no_drift_and_others_are():
    sound = watched((5.5, -0.5))
    assert (sound.coverage, sound.drifted()) == (1.0, "")
    gone = watched((5.5, 3.0))
    assert gone.coverage == 0.5
    assert "50% of the values" in gone.drifted()


def test_nothing_is_judged_before_a_whole_window_or_on_what_was_not_observed():
    assert watched((9.0, 9.0), seconds=40).drifted() == ""
    assert watched((5.5, 9.0), observed=(True, False)).drifted() == ""
    assert watched((9.0, 9.0), observed=(False, False)).coverage is None


def test_what_a_move_has_overtaken_is_not_judged():
    watch = BandWatch(QUICK, ["A", "B"])
    for t in range(120):
        watch.foretell(forecast(t))
        watch.forget()
        watch.see(t * NS_PER_S, np.array((9.0, 9.0)), np.array((True, True)))
    assert watch.coverage is None


@pytest.mark.parametrize("options", [{"horizon_s": 0.0}, {"window_s": 10.0}, {"least_coverage": 0.95}])
def test_settings_that_cannot_be_meant(options):
    with pytest.raises(ConfigError, match="drift"):
        DriftConfig(**options)
