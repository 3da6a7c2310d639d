"""The course of one slow quantity and the time to its limit: regression with correlated noise, averaged over models.

    y(t) = level + slope * t + bend * max(t - bent, 0) + daily swing + offset of the state + wander(t) + white noise

The wander is nothing, a stationary process or a random walk of unknown memory and size; the slope may have changed once
at an unknown time, by an unknown amount. Each of these is weighed by its marginal likelihood, with all coefficients and
the scale of the noise integrated out. So the interval of a slope is as wide as what wanders makes it, a swing is no
trend, and what has begun to drift is not averaged with the quiet time before. Beyond the last value a slope may also
change its pace. Constant work: at most some hundred points.
Source: restricted likelihood, Harville 1977; random walk with drift as local level model, Harvey 1989, ch. 2.3;
averaging over covariances and basis functions with Gaussian coefficients, Rasmussen and Williams 2006, ch. 2.7.
Shape letters: N points, P regressors, B bends, H horizons, M models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import solve_triangular  # type: ignore[import-untyped]
from scipy.special import stdtr  # type: ignore[import-untyped]

from models.scaling import Floats

DAYS_AHEAD = 30.0
HORIZONS = np.geomspace(0.05, DAYS_AHEAD, 32)
"""Days ahead at which the course is looked at."""
INTERVAL = (0.05, 0.5, 0.95)  # of the time to the limit and of the slope
MEMORIES = (0.15, 0.6, 2.5)  # [days] of what wanders about a level
SIZES = (0.3, 3.0, 30.0, 300.0)  # its variance over that of the noise of an hour
WALKS = (0.03, 0.3, 3.0, 30.0, 300.0)  # variance that a random walk gains in a day, over that of an hour's noise
BENT_DAYS = (0.75, 1.5, 3.0, 5.0, 8.0, 12.0, 18.0)  # ago, of a change of slope
LEAST_BEFORE = 0.5  # [days] of data before a bend, without which there is none
BENDS = (0.01, 0.3, 10.0)  # variance of a change of slope a day, over that of an hour's noise
STRAIGHT = 0.5  # prior share of courses without a bend
PACE = 0.5  # share of itself by which a slope may change within the time that it has lasted
FROM = 0.05  # quantile of the values that stands for where a trend came from
LEAST_LASTED = 0.25  # [days]
NEGLIGIBLE = 9.0  # below the best log evidence
TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Covariance:
    """That of a wander at times [N] and [M]; one that ``lasts`` leads the level away and does not come back."""

    of: Callable[[Floats, Floats], Floats]
    lasts: bool = False


class Course:
    """Where values ``y`` [N] at times ``t`` [days] go, at the time ``now``; what costs more is reckoned when asked for.

    ``weight`` [N] is how many hours each point is the mean of; ``design`` [N, P] are regressors beside level and slope,
    zero at the course that is looked for. Its first ``daily`` columns are cosine and sine of a day and of half a day.
    """

    def __init__(self, t: Floats, y: Floats, weight: Floats, design: Floats, now: float, daily: int = 0) -> None:
        start = float(t[0])
        self._t, self._y, self._daily = t - start, y, daily
        self._x = np.column_stack([np.ones(len(t)), self._t, design])
        self._bent = np.array([days for days in BENT_DAYS if now - days - start >= LEAST_BEFORE])
        hinges = np.maximum((t - now)[:, None] + self._bent, 0.0)
        self._points = now - start + np.concatenate([[0.0], HORIZONS])
        fits = [_fit(cov, self._t, y, weight, self._x, hinges) for cov in _covariances()]
        best = max(float(fit.evidence.max()) for fit in fits)
        self._fits = [fit.likely(best - NEGLIGIBLE) for fit in fits if fit.evidence.max() > best - NEGLIGIBLE]
        logs = np.concatenate([fit.evidence for fit in self._fits])
        self._share: Floats = np.exp(logs - best) / np.exp(logs - best).sum()
        slopes = [fit.slope(bool(len(self._bent))) for fit in self._fits]
        self._slope, self._slope_sd = (np.concatenate(part) for part in zip(*slopes, strict=True))
        self._freedom = len(t) - self._x.shape[1]
        self.rises = float(self._share @ stdtr(self._freedom, self._slope / self._slope_sd))
        """The probability that the slope is positive."""

    def slope(self) -> tuple[float, float, float]:
        """Low, middle and high end of the interval of the slope a day."""
        return _quantiles(self._share, self._slope, self._slope_sd, self._freedom)

    @cached_property
    def _ahead(self) -> tuple[Floats, Floats]:
        """Level and its deviation [M, 1 + H] now and at the horizons."""
        made = [fit.ahead(self._t, self._points, self._bent) for fit in self._fits]
        mean, sd = (np.concatenate(part) for part in zip(*made, strict=True))
        slope = float(self._share @ self._slope)
        lasted = _lasted(self._y, float(self._share @ mean[:, 0]), slope, float(self._t[-1]))
        pace = (PACE * self._slope[:, None]) ** 2 * HORIZONS**3 / (3.0 * lasted)
        sd[:, 1:] = np.sqrt(sd[:, 1:] ** 2 + pace)
        return mean, sd

    @property
    def level(self) -> float:
        """The level now, without the daily swing."""
        return float(self._share @ self._ahead[0][:, 0])

    @cached_property
    def swing(self) -> float:
        """How far the daily swing goes beyond its mean."""
        if not self._daily:
            return 0.0
        beta = np.concatenate([fit.beta[:, 2 : 2 + self._daily] for fit in self._fits])
        return float(np.abs(daily(np.linspace(0.0, 1.0, 48, endpoint=False)) @ (self._share @ beta)).max())

    def by(self, limit: float, *, rising: bool) -> Floats:
        """Probabilities [H] that a limit above, or below, is reached by each horizon, by the daily swing too."""
        mean, sd = self._ahead
        over = mean[:, 1:] + self.swing - limit if rising else limit - mean[:, 1:] + self.swing
        return np.asarray(np.maximum.accumulate(self._share @ stdtr(self._freedom, over / sd[:, 1:])))


def daily(t: Floats) -> Floats:
    """Cosine and sine of a day and of half a day [N, 4] at times [days]."""
    angle = 2 * np.pi * t
    return np.column_stack([np.cos(angle), np.sin(angle), np.cos(2 * angle), np.sin(2 * angle)])


def reached(by: Floats) -> tuple[float, float, float]:
    """Days until a limit is reached, from the probabilities [H] that it is by each horizon; infinite beyond them."""
    found = []
    for wanted in INTERVAL:
        if by[-1] < wanted:
            found.append(float("inf"))
            continue
        row = int(np.argmax(by >= wanted))
        before, then = (0.0, 0.0) if row == 0 else (float(by[row - 1]), float(HORIZONS[row - 1]))
        share = (wanted - before) / max(float(by[row]) - before, TINY)
        found.append(then + share * (float(HORIZONS[row]) - then))
    return found[0], found[1], found[2]


@dataclass(frozen=True, slots=True)
class _Fit:
    """Regressions under one covariance, straight and with each bend and size: M models, of P + 1 coefficients each.

    ``evidence`` [M], whitened regressors ``x`` [N, P] and ``hinges`` [N, B], whitened ``y`` [N], ``beta`` [M, P + 1],
    its covariance over the ``scale`` [M] of the noise ``spread`` [M, P + 1, P + 1], and the ``bend`` [M] of each model.
    """

    cov: Covariance
    factor: Floats
    evidence: Floats
    x: Floats
    hinges: Floats
    y: Floats
    beta: Floats
    spread: Floats
    scale: Floats
    bend: NDArray[np.int64]

    def likely(self, least: float) -> _Fit:
        """The models whose evidence is more than ``least``."""
        kept = self.evidence > least
        names = ("evidence", "beta", "spread", "scale", "bend")
        return replace(self, **{name: getattr(self, name)[kept] for name in names})

    def slope(self, bends: bool) -> tuple[Floats, Floats]:
        """The slope now and its deviation [M]."""
        of = np.zeros(self.beta.shape[1])
        of[1] = 1.0
        if bends:
            of[-1] = 1.0
        variance = np.maximum((self.spread @ of) @ of, 0.0) * self.scale
        return self.beta @ of, np.sqrt(variance) + TINY

    def ahead(self, t: Floats, points: Floats, bent: Floats) -> tuple[Floats, Floats]:
        """Level and its deviation [M, 1 + H] at ``points``, without what comes back to it."""
        p = self.x.shape[1]
        cross, own = np.zeros((len(t), len(points))), np.zeros(len(points))
        if self.cov.lasts:
            cross, own = self.cov.of(t, points), np.diag(self.cov.of(points, points))
        wk = solve_triangular(self.factor, cross, lower=True, check_finite=False)
        shared = np.zeros((len(points), p))
        shared[:, 0], shared[:, 1] = 1.0, points
        count = len(self.beta)
        lever = np.broadcast_to(shared - wk.T @ self.x, (count, len(points), p))
        white = np.broadcast_to(self.x, (count, *self.x.shape))
        level = self.beta[:, :p] @ shared.T
        if len(bent):
            hinge = points[:, None] - points[0] + bent
            lever = np.concatenate([lever, (hinge - wk.T @ self.hinges).T[self.bend][:, :, None]], 2)
            white = np.concatenate([white, self.hinges.T[self.bend][:, :, None]], 2)
            level = level + self.beta[:, p:] * hinge.T[self.bend]
        left = self.y - (white @ self.beta[:, :, None])[:, :, 0]
        variance = own - (wk**2).sum(0) + ((lever @ self.spread) * lever).sum(2)
        return level + left @ wk, np.sqrt(np.maximum(variance, 0.0) * self.scale[:, None]) + TINY


def _fit(cov: Covariance, t: Floats, y: Floats, weight: Floats, x: Floats, hinges: Floats) -> _Fit:
    p, bends = x.shape[1], hinges.shape[1]
    factor: Floats = np.asarray(np.linalg.cholesky(cov.of(t, t) + np.diag(1.0 / weight)), np.float64)
    white = solve_triangular(factor, np.column_stack([x, hinges, y]), lower=True, check_finite=False)
    gram = white.T @ white
    bend = np.concatenate([[0], np.repeat(np.arange(bends), len(BENDS))])
    prior = np.concatenate([[TINY], np.tile(BENDS, bends)])
    kept = np.column_stack([np.tile(np.arange(p), (len(bend), 1)), p + bend]) if bends else np.arange(p)[None]
    normal = gram[kept[:, :, None], kept[:, None]]
    right = gram[kept, -1]
    logs: Floats = np.zeros(1)
    if bends:
        normal[:, p, p] += 1.0 / prior
        logs = np.log(np.append(STRAIGHT, np.full(len(bend) - 1, (1 - STRAIGHT) / (len(bend) - 1))))
        logs = logs - 0.5 * np.log(prior)
    spread = np.linalg.inv(normal)
    beta = (spread @ right[:, :, None])[:, :, 0]
    freedom = len(y) - p
    scale: Floats = np.maximum(gram[-1, -1] - (right * beta).sum(1), TINY) / freedom
    halves = np.linalg.slogdet(normal)[1] + freedom * np.log(scale)
    evidence: Floats = logs - np.log(np.diag(factor)).sum() - 0.5 * halves
    return _Fit(cov, factor, evidence, white[:, :p], white[:, p:-1], white[:, -1], beta, spread, scale, bend)


def _lasted(y: Floats, level: float, slope: float, seen: float) -> float:
    """For how long [days] a quantity can have moved like this, from how far it has come."""
    way = level - float(np.quantile(y, FROM)) if slope > 0 else float(np.quantile(y, 1.0 - FROM)) - level
    return float(np.clip(way / max(abs(slope), TINY), LEAST_LASTED, max(seen, LEAST_LASTED)))


def _quantiles(share: Floats, mean: Floats, sd: Floats, freedom: int) -> tuple[float, float, float]:
    """Quantiles of a mixture of t distributions, by bisection."""
    found = []
    for wanted in INTERVAL:
        low, high = float((mean - 50 * sd).min()), float((mean + 50 * sd).max())
        for _ in range(40):
            middle = 0.5 * (low + high)
            below = float(share @ stdtr(freedom, (middle - mean) / sd))
            low, high = (middle, high) if below < wanted else (low, middle)
        found.append(0.5 * (low + high))
    return found[0], found[1], found[2]


def _covariances() -> tuple[Covariance, ...]:
    about = [_about(memory, size) for memory in MEMORIES for size in SIZES]
    return (Covariance(lambda s, t: np.zeros((len(s), len(t)))), *about, *(_walk(size) for size in WALKS))


def _about(memory: float, size: float) -> Covariance:
    """A wander about the level, forgotten within a memory [days]."""
    return Covariance(lambda s, t: size * np.exp(-np.abs(s[:, None] - t[None]) / memory))


def _walk(size: float) -> Covariance:
    return Covariance(lambda s, t: size * np.minimum(s[:, None], t[None]), lasts=True)
