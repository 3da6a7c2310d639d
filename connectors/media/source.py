"""Supervised sources of pictures and sound: a decoder in a process of its own, started anew when it fails."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

from connectors.base import Driver, Source, Tally
from connectors.media.config import AudioConfig, MediaConfig, VideoConfig
from connectors.media.decoder_process import DecoderProcess
from connectors.media.pipe import Job
from connectors.settings import redacted, signal_of
from fusion.clock import CLOCK
from fusion.errors import ConfigError
from fusion.plant import Modality, Plant, Signal

RTSP_OPTIONS = {"analyzeduration": "500000", "fpsprobesize": "0"}  # seconds sooner, and no packet is thrown away


def video_source(config: VideoConfig, plant: Plant, name: str = "video") -> Source:
    """A source of one video signal: pictures in its shape, stamped by the camera's clock where it tells the time.

    Raises:
        ConfigError: a signal that the plant does not have, or an unreadable password file.
    """
    signal = signal_of(plant, "video.signal", config.signal, Modality.VIDEO)
    if len(signal.shape) not in (2, 3) or signal.shape[2:] not in ((), (3,)):
        raise ConfigError(f"video.signal: {signal.name!r} has shape {signal.shape}; expected (height, width[, 3])")
    return _source(config, signal, name, config.frozen_after_s)


def audio_source(config: AudioConfig, plant: Plant, name: str = "audio") -> Source:
    """A source of one audio signal: mono float32 chunks at its rate, stamped at their first sample.

    Raises:
        ConfigError: a signal that the plant does not have, or an unreadable password file.
    """
    signal = signal_of(plant, "audio.signal", config.signal, Modality.AUDIO)
    if len(signal.shape) != 1:
        raise ConfigError(f"audio.signal: {signal.name!r} has shape {signal.shape}; expected (samples,)")
    return _source(config, signal, name, config.silent_after_s)


def _source(config: MediaConfig, signal: Signal, name: str, suspicious_after_s: float) -> Source:
    """A supervised decoder of a stream for that signal."""
    config.address()
    tally = Tally()
    parts = urlsplit(config.url)
    clock = f"{parts.scheme}:{parts.hostname}" if config.live else f"file:{Path(config.url).name}"
    rtsp = parts.scheme in ("rtsp", "rtsps")
    options = {"rtsp_transport": config.transport, **RTSP_OPTIONS} if rtsp else {}

    def connect() -> Driver:
        job = Job(
            modality=signal.modality.value,
            url=config.address(),
            shape=signal.shape,
            period_s=signal.period_s,
            live=config.live,
            options={**options, **config.options},
            open_timeout_s=config.open_timeout_s,
            read_timeout_s=config.read_timeout_s,
            loop=config.loop,
            realtime=config.realtime,
            start_ns=config.start_ns(),
            frozen_after_s=suspicious_after_s,
            utc_offset_ns=CLOCK.utc_ns(0),
        )
        return DecoderProcess(signal.name, job, clock, redacted(config.url), tally)

    patience_s = max(config.supervision.open_timeout_s, config.open_timeout_s + 4.0)  # the process has to start, too
    waits = config.supervision.overflow if config.live or config.realtime else "wait"
    silence_s = max(config.supervision.stale_after_s, 3 * signal.period_s)
    supervision = replace(config.supervision, open_timeout_s=patience_s, stale_after_s=silence_s, overflow=waits)
    return Source(name, [signal], connect, supervision, tally=tally)
