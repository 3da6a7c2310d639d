"""How operating states are found in the tags of normal runs, where the plant declares none.

A tag of which most values lie on a few levels far apart, and stay there for long, tells states; a state is a
combination of levels that lasts.
Shape letters: T ticks, C tags that tell states, K states.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np

from fusion.plant import Plant
from models.operating.states import Ints, OperatingStates
from models.scaling import NORMAL_IQR, Bools, Floats
from models.ticks import Ticks

APART = 5.0  # Ashman's D of two levels; of a uniform 2.7, of a sine 3.5
LASTS_TICKS = 60  # what is shorter is no state but a move
LASTING = 0.8  # of the time on a level, or in a state, that must be spent in stays as long as that
LEAST_SHARE, LEAST_TICKS = 0.01, 240  # of a level, and of a state
LEAST_RECORD = 10_000  # ticks before states are looked for: a tag that follows few setpoints stands on levels too
MOST_LEVELS, MOST_STATES = 6, 12
BINS = 256
GAP_TICKS = 1200  # a longer stay between two states is no transition from one to the other


def fit_states(runs: Sequence[Ticks], plant: Plant) -> OperatingStates:
    """From normal runs; where the plant declares signals that tell its state, from those alone."""
    declared = [i for i, s in enumerate(plant.tags) if s.operating_state]
    if sum(map(len, runs)) < (LEAST_TICKS if declared else LEAST_RECORD):
        return OperatingStates()
    edges = {i: _edges(runs, i, declared=bool(declared)) for i in declared or range(len(plant.tags))}
    column = [i for i, found in edges.items() if len(found)]
    if not column:
        return OperatingStates()
    tags = tuple(plant.tags[i].name for i in column)
    told = OperatingStates(tags=tags, column=np.array(column, np.int64), edges=tuple(edges[i] for i in column))
    levels = [told.levels(run) for run in runs]
    known = replace(told, states=_lasting(levels), passing=np.zeros((0, len(column)), np.int64))
    if len(known) < 2:
        return OperatingStates()
    between = [part[a:b] for part in levels for a, b in _between(known.matched(part)[:, :-1])]
    longest = max(map(len, between), default=0)
    return replace(known, passing=np.unique(np.concatenate([known.passing, *between]), axis=0), longest=longest)


# --- levels of a tag


def _edges(runs: Sequence[Ticks], column: int, *, declared: bool) -> Floats:
    """Edges between the levels of a tag; none where its values do not lie on any.

    Every value of a declared tag is a level.
    """
    values = np.concatenate([run.tags[:, column] for run in runs])
    values = np.where(np.concatenate([run.observed[:, column] for run in runs]), values, np.nan)
    seen = values[np.isfinite(values)]
    if len(seen) < 2 * LEAST_TICKS:
        return np.zeros(0)
    if declared and len(levels := np.unique(seen)) <= MOST_STATES:
        return np.asarray((levels[1:] + levels[:-1]) / 2)
    found = sorted(_split(values, seen, -np.inf, np.inf))
    return np.array(found if len(found) < MOST_LEVELS else [])


def _split(values: Floats, inside: Floats, low: float, high: float) -> Iterator[float]:
    """Edges within a range of values [T] of which those ``inside`` are seen, found by Otsu's method."""
    edge = _otsu(inside)
    if edge is None:
        return
    below, above = inside[inside <= edge], inside[inside > edge]
    if min(len(below), len(above)) < max(LEAST_TICKS, LEAST_SHARE * len(values)) or _apart(below, above) < APART:
        return
    sides = ((values > low) & (values <= edge), (values > edge) & (values <= high))
    if not all(_stays(side) for side in sides):
        return
    yield edge
    yield from _split(values, below, low, edge)
    yield from _split(values, above, edge, high)


def _otsu(values: Floats) -> float | None:
    """The edge in the middle of the widest gap that parts values best in two; None where all are one.

    Source: Otsu 1979.
    """
    if not len(values) or float(np.ptp(values)) <= 0.0:
        return None
    counts, edges = np.histogram(values, BINS)
    middle = (edges[1:] + edges[:-1]) / 2
    below = np.cumsum(counts)[:-1]
    above = len(values) - below
    total = np.cumsum(counts * middle)
    between = below * above * (total[:-1] / np.maximum(below, 1) - (total[-1] - total[:-1]) / np.maximum(above, 1)) ** 2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float(edges[1 + best[[0, -1]]].mean())


def _apart(below: Floats, above: Floats) -> float:
    """Ashman's D of two levels, by medians and interquartile ranges: strays and slow approaches do not count.

    Source: Ashman, Bird and Zepf 1994.
    """
    (a, low, b), (c, high, d) = (np.quantile(side, [0.25, 0.5, 0.75]) for side in (below, above))
    spread = float(np.hypot(b - a, d - c)) / NORMAL_IQR
    return float(np.sqrt(2.0) * (high - low) / max(spread, 1e-12 * max(abs(high), abs(low), 1e-12)))


# --- states


def _lasting(levels: Sequence[Ints]) -> Ints:
    """Combinations [K, C] of levels that last, the most frequent first."""
    joined = np.concatenate(levels)
    rows, place, count = np.unique(joined, axis=0, return_inverse=True, return_counts=True)
    place = place.reshape(-1)
    least = max(LEAST_TICKS, LEAST_SHARE * len(joined))
    often = [int(k) for k in np.argsort(-count, kind="stable") if count[k] >= least and (rows[k] >= 0).all()]
    return rows[[k for k in often if _stays(place == k)][:MOST_STATES]]


def _stays(there: Bools) -> bool:
    """Whether most of the time that something is there [T] is spent in long stays."""
    stays = np.array([stop - start for start, stop in _spans(there)])
    return bool(stays[stays >= LASTS_TICKS].sum() >= LASTING * max(stays.sum(), 1))


def _between(matched: Bools) -> Iterator[tuple[int, int]]:
    """Rows of [T, K] that agree with no state, between two different ones."""
    for start, stop in _spans(np.asarray(~matched.any(axis=1))):
        inner = start > 0 and stop < len(matched) and stop - start <= GAP_TICKS
        if inner and not (matched[start - 1] & matched[stop]).any():
            yield start, stop


def _spans(there: Bools) -> Iterator[tuple[int, int]]:
    """Start and end of each stretch of rows."""
    change = np.flatnonzero(np.diff(np.concatenate([[False], there, [False]]).astype(np.int8))).tolist()
    yield from zip(change[::2], change[1::2], strict=True)
