"""Decoded audio into chunks of the signal's length and rate, with an eye on a microphone that has died."""

from __future__ import annotations

import numpy as np
from av.audio.frame import AudioFrame
from av.audio.resampler import AudioResampler
from numpy.typing import NDArray

NS_PER_S = 1_000_000_000
SILENCE = 1e-5
JUMP_NS = 40_000_000
HOLE_NS = 250_000_000
STANDS = 3
"""After how many frames a smaller jump of the stamps is a hole: a device that is late once is on time again."""
FOLLOWED = 16
"""What part of a small difference the time of the sound follows at each frame: all of a drift, little of a jitter."""


class Chunks:
    """Cuts a stream into mono float32 chunks of ``samples`` in [-1, 1], each stamped at its first sample.

    Several channels become their mean, so that what all of them hear keeps its level. ``conditions`` holds ``silent``
    after ``suspicious_after_s`` of digital silence (0: never looked at). A jump of the stamps, a great
    one or one that stands, drops what was pending and is counted in ``jumps``: a chunk never spans such a hole. Devices
    that stamp sound by when they got it jitter by milliseconds, and under load by more; that tears nothing.
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
        self._off = 0
        self.jumps = 0
        self.conditions: list[str] = []

    def chunks(self, frame: AudioFrame, t_ns: int) -> list[tuple[int, NDArray[np.float32]]]:
        """Pairs of time and chunk that this frame, whose first sample is of ``t_ns``, completes."""
        self._start_ns = self._started_ns(t_ns)
        self._pending = np.concatenate([self._pending, *self._resampled(frame)])
        found = []
        while len(self._pending) >= self._samples:
            found.append((self._start_ns, self._pending[: self._samples].copy()))
            self._pending = self._pending[self._samples :]
            self._start_ns += self._samples * NS_PER_S // self._rate_hz
            self._listen(*found[-1])
        return found

    def _started_ns(self, t_ns: int) -> int:
        """When what is pending began, now that a frame of ``t_ns`` follows it; over a hole nothing is pending."""
        by_stamp_ns = t_ns - len(self._pending) * NS_PER_S // self._rate_hz
        if self._start_ns is None:
            return by_stamp_ns
        off_ns = by_stamp_ns - self._start_ns
        self._off = self._off + 1 if abs(off_ns) > JUMP_NS else 0
        if abs(off_ns) > HOLE_NS or self._off >= STANDS:
            self.jumps += 1
            self._off, self._pending = 0, self._pending[:0]
            return t_ns
        return self._start_ns if self._off else self._start_ns + off_ns // FOLLOWED

    def restart(self) -> None:
        """Begin a stream anew: what was pending belongs to the old one."""
        self._pending, self._start_ns, self._off = self._pending[:0], None, 0

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
