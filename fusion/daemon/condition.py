"""Hidden states of the plant as the fleet model tells them: its last minutes against its first half hour.

Of plants of another kind, and before their own minutes have said of which kind they are, nothing is told.
Lives in the thread of the engine but for that question, which has one of its own. Shape letters: X states.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusion.daemon.fleet import FleetForecastConfig
from fusion.plant import Plant
from fusion.trends import HiddenState, Quantity, QuantityKind
from models.fleet.model import FleetModel, host, shipped
from models.fleet.states import FIRST_S, WINDOW_S, StateHead, Told, Window, window
from models.progression.quantities import Stated
from models.progression.watch import DAY_NS
from models.ticks import Ticks

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class First:
    """What a plant was like until ``until_ns``, as the model ``model_id`` sees it, which knows plants of its kind."""

    model_id: str
    until_ns: int
    window: Window


class Condition:
    """Ticks in, states out: ``told`` are those of the last look, ``stated`` the same for their trends."""

    def __init__(self, model: FleetModel, plant: Plant, rivals: Sequence[Path]) -> None:
        if model.states is None:
            raise ValueError(f"{model.model_id} tells no hidden states")
        self.stated = _stated(model.states, plant, model.model_id)
        self.told: tuple[HiddenState, ...] = ()
        self.first: First | None = None
        self._head, self._kinds, self._model_id = model.states, model.ridge.kinds, model.model_id
        self._plant, self._rivals = plant, rivals
        self._since_ns = 0
        self._window = round(WINDOW_S / plant.step_s)
        self._lately: deque[Ticks] = deque(maxlen=round(FIRST_S / plant.step_s))
        self._asking: Future[First | None] | None = None
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="condition")

    @property
    def since_ns(self) -> int:
        """The end of the minutes that states are compared with; 0 before they are over."""
        return 0 if self.first is None else self.first.until_ns

    def recall(self, first: First | None) -> None:
        """Go on with what an earlier run has seen at first, unless another model saw it."""
        if first is not None and first.model_id == self._model_id:
            self.first = first

    def take(self, ticks: Ticks) -> None:
        """One tick; with the last of the first half hour it is asked of which kind the plant is, if need be daily."""
        t_ns = int(ticks.t_ns[-1])
        if t_ns <= self._since_ns:
            return
        self._lately.append(ticks[-1:].without_media())
        if self.first is not None:
            return
        if self._asking is not None and self._asking.done():
            self.first, self._asking = self._asking.result(), None
            if self.first is None:
                self.begin_anew(t_ns + DAY_NS)
        elif self._asking is None and len(self._lately) == self._lately.maxlen:
            self._asking = self._thread.submit(self._begun, Ticks.concat(list(self._lately)))

    def look(self) -> None:
        """Tell the states of the last minutes."""
        found: Sequence[Told | None] = [None] * len(self._head.readings)
        recent = list(self._lately)[-self._window :]
        if self.first is not None and len(recent) == self._window:
            found = self._head.tell(self.first.window, window(self._kinds, self._plant, Ticks.concat(recent)))
        self.stated.now[:] = [np.nan if one is None else one.value for one in found]
        self.told = tuple(_hidden(one) for one in found if one is not None)

    def begin_anew(self, t_ns: int) -> None:
        """Forget what was before a time: from then on the plant is as it should be."""
        self._lately.clear()
        self._since_ns, self.first, self._asking, self.told = t_ns, None, None, ()
        self.stated.now[:] = np.nan

    def close(self) -> None:
        """Ask nothing more."""
        self._thread.shutdown(wait=True, cancel_futures=True)

    def _begun(self, run: Ticks) -> First | None:
        """The first minutes; None where of all models it is not this one that they bear out."""
        guest = host([FleetModel.load(folder) for folder in self._rivals], self._plant, [run])
        fits = guest.fits and guest.model_id == self._model_id
        log.info("fleet model %s %s hidden states of this plant", self._model_id, "tells" if fits else "tells no")
        if not fits:
            return None
        return First(model_id=self._model_id, until_ns=int(run.t_ns[-1]), window=window(self._kinds, self._plant, run))


def _stated(head: StateHead, plant: Plant, basis: str) -> Stated:
    """The states as slow quantities, each with its worst on the plants that were learned from."""
    known = [(reading.state, reading.limits) for reading in head.readings]
    quantities = [
        Quantity(name=f"condition.{s.name}", kind=QuantityKind.CONDITION, signal=s.words, unit=s.unit, basis=basis)
        for s, _ in known
    ]
    return Stated.of(quantities, np.array([limits for _, limits in known], np.float64).reshape(-1, 2), plant)


def _hidden(told: Told) -> HiddenState:
    return HiddenState(
        name=told.state.words,
        unit=told.state.unit,
        value=told.value,
        low=told.low,
        high=told.high,
        changed=told.changed,
    )


def condition_of(config: FleetForecastConfig, plant: Plant) -> Condition | None:
    """The condition of a plant, as the first fleet model tells it that can tell hidden states; None without one."""
    if not config.enabled:
        return None
    folders = [Path(config.model)] if config.model else shipped()
    able = [model for model in map(FleetModel.load, folders) if model.states is not None and not model.unfit(plant)]
    return Condition(able[0], plant, folders) if able else None
