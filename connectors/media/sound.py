"""Decoded audio into chunks of the signal's length and rate, with an eye on a microphone that has died."""

from __future__ import annotations

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

NS_PER_S = 1_000_000_000
SILENCE = 1e-5
JUMP_NS = 40_000_000


class Chunks:
    """Cuts a stream into mono float32 chunks of ``samples`` in [-1, 1], each stamped at its first sample.

    Several channels become their mean, so that what all of them hear keeps its level. ``conditions`` holds ``silent``
    after ``suspicious_after_s`` of digital silence (0: never looked at). A jump of the stamps drops what was pending
    and is counted in ``jumps``: a chunk never spans a hole.
    """

    def __init__(self, samples: int, rate_hz: int, suspicious_after_s: float) -> None:
        self._samples = samples
        self._rate_hz = rate_hz
        self._patience_ns = round(suspicious_after_s * 1e9)
        self._kind: tuple[str, str, int] | None = None
        self._resampler: AudioResampler | None = None
        self._pending = np.empty(0, np.float32)
        self._start_ns: int | None = None
        self._heard_ns = 0
        self.jumps = 0
        self.conditions: list[str] = []

    def chunks(self, frame: AudioFrame, t_ns: int) -> list[tuple[int, NDArray[np.float32]]]:
        """Pairs of time and chunk that this frame, whose first sample is of ``t_ns``, completes."""
        pending_ns = len(self._pending) * NS_PER_S // self._rate_hz
        if self._start_ns is not None and abs(t_ns - pending_ns - self._start_ns) > JUMP_NS:
            self.jumps += 1
            self._pending = self._pending[:0]
            pending_ns = 0
        self._start_ns = t_ns - pending_ns
        self._pending = np.concatenate([self._pending, *self._resampled(frame)])
        found = []
        while len(self._pending) >= self._samples:
            found.append((self._start_ns, self._pending[: self._samples].copy()))
            self._pending = self._pending[self._samples :]
            self._start_ns += self._samples * NS_PER_S // self._rate_hz
            self._listen(*found[-1])
        return found

    def restart(self) -> None:
        """Begin a stream anew: what was pending belongs to the old one."""
        self._pending, self._start_ns = self._pending[:0], None

    def _resampled(self, frame: AudioFrame) -> list[NDArray[np.float32]]:
        kind = (frame.format.name, frame.layout.name, frame.sample_rate)
        if self._resampler is None or kind != self._kind:
            self._kind = kind
            self._resampler = AudioResampler(format="fltp", layout=frame.layout, rate=self._rate_hz)
        frame.pts = None
        return [out.to_ndarray().mean(axis=0, dtype=np.float32) for out in self._resampler.resample(frame)]

    def _listen(self, t_ns: int, chunk: NDArray[np.float32]) -> None:
        if float(np.abs(chunk).max()) > SILENCE or not self._heard_ns:
            self._heard_ns = t_ns
        quiet = self._patience_ns > 0 and t_ns - self._heard_ns >= self._patience_ns
        self.conditions = ["silent"] if quiet else []
