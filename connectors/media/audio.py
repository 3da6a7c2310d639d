"""Microphones and audio files: mono float32 chunks at the signal's rate, stamped at their first sample."""

from __future__ import annotations

from dataclasses import dataclass

from connectors.base import Source
from connectors.media.config import MediaConfig
from connectors.settings import signal_of
from fusion.errors import ConfigError
from fusion.plant import Modality, Plant


@dataclass(kw_only=True, slots=True)
class AudioConfig(MediaConfig):
    """A microphone or audio file; the sound of a camera is fine, too.

    After ``silent_after_s`` of digital silence chunks are of uncertain quality; 0 switches this off.
    """

    silent_after_s: float = 5.0

    def build(self, plant: Plant, name: str = "audio") -> Source:
        """A source of one audio signal.

        Raises:
            ConfigError: a signal that the plant does not have, or an unreadable password file.
        """
        signal = signal_of(plant, "audio.signal", self.signal, Modality.AUDIO)
        if len(signal.shape) != 1:
            raise ConfigError(f"audio.signal: {signal.name!r} has shape {signal.shape}; expected (samples,)")
        return self.source(signal, name, self.silent_after_s)
