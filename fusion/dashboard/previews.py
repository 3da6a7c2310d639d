"""Small views of media as they come over the wire: pictures, sound and point clouds."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from fusion.publish.messages import SpectrogramMessage

SPECTROGRAM_COLUMNS = 600
PICTURE_MAGIC = {b"\x89PNG": "image/png", b"\xff\xd8\xff\xe0": "image/jpeg", b"\xff\xd8\xff\xdb": "image/jpeg"}
PNG_SIZE_END = 24
POINT_BYTES = 16


@dataclass(frozen=True, slots=True)
class Picture:
    """One picture as the browser takes it."""

    media_type: str
    data: bytes

    @property
    def size(self) -> tuple[int, int] | None:
        """Columns and rows; None where the header does not say it in its first bytes."""
        if self.media_type != "image/png" or len(self.data) < PNG_SIZE_END:
            return None
        return int.from_bytes(self.data[16:20]), int.from_bytes(self.data[20:PNG_SIZE_END])


@dataclass(slots=True)
class Sound:
    """The last columns of a spectrogram; ``count`` is how many there ever were."""

    frequency_hz: list[float]
    columns: deque[list[float]]
    count: int = 0


def picture_of(payload: bytes) -> Picture | None:
    """A picture of a kind that browsers know; None where it is none."""
    media_type = PICTURE_MAGIC.get(payload[:4])
    return Picture(media_type, payload) if media_type else None


def sound_after(before: Sound | None, message: SpectrogramMessage) -> Sound:
    """A sound with new columns, begun anew where its bands are others; columns of another length are left out."""
    frequency_hz = [f or 0.0 for f in message.frequency_hz]
    kept = before is not None and before.frequency_hz == frequency_hz
    sound = before if before is not None and kept else Sound(frequency_hz, deque(maxlen=SPECTROGRAM_COLUMNS))
    bands = len(frequency_hz)
    columns = [[-100.0 if v is None else v for v in column] for column in message.columns if len(column) == bands]
    sound.columns.extend(columns)
    sound.count += len(columns)
    return sound
