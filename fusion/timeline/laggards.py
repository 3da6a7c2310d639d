"""Signals whose stamps are too old to be used while their clock, shared with others, is right."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from fusion.plant import Signal
from fusion.records import NS_PER_S
from fusion.timeline.clock_models import Flag
from fusion.timeline.process import Rows

SETTLE_NS = 5 * NS_PER_S


class Laggards:
    """Raises a flag for each process signal whose values arrive stale, one after another for ``SETTLE_NS``.

    A single old value is none: it has not changed for long. Decisions depend on rows in order of arrival alone.
    """

    def __init__(self, signals: Sequence[Signal]) -> None:
        self._names = [signal.name for signal in signals]
        self._stale_ns = np.array([round(s.stale_after_s * NS_PER_S) for s in signals], np.int64)
        self._since_ns: dict[int, int] = {}
        self.flags: dict[str, Flag] = {}

    @property
    def now(self) -> tuple[str, ...]:
        """Signals that lag at present."""
        return tuple(name for name, flag in self.flags.items() if flag.up)

    def take(self, rows: Rows) -> None:
        """Look at rows in order of arrival, their stamps mapped."""
        late = rows.arrival_ns - rows.t_ns > self._stale_ns[rows.column]
        if not self._since_ns and not late.any():
            return
        for column, arrival_ns, old in zip(rows.column.tolist(), rows.arrival_ns.tolist(), late.tolist(), strict=True):
            if not old:
                if self._since_ns.pop(column, None) is not None and (flag := self.flags.get(self._names[column])):
                    flag.turn(False, arrival_ns)
            elif arrival_ns - self._since_ns.setdefault(column, arrival_ns) >= SETTLE_NS:
                self.flags.setdefault(self._names[column], Flag()).turn(True, arrival_ns)
