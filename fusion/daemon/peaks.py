"""What of a tick's surprise is kept with the recordings: by sense and family of energies the largest over its limit."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from control.anomaly.calibration import Calibration
from fusion.daemon.seat import Seat
from fusion.inference import Engine
from fusion.outcome import Outcome
from fusion.records import Peaks


class Peaking:
    """Sums up tick after tick; which energies go together is worked out once a model."""

    def __init__(self) -> None:
        self._calibration: Calibration | None = None
        self._groups: list[tuple[str, str]] = []
        self._group: NDArray[np.int64] = np.empty(0, np.int64)

    def of(self, outcome: Outcome, engine: Engine | Seat) -> Peaks | None:
        """The peaks of a tick; None where nothing was judged."""
        if (surprise := outcome.surprise) is None or (calibration := engine.calibration) is None:
            return None
        if calibration is not self._calibration:
            keys = [(str(energy.modality), energy.family) for energy in calibration.energies]
            self._calibration, self._groups = calibration, list(dict.fromkeys(keys))
            self._group = np.array([self._groups.index(key) for key in keys], np.int64)
        factor = np.full(len(self._groups), np.nan)
        np.fmax.at(factor, self._group, surprise.standardised / calibration.threshold)
        there = np.isfinite(factor)
        known = [self._groups[i] for i in np.flatnonzero(there)]
        return Peaks(
            t_ns=outcome.frame.t_ns,
            senses=tuple(sense for sense, _ in known),
            families=tuple(family for _, family in known),
            factor=factor[there].astype(np.float32),
            model_id=engine.model_id,
        )
