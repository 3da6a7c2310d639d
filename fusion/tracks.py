"""Media of one signal on the grid: pictures of the tick, sound assembled by sample position, the last cloud."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Signal
from fusion.records import NS_PER_S, Quality, Sample

Verdict = Literal["kept", "late", "duplicate"]
JOIN_NS = 20_000_000


@dataclass(frozen=True, slots=True)
class Assembled:
    """What one signal contributes to one tick."""

    value: NDArray[np.generic]
    age_s: float
    coverage: float
    quality: Quality


@dataclass(frozen=True, slots=True)
class _Piece:
    t_ns: int
    value: NDArray[np.generic]
    quality: Quality


class _Track:
    """Pieces in order of mapped time, waiting for their tick."""

    def __init__(self, signal: Signal, step_ns: int) -> None:
        self._signal = signal
        self._step_ns = step_ns
        self._waiting: deque[_Piece] = deque()
        self._newest_ns: int | None = None

    def end_ns(self, sample: Sample) -> int:
        """Stamp of the last part of a sample."""
        return sample.t_ns

    def add(self, sample: Sample, t_ns: int, closed_ns: int) -> Verdict:
        """Take a sample whose mapped stamp is ``t_ns``; ticks up to ``closed_ns`` are gone."""
        if self._newest_ns is not None and t_ns == self._newest_ns:
            return "duplicate"
        if self._gone(sample, t_ns, closed_ns) or (self._newest_ns is not None and t_ns < self._newest_ns):
            return "late"
        self._newest_ns = t_ns
        self._waiting.append(_Piece(t_ns, sample.value, sample.quality))
        return "kept"

    def _gone(self, sample: Sample, t_ns: int, closed_ns: int) -> bool:
        return t_ns <= closed_ns

    def _due(self, tick_ns: int) -> list[_Piece]:
        due = []
        while self._waiting and self._waiting[0].t_ns <= tick_ns:
            due.append(self._waiting.popleft())
        return due


class PictureTrack(_Track):
    """All pictures of the tick, stacked [F, H, W]; absent where none came."""

    def take(self, tick_ns: int) -> Assembled | None:
        """The pictures of the tick that ends at ``tick_ns``."""
        due = self._due(tick_ns)
        if not due:
            return None
        expected = self._step_ns / NS_PER_S / self._signal.period_s
        pictures = np.stack([piece.value for piece in due])
        age_s = (tick_ns - due[-1].t_ns) / NS_PER_S
        return Assembled(pictures, age_s, min(1.0, len(due) / expected), _worst(due))


class CloudTrack(_Track):
    """The last point cloud, as long as it is not stale."""

    _last: _Piece | None = None

    def take(self, tick_ns: int) -> Assembled | None:
        """The newest cloud at ``tick_ns``."""
        due = self._due(tick_ns)
        self._last = due[-1] if due else self._last
        if self._last is None:
            return None
        age_s = (tick_ns - self._last.t_ns) / NS_PER_S
        if age_s > self._signal.stale_after_s:
            return None
        return Assembled(self._last.value, age_s, float(bool(due)), self._last.quality)


class AudioTrack(_Track):
    """One interval of sound by sample position; what did not come is zero and lowers the coverage."""

    def end_ns(self, sample: Sample) -> int:
        """Stamp of the end of a chunk."""
        return sample.t_ns + self._length_ns(len(sample.value))

    def _gone(self, sample: Sample, t_ns: int, closed_ns: int) -> bool:
        return t_ns + self._length_ns(len(sample.value)) <= closed_ns

    def _length_ns(self, samples: int) -> int:
        return int(samples / self._signal.rate_hz * NS_PER_S)

    def take(self, tick_ns: int) -> Assembled | None:
        """The sound of the tick that ends at ``tick_ns``."""
        rate = self._signal.rate_hz
        start_ns = tick_ns - self._step_ns
        sound = np.zeros(round(rate * self._step_ns / NS_PER_S), np.float32)
        filled = np.zeros(len(sound), np.bool_)
        due = self._due(tick_ns - 1)
        end_ns = None
        for piece in due:
            begin_ns = end_ns if end_ns is not None and abs(piece.t_ns - end_ns) < JOIN_NS else piece.t_ns
            at = round((begin_ns - start_ns) * rate / NS_PER_S)
            skip = max(0, -at)
            part = np.asarray(piece.value[skip : len(sound) - at], np.float32)
            sound[at + skip : at + skip + len(part)] = part
            filled[at + skip : at + skip + len(part)] = True
            end_ns = begin_ns + self._length_ns(len(piece.value))
            self._keep_rest(piece, begin_ns, len(sound) - at)
        if not filled.any():
            return None
        age_s = (len(sound) - 1 - int(np.flatnonzero(filled)[-1])) / rate
        return Assembled(sound, age_s, float(filled.mean()), _worst(due))

    def _keep_rest(self, piece: _Piece, begin_ns: int, used: int) -> None:
        """What of a chunk lies beyond the tick waits for the next one."""
        if used < len(piece.value):
            rest_ns = begin_ns + self._length_ns(used)
            self._waiting.appendleft(_Piece(rest_ns, piece.value[used:], piece.quality))


def _worst(pieces: Sequence[_Piece]) -> Quality:
    return min(piece.quality for piece in pieces)
