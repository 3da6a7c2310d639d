"""Frames in, model input out: ``Ticks`` as arrays on the grid, in engineering units.

Shape letters: T ticks, S tags, A actions, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Plant
from fusion.records import Frame, Quality
from models.scaling import Bools, Floats

Media = NDArray[np.generic]


class Stem(Protocol):
    """What turns one media value into features and patches; see ``models.features.stem``."""

    def names(self, signal: str) -> tuple[str, ...]:
        """Feature names of a signal: F columns."""

    def patch_shape(self, signal: str) -> tuple[int, ...]:
        """Shape of the patches of one tick."""

    def compute(self, signal: str, value: Media) -> tuple[Floats, NDArray[np.float16]] | None:
        """Features [F] and patches of one tick; None where the value says nothing (no returns)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Ticks:
    """One contiguous run on the grid, in engineering units.

    ``tags`` [T, S] hold the last known value (0 where never seen); ``observed`` is False where this tick has no
    usable value. ``action`` [T, A] is the last known one, mid-range where never seen. ``media`` [T, F], ``present``
    [T] and ``patches`` [T, ...] are by signal name; rows of an absent signal are zero. A tags-only run has no media.
    """

    t_ns: NDArray[np.int64]
    tags: Floats
    observed: Bools
    age_s: Floats
    quality: NDArray[np.uint8]
    action: Floats
    media: Mapping[str, Floats]
    present: Mapping[str, Bools]
    patches: Mapping[str, NDArray[np.float16]]

    def __len__(self) -> int:
        return len(self.t_ns)

    def __getitem__(self, part: slice) -> Ticks:
        return _rebuild(lambda name: self.arrays()[name][part], self.arrays())

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Every array by its cache key: ``tags``, ``media/camera`` and so on."""
        arrays: dict[str, NDArray[Any]] = {name: getattr(self, name) for name in _FIXED}
        for group in _BY_SIGNAL:
            arrays |= {f"{group}/{signal}": value for signal, value in getattr(self, group).items()}
        return arrays

    @classmethod
    def concat(cls, parts: Sequence[Ticks]) -> Ticks:
        """Consecutive parts as one run; all must carry the same signals."""
        if not parts:
            raise ValueError("Ticks.concat: at least one part is required")
        arrays = [part.arrays() for part in parts]
        return _rebuild(lambda name: np.concatenate([a[name] for a in arrays]), arrays[0])

    def without_media(self) -> Ticks:
        """The same run as if no camera, microphone or LiDAR existed."""
        return _rebuild(self.arrays().__getitem__, _FIXED)

    def save(self, path: Path) -> None:
        """Write an uncompressed ``.npz`` (a cache, not an interchange format)."""
        with path.open("wb") as stream:
            np.savez(stream, allow_pickle=False, **self.arrays())

    @classmethod
    def load(cls, path: Path) -> Ticks:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as file:
            arrays = dict(file)
        return _rebuild(arrays.__getitem__, arrays)


_FIXED = ("t_ns", "tags", "observed", "age_s", "quality", "action")
_BY_SIGNAL = ("media", "present", "patches")


def _rebuild(value: Callable[[str], Any], names: Iterable[str]) -> Ticks:
    groups: dict[str, Any] = {group: {} for group in _BY_SIGNAL}
    for name in names:
        group, _, signal = name.partition("/")
        if signal:
            groups[group][signal] = value(name)
    return Ticks(**{name: value(name) for name in _FIXED}, **groups)


class TickBuilder:
    """Frames in order in, ``Ticks`` out: one at a time live, many in bulk.

    Knows no scaling. Without a stem the media are ignored, with ``patches=False`` only their features are made.
    """

    def __init__(self, plant: Plant, stem: Stem | None = None, *, patches: bool = True) -> None:
        self._plant = plant
        self._stem = stem
        self._patches = patches
        self._tags = np.zeros(len(plant.tags))
        self._action = np.array([_middle(s.low, s.high) for s in plant.actions])
        self._rows: list[dict[str, NDArray[Any]]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, frame: Frame) -> None:
        """Append one tick."""
        row = self._process(frame)
        if self._stem is not None:
            for signal in self._plant.media:
                row |= self._media(self._stem, signal.name, frame)
        self._rows.append(row)

    def tick(self, frame: Frame) -> Ticks:
        """Append one tick and drain: the live way, T = 1 after a drain."""
        self.add(frame)
        return self.drain()

    def drain(self) -> Ticks:
        """All ticks since the last drain; the last known values stay.

        Raises:
            ValueError: where there is none.
        """
        rows, self._rows = self._rows, []
        return _stack(rows)

    def ticks(self) -> Ticks:
        """All ticks since the last drain, which are kept."""
        return _stack(self._rows)

    def _process(self, frame: Frame) -> dict[str, NDArray[Any]]:
        tags, actions = self._plant.tags, self._plant.actions
        observed = np.array([_usable(frame, s.name) for s in tags], bool)
        for column, signal in enumerate(tags):
            if observed[column]:
                self._tags[column] = _number(frame.values[signal.name])
        for column, signal in enumerate(actions):
            if _usable(frame, signal.name):
                self._action[column] = _number(frame.values[signal.name])
        return {
            "t_ns": np.array(frame.t_ns, np.int64),
            "tags": self._tags.copy(),
            "observed": observed,
            "age_s": np.array([frame.age_s.get(s.name, np.inf) for s in tags], np.float64),
            "quality": np.array([int(frame.quality.get(s.name, Quality.BAD)) for s in tags], np.uint8),
            "action": self._action.copy(),
        }

    def _media(self, stem: Stem, signal: str, frame: Frame) -> dict[str, NDArray[Any]]:
        value = frame.values.get(signal)
        usable = isinstance(value, np.ndarray) and frame.quality.get(signal, Quality.GOOD) != Quality.BAD
        made = stem.compute(signal, value) if usable and isinstance(value, np.ndarray) else None
        row: dict[str, NDArray[Any]] = {f"present/{signal}": np.array(made is not None)}
        features = made[0] if made else np.zeros(len(stem.names(signal)))
        row[f"media/{signal}"] = np.asarray(features, np.float64)
        if self._patches:
            patches = made[1] if made else np.zeros(stem.patch_shape(signal))
            row[f"patches/{signal}"] = np.asarray(patches, np.float16)
        return row


def _stack(rows: Sequence[Mapping[str, NDArray[Any]]]) -> Ticks:
    if not rows:
        raise ValueError("no ticks were added")
    return _rebuild(lambda name: np.stack([row[name] for row in rows]), rows[0])


def _usable(frame: Frame, signal: str) -> bool:
    value = frame.values.get(signal)
    if value is None or frame.quality.get(signal, Quality.GOOD) == Quality.BAD:
        return False
    return bool(np.isfinite(_number(value)))


def _number(value: float | Media) -> float:
    return float(value)


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
