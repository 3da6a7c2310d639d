"""The seat of the engine: one may take the place of another between two ticks, and it may be empty.

Without a model nothing is judged; ticks are made all the same, so that the first model knows the last minutes when it
comes, and the fleet model, which knows plants of the kind, forecasts until that one does it better.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from control.advice.licence import Level
from control.anomaly.calibration import Calibration
from fusion.daemon.fleet import FleetForecaster
from fusion.daemon.progression import Progress
from fusion.errors import ConfigError
from fusion.inference import Engine
from fusion.outcome import Outcome
from fusion.plant import Plant
from fusion.prospects import Prospect, Question, Refusal, refused
from fusion.records import Answer, Frame
from models.features.stem import FeatureStem
from models.ticks import TickBuilder

NO_MODEL = "no model"


class Seat:
    """What the daemon asks of an engine, whichever sits here; called in the thread of the engine alone."""

    def __init__(
        self,
        plant: Plant,
        engine: Engine | None = None,
        sequence: int = 0,
        fleet: FleetForecaster | None = None,
        progress: Progress | None = None,
    ) -> None:
        self.plant, self.engine, self._fleet, self._progress = plant, engine, fleet, progress
        self.waiting = ""
        self._sequence = sequence
        self._builder = TickBuilder(plant, FeatureStem(plant))
        self._now_ns = 0

    def step(self, frame: Frame, newest: bool = True) -> Outcome:
        """What the engine says of a tick."""
        self._now_ns = frame.t_ns
        if self.engine is not None:
            outcome = self.engine.step(frame, newest)
        else:
            outcome = replace(Outcome.empty(frame, (*frame.flags, *self.flags)), ticks=self._builder.tick(frame))
        if self._progress is not None:
            outcome = replace(outcome, progression=self._progress.step(outcome.ticks, self.engine))
        if self._fleet is None:
            return outcome
        return replace(outcome, forecast=self._fleet.step(frame, outcome.forecast, newest=newest))

    def close(self) -> None:
        """End what runs beside the engine."""
        if self._fleet is not None:
            self._fleet.close()
        if self._progress is not None:
            self._progress.close()

    def maintained(self, t_ns: int) -> None:
        """Hear that something was repaired or cleaned until a time: what drifted before does not go on."""
        if self._progress is not None:
            self._progress.begin_anew(t_ns)

    def answer(self, answer: Answer) -> None:
        """Take what is said of a recommendation."""
        if self.engine is not None:
            self.engine.answer(answer)

    @property
    def mode(self) -> Level:
        """What advice may do; without a model nothing."""
        return Level.OBSERVE if self.engine is None else self.engine.mode

    def order(self, mode: str) -> bool:
        """Do what an operator asks of advice.

        Raises:
            ConfigError: where the configuration allows less, or there is no model.
        """
        if self.engine is None:
            raise ConfigError(f"mode {mode}: {self.flags[0]}")
        return self.engine.order(mode)

    def retarget(self, plant: Plant) -> None:
        """Take over the targets of a plant that is otherwise the same."""
        self.plant = replace(self.plant, targets=plant.targets)
        if self._progress is not None:
            self._progress.retarget(self.plant)
        if self.engine is not None:
            self.engine.retarget(plant)

    def whatif(self, question: Question) -> Prospect:
        """What the engine foresees."""
        if self.engine is not None:
            return self.engine.whatif(question)
        return refused(question, self._now_ns, Refusal.NO_MODEL, self.flags[0])

    def note_skipped(self) -> None:
        """Hear that ticks are missing."""
        if self.engine is not None:
            self.engine.note_skipped()

    def accept(self, anomaly_id: str) -> bool:
        """Take what an event shows for normal."""
        return self.engine is not None and self.engine.accept(anomaly_id)

    @property
    def flags(self) -> tuple[str, ...]:
        """Those of the engine, or that there is none, with what it waits for."""
        fleet = () if self._fleet is None else self._fleet.flags
        if self.engine is not None:
            return (*self.engine.flags, *fleet)
        return (f"{NO_MODEL}: {self.waiting}" if self.waiting else NO_MODEL, *fleet)

    @property
    def model_id(self) -> str:
        """The model in use; "" without one."""
        return "" if self.engine is None else self.engine.model_id

    @property
    def calibrated_hours(self) -> float:
        """Hours of normal operation behind the limits."""
        return 0.0 if self.engine is None else self.engine.calibrated_hours

    @property
    def calibration(self) -> Calibration | None:
        """The limits in use."""
        return None if self.engine is None else self.engine.calibration

    @property
    def level(self) -> Level:
        """What the model may do."""
        return Level.OBSERVE if self.engine is None else self.engine.level

    @property
    def sequence(self) -> int:
        """The number of the last event."""
        return self._sequence if self.engine is None else self.engine.sequence

    @property
    def notes(self) -> Mapping[str, Any]:
        """What else must outlive a restart."""
        return {} if self.engine is None else self.engine.notes
