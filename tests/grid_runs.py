"""Frames and runs by signal name, for tests and benchmarks; the running system gets both from the timeline."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality, Plant
from fusion.records import Frame, MediaTick, Quality
from models.scaling import Bools, Floats
from models.ticks import Ticks


def frame_of(plant, t_ns, values, quality=None, *, age_s=0.5, coverage=None, flags=()):
    """A frame with these values by name; what is BAD is not usable, what is not named never came."""
    quality, coverage = quality or {}, coverage or {}
    signals = tuple(s.name for s in plant.of(Modality.PROCESS))
    rank = np.array([quality.get(n, Quality.GOOD if n in values else Quality.BAD) for n in signals], np.uint8)
    return Frame(
        t_ns=t_ns,
        signals=signals,
        value_S=np.array([float(values.get(n, 0.0)) for n in signals]),
        observed_S=np.array([n in values for n in signals], bool) & (rank != Quality.BAD),
        age_s_S=np.array([age_s if n in values else np.inf for n in signals]),
        quality_S=rank,
        coverage_S=np.array([coverage.get(n, float(n in values)) for n in signals]),
        media={
            s.name: MediaTick(values[s.name], age_s, coverage.get(s.name, 1.0), quality.get(s.name, Quality.GOOD))
            if s.name in values
            else MediaTick()
            for s in plant.media
        },
        flags=flags,
    )


def _middle(low: float | None, high: float | None) -> float:
    return 0.0 if low is None or high is None else 0.5 * (low + high)


def from_process_grid(
    plant: Plant,
    t_ns: NDArray[np.int64],
    values: Mapping[str, NDArray[Any]],
    *,
    observed: Mapping[str, Bools] | None = None,
    age_s: Mapping[str, Floats] | None = None,
    quality: Mapping[str, NDArray[np.uint8]] | None = None,
) -> Ticks:
    """A tags-only run from process values already on the grid, each [T] by signal name.

    What is not given is taken as observed where finite, of age zero and good. A tag that is not named counts as
    never seen, an action that is not named as mid-range.
    """
    seen = {
        n: np.isfinite(v) & (True if observed is None or n not in observed else observed[n]) for n, v in values.items()
    }
    absent = np.zeros(len(t_ns), bool)
    tags, actions = plant.tags, plant.actions

    def columns(given: Mapping[str, NDArray[Any]] | None, default: float, lost: float) -> Floats:
        made = [
            np.where(seen.get(s.name, absent), (given or {}).get(s.name, np.full(len(t_ns), default)), lost)
            for s in tags
        ]
        return np.stack(made, 1) if made else np.zeros((len(t_ns), 0))

    held = {n: _hold(np.asarray(v, np.float64), seen[n]) for n, v in values.items()}
    ages = {n: np.asarray(v) for n, v in (age_s or {}).items()}
    return Ticks(
        t_ns=np.asarray(t_ns, np.int64),
        tags=np.stack([np.nan_to_num(held.get(s.name, absent.astype(float))) for s in tags], 1),
        observed=np.stack([seen.get(s.name, absent) for s in tags], 1),
        age_s=columns(ages, 0.0, np.inf),
        quality=columns(quality, float(Quality.GOOD), float(Quality.BAD)).astype(np.uint8),
        action=np.stack([_hold_or_middle(held.get(s.name), _middle(s.low, s.high), len(t_ns)) for s in actions], 1)
        if actions
        else np.zeros((len(t_ns), 0)),
        media={},
        present={},
        patches={},
    )


def _hold(value: Floats, seen: Bools) -> Floats:
    """Last known value along T; NaN before the first."""
    last = np.maximum.accumulate(np.where(seen, np.arange(len(value)), -1))
    return np.where(last >= 0, value[np.maximum(last, 0)], np.nan)


def _hold_or_middle(held: Floats | None, middle: float, ticks: int) -> Floats:
    if held is None:
        return np.full(ticks, middle)
    return np.where(np.isfinite(held), held, middle)
