"""The feature stem: one documented, deterministic map per modality from a media value to numbers.

Nothing here knows a plant; ``docs/features.md`` lists every feature with its meaning and unit. Features are also
judged: outside the range seen in training a feature is *not calibrated here*, which is not the same as abnormal.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality, Plant, Signal
from models.features.audio import AudioStem
from models.features.lidar import LidarStem
from models.features.video import VideoStem
from models.scaling import Bools, Floats


class MediaStem(Protocol):
    """The stem of one modality.

    ``level_like`` names the features that follow a level and not a shape, ``health`` those that tell a dead sensor,
    ``quality`` those that speak of the sensor (contrast, returns) rather than of what it looks at.
    """

    names: tuple[str, ...]
    level_like: tuple[str, ...]
    health: tuple[str, ...]
    quality: tuple[str, ...]
    patch_shape: tuple[int, ...]

    def compute(self, value: NDArray[Any]) -> tuple[Floats, NDArray[np.float16]] | None:
        """Features [F] and patches; None where the value says nothing."""


class StemFacts(Protocol):
    """What the monitors need to know of a stem: names and meaning of its columns, by signal."""

    def names(self, signal: str) -> tuple[str, ...]:
        """Feature names: F columns."""

    def level_like(self, signal: str) -> Bools:
        """Which features [F] follow a level and not a shape."""

    def health(self, signal: str) -> NDArray[np.int64]:
        """Columns that tell a dead sensor; zero is well."""

    def quality(self, signal: str) -> Bools:
        """Which features [F] speak of the sensor and not of what it looks at."""


class FeatureStem:
    """The stems of a plant's media signals, by signal name."""

    def __init__(self, plant: Plant) -> None:
        self._stems: dict[str, MediaStem] = {s.name: stem_of(s) for s in plant.media}

    def names(self, signal: str) -> tuple[str, ...]:
        """Feature names of a signal: F columns."""
        return self._stems[signal].names

    def patch_shape(self, signal: str) -> tuple[int, ...]:
        """Shape of the patches of one tick."""
        return self._stems[signal].patch_shape

    def level_like(self, signal: str) -> Bools:
        """Which features [F] follow a level (brightness, loudness, height) and not a shape."""
        stem = self._stems[signal]
        return np.array([name in stem.level_like for name in stem.names], bool)

    def health(self, signal: str) -> NDArray[np.int64]:
        """Columns of the features that say whether the sensor is alive; zero is well."""
        stem = self._stems[signal]
        return np.array([stem.names.index(name) for name in stem.health], np.int64)

    def quality(self, signal: str) -> Bools:
        """Which features [F] speak of the sensor and not of what it looks at."""
        stem = self._stems[signal]
        return np.array([name in stem.quality for name in stem.names], bool)

    def compute(self, signal: str, value: NDArray[np.generic]) -> tuple[Floats, NDArray[np.float16]] | None:
        """Features [F] and patches of one tick's value; None where it says nothing, such as an empty cloud."""
        return self._stems[signal].compute(value)


def stem_of(signal: Signal) -> MediaStem:
    """The stem for a signal of a media modality."""
    if signal.modality is Modality.VIDEO:
        return VideoStem()
    return AudioStem(signal.rate_hz) if signal.modality is Modality.AUDIO else LidarStem(signal.pose)


@dataclass(frozen=True, slots=True)
class FeatureRange:
    """The range of features seen in training, widened by a share of its width on either side."""

    low: Floats
    high: Floats

    @classmethod
    def fit(cls, features: Floats, margin: float = 0.5) -> FeatureRange:
        """From training features [T, F]: the 0.1 to 99.9 % quantiles, widened."""
        low, high = np.percentile(features, [0.1, 99.9], axis=0)
        slack = margin * (high - low) + 1e-6 * (1 + np.abs(high))
        return cls(low - slack, high + slack)

    def calibrated(self, features: Floats) -> Bools:
        """Which features [..., F] lie where the model was trained."""
        return (features >= self.low) & (features <= self.high)
