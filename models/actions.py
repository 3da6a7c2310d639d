"""What an action path means at each horizon: a few numbers per action, linear in the path.

At horizon k the summary of a path u(t+1..t+k) is, relative to u(t): its last value, its mean, and the path seen
through first-order lags, so that a plan of many moves and the past of a plant are read by the same linear map.
Shape letters: N candidates, L blocks, T ticks, A actions, H horizons, Q summaries per action.
"""

from __future__ import annotations

import numpy as np

from fusion.records import ACTION_STEP_S, ACTION_STEPS
from models.averages import ewma
from models.scaling import Floats

HORIZONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 600)
LAGS_S = (20.0, 80.0, 300.0)
SUMMARIES = 2 + len(LAGS_S)


def lag_alphas(step_s: float) -> tuple[float, ...]:
    """The EWMA weight of one tick for each lag."""
    return tuple(1.0 - float(np.exp(-step_s / lag)) for lag in LAGS_S)


def recorded_summary(action: Floats, horizon: int, step_s: float = 1.0) -> Floats:
    """Summary [T - horizon, A * Q] at each tick of a recorded action [T, A]."""
    now, future = action[:-horizon], action[horizon:]
    total = np.cumsum(action, 0)
    parts = [future - now, (total[horizon:] - total[:-horizon]) / horizon - now]
    for alpha in lag_alphas(step_s):
        smooth, _ = ewma(action, alpha)
        kept = (1.0 - alpha) ** horizon
        parts.append(smooth[horizon:] - kept * smooth[:-horizon] + (kept - 1.0) * now)
    return np.stack(parts, 2).reshape(len(now), SUMMARIES * action.shape[1])


def path_weights(step_s: float = 1.0, blocks: int = ACTION_STEPS, block_s: float = ACTION_STEP_S) -> Floats:
    """Weights [H, L, Q] such that the summary of a piecewise constant path is ``weights * (path - now)``.

    A path shorter than a horizon goes on with its last block.
    """
    ticks = max(1, round(block_s / step_s))
    block = np.minimum(np.arange(max(HORIZONS)) // ticks, blocks - 1)
    weights = np.zeros((len(HORIZONS), blocks, SUMMARIES))
    for row, horizon in enumerate(HORIZONS):
        for column, kernel in enumerate(_kernels(horizon, step_s)):
            np.add.at(weights[row, :, column], block[:horizon], kernel)
    return weights


def path_summary(paths: Floats, now: Floats, weights: Floats) -> Floats:
    """Summary [N, H, A * Q] of action paths [N, L, A] from the present action [A]."""
    summary = np.einsum("nla,hlq->nhaq", paths - now, weights, optimize=True)
    return np.asarray(summary.reshape(*summary.shape[:2], -1))


def step_summary(horizon: int, step_s: float = 1.0) -> Floats:
    """Summary [Q] of a lasting unit step."""
    return np.array([float(kernel.sum()) for kernel in _kernels(horizon, step_s)])


def _kernels(horizon: int, step_s: float) -> list[Floats]:
    """Per-tick weights [horizon] of each summary of one action."""
    back = np.arange(horizon)[::-1]
    last = (back == 0).astype(np.float64)
    lagged = [alpha * (1.0 - alpha) ** back for alpha in lag_alphas(step_s)]
    return [last, np.full(horizon, 1.0 / horizon), *lagged]
