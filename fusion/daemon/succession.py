"""Succession: a model that was chosen takes the seat between two ticks, knowing the last hour and what stands.

It is made ready in a thread, with the ticks that are kept; those that came meanwhile it is shown when it sits down. One
that cannot be used is said, and the present one stays.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from fusion.alarms import ModelOrder
from fusion.checkpoint import Checkpoint, load_checkpoint
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.learning import Learner
from fusion.daemon.memory import TickMemory
from fusion.daemon.resume import columns_of, fresh
from fusion.daemon.seat import Seat
from fusion.daemon.settings import DaemonConfig
from fusion.errors import ConfigError, ModelError, PlantMismatch
from fusion.inference import Engine
from fusion.model_store import ModelStore
from fusion.plant import Plant
from fusion.plant_difference import difference
from models.plant_model import check_backbone
from models.ticks import Ticks

log = logging.getLogger(__name__)

LOOK_EVERY_S = 2.0
Work = Callable[..., Awaitable[Any]]


class Succession:
    """Watches the store of models and has the learner do its work; ``trouble`` says which model could not be used."""

    def __init__(
        self,
        config: DaemonConfig,
        seat: Seat,
        learner: Learner,
        desk: AlarmDesk,
        memory: TickMemory | None,
        place: Path | None,
    ) -> None:
        self._config, self._seat, self._learner, self._desk, self._memory = config, seat, learner, desk, memory
        self._store = ModelStore(Path(config.learn.models))
        self._place = place
        self._outgrown = _outgrown(place, seat.plant) if place is not None and seat.engine is None else ""
        self._ready: tuple[Engine, int] | None = None
        self._refused = self._preparing = ""

    @property
    def trouble(self) -> str:
        """Why a model was not taken, or not learned."""
        return self._refused or self._learner.trouble

    @property
    def learning(self) -> str:
        """What is being learned, or made ready for the seat, or when the next model is due, in words."""
        if self._preparing:
            return f"model {self._preparing} is being made ready to take over"
        return self._store.note or self._learner.learning

    async def watch(self) -> None:
        """Learn what is due, and make ready what was chosen, for ever."""
        while True:
            made = self._store.note  # by somebody else: there is nothing to learn meanwhile
            waiting = made or await self._learner.turn(self._seat.engine is not None)
            self._seat.waiting = "; ".join(filter(None, (waiting, self._outgrown)))
            try:
                place = self._store.current
            except ConfigError as error:
                self._refused, place = str(error), self._place
            if place is not None and place != self._place and self._ready is None:
                await self._make_ready(place)
            await asyncio.sleep(LOOK_EVERY_S)

    def choose(self, order: ModelOrder) -> None:
        """Put a model of the store to use; it sits down once it is ready.

        Raises:
            ConfigError: where there is none of that name, or it cannot be used.
        """
        if order.model in self._store.names():
            load_model(self._config, self._store.folder / order.model, self._seat.plant)
        self._store.choose(order.model, order.by, "ordered")

    async def seat_successor(self, work: Work) -> None:
        """Let the one that is ready sit down; called between two ticks, with what runs in the thread of the engine."""
        if self._ready is not None:
            (engine, until_ns), self._ready = self._ready, None
            await work(self._sit, engine, self._since(engine, until_ns))

    async def close(self) -> None:
        """Stop learning."""
        await self._learner.finish()

    async def _make_ready(self, place: Path) -> None:
        self._place, self._preparing = place, place.name
        try:
            checkpoint = await asyncio.to_thread(load_model, self._config, place, self._seat.plant)
            engine = await asyncio.to_thread(fresh, self._config, checkpoint, self._seat.sequence)
            known = self._since(engine, 0)
            if known is not None:
                await asyncio.to_thread(engine.recall, known)
        except (ConfigError, ModelError) as error:
            self._refused = f"{place.name} is not used: {error}"
            log.error("model %s", self._refused)
        else:
            self._refused = ""
            self._ready = engine, 0 if known is None else int(known.t_ns[-1])
        finally:
            self._preparing = ""

    def _since(self, engine: Engine, t_ns: int) -> Ticks | None:
        """The ticks after a time, where they are kept as this engine has its columns."""
        if self._memory is None or self._memory.owner != columns_of(engine.plant):
            return None
        return self._memory.since(t_ns)

    def _sit(self, engine: Engine, meanwhile: Ticks | None) -> None:
        before = self._seat.model_id or "none"
        if meanwhile is not None:
            engine.recall(meanwhile)
        engine.detector.sequence = self._seat.sequence
        engine.resume(self._desk.open, self._desk.notes)
        self._seat.engine = engine
        log.info("model %s takes the place of %s", engine.model_id, before)


def first_model(config: DaemonConfig) -> Path | None:
    """The model to begin with: that in use, else the one that the configuration names; None to learn the first.

    Raises:
        ConfigError: where there is none and nothing is learned.
    """
    current = ModelStore(Path(config.learn.models)).current if config.learn.models else None
    place = current or (Path(config.model) if config.model else None)
    if place is None and not config.learn.models:
        raise ConfigError("model: missing; name a model folder, or let it be learned: learn.models and record.folder")
    return place


def first_checkpoint(config: DaemonConfig, plant: Plant) -> tuple[Path | None, Checkpoint | None]:
    """The model to begin with, and where it lies; None while one is to be learned.

    A learned one stays where it lies if the plant was changed since: another is learned from the recordings.

    Raises:
        ConfigError: where it cannot be used, or there is none and nothing is learned.
    """
    place = first_model(config)
    if place is None:
        return None, None
    try:
        return place, load_model(config, place, plant)
    except PlantMismatch:
        if not learned(config, place):
            raise
        return place, None


def _outgrown(place: Path, plant: Plant) -> str:
    """Why a learned model is not used, in words."""
    return f"{place.name} is of the plant before it was changed: {difference(load_checkpoint(place).plant, plant)}"


def learned(config: DaemonConfig, place: Path) -> bool:
    """Whether a model is one of those that are learned in place."""
    return bool(config.learn.models) and place.parent == Path(config.learn.models)


def load_model(config: DaemonConfig, place: Path, plant: Plant) -> Checkpoint:
    """A model as the settings accept it.

    Raises:
        ConfigError: where it is damaged, of another plant, not signed with ``model_key``, or its backbone is not here.
    """
    found = load_checkpoint(place, plant, Path(config.model_key) if config.model_key else None)
    check_backbone(found)
    return found
