"""Pictures, sound and point clouds as recordings and cameras carry them: H.264, signed 16-bit samples, packed floats.

The simulated camera, and a simulated plant that is recorded without one, share the encoder, so that their pictures
carry the same artefacts. What comes from a camera is kept as it came: another lossy coding takes away noise that the
model meets live.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from fractions import Fraction

import av
import numpy as np
from numpy.typing import NDArray

PCM_SCALE = 32767.0
CLOCK_HZ = 90_000
START_CODE = re.compile(rb"\x00\x00\x01(.)", re.DOTALL)
IDR = 5
_X264 = "repeat-headers=1:annexb=1:colormatrix=bt709"


class PictureEncoder:
    """Grey pictures to H.264 access units, one unit per picture, a key frame every ``key_every`` pictures.

    With ``exact`` nothing is lost.
    """

    def __init__(self, height: int, width: int, rate_hz: float, key_every: int = 10, *, exact: bool = False) -> None:
        self._context = av.CodecContext.create("libx264", "w")
        self._context.width, self._context.height = width, height
        self._context.pix_fmt = "yuv420p"
        self._context.framerate = Fraction(rate_hz).limit_denominator(1000)
        self._context.time_base = Fraction(1, CLOCK_HZ)
        self._context.thread_count = 1
        options = {"preset": "ultrafast", "tune": "zerolatency", "g": str(key_every), "x264-params": _X264}
        self._context.options = options | ({"qp": "0"} if exact else {})
        self._planes = np.full((height * 3 // 2, width), 128, np.uint8)
        self._count = 0

    def encode(self, picture: NDArray[np.uint8]) -> bytes:
        """One picture [height, width] as one Annex B access unit."""
        self._planes[: picture.shape[0]] = picture
        frame = av.VideoFrame.from_ndarray(self._planes, format="yuv420p")
        frame.pts = self._count
        self._count += 1
        return b"".join(bytes(packet) for packet in self._context.encode(frame))


class PictureDecoder:
    """H.264 access units back to grey pictures; luma is passed through unscaled."""

    def __init__(self) -> None:
        self._context = av.CodecContext.create("h264", "r")
        self._context.thread_count = 1
        self._context.options = {"flags": "low_delay"}

    def decode(self, unit: bytes) -> Iterator[NDArray[np.uint8]]:
        """Pictures [height, width] that this access unit completes (one, for streams of ``PictureEncoder``)."""
        for frame in self._context.decode(av.Packet(unit)):
            yield luma(frame)


def is_key(unit: bytes) -> bool:
    """Whether decoding can begin with this Annex B access unit. Source: ITU-T H.264, 7.4.1, nal_unit_type 5."""
    return any(found[1][0] & 0x1F == IDR for found in START_CODE.finditer(unit))


def luma(frame: av.VideoFrame) -> NDArray[np.uint8]:
    """The brightness plane of a decoded picture [height, width], without any range conversion."""
    if frame.format.name not in ("yuv420p", "yuvj420p", "gray"):
        frame = frame.reformat(format="yuv420p")
    plane = frame.planes[0]
    rows = np.frombuffer(memoryview(plane), np.uint8).reshape(-1, plane.line_size)
    return np.array(rows[: frame.height, : frame.width])  # the decoder reuses the memory of the plane


def to_pcm(sound: NDArray[np.generic]) -> bytes:
    """Samples in [-1, 1] as little-endian signed 16 bit."""
    return (np.clip(sound.astype(np.float64), -1.0, 1.0) * PCM_SCALE).round().astype("<i2").tobytes()


def from_pcm(data: bytes) -> NDArray[np.float32]:
    """Little-endian signed 16 bit back to samples in [-1, 1]."""
    return np.asarray(np.divide(np.frombuffer(data, "<i2"), PCM_SCALE, dtype=np.float32))
