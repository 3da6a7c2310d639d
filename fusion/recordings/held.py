"""What was last told of each tag: a recording begins with it, for a tag that rests is told only once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from fusion.records import Columns

CLOCK = "held"
Told = tuple[int, float, int]
"""Time at the source, value and quality."""


class Held:
    """The newest value of each tag that has come."""

    def __init__(self) -> None:
        self._told: dict[str, Told] = {}

    def take(self, columns: Columns) -> None:
        """Note what a batch tells."""
        last = dict(zip(columns.index.tolist(), range(len(columns)), strict=True))
        for index, row in last.items():
            name, t_ns = columns.signals[index], int(columns.t_ns[row])
            if name not in self._told or t_ns >= self._told[name][0]:
                self._told[name] = t_ns, float(columns.value[row]), int(columns.quality[row])

    def columns(self, received_ns: int) -> Iterator[Columns]:
        """What is known at a time, with the stamps it had; nothing where nothing is."""
        if not self._told:
            return
        t_ns, value, quality = zip(*self._told.values(), strict=True)
        yield Columns(
            signals=tuple(self._told),
            index=np.arange(len(self._told), dtype=np.int32),
            t_ns=np.array(t_ns, np.int64),
            received_ns=np.full(len(self._told), received_ns, np.int64),
            value=np.array(value, np.float64),
            quality=np.array(quality, np.uint8),
            clock=CLOCK,
            replayed=True,
        )
