"""Media of one signal on the grid: pictures of the tick, sound assembled by sample position, the last cloud."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality, Signal
from fusion.records import NS_PER_S, MediaTick, Quality, Sample

Verdict = Literal["kept", "late", "duplicate"]
JOIN_NS = 20_000_000


@dataclass(frozen=True, slots=True)
class _Piece:
    """A sample waiting for the tick at ``due_ns``, its stamp mapped to the receiver's clock."""

    due_ns: int
    t_ns: int
    value: NDArray[np.generic]
    quality: Quality


def _order(piece: _Piece) -> tuple[int, int]:
    return piece.due_ns, piece.t_ns


class Track:
    """Samples of one signal, waiting for their tick in order of mapped time."""

    def __init__(self, signal: Signal, step_ns: int) -> None:
        self._signal = signal
        self._step_ns = step_ns
        self._waiting: deque[_Piece] = deque()

    def accepts(self, value: NDArray[np.generic]) -> bool:
        """Whether a value has the form that this signal's values have."""
        return value.shape == self._signal.shape

    def length_ns(self, sample: Sample) -> int:
        """Time from the stamp to the end of a sample."""
        return 0

    def add(self, sample: Sample, t_ns: int, open_ns: int) -> Verdict:
        """Take a sample with mapped stamp ``t_ns``; on its arrival ``open_ns`` was the first tick still open."""
        due_ns = self._tick_ns(t_ns)
        if due_ns < open_ns:
            return self._add_late(sample, t_ns, open_ns)
        return self._insert(_Piece(due_ns, t_ns, sample.value, sample.quality))

    def take(self, tick_ns: int) -> MediaTick:
        """What belongs to the tick that ends at ``tick_ns``."""
        raise NotImplementedError

    def _add_late(self, sample: Sample, t_ns: int, open_ns: int) -> Verdict:
        return "late"

    def _insert(self, piece: _Piece) -> Verdict:
        key = _order(piece)
        at = len(self._waiting)
        if at and _order(self._waiting[-1]) >= key:
            at = bisect_left(self._waiting, key, key=_order)
            if _order(self._waiting[at]) == key:
                return "duplicate"
        self._waiting.insert(at, piece)
        return "kept"

    def _tick_ns(self, t_ns: int) -> int:
        return -(-t_ns // self._step_ns) * self._step_ns

    def _due(self, tick_ns: int) -> list[_Piece]:
        due = []
        while self._waiting and self._waiting[0].due_ns <= tick_ns:
            due.append(self._waiting.popleft())
        return due


class PictureTrack(Track):
    """All pictures of the tick, stacked [F, H, W]; absent where none came."""

    def take(self, tick_ns: int) -> MediaTick:
        """The pictures of the tick that ends at ``tick_ns``."""
        due = self._due(tick_ns)
        good = _usable(due)
        if not good:
            return _nothing_usable(due)
        expected = self._step_ns / NS_PER_S / self._signal.period_s
        pictures = np.stack([piece.value for piece in good])
        age_s = (tick_ns - good[-1].t_ns) / NS_PER_S
        return MediaTick(pictures, age_s, min(1.0, len(good) / expected), _worst(good))


class CloudTrack(Track):
    """The last point cloud, as long as it is not stale; a late one counts from the next tick on."""

    _last: _Piece | None = None

    def accepts(self, value: NDArray[np.generic]) -> bool:
        """Any number of points will do."""
        return value.ndim == 2 and value.shape[1:] == self._signal.shape[1:]

    def take(self, tick_ns: int) -> MediaTick:
        """The newest cloud at ``tick_ns``."""
        due = self._due(tick_ns)
        good = _usable(due)
        self._last = max([*good, *([self._last] if self._last else [])], key=lambda piece: piece.t_ns, default=None)
        if self._last is None or tick_ns - self._last.t_ns > self._signal.stale_after_s * NS_PER_S:
            return _nothing_usable(due)
        age_s = (tick_ns - self._last.t_ns) / NS_PER_S
        fresh = self._last.t_ns > tick_ns - max(self._step_ns, self._signal.period_s * NS_PER_S)
        return MediaTick(self._last.value, age_s, float(fresh), self._last.quality)

    def _add_late(self, sample: Sample, t_ns: int, open_ns: int) -> Verdict:
        self._insert(_Piece(open_ns, t_ns, sample.value, sample.quality))
        return "late"


class AudioTrack(Track):
    """One interval of sound by sample position; what did not come is zero and lowers the coverage.

    Chunks that follow one another within ``JOIN_NS`` are joined, so that jitter of their stamps does not tear them.
    """

    _end_ns = 0

    def accepts(self, value: NDArray[np.generic]) -> bool:
        """Chunks of any length will do."""
        return value.ndim == 1 and value.size > 0

    def length_ns(self, sample: Sample) -> int:
        """Duration of a chunk."""
        return self._duration_ns(len(sample.value))

    def _duration_ns(self, samples: int) -> int:
        return round(samples / self._signal.rate_hz * NS_PER_S)

    def _tick_ns(self, t_ns: int) -> int:
        """The tick that the first sample belongs to: tick boundaries begin a tick, as sound has no end stamp."""
        return (t_ns // self._step_ns + 1) * self._step_ns

    def _add_late(self, sample: Sample, t_ns: int, open_ns: int) -> Verdict:
        """What of the chunk lies in the tick still open is kept."""
        gone = math.ceil((open_ns - self._step_ns - t_ns) / NS_PER_S * self._signal.rate_hz)
        if gone < len(sample.value):
            rest_ns = t_ns + self._duration_ns(gone)
            self._insert(_Piece(open_ns, rest_ns, sample.value[gone:], sample.quality))
        return "late"

    def take(self, tick_ns: int) -> MediaTick:
        """The sound of the tick that ends at ``tick_ns``."""
        rate = self._signal.rate_hz
        sound = np.zeros(round(rate * self._step_ns / NS_PER_S), np.float32)
        filled = np.zeros(len(sound), np.bool_)
        due = self._due(tick_ns)
        good = _usable(due)
        for piece in good:
            begin_ns = self._end_ns if abs(piece.t_ns - self._end_ns) < JOIN_NS else piece.t_ns
            at = round((begin_ns - (tick_ns - self._step_ns)) * rate / NS_PER_S)
            used = self._place(sound, filled, piece.value, at)
            self._end_ns = begin_ns + self._duration_ns(len(piece.value))
            if used < len(piece.value):
                rest_ns = tick_ns + self._duration_ns(at + used - len(sound))
                self._insert(_Piece(tick_ns + self._step_ns, rest_ns, piece.value[used:], piece.quality))
                self._end_ns = rest_ns
        if not filled.any():
            return _nothing_usable(due)
        age_s = (len(sound) - 1 - int(np.flatnonzero(filled)[-1])) / rate
        return MediaTick(sound, age_s, float(filled.mean()), _worst(good))

    @staticmethod
    def _place(sound: NDArray[np.float32], filled: NDArray[np.bool_], chunk: NDArray[np.generic], at: int) -> int:
        """Copy what of a chunk falls into the interval; returns how much of it is used up."""
        skip, used = max(0, -at), max(0, min(len(chunk), len(sound) - at))
        if used > skip:
            sound[at + skip : at + used] = chunk[skip:used]
            filled[at + skip : at + used] = True
        return used


def track(signal: Signal, step_ns: int) -> Track:
    """The track for a media signal."""
    kinds = {Modality.VIDEO: PictureTrack, Modality.AUDIO: AudioTrack, Modality.LIDAR: CloudTrack}
    return kinds[signal.modality](signal, step_ns)


def _usable(pieces: Sequence[_Piece]) -> list[_Piece]:
    return [piece for piece in pieces if piece.quality != Quality.BAD]


def _nothing_usable(pieces: Sequence[_Piece]) -> MediaTick:
    return MediaTick(age_s=0.0) if pieces else MediaTick()


def _worst(pieces: Sequence[_Piece]) -> Quality:
    return min(piece.quality for piece in pieces)
