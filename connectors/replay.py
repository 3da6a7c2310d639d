"""A recording played as one source, with the times it was made at."""

from __future__ import annotations

import asyncio
import dataclasses
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path

from connectors.base import Source, SourceEnded
from connectors.settings import Supervision, take_beside
from fusion.errors import ConfigError
from fusion.plant import Plant
from fusion.recordings.recording import Recording, arrival_ns
from fusion.records import NS_PER_S, Item

BATCH_ITEMS = 64
LONGEST_WAIT_S = 1.0


@dataclass(kw_only=True, slots=True)
class ReplayConfig:
    """A recording folder; ``speed`` 1 is real time, 0 as fast as it is taken. Nothing is ever dropped."""

    path: str
    speed: float = 0.0
    supervision: Supervision = field(default_factory=Supervision)

    def __post_init__(self) -> None:
        """Reject a speed that goes nowhere."""
        if self.speed < 0:
            raise ConfigError(f"replay.speed: {self.speed} is not accepted; expected 0 (as fast as possible) or more")

    def beside(self, folder: Path) -> None:
        """Take a relative path from a folder."""
        take_beside(self, folder, "path")


def replay_source(config: ReplayConfig, plant: Plant, name: str = "replay") -> Source:
    """A source of every signal in the recording.

    Raises:
        PlantMismatch: the recording is of another plant.
        RecordingError: it is missing or damaged.
    """
    recording = Recording.verified(Path(config.path)).of(plant)
    waiting = replace(config.supervision, overflow="wait")
    return Source(name, plant.signals, lambda: Player(recording, config.speed), waiting)


class Player:
    """Reads the recording in order of arrival, on a thread, a few items at a time."""

    def __init__(self, recording: Recording, speed: float) -> None:
        self._recording = recording
        self._speed = speed
        self._items: Iterator[Item] = iter(())
        self._waiting: list[Item] = []
        self._started_s = 0.0
        self._first_ns: int | None = None

    @property
    def message(self) -> str:
        """Nothing can be wrong with a recording that was verified."""
        return ""

    async def open(self) -> None:
        """Begin at the beginning."""
        self._items = self._recording.items()
        self._started_s = time.monotonic()

    async def read(self) -> list[Item]:
        """The items whose moment has come, or nothing after a while without any."""
        if not self._waiting:
            self._waiting = await asyncio.to_thread(self._batch)
        if not self._waiting:
            raise SourceEnded("end of recording")
        wait_s = self._due_s(self._waiting[0]) - time.monotonic()
        if wait_s > 0:
            await asyncio.sleep(min(wait_s, LONGEST_WAIT_S))
        return self._due(time.monotonic())

    def _batch(self) -> list[Item]:
        items = [dataclasses.replace(item, replayed=True) for item in islice(self._items, BATCH_ITEMS)]
        if items and self._first_ns is None:
            self._first_ns = arrival_ns(items[0])
        return items

    def _due_s(self, item: Item) -> float:
        """The monotonic moment of an item [s]."""
        if self._speed == 0 or self._first_ns is None:
            return self._started_s
        return self._started_s + (arrival_ns(item) - self._first_ns) / NS_PER_S / self._speed

    def _due(self, now_s: float) -> list[Item]:
        """Take from those waiting what is due."""
        number = next((i for i, item in enumerate(self._waiting) if self._due_s(item) > now_s), len(self._waiting))
        due, self._waiting = self._waiting[:number], self._waiting[number:]
        return due

    async def close(self) -> None:
        """Let go of the files."""
        self._items = iter(())
