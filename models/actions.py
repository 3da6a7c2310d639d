"""What an action path means at each horizon: a few numbers per action, linear in the path.

At horizon k the summary of a path u(t+1..t+k) is, relative to u(t): its last value, its mean, and the path seen
through first-order lags, so that a plan of many moves and the past of a plant are read by the same linear map. An
action with dead time is seen as it arrives: what is on its way comes before what is planned.
Shape letters: N candidates, L blocks, T ticks, A actions, H horizons, Q summaries per action.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion.records import ACTION_STEP_S, ACTION_STEPS, action_step_s
from models.averages import ewma
from models.scaling import Floats

HORIZONS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 600)
LAGS_S = (20.0, 80.0, 300.0)  # where a tick is longer than a step of the action grid, longer as well
SUMMARIES = 2 + len(LAGS_S)


def lag_alphas(step_s: float) -> tuple[float, ...]:
    """The EWMA weight of one tick for each lag."""
    return tuple(1.0 - float(np.exp(-min(step_s, ACTION_STEP_S) / lag)) for lag in LAGS_S)


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


def path_weights(
    step_s: float = 1.0,
    blocks: int = ACTION_STEPS,
    *,
    dead: Sequence[int] = (0,),
    ends: Sequence[int] = HORIZONS,
) -> Floats:
    """Weights [A, H, D + L, Q] such that the summary of a piecewise constant path is ``weights * (path - now)``.

    An action arrives ``dead`` [A] ticks after it is asked for: the path begins with the D ticks that are on their way,
    D being the longest of them, and goes on with L blocks. A path shorter than a horizon goes on with its last block.
    ``ends`` [H] are the horizons [ticks].
    """
    ticks, waiting = block_ticks(step_s), max(dead, default=0)
    weights = np.zeros((len(dead), len(ends), waiting + blocks, SUMMARIES))
    for a, late in enumerate(dead):
        asked = np.arange(max(ends)) - late
        place = np.where(asked < 0, waiting + asked, waiting + np.minimum(asked // ticks, blocks - 1))
        for row, horizon in enumerate(ends):
            for column, kernel in enumerate(_kernels(horizon, step_s)):
                np.add.at(weights[a, row, :, column], place[:horizon], kernel)
    return weights


def block_ticks(step_s: float) -> int:
    """Ticks of one step of the action grid."""
    return round(action_step_s(step_s) / step_s)


def course_ticks(step_s: float) -> tuple[int, ...]:
    """Ticks [G] until the end of each step of the action grid, as far as the longest horizon."""
    ticks = block_ticks(step_s)
    return tuple(range(ticks, min(ACTION_STEPS * ticks, HORIZONS[-1]) + 1, ticks))


def between(ends: Sequence[int]) -> Floats:
    """Weights [G, H] that interpolate in time what is known at the horizons, and is zero now."""
    known = np.eye(len(HORIZONS))
    columns = [np.interp(ends, (0, *HORIZONS), np.concatenate([[0.0], column])) for column in known]
    return np.stack(columns, 1)


def path_summary(paths: Floats, now: Floats, weights: Floats) -> Floats:
    """Summary [N, H, A * Q] of action paths [N, D + L, A] from the present action [A]."""
    summary = np.einsum("nla,ahlq->nhaq", paths - now, weights, optimize=True)
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
