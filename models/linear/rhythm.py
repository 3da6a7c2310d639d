"""What each tag's own long window says of every tick ahead: days and weeks that averages of the past cannot tell.

One ridge for all tags, from how the last ticks differ from the present one to how the next ticks will; in closed form.
Made only where the window spans at least a day: shorter windows hold no rhythm that the averages do not.
Shape letters: T ticks, S tags, W window, N ticks ahead, H horizons within them.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from models.linear.regression import Moments, ridge
from models.scaling import Floats

WINDOW, AHEAD = 336, 128
DAY_S = 86_400.0
PENALTIES = (1e-3, 1e-2, 3e-2, 1e-1, 3e-1)
PIECES = 4  # of each run
LIMIT = 30.0  # scaled units of change beyond which a value says only that it is far out
SMALLEST = 1e-6  # spread [scaled units] of a tag that moves
CHUNK = 2048


@dataclass(frozen=True, slots=True)
class Rhythm:
    """``weights`` [W + 1, N]: change of a tag by each tick ahead from its window less its present value."""

    weights: Floats

    @classmethod
    def fit(cls, runs: Sequence[Floats], step_s: float) -> Rhythm | None:
        """From held scaled tags [T, S] of normal runs; None where the window is too short or no run long enough.

        The penalty is chosen on pieces of runs that the others do not hold. Every tag that moves counts the same.
        """
        usable = [run for run in runs if len(run) >= 3 * (WINDOW + AHEAD)]
        if step_s * WINDOW < DAY_S or not usable:
            return None
        spread = np.concatenate(usable).std(0)
        usable = [run / np.where(spread > SMALLEST, spread, np.inf) for run in usable]
        parts = [_moments(piece) for run in usable for piece in _pieces(run)]
        errors = np.zeros(len(PENALTIES))
        for i, part in enumerate(parts):
            others = Moments.total(parts[:i] + parts[i + 1 :])
            errors += [part.rows * part.error(weights).mean() for weights in ridge(others, PENALTIES)]
        best = PENALTIES[int(errors.argmin())]
        return cls(ridge(Moments.total(parts), (best,))[0])

    def ahead(self, tags: Floats, before: Floats, columns: Sequence[int] | None = None) -> Floats:
        """Expected change [T, N, S] of held scaled tags [T, S] that follow on from ``before`` [W', S].

        ``columns`` are the ticks ahead wanted, counted from zero; all of them where not given.
        """
        weights = self.weights if columns is None else self.weights[:, list(columns)]
        values = _padded(tags, before)
        parts = [
            np.einsum("tsw,wn->tns", _windows(values[a : a + CHUNK + WINDOW - 1]), weights[:-1], optimize=True)
            for a in range(0, len(tags), CHUNK)
        ]
        made = np.concatenate(parts) if parts else np.zeros((0, weights.shape[1], tags.shape[1]))
        return np.asarray(made + weights[-1][None, :, None])


def kept(tags: Floats, before: Floats) -> Floats:
    """The rows that the next piece needs in front."""
    return np.concatenate([before, tags])[-(WINDOW - 1) :]


def _pieces(run: Floats) -> list[Floats]:
    """Stretches of a run; each starts with the window and the ticks ahead of the last, so that nothing is lost."""
    ends = np.linspace(WINDOW + AHEAD - 1, len(run), PIECES + 1).astype(int)
    return [run[a - WINDOW - AHEAD + 1 : b] for a, b in itertools.pairwise(ends)]


def _padded(tags: Floats, before: Floats) -> Floats:
    """Tags with what came before in front; before the first tick, its own value."""
    rows = np.concatenate([before[-(WINDOW - 1) :], tags])
    missing = WINDOW - 1 + len(tags) - len(rows)
    return np.concatenate([np.repeat(rows[:1], missing, 0), rows]) if missing else rows


def _windows(values: Floats) -> Floats:
    """Windows [T, S, W], oldest first, less the present value, within limits."""
    windows = np.lib.stride_tricks.sliding_window_view(values, WINDOW, axis=0)
    return np.clip(windows - windows[..., -1:], -LIMIT, LIMIT)


def _moments(tags: Floats) -> Moments:
    """Moments of all tags' windows and what followed, a stretch at a time."""
    parts = []
    for a in range(0, len(tags) - WINDOW - AHEAD + 1, CHUNK):
        piece = tags[a : a + CHUNK + WINDOW - 1 + AHEAD]
        x = _windows(piece[:-AHEAD])
        after = np.lib.stride_tricks.sliding_window_view(piece[WINDOW:], AHEAD, axis=0)
        y = np.clip(after - piece[WINDOW - 1 : -AHEAD, :, None], -LIMIT, LIMIT)
        parts.append(Moments.of(x.reshape(-1, WINDOW), y.reshape(-1, AHEAD)))
    return Moments.total(parts)
