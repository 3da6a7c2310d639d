"""What a camera or microphone sends: streams, codec, size, rate, and whether it tells the time."""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import av
from anyascii import anyascii
from av.error import FFmpegError, HTTPForbiddenError, HTTPUnauthorizedError

from connectors.media.config import MediaConfig
from connectors.media.decode import REFERENCE_TIME
from connectors.media.source import RTSP_OPTIONS
from connectors.settings import redacted
from fusion.errors import SourceError, SourceRefused
from fusion.plant import Modality, Signal
from fusion.site.found import Found, FoundSignal

PICTURE = (96, 96)
CHUNK_S = 0.1
MOST_HZ = 10.0
BEST_AUDIO_HZ = 16_000
LONGEST_LOOK_S = 8.0
FEWEST_PACKETS = 5
SAYS_NOTHING = re.compile(
    r"(main|sub|live|media|video|audio|streams?|streaming|channels?|ch|h26[45]|mjpe?g|profile)?_?\d*"
)
"""Parts of an address that all cameras of a make have in common."""
SAY = "say in description what it is of"


@dataclass(slots=True)
class Stream:
    """One stream of a URL; ``period_s`` is of its packets as they are stamped."""

    modality: Modality
    codec: str
    width: int = 0
    height: int = 0
    rate_hz: float = 0.0
    channels: int = 0
    packets: int = 0
    stamps_s: list[float] = field(default_factory=list)
    clock: bool = False

    @property
    def seen_hz(self) -> float:
        """Packets in a second of the stream's own time; 0 where too few came."""
        if len(self.stamps_s) < FEWEST_PACKETS:
            return 0.0
        span_s = max(self.stamps_s) - min(self.stamps_s)
        return (len(self.stamps_s) - 1) / span_s if span_s > 0 else 0.0


async def discover(config: MediaConfig, seconds: float) -> Found:
    """The streams of a URL, looked at for some seconds.

    Raises:
        SourceError: it cannot be reached, or says no.
    """
    streams = await asyncio.to_thread(_probe, config, min(seconds, LONGEST_LOOK_S))
    where = redacted(config.url)
    name = name_of(config.url)
    media: list[FoundSignal] = []
    for stream in streams:
        taken = {found.signal.name for found in media}
        own = name if name not in taken else f"{name}_{stream.modality.value}"
        media.append(_picture(own, stream) if stream.modality is Modality.VIDEO else _sound(own, stream))
    remarks = [] if media else [f"{where}: neither a picture nor sound in it"]
    return Found(url=where, connector=name, media=media, remarks=remarks)


def name_of(url: str) -> str:
    """A name from the end of a path that says something, else from the host, but for a bare address.

    What is set in a path is no name: some cameras have their password there.
    """
    parts = urlsplit(url)
    steps = [_word(step) for step in PurePosixPath(parts.path).parts if _word(step) and "=" not in step]
    last = next((i for i in reversed(range(len(steps))) if not SAYS_NOTHING.fullmatch(steps[i])), None)
    host = _word((parts.hostname or "").partition(".")[0])
    if last is not None:
        return "_".join(steps[last:])
    return "_".join(["camera" if host.isdecimal() or not host else host, *steps])


def _word(text: str) -> str:
    return "".join(c if c.isalnum() else "_" for c in anyascii(text)).strip("_").lower()


def _probe(config: MediaConfig, seconds: float) -> list[Stream]:
    options = {"rtsp_transport": config.transport, **RTSP_OPTIONS, **config.options}
    try:
        limits = (config.open_timeout_s, config.read_timeout_s)
        with av.open(config.address(), options=options, timeout=limits) as container:
            found = {s.index: _stream(s) for s in container.streams if s.type in ("video", "audio")}
            deadline = time.monotonic() + seconds
            for packet in container.demux([s for s in container.streams if s.index in found] or None):
                _look(found[packet.stream.index], packet)
                if time.monotonic() > deadline:
                    break
    except (HTTPUnauthorizedError, HTTPForbiddenError) as error:
        raise SourceRefused(f"{redacted(config.url)}: {error.strerror}; give --username and --password-file") from error
    except (FFmpegError, OSError) as error:
        raise SourceError(f"{redacted(config.url)}: {error.strerror or error}") from error
    return list(found.values())


def _stream(stream: Any) -> Stream:
    context = stream.codec_context
    if isinstance(stream, av.VideoStream):
        rate_hz = float(stream.average_rate or stream.guessed_rate or 0.0)
        return Stream(Modality.VIDEO, context.name, stream.width, stream.height, rate_hz)
    return Stream(Modality.AUDIO, context.name, rate_hz=float(stream.rate or 0), channels=stream.channels)


def _look(stream: Stream, packet: av.Packet[Any]) -> None:
    stream.packets += 1
    if packet.pts is not None:
        stream.stamps_s.append(float(packet.pts * packet.time_base))
    if packet.has_sidedata("prft"):
        reference_s = REFERENCE_TIME.unpack_from(bytes(packet.get_sidedata("prft")))[0] / 1e6
        stream.clock = stream.clock or abs(reference_s - time.time()) < 86_400.0


def _doubts(stream: Stream) -> list[str]:
    clock = [] if stream.clock else ["no clock in the stream (RTCP sender reports): it is stamped by its arrival"]
    return clock if stream.packets else ["no packet came", *clock]


def _picture(name: str, stream: Stream) -> FoundSignal:
    rate_hz = stream.seen_hz or stream.rate_hz
    period_s = float(f"{1.0 / min(rate_hz, MOST_HZ):.4g}") if rate_hz > 0 else 1.0 / MOST_HZ
    text = f"{stream.codec} {stream.width}x{stream.height}, {rate_hz:.3g} pictures/s"
    signal = Signal(
        name=name,
        modality=Modality.VIDEO,
        shape=PICTURE,
        period_s=period_s,
        stale_after_s=max(3.0, 5 * period_s),
    )
    clock = "stamped by the camera's clock" if stream.clock else "no clock"
    why = f"{text}; pictures are scaled to this shape; {clock}; {SAY}"
    return FoundSignal(signal=signal, why=why, doubts=tuple(_doubts(stream)))


def _sound(name: str, stream: Stream) -> FoundSignal:
    rate_hz = min(stream.rate_hz or BEST_AUDIO_HZ, BEST_AUDIO_HZ)
    text = f"{stream.codec}, {stream.rate_hz:g} Hz, {stream.channels} channel{'s' if stream.channels != 1 else ''}"
    signal = Signal(
        name=name,
        modality=Modality.AUDIO,
        shape=(round(rate_hz * CHUNK_S),),
        period_s=CHUNK_S,
        stale_after_s=3.0,
    )
    why = f"{text}; chunks of {CHUNK_S:g} s, mono at {rate_hz:g} Hz; {SAY}"
    return FoundSignal(signal=signal, why=why, doubts=tuple(_doubts(stream)))
