"""Dead time of each action: how many ticks pass until a move shows in any tag, told by the first lags of its response.

Averages of the past cannot hold a pure delay: a forecast made of them smears what is on its way, and a plan built on it
takes the smear for a lever. Asked of each action by a least-squares finite impulse response of the next change of each
tag; whether it is believed is for held-out runs.
Source: Carlemalm et al. (1999), "Estimation of time delays from impulse responses"; the threshold rule.
Shape letters: T ticks, S tags, A actions, M lags, P past features.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from models.linear.past import Past
from models.linear.regression import Moments
from models.scaling import Bools, Floats

LAGS = 64
SIGNIFICANT = 4.0  # standard errors
PART = 0.05  # of the strongest lag, below which a coefficient is rounding
LEAST = 4  # ticks: shorter ones the averages of the past follow well enough
LEAST_MOVE = 1e-6  # scaled
MOST_ROWS = 20_000
ROWS_PER_COLUMN = 4  # fewer tell nothing
RIDGE = 1e-9


def dead_times(pasts: Sequence[Past], tag_features: int) -> tuple[tuple[int, ...], Bools]:
    """Proposed dead times [A] in ticks, and which tags [S] any delayed action moves.

    ``pasts`` are made without dead times, their first ``tag_features`` features of tags alone.
    """
    found = [_dead_time(pasts, tag_features, a) for a in range(pasts[0].action.shape[1])]
    dead = tuple(ticks for ticks, _ in found)
    moved = [tags for ticks, tags in found if ticks]
    return dead, np.any(moved, axis=0) if moved else np.zeros(pasts[0].tags.shape[1], bool)


def _dead_time(pasts: Sequence[Past], tag_features: int, a: int) -> tuple[int, Bools]:
    """Of one action: ticks until the first lag that shows in any tag, and the tags that it shows in at all."""
    rows = [r for made in pasts if (r := _rows(made, tag_features, a)) is not None]
    nothing = np.zeros(pasts[0].tags.shape[1], bool)
    if sum(len(x) for x, _ in rows) < ROWS_PER_COLUMN * (tag_features + LAGS):
        return 0, nothing
    x, y = (np.concatenate(part) for part in zip(*rows, strict=True))
    thin = max(1, len(x) // MOST_ROWS)
    shows_MS = _significant(Moments.of(x[::thin], y[::thin]))
    lags = np.flatnonzero(shows_MS.any(1))
    first = int(lags[0]) if len(lags) else 0
    return (first, np.asarray(shows_MS.any(0))) if first >= LEAST else (0, nothing)


def _rows(made: Past, tag_features: int, a: int) -> tuple[Floats, Floats] | None:
    """Regressors [N, P + M] and next changes [N, S] of the ticks that come within the lags of a move."""
    if len(made.tags) <= LAGS + 1:
        return None
    moves = np.diff(made.action[:, a], prepend=made.action[:1, a])
    lagged = np.lib.stride_tricks.sliding_window_view(moves, LAGS)[1:, ::-1]
    near = np.flatnonzero((np.abs(lagged) > LEAST_MOVE).any(1))
    now = near + LAGS - 1
    x = np.concatenate([made.features[now, :tag_features], lagged[near]], 1)
    return x, made.tags[now + 1] - made.tags[now]


def _significant(moments: Moments) -> Bools:
    """Which lags [M, S] of the response differ from nothing."""
    scale = np.sqrt(np.maximum(np.diag(moments.xx), 1e-12))
    normal = moments.xx / np.outer(scale, scale) + RIDGE * np.eye(len(scale))
    inverse = np.linalg.inv(normal)
    weights = inverse @ (moments.xy / scale[:, None])
    variance_S = np.maximum(moments.error(weights / scale[:, None]), 0.0)
    error = np.sqrt(np.outer(np.maximum(np.diag(inverse), 0.0) / max(moments.rows, 1), variance_S * moments.rows))
    own, doubt = np.abs(weights[-LAGS - 1 : -1]), error[-LAGS - 1 : -1]
    strongest = own.max(0, initial=0.0)
    return np.asarray((own > SIGNIFICANT * doubt) & (own > PART * strongest) & (strongest > 0))
