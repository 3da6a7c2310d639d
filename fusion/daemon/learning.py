"""Learning beside the daemon: when there is enough, and then every so often, a process of low priority trains anew.

The process is `fusion learn`; what it takes appears in the store of models, and from there in the seat of the engine.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import os
import sys
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

from fusion.clock import CLOCK
from fusion.errors import ConfigError
from fusion.model_store import Learned, ModelStore
from fusion.plant import Plant
from fusion.plant_difference import unrecorded
from fusion.recordings import normal
from fusion.recordings.recorder import Recorder
from fusion.recordings.recording import Recording

log = logging.getLogger(__name__)

NICE = 15  # of the process, however low the daemon's own priority is
SAID_BYTES = 4096
CLOSED_FORM = "steps=0"
LOOK_EVERY_S, TRY_AGAIN_S = 60.0, 900.0  # whether another model is due, and after a failure
LEAST_SHARE = 0.5  # of what the last model knew, for the next
FIRST_TICKS, FIRST_S = 2700, 900.0  # what a training cuts into its parts, and some that is lost at the cuts


@dataclass(kw_only=True, slots=True)
class LearnConfig:
    """Whether the daemon learns from what it records.

    ``models`` is the folder of models; "" learns nothing, and `model` names the one in use. The first is fitted in
    closed form after ``first_h`` hours of normal operation (or what the plant's step makes the least). So are the next,
    whenever twice as much is recorded as the last one knew, until that would be more than ``every_h`` hours; from then
    on models are learned every ``every_h`` hours, with networks trained for ``seconds``. Cameras are seen by
    ``backbone``, if any, as for `fusion train`.
    """

    models: str = ""
    first_h: float = 1.0
    every_h: float = 24.0
    seconds: float = 600.0
    backbone: str | None = None

    def __post_init__(self) -> None:
        """Reject times that are none."""
        if min(self.first_h, self.every_h, self.seconds) <= 0:
            raise ConfigError("learn: first_h, every_h and seconds must be positive")


def first_hours(config: LearnConfig, plant: Plant) -> float:
    """Hours of normal operation before the first model."""
    return max(config.first_h, (FIRST_TICKS * plant.step_s + FIRST_S) / 3600)


def too_early(config: LearnConfig, plant: Plant) -> str:
    """That ``first_h`` is less than a model can be made from, in words; empty where it is not."""
    needed_h = first_hours(config, plant)
    said = f"learn.first_h is {config.first_h:g}, and a model of a plant with a step of {plant.step_s:g} s needs"
    return f"{said} {needed_h:.3g} h at least" if config.first_h < needed_h else ""


def learnable_hours(segments: Iterable[Recording], plant: Plant) -> float:
    """Hours of normal operation in recordings that hold all of a plant."""
    return normal.hours(segment for segment in segments if not unrecorded(plant, segment.plant))


class Learner:
    """Decides when to learn, and runs the process; ``trouble`` says why it failed."""

    def __init__(
        self, config: LearnConfig, plant_file: Path, recorder: Recorder, clock_s: Callable[[], float] = time.monotonic
    ) -> None:
        self.trouble = ""
        self._config, self._plant_file, self._recorder, self._clock_s = config, plant_file, recorder, clock_s
        self._store = ModelStore(Path(config.models))
        self._process: asyncio.subprocess.Process | None = None
        self._ending: asyncio.Task[None] | None = None
        self._looks_s, self._began_ns = -math.inf, CLOCK.now_ns()
        self._said = self._next = ""
        if early := too_early(config, recorder.plant):
            log.warning("%s", early)

    @property
    def learning(self) -> str:
        """How far the model is that is being learned, or when the next one is due, in words; "" while neither is."""
        if self._process is not None:
            return f"a model is being learned ({self._said})" if self._said else "a model is being learned"
        return self._next

    async def turn(self, has_model: bool) -> str:
        """Start what is due; returns what a daemon without a model waits for, in words."""
        if self._process is not None:
            return "" if has_model else "the first model is being fitted"
        if has_model:
            if self._clock_s() >= self._looks_s:
                self._looks_s = self._clock_s() + LOOK_EVERY_S
                if settings := await asyncio.to_thread(self._due):
                    await self._start(settings)
            return ""
        hours = await asyncio.to_thread(learnable_hours, self._recorder.segments(), self._recorder.plant)
        open_h, needed_h = self._recorder.open_s / 3600, first_hours(self._config, self._recorder.plant)
        if hours + open_h >= needed_h > hours:
            self._recorder.cut()
        if hours >= needed_h and self._clock_s() >= self._looks_s:
            await self._start(CLOSED_FORM)
        said = f"{hours + open_h:.2f} of {needed_h:.3g} h of normal operation recorded"
        return f"{said}; {self.trouble}" if self.trouble else said

    def _due(self) -> str:
        """How the model is trained that is due, "" while none is; ``learning`` says when the next one will be.

        The last that was learned counts, whether it was taken or not, and whoever ran meanwhile. Of much less than that
        one knew none is learned: it would raise no more often, and find less. A model from elsewhere counts as a day's.
        """
        last = self._store.last() or Learned(hours=self._config.every_h, t_ns=self._began_ns)
        left_h = self._config.every_h - (CLOCK.now_ns() - last.t_ns) / 3.6e12
        daily = left_h <= 0
        least_h = max(first_hours(self._config, self._recorder.plant), LEAST_SHARE * last.hours)
        enough_h = least_h if daily else 2 * last.hours
        self._next = "" if daily else f"the next model is learned in {left_h:.1f} h"
        if enough_h > self._config.every_h and not daily:
            return ""
        known_h = learnable_hours(self._recorder.segments(), self._recorder.plant)
        if known_h >= enough_h:
            return f"seconds={self._config.seconds:g}" if daily else CLOSED_FORM
        before = f"{self._next}, or" if self._next else "the next model is learned"
        self._next = f"{before} once {enough_h:.1f} h of normal operation are recorded ({known_h:.1f} now)"
        return ""

    async def finish(self) -> None:
        """Stop what runs; it goes on with the same recordings when it is started again."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.terminate()
            await self._process.wait()

    async def _start(self, *settings: str) -> None:
        folders = ("--records", str(self._recorder.folder), "--models", self._config.models)
        settings += () if self._config.backbone is None else (f"backbone={self._config.backbone}",)
        command = (sys.executable, "-m", "fusion.cli", "learn", *folders, "--plant", str(self._plant_file), *settings)
        log.info("learning from %s", self._recorder.folder)
        more = max(NICE - os.getpriority(os.PRIO_PROCESS, 0), 0)
        self._process = await asyncio.create_subprocess_exec(
            "nice", "-n", str(more), *command, stdin=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE
        )
        self._ending = asyncio.create_task(self._await(self._process))

    async def _await(self, process: asyncio.subprocess.Process) -> None:
        """Wait for the end; the last line that it says is how far it is, and of a failure why."""
        tail = b""
        while process.stderr is not None and (part := await process.stderr.read(SAID_BYTES)):
            tail = (tail + part)[-SAID_BYTES:]
            self._said = _last_line(tail)
        await process.wait()
        self._process, said, self._said = None, self._said, ""
        self._next = ""
        self._looks_s = self._clock_s() + (0.0 if process.returncode == 0 else TRY_AGAIN_S)
        self.trouble = "" if process.returncode == 0 else f"learning failed: {said or 'no word'}"
        if self.trouble:
            log.warning("%s", self.trouble)


def _last_line(said: bytes) -> str:
    """The last line with anything in it."""
    lines = said.decode(errors="replace").strip().splitlines()
    return lines[-1].strip() if lines else ""
