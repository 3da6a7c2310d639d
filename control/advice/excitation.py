"""How much history says about each manipulated signal: moves that came from outside the loops.

A loop's own moves are predictable from the outputs it acts on; they teach a model the inverse controller. What a
least-squares fit on outputs cannot predict is exogenous. A signal that rests most of the time is stepped from
outside, so all its moves count: fitting them on outputs that answer at once would explain cause by effect.
Source: Forssell and Ljung (1999), "Closed-loop identification revisited".
Shape letters: T ticks, A manipulated signals, S signals.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.plant import Plant

Floats = NDArray[np.float64]
_LAGS = 3
_RIDGE = 1e-6
_LEAST_STEP = 0.005
_REST, _REST_SHARE = 1e-4, 0.5
_SIGMAS = 3.0
_MOST_ROWS = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Excitation:
    """Exogenous moves of one manipulated signal.

    ``span`` is the standard deviation of the exogenous course as a share of the signal's range, ``feedback`` the
    share of its changes that lagged outputs explain.
    """

    moves: int
    hours: float
    span: float
    feedback: float


def excitations(
    runs: Sequence[tuple[Floats, Floats]], manipulated: Sequence[str], plant: Plant
) -> dict[str, Excitation]:
    """By signal, from runs of (actions [T, A], outputs [T, S]) in engineering units on the plant's grid.

    Raises:
        ConfigError: where no run is longer than the lags, or a range is missing.
    """
    usable = [(np.asarray(u, np.float64), np.asarray(y, np.float64)) for u, y in runs if len(u) > 2 * _LAGS]
    if not usable:
        raise ConfigError(f"excitation: no run is longer than {2 * _LAGS} ticks")
    hours = sum(len(u) for u, _ in usable) * plant.step_s / 3600
    found = {}
    for a, name in enumerate(manipulated):
        signal = plant.by_name[name]
        if signal.low is None or signal.high is None:
            raise ConfigError(f"signal {name!r}: a manipulated signal needs low and high")
        courses = [(u[:, a] / (signal.high - signal.low), y) for u, y in usable]
        found[name] = _excitation(courses, hours)
    return found


def _excitation(courses: Sequence[tuple[Floats, Floats]], hours: float) -> Excitation:
    """Of one signal, from its course in shares of range and the outputs."""
    changes = [np.diff(u)[_LAGS - 1 :] for u, _ in courses]
    resting = float((np.abs(np.concatenate(changes)) < _REST).mean())
    stepped = resting >= _REST_SHARE
    predicted = [np.zeros_like(c) for c in changes] if stepped else _predicted(changes, courses)
    residual = [change - p for change, p in zip(changes, predicted, strict=True)]
    total = float(sum(np.square(c).sum() for c in changes))
    left = float(sum(np.square(r).sum() for r in residual))
    feedback = 1 - left / total if total > 0 else 0.0
    share = 1.0 if feedback < 0.5 else 1 - feedback
    varied = float(np.std(np.concatenate([u for u, _ in courses])))
    span = varied * float(np.sqrt(share))
    return Excitation(moves=sum(_moves(r) for r in residual), hours=hours, span=span, feedback=feedback)


def _regressors(u: Floats, y: Floats) -> Floats:
    """What a controller knows before it moves: outputs at the last ticks and its own value."""
    rows = len(u) - _LAGS
    lagged = [y[lag : lag + rows] for lag in range(_LAGS + 1)]
    return np.concatenate([*lagged, u[_LAGS - 1 : -1, None]], axis=1)


def _predicted(changes: Sequence[Floats], courses: Sequence[tuple[Floats, Floats]]) -> list[Floats]:
    """Changes of each run that a linear controller on the outputs would make."""
    regressors = [_regressors(u, y) for u, y in courses]
    x, target = np.concatenate(regressors), np.concatenate(changes)
    thin = max(1, len(x) // _MOST_ROWS)
    mean, spread = x.mean(0), x.std(0)
    spread[spread < 1e-12] = np.inf
    z = (x - mean) / spread
    fit, aim = z[::thin], target[::thin] - target.mean()
    gram = fit.T @ fit + _RIDGE * len(fit) * np.eye(z.shape[1])
    weight = np.linalg.solve(gram, fit.T @ aim)
    edges = np.cumsum([len(r) for r in regressors])[:-1]
    return list(np.split(np.asarray(z @ weight + target.mean()), edges))


def _moves(residual: Floats) -> int:
    """Runs of neighbouring changes of one sign that are large for this signal and for its range."""
    noise = 1.4826 * float(np.median(np.abs(residual)))
    limit = max(_SIGMAS * noise, _LEAST_STEP) if noise < _LEAST_STEP else noise
    large = np.abs(residual) > limit
    sign = np.where(large, np.sign(residual), 0.0)
    before = np.concatenate([[0.0], sign[:-1]])
    return int(((sign != 0) & (sign != before)).sum())
