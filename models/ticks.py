"""Frames in, model input out: ``Ticks`` as arrays on the grid, in engineering units.

Shape letters: T ticks, S tags, A actions, F features.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality, Plant
from fusion.records import Frame, MediaTick, Quality
from models.features.eye import Eye
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

    ``tags`` [T, S] hold the last usable value (0 before the first); ``observed`` is False where this tick has none.
    ``action`` [T, A] is the last usable one, mid-range before the first. ``media`` [T, F], ``present``
    [T] and ``patches`` [T, ...] are by signal name; rows of an absent signal are zero. ``doubted`` [T] is what is
    present and its source is not sure of: a black picture, digital silence. ``perceived`` [T, N, K] is what an eye
    makes of cameras, by its keys. A tags-only run has no media.
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
    doubted: Mapping[str, Bools] = field(default_factory=dict)
    perceived: Mapping[str, NDArray[np.float16]] = field(default_factory=dict)

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
        """Consecutive parts as one run; all must carry the same signals, but what was perceived may be of a part only.

        Then it is left out: another model, with another eye or none, has made the other parts.
        """
        if not parts:
            raise ValueError("Ticks.concat: at least one part is required")
        arrays = [part.arrays() for part in parts]
        kept = [n for n in arrays[0] if not is_perceived(n) or all(n in other for other in arrays)]
        return _rebuild(lambda name: np.concatenate([a[name] for a in arrays]), kept)

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
_BY_SIGNAL = ("media", "present", "patches", "doubted", "perceived")


def is_perceived(name: str) -> bool:
    """Whether an array of ``Ticks.arrays`` is what some eye has seen, and not what all models are given alike."""
    return name.startswith("perceived/")


def _rebuild(value: Callable[[str], Any], names: Iterable[str]) -> Ticks:
    groups: dict[str, Any] = {group: {} for group in _BY_SIGNAL}
    for name in names:
        group, _, signal = name.partition("/")
        if signal:
            groups[group][signal] = value(name)
    return Ticks(**{name: value(name) for name in _FIXED}, **groups)


class TickBuilder:
    """Frames in order in, ``Ticks`` out: one at a time live, many in bulk.

    Knows no scaling and holds no value: a frame does. Without a stem the media are ignored, with ``patches=False``
    only their features are made; an ``eye`` also looks at pictures. Columns follow ``plant``, in whatever order a frame
    lists its signals.
    """

    def __init__(self, plant: Plant, stem: Stem | None = None, eye: Eye | None = None, *, patches: bool = True) -> None:
        self._plant = plant
        self._stem = stem
        self._eye = eye
        self._patches = patches
        self._signals: tuple[str, ...] = ()
        self._tags = self._actions = np.zeros(0, np.int64)
        self._rows: list[dict[str, NDArray[Any]]] = []

    def __len__(self) -> int:
        return len(self._rows)

    def add(self, frame: Frame) -> None:
        """Append one tick."""
        if frame.signals is not self._signals:
            self._signals = frame.signals
            self._tags, self._actions = process_columns(self._plant, frame.signals)
        row = self._process(frame)
        if self._stem is not None:
            for signal in self._plant.media:
                medium = frame.media.get(signal.name, MediaTick())
                row |= self._media(self._stem, signal.name, medium)
                if self._eye is not None and signal.modality is Modality.VIDEO:
                    there = medium.value is not None and bool(row[f"present/{signal.name}"])
                    row |= self._perceived(self._eye, signal.name, medium.value if there else None)
        self._rows.append(row)

    def tick(self, frame: Frame) -> Ticks:
        """Append one tick and drain: the live way, T = 1 after a drain."""
        self.add(frame)
        return self.drain()

    def drain(self) -> Ticks:
        """All ticks since the last drain.

        Raises:
            ValueError: where there is none.
        """
        rows, self._rows = self._rows, []
        return _stack(rows)

    def ticks(self) -> Ticks:
        """All ticks since the last drain, which are kept."""
        return _stack(self._rows)

    def makes(self, ticks: Ticks) -> bool:
        """Whether ticks have the columns that are made here: as many tags and actions, and the stem's features.

        What an eye has seen may be missing, or another one's.
        """
        wide: dict[str, tuple[int, ...]] = {"t_ns": (), "action": (len(self._plant.actions),)}
        wide |= dict.fromkeys(("tags", "observed", "age_s", "quality"), (len(self._plant.tags),))
        if (stem := self._stem) is not None:
            for name in (signal.name for signal in self._plant.media):
                wide |= {f"present/{name}": (), f"doubted/{name}": (), f"media/{name}": (len(stem.names(name)),)}
                wide |= {f"patches/{name}": stem.patch_shape(name)} if self._patches else {}
        given = {name: array.shape[1:] for name, array in ticks.arrays().items() if not is_perceived(name)}
        return given == wide

    def _process(self, frame: Frame) -> dict[str, NDArray[Any]]:
        return {
            "t_ns": np.array(frame.t_ns, np.int64),
            "tags": frame.value_S[self._tags],
            "observed": frame.observed_S[self._tags],
            "age_s": frame.age_s_S[self._tags],
            "quality": frame.quality_S[self._tags],
            "action": frame.value_S[self._actions],
        }

    def _media(self, stem: Stem, signal: str, medium: MediaTick) -> dict[str, NDArray[Any]]:
        made = None if medium.value is None else stem.compute(signal, medium.value)
        row: dict[str, NDArray[Any]] = {f"present/{signal}": np.array(made is not None)}
        features = made[0] if made else np.zeros(len(stem.names(signal)))
        row[f"media/{signal}"] = np.asarray(features, np.float64)
        row[f"doubted/{signal}"] = np.array(made is not None and medium.quality < Quality.GOOD)
        if self._patches:
            patches = made[1] if made else np.zeros(stem.patch_shape(signal))
            row[f"patches/{signal}"] = np.asarray(patches, np.float16)
        return row

    def _perceived(self, eye: Eye, signal: str, value: Media | None) -> dict[str, NDArray[Any]]:
        seen = np.zeros(eye.shape, np.float16) if value is None else eye.perceive(value)
        return {f"perceived/{eye.key(signal)}": seen}


def process_columns(plant: Plant, signals: Sequence[str]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Where the tags [S] and the actions [A] of a plant stand among process ``signals``."""
    place = {name: i for i, name in enumerate(signals)}
    tags, actions = ([place[s.name] for s in part] for part in (plant.tags, plant.actions))
    return np.array(tags, np.int64), np.array(actions, np.int64)


def _stack(rows: Sequence[Mapping[str, NDArray[Any]]]) -> Ticks:
    if not rows:
        raise ValueError("no ticks were added")
    return _rebuild(lambda name: np.stack([row[name] for row in rows]), rows[0])
