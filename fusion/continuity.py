"""How a stream of ticks begins and goes on: first values, what an earlier run knew, and ticks that are missing.

Shape letters: E energies, A actions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from control.anomaly.seam import Seam
from fusion.plant import Plant
from fusion.records import NS_PER_S, Energy, Frame
from models.scaling import Floats
from models.ticks import Ticks, process_columns

PATIENCE_TICKS = 30
"""How many ticks inference waits for the first value of every process signal."""
WARMING_UP = "warming up"
"""The flag of the time in which nothing is judged yet."""
GAP = 1.5
"""Steps between two ticks, beyond which some are missing."""


class Continuity:
    """One stream of ticks of a plant, over gaps and restarts."""

    def __init__(self, plant: Plant, energies: Sequence[Energy]) -> None:
        self._plant = plant
        self._seam = Seam(energies, plant.step_s)
        self._waiting_ticks = PATIENCE_TICKS
        self._absent: frozenset[str] = frozenset()
        self._recalled_ns: int | None = None
        self._unheard: Floats | None = None
        self._skipped = False

    def incomplete(self, frame: Frame) -> bool:
        """Whether a tick comes too early: averages must not begin on values that have not arrived yet.

        What was dead before is not awaited.
        """
        if self._waiting_ticks and not self._absent.issuperset(frame.missing):
            self._waiting_ticks -= 1
            return True
        self._waiting_ticks = 0
        return False

    def continued(self, frame: Frame, tick: Ticks) -> Ticks:
        """A tick with what an earlier run knew of the actions that nothing has been heard of since.

        Where ticks are missing between that run and this one, the seam begins.
        """
        if self._recalled_ns is not None:
            if (frame.t_ns - self._recalled_ns) / NS_PER_S > GAP * self._plant.step_s:
                self._seam.begin(frame.t_ns)
            self._recalled_ns = None
        if self._unheard is None:
            return tick
        missing = np.isinf(frame.age_s_S[process_columns(self._plant, frame.signals)[1]])
        action = np.where(missing, self._unheard, tick.action)
        self._unheard = self._unheard if missing.any() else None
        return replace(tick, action=action)

    def trusted(self, energies: Floats, t_ns: int) -> Floats:
        """Energies [E] of a tick without those that look back over missing ticks."""
        return self._seam.trusted(energies, t_ns)

    def flags(self, now_ns: int) -> tuple[str, ...]:
        """Ticks are missing: some were skipped, or there is a gap behind those of an earlier run."""
        left_s = self._seam.left_s(now_ns)
        resumed = (f"{WARMING_UP}, {left_s:.0f} s left",) if left_s else ()
        return (*resumed, "skipped") if resumed and self._skipped else resumed

    def skip(self, now_ns: int) -> None:
        """Hear that ticks are missing now."""
        self._skipped = True
        self._seam.begin(now_ns)

    # --- over a restart

    @staticmethod
    def judged(ticks: Ticks) -> Ticks:
        """Ticks of an earlier run without the first of them, where values had not arrived."""
        whole = ticks.observed.all(1)
        return ticks[min(int(whole.argmax()) if whole.any() else len(ticks) - 1, PATIENCE_TICKS) :]

    def recall(self, ticks: Ticks) -> None:
        """Go on from the last of the ticks of an earlier run."""
        self._recalled_ns, self._unheard = int(ticks.t_ns[-1]), ticks.action[-1]
        tags = zip(self._plant.tags, ticks.observed[-1], strict=True)
        self._absent = frozenset(signal.name for signal, observed in tags if not observed)
        gaps = np.flatnonzero(np.diff(ticks.t_ns) > GAP * self._plant.step_s * NS_PER_S)
        if len(gaps):
            self._seam.begin(int(ticks.t_ns[gaps[-1] + 1]))

    @property
    def recalled(self) -> bool:
        """Whether nothing has come yet since the ticks of an earlier run."""
        return self._recalled_ns is not None
