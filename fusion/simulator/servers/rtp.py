"""Pictures and sound in RTP packets, with sender reports that tie their stamps to the clock of the source.

Source: RFC 3550 (RTP, RTCP), RFC 6184 (H.264, single units and FU-A), RFC 3551 (L16).
"""

from __future__ import annotations

import base64
import random
import struct
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality, Signal
from fusion.recordings.codec import CLOCK_HZ, PictureEncoder, to_pcm
from fusion.records import NS_PER_S

PAYLOAD_BYTES = 1400
REPORT_PERIOD_NS = NS_PER_S
NTP_EPOCH_S = 2_208_988_800
VIDEO_TYPE, AUDIO_TYPE = 96, 97
IDR, SPS, PPS, FU_A = 5, 7, 8, 28
_WRAP = 1 << 32


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """What one picture or chunk became: ``packets``, the sender ``report`` of its moment, and whether it is due.

    A listener may only begin with a unit whose ``key`` is set.
    """

    packets: tuple[bytes, ...]
    report: bytes
    report_due: bool
    key: bool


class Payloads(Protocol):
    """How one kind of media is cut into RTP payloads."""

    clock_hz: int
    payload_type: int

    def cut(self, value: NDArray[np.generic]) -> tuple[list[tuple[int, bytes]], bool]:
        """Pairs of clock ticks since the value's stamp and payload, and whether decoding may begin here."""

    def refresh(self) -> None:
        """Make the next value one where decoding may begin."""

    def description(self) -> list[str]:
        """Lines of the session description."""


class PicturePayload:
    """Grey pictures [height, width] as H.264."""

    clock_hz = CLOCK_HZ
    payload_type = VIDEO_TYPE

    def __init__(self, height: int, width: int, rate_hz: float) -> None:
        self._settings = (height, width, rate_hz)
        self._encoder: PictureEncoder | None = None

    def cut(self, value: NDArray[np.generic]) -> tuple[list[tuple[int, bytes]], bool]:
        """The access unit of one picture, in payloads."""
        if self._encoder is None:
            self._encoder = PictureEncoder(*self._settings)
        nals = split_nals(self._encoder.encode(value.astype(np.uint8, copy=False)))
        return [(0, part) for nal in nals for part in fragments(nal)], any(nal[0] & 31 == IDR for nal in nals)

    def refresh(self) -> None:
        """A fresh encoder begins with a key frame."""
        self._encoder = None

    def description(self) -> list[str]:
        """Parameter sets are announced here, and travel in the stream with every key frame."""
        height, width, rate_hz = self._settings
        nals = split_nals(PictureEncoder(*self._settings).encode(np.zeros((height, width), np.uint8)))
        sets = [nal for nal in nals if nal[0] & 31 in (SPS, PPS)]
        announced = ",".join(base64.b64encode(nal).decode() for nal in sets)
        form = f"packetization-mode=1;profile-level-id={sets[0][1:4].hex().upper()};sprop-parameter-sets={announced}"
        return [
            f"m=video 0 RTP/AVP {VIDEO_TYPE}",
            f"a=rtpmap:{VIDEO_TYPE} H264/{CLOCK_HZ}",
            f"a=fmtp:{VIDEO_TYPE} {form}",
            f"a=framerate:{rate_hz:g}",
            f"a=framesize:{VIDEO_TYPE} {width}-{height}",
        ]


