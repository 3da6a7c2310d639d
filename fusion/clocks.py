"""How far each clock is off: the lower envelope of arrival minus stamp over a window, with steps and hysteresis."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field

from fusion.records import NS_PER_S


@dataclass(slots=True)
class ClockModel:
    """Offset of one source clock: a stamp plus ``offset_ns`` is UTC of the receiver.

    A delay below ``tolerance_s`` is taken for transport. Beyond it, once seen without exception for ``settle_s``, the
    clock is taken to be wrong: stamps are corrected by the smallest delay and ``skewed`` is set.
    """

    tolerance_s: float = 0.5
    settle_s: float = 5.0
    window_s: float = 60.0
    offset_ns: int = 0
    steps: int = 0
    smallest_s: float = 0.0
    _slots: deque[tuple[int, int]] = field(default_factory=deque)

    @property
    def skewed(self) -> bool:
        """Whether stamps of this clock are being corrected."""
        return self.offset_ns != 0

    def see(self, received_ns: int, smallest_delay_ns: int) -> None:
        """Take note of the smallest delay of what arrived at ``received_ns``."""
        slot = received_ns // NS_PER_S
        if self._slots and self._slots[-1][0] == slot:
            self._slots[-1] = (slot, min(self._slots[-1][1], smallest_delay_ns))
        else:
            self._slots.append((slot, smallest_delay_ns))
            while self._slots[0][0] < slot - self.window_s:
                self._slots.popleft()
            self._estimate(slot)

    def _estimate(self, now: int) -> None:
        """Decide on whole seconds only, so that the order within one does not matter."""
        whole = [delay for slot, delay in self._slots if slot < now]
        recent = [delay for slot, delay in self._slots if now - self.settle_s <= slot < now]
        if len(recent) < self.settle_s:
            return
        self.smallest_s = min(whole) / NS_PER_S
        smallest = min(recent)
        tolerance = self.tolerance_s * NS_PER_S
        wanted = smallest if abs(smallest) > tolerance else 0
        spread_ok = wanted == 0 or max(recent) - smallest < 2 * tolerance or smallest < 0
        if spread_ok and abs(wanted - self.offset_ns) > 0.5 * tolerance:
            self.steps += 1
            self.offset_ns = wanted
