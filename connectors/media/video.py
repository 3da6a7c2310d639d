"""Cameras and video files: pictures in the signal's shape, stamped by the camera's clock where it tells the time."""

from __future__ import annotations

from dataclasses import dataclass

from connectors.base import Source
from connectors.media.config import MediaConfig
from connectors.settings import signal_of
from fusion.errors import ConfigError
from fusion.plant import Modality, Plant


@dataclass(kw_only=True, slots=True)
class VideoConfig(MediaConfig):
    """A camera or video file.

    A picture that has been identical, or black, for ``frozen_after_s`` is of uncertain quality; 0 switches this off.
    """

    frozen_after_s: float = 10.0

    def build(self, plant: Plant, name: str = "video") -> Source:
        """A source of one video signal.

        Raises:
            ConfigError: a signal that the plant does not have, or an unreadable password file.
        """
        signal = signal_of(plant, "video.signal", self.signal, Modality.VIDEO)
        if len(signal.shape) not in (2, 3) or signal.shape[2:] not in ((), (3,)):
            raise ConfigError(f"video.signal: {signal.name!r} has shape {signal.shape}; expected (height, width[, 3])")
        return self.source(signal, name, self.frozen_after_s)
