"""Whether the bands still hold: live forecasts kept until their horizon has passed, then compared with what came.

A model whose bands no longer cover has drifted, or the plant has; either way its licence to advise is gone. Knows no
model: forecasts and values come in.
Shape letters: S signals.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.records import NS_PER_S, Forecast

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]


@dataclass(kw_only=True, slots=True)
class DriftConfig:
    """The horizon whose 90 % band is watched, for how long, and the share that must have come to lie inside.

    Forecasts a few seconds apart err alike, so a share is only judged once ``window_s`` of them have been seen; the
    least share is well below what a sound band of so short a time can come to by chance.
    """

    horizon_s: float = 64.0
    window_s: float = 3600.0
    least_coverage: float = 0.7

    def __post_init__(self) -> None:
        """Reject what could not be watched, or would demote a sound model."""
        if self.horizon_s <= 0 or self.window_s <= self.horizon_s:
            raise ConfigError("advisor.drift: horizon_s must be positive and window_s longer")
        if not 0 <= self.least_coverage < 0.9:
            raise ConfigError(f"advisor.drift.least_coverage: {self.least_coverage} must lie between 0 and 0.9")


@dataclass(frozen=True, slots=True)
class _Band:
    """What was foretold for one moment: edges [S] of the band."""

    due_ns: int
    low: Floats
    high: Floats


class BandWatch:
    """The share of ``signals`` that came to lie inside the band foretold for them, over the last hour or so."""

    def __init__(self, config: DriftConfig, signals: Sequence[str]) -> None:
        self._config = config
        self._signals = tuple(signals)
        self._coming: deque[_Band] = deque()
        self._inside: deque[tuple[int, float]] = deque()
        self._since_ns: int | None = None

    def foretell(self, forecast: Forecast) -> None:
        """Keep what a forecast says of the watched horizon, or of the one nearest to it."""
        row = int(np.abs(np.array(forecast.horizon_s) - self._config.horizon_s).argmin())
        columns = [forecast.signals.index(name) for name in self._signals]
        due_ns = forecast.t_ns + round(forecast.horizon_s[row] * NS_PER_S)
        self._coming.append(_Band(due_ns, forecast.low[row, columns], forecast.high[row, columns]))

    def forget(self) -> None:
        """Drop what was foretold and has not come yet: it was foretold for other actions."""
        self._coming.clear()

    def see(self, t_ns: int, values_S: Floats, observed_S: Bools) -> None:
        """Compare the values of a tick with what was foretold for it; what was not observed is not judged."""
        while self._coming and self._coming[0].due_ns <= t_ns:
            band = self._coming.popleft()
            if observed_S.any() and t_ns - band.due_ns < self._config.horizon_s * NS_PER_S:
                inside = (band.low <= values_S) & (values_S <= band.high)
                self._inside.append((t_ns, float(inside[observed_S].mean())))
                self._since_ns = t_ns if self._since_ns is None else self._since_ns
        while self._inside and self._inside[0][0] < t_ns - self._config.window_s * NS_PER_S:
            self._inside.popleft()

    @property
    def coverage(self) -> float | None:
        """Share inside the band over the window; None before a whole one has been seen."""
        if not self._inside or self._since_ns is None:
            return None
        seen_s = (self._inside[-1][0] - self._since_ns) / NS_PER_S
        if seen_s < self._config.window_s - self._config.horizon_s:
            return None
        return float(np.mean([share for _, share in self._inside]))

    def drifted(self) -> str:
        """Why the model is not to be trusted any more; empty while it is."""
        coverage = self.coverage
        if coverage is None or coverage >= self._config.least_coverage:
            return ""
        hours = self._config.window_s / 3600
        return (
            f"over the last {hours:.1f} h {coverage:.0%} of the values lay inside their 90 % bands, "
            f"{self._config.least_coverage:.0%} needed"
        )
