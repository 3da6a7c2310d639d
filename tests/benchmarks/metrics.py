"""Scores of anomaly detectors on labelled tables: no point adjustment, nothing that looks ahead.

Shape letters: T rows, K thresholds.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.signal import argrelextrema  # type: ignore[import-untyped]

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]

THRESHOLDS = 250
LONGEST_PERIOD, SHORTEST_PERIOD, USUAL_PERIOD = 300, 3, 125


def spans(label: Bools) -> list[tuple[int, int]]:
    """Stretches of True in ``label`` [T], first and last row of each."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], label, [False]]).astype(np.int8)))
    return [(int(start), int(end) - 1) for start, end in zip(edges[::2], edges[1::2], strict=True)]


def auc_pr(score: Floats, label: Bools) -> float:
    """Average precision: area under precision over recall, by steps; rows of equal score count together."""
    order = np.argsort(-score, kind="stable")
    last = np.append(np.diff(score[order]) != 0, True)
    hits = np.cumsum(label[order])[last]
    count = np.flatnonzero(last) + 1
    recall = hits / max(int(label.sum()), 1)
    return float((np.diff(recall, prepend=0.0) * hits / count).sum())


def vus_pr(score: Floats, label: Bools, window: int) -> float:
    """Volume under the range-based precision-recall surface: the mean over tolerances of 0 to ``window`` rows.

    Source: Paparrizos et al., "Volume under the surface" (VLDB 2022), with recall weighted by the share of events
    that are touched, on 250 thresholds.
    """
    order = np.argsort(-score, kind="stable")
    levels = score[order][np.linspace(0, len(score) - 1, THRESHOLDS).astype(int)]
    count = np.searchsorted(-score[order], -levels, side="right")
    return float(np.mean([_range_precision(score, label, w, order, levels, count) for w in range(window + 1)]))


def _range_precision(
    score: Floats, label: Bools, window: int, order: NDArray[np.int64], levels: Floats, count: NDArray[np.int64]
) -> float:
    """Average precision where rows up to half a window from an event count in part."""
    weight = _softened(label, window)
    hits = np.cumsum(weight[order])[count - 1]
    highest = np.array([score[a : b + 1].max() for a, b in spans(weight > 0)])
    touched = (highest[None, :] >= levels[:, None]).mean(1)
    positive = (float(label.sum()) + float(weight.sum())) / 2.0
    recall = np.minimum(hits / positive, 1.0) * touched
    return float((np.diff(recall, prepend=0.0) * hits / count).sum())


def _softened(label: Bools, window: int) -> Floats:
    """Labels that fade over half a window on both sides of an event."""
    weight = label.astype(np.float64)
    half = window // 2
    for start, end in spans(label):
        after = np.arange(end, min(end + half, len(label)))
        before = np.arange(max(start - half, 0), start)
        weight[after] += np.sqrt(1.0 - (after - end) / window) if window else 0.0
        weight[before] += np.sqrt(1.0 - (start - before) / window) if window else 0.0
    return np.minimum(weight, 1.0)


def period(values: Floats) -> int:
    """Lag of the highest local maximum of the autocorrelation of ``values`` [T]: the window that ``vus_pr`` takes."""
    centred = values[:20_000] - values[:20_000].mean()
    size = 1 << (2 * len(centred) - 1).bit_length()
    power = np.abs(np.fft.rfft(centred, size)) ** 2
    lags = np.fft.irfft(power)[: min(401, len(centred))]
    correlation = lags[SHORTEST_PERIOD:] / max(lags[0], 1e-12)
    peaks = argrelextrema(correlation, np.greater)[0]
    if not len(peaks):
        return USUAL_PERIOD
    best = int(peaks[np.argmax(correlation[peaks])])
    return best + SHORTEST_PERIOD if SHORTEST_PERIOD <= best <= LONGEST_PERIOD else USUAL_PERIOD


def rates(alarm: Bools, label: Bools) -> tuple[float, float, float]:
    """F1, false alarm rate [%] and missed alarm rate [%] by row."""
    hits = int((alarm & label).sum())
    false, missed = int((alarm & ~label).sum()), int((~alarm & label).sum())
    f1 = 2 * hits / max(2 * hits + false + missed, 1)
    return f1, 100.0 * false / max(int((~label).sum()), 1), 100.0 * missed / max(int(label.sum()), 1)


def batadal_score(alarm: Bools, label: Bools) -> float:
    """S of the BATADAL contest: the mean of time to detection and of the balanced accuracy by row.

    Source: Taormina et al., "Battle of the Attack Detection Algorithms" (2018). An attack that is never found counts
    as found at its end.
    """
    waits = []
    for start, end in spans(label):
        found = np.flatnonzero(alarm[start : end + 1])
        waits.append((found[0] if len(found) else end + 1 - start) / (end + 1 - start))
    found_rate = (alarm & label).sum() / max(label.sum(), 1)
    quiet_rate = (~alarm & ~label).sum() / max((~label).sum(), 1)
    return float(0.5 * (1.0 - np.mean(waits)) + 0.25 * (found_rate + quiet_rate))