class SoundPayload:
    """Mono samples in [-1, 1] as signed 16 bit in network byte order."""

    payload_type = AUDIO_TYPE

    def __init__(self, rate_hz: int) -> None:
        self.clock_hz = rate_hz

    def cut(self, value: NDArray[np.generic]) -> tuple[list[tuple[int, bytes]], bool]:
        """A chunk in payloads of nearly equal length."""
        data = np.frombuffer(to_pcm(value), "<i2").astype(">i2").tobytes()
        count = -(-len(data) // PAYLOAD_BYTES)
        size = 2 * -(-len(data) // (2 * max(count, 1)))
        return [(i // 2, data[i : i + size]) for i in range(0, len(data), size)], True

    def refresh(self) -> None:
        """Sound may begin anywhere."""

    def description(self) -> list[str]:
        """One channel of linear samples."""
        return [f"m=audio 0 RTP/AVP {AUDIO_TYPE}", f"a=rtpmap:{AUDIO_TYPE} L16/{self.clock_hz}/1"]


def payloads_of(signal: Signal) -> Payloads:
    """The payload format for a signal.

    Raises:
        ValueError: a signal that is neither grey video nor audio.
    """
    if signal.modality is Modality.VIDEO and len(signal.shape) == 2:
        return PicturePayload(*signal.shape, signal.rate_hz)
    if signal.modality is Modality.AUDIO:
        return SoundPayload(round(signal.rate_hz))
    raise ValueError(f"signal {signal.name!r}: only grey video and audio can be streamed")


class RtpStream:
    """One RTP stream: its stamps are a function of source time alone."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads
        self._ssrc = random.getrandbits(32)
        self._base = random.getrandbits(31)
        self._sequence = random.getrandbits(16)
        self._sent_packets = self._sent_bytes = 0
        self._reported: tuple[int, int] | None = None

    def unit(self, value: NDArray[np.generic], t_ns: int) -> Unit:
        """One picture or chunk that was taken at ``t_ns`` (of its first sample)."""
        stamp = (self._base + t_ns * self._payloads.clock_hz // NS_PER_S) % _WRAP
        due = self._report_due(t_ns, stamp)
        report = self._report(t_ns, stamp)
        parts, key = self._payloads.cut(value)
        video = self._payloads.payload_type == VIDEO_TYPE
        packets = tuple(
            self._packet((stamp + ticks) % _WRAP, payload, marker=video and i == len(parts) - 1)
            for i, (ticks, payload) in enumerate(parts)
        )
        return Unit(packets=packets, report=report, report_due=due, key=key)

    def refresh(self) -> None:
        """Make the next unit a key unit."""
        self._payloads.refresh()

    def _packet(self, stamp: int, payload: bytes, *, marker: bool) -> bytes:
        kind = self._payloads.payload_type | (0x80 if marker else 0)
        header = struct.pack(">BBHII", 0x80, kind, self._sequence, stamp, self._ssrc)
        self._sequence = (self._sequence + 1) & 0xFFFF
        self._sent_packets += 1
        self._sent_bytes += len(payload)
        return header + payload

    def _report_due(self, t_ns: int, stamp: int) -> bool:
        """At intervals, and where the stamp has wrapped: receivers extrapolate from the last report."""
        if self._reported is not None:
            last_ns, last_stamp = self._reported
            if last_stamp <= stamp and 0 <= t_ns - last_ns < REPORT_PERIOD_NS:
                return False
        self._reported = (t_ns, stamp)
        return True

    def _report(self, t_ns: int, stamp: int) -> bytes:
        """A sender report and the source description that must follow it."""
        seconds, rest_ns = divmod(t_ns, NS_PER_S)
        ntp = ((seconds + NTP_EPOCH_S) % _WRAP, (rest_ns << 32) // NS_PER_S)
        counts = (self._sent_packets % _WRAP, self._sent_bytes % _WRAP)
        sender = struct.pack(">BBHIIIIII", 0x80, 200, 6, self._ssrc, *ntp, stamp, *counts)
        name = b"plant"
        items = struct.pack(">BB", 1, len(name)) + name
        items += bytes(4 - len(items) % 4)
        return sender + struct.pack(">BBHI", 0x81, 202, 1 + len(items) // 4, self._ssrc) + items


def split_nals(unit: bytes) -> list[bytes]:
    """The NAL units of an Annex B access unit."""
    return [nal for nal in (part.rstrip(b"\0") for part in unit.split(b"\0\0\1")) if nal]


def fragments(nal: bytes) -> list[bytes]:
    """A NAL unit as it is, or in fragmentation units where it is longer than a packet."""
    if len(nal) <= PAYLOAD_BYTES:
        return [nal]
    size = PAYLOAD_BYTES - 2
    body = nal[1:]
    parts = [body[i : i + size] for i in range(0, len(body), size)]
    flags = [0] * len(parts)
    flags[0], flags[-1] = 0x80, 0x40
    return [
        bytes(((nal[0] & 0xE0) | FU_A, flag | (nal[0] & 31))) + part for flag, part in zip(flags, parts, strict=True)
    ]
