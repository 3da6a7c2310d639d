"""Decoded pictures into the signal's shape, with an eye on what a broken camera sends."""

from __future__ import annotations

import zlib
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from fusion.recordings.codec import luma

if TYPE_CHECKING:
    from av.video.frame import VideoFrame

BLACK_LEVEL = 24
TOLERANCE = 0.25


class Pictures:
    """Scales every picture to (height, width) grey, or (height, width, 3) colour, whatever size the camera sends.

    ``conditions`` are ``frozen`` and ``black`` once they have lasted ``suspicious_after_s`` (0: never looked at), and
    ``size`` where the camera has changed it; ``size_changes`` counts.
    """

    def __init__(self, shape: tuple[int, ...], period_s: float, suspicious_after_s: float) -> None:
        self._shape = shape
        self._period_ns = round(period_s * 1e9)
        self._patience_ns = round(suspicious_after_s * 1e9)
        self._due_ns: int | None = None
        self._size: tuple[int, int] | None = None
        self._digest = 0
        self._changed_ns = 0
        self._lit_ns = 0
        self.size_changes = 0
        self.conditions: list[str] = []

    def picture(self, frame: VideoFrame, t_ns: int) -> NDArray[np.uint8] | None:
        """The picture in the signal's shape; None where the camera is faster than the signal's period."""
        if not self._due(t_ns):
            return None
        size = (frame.width, frame.height)
        self.size_changes += self._size is not None and size != self._size
        self._size = size
        height, width = self._shape[:2]
        picture = self._scaled(frame, height, width)
        self._look(picture, t_ns)
        return picture

    def _scaled(self, frame: VideoFrame, height: int, width: int) -> NDArray[np.uint8]:
        """Grey is the brightness as it was encoded, without a change of range, as recordings hold it."""
        if len(self._shape) == 3:
            scaled = frame.reformat(width=width, height=height, format="rgb24", interpolation="AREA").to_ndarray()
            return np.ascontiguousarray(scaled, np.uint8)
        if (frame.width, frame.height) != (width, height):
            frame = frame.reformat(width=width, height=height, interpolation="AREA")
        return luma(frame)

    def _due(self, t_ns: int) -> bool:
        slack_ns = int(TOLERANCE * self._period_ns)
        if self._due_ns is None or abs(t_ns - self._due_ns) > 2 * self._period_ns:
            self._due_ns = t_ns
        if t_ns < self._due_ns - slack_ns:
            return False
        self._due_ns += self._period_ns
        return True

    def _look(self, picture: NDArray[np.uint8], t_ns: int) -> None:
        """Update the conditions; a stream that begins is given the benefit of the doubt."""
        digest = zlib.crc32(picture.data)
        if digest != self._digest or not self._changed_ns:
            self._digest, self._changed_ns = digest, t_ns
        if picture.max() >= BLACK_LEVEL or not self._lit_ns:
            self._lit_ns = t_ns
        self.conditions = []
        if self._patience_ns:
            self.conditions += ["frozen"] * (t_ns - self._changed_ns >= self._patience_ns)
            self.conditions += ["black"] * (t_ns - self._lit_ns >= self._patience_ns)
