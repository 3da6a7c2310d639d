"""The progression of a plant's condition: slow quantities tick by tick, hourly where they go, kept on disk.

Lives in the thread of the engine but for the writing, which has one of its own. A model that takes the seat of another
reckons differently: what was known of its residuals begins anew, what is measured goes on.
"""

from __future__ import annotations

import json
import logging
import zipfile
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from fusion.daemon.condition import Condition, First
from fusion.errors import CheckpointError
from fusion.files import whole_file
from fusion.inference import Engine
from fusion.plant import Plant
from fusion.state import dump_state, load_state
from fusion.trends import DriftTrend, Progression, RemainingLife
from models.monitors.monitors import MonitorCarry
from models.operating.levels import TRANSITION
from models.progression.history import NO_STATE, Grid, History
from models.progression.life import LifeCarry, LifeIndex
from models.progression.quantities import Limits, Quantities
from models.progression.watch import AGE_DAYS, DAY_NS, Said, Trend, look
from models.ticks import Ticks

log = logging.getLogger(__name__)

MOST_SAID = 8  # trends in a message, the first to reach their limits
FILE = "progression.npz"
TREE = "tree"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What outlives the process: whose it is, the quantities by name and the model they rest on, and their past.

    ``first`` is what the plant was like at first.
    """

    owner: str
    keys: tuple[str, ...]
    history: History
    said: Said
    life: LifeCarry
    first: First | None


class Progress:
    """What the seat asks: takes ticks, and after each hour says what is to be said.

    With a ``file`` all of it is there again after a restart; ``owner`` names the plant, its columns and the index of
    its condition, ``life``, where there is one. ``condition`` tells hidden states.
    """

    def __init__(
        self,
        plant: Plant,
        file: Path | None = None,
        owner: str = "",
        life: LifeIndex | None = None,
        condition: Condition | None = None,
    ) -> None:
        self.trouble = ""
        self._index, self._condition = life, condition
        self._plant, self._file, self._owner = plant, file, owner
        self._grid = Grid(plant.step_s)
        self._quantities = Quantities(plant)
        self._basis: str | None = None
        self._told_once = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="progression")
        self._writing: Future[None] | None = None
        kept = self._read() or self._nothing()
        self._keys, self._history, self._said, self._life = kept.keys, kept.history, kept.said, kept.life
        if condition is not None:
            condition.recall(kept.first)

    def step(self, ticks: Ticks | None, engine: Engine | None) -> Progression | None:
        """Take one tick as ``engine`` has just judged it; after an hour, and first of all, what is to be said."""
        basis = "" if engine is None else engine.model_id
        if basis != self._basis:
            self._take_up(basis, engine)
        if ticks is None:
            return None
        carry, t_ns = MonitorCarry() if engine is None else engine.state.carry, int(ticks.t_ns[-1])
        values, state = self._quantities.values(ticks, carry), _state(engine)
        if self._condition is not None and state != NO_STATE:
            self._condition.take(ticks)
        if self._index is not None:
            self._life.take(t_ns, ticks.tags[-1], ticks.observed[-1], self._index)
        if self._history.take(t_ns, values, state, self._grid):
            if self._condition is not None:
                self._condition.look()
            limits = self._limits(engine)
            look(self._history, limits.low, limits.high, self._said, self._grid)
            self._save()
            return self._told(t_ns, limits)
        return None if self._told_once else self._told(t_ns, self._limits(engine))

    def retarget(self, plant: Plant) -> None:
        """Take over the limits of a plant that is otherwise the same, with the next tick."""
        self._plant, self._basis = plant, None

    def begin_anew(self, t_ns: int) -> None:
        """Forget what was before a time, and its hour: something was repaired, cleaned or exchanged then."""
        self._history.begin_anew(-(-t_ns // self._grid.block_ns) * self._grid.block_ns)
        self._said = Said.nothing(len(self._keys))
        self._life = LifeCarry.begin(len(self._plant.tags))
        if self._condition is not None:
            self._condition.begin_anew(t_ns)
        self._told_once = False

    def close(self) -> None:
        """Write what is known."""
        if self._condition is not None:
            self._condition.close()
        self._writer.shutdown(wait=True)
        self._write(self._kept())

    def _take_up(self, basis: str, engine: Engine | None) -> None:
        """Give each quantity the past that it had, where that is of the same model; else it begins anew."""
        others = () if self._condition is None else (self._condition.stated,)
        self._quantities = Quantities(self._plant, None if engine is None else engine.model.monitors, basis, others)
        place = {key: i for i, key in enumerate(self._keys)}
        self._keys = tuple(f"{q.name} {q.basis}" for q in self._quantities.all)
        columns = np.array([place.get(key, -1) for key in self._keys], np.int64)
        self._history, self._said = self._history.of(columns), self._said.of(columns)
        self._basis = basis

    def _limits(self, engine: Engine | None) -> Limits:
        return self._quantities.limits({} if engine is None else alarming(engine))

    def _told(self, t_ns: int, limits: Limits) -> Progression:
        """What stands, each cause once with what follows from it, the first to reach its limit first.

        What stood long ago, before a restart, does not.
        """
        self._told_once = True
        causes: dict[int, list[Trend]] = {}
        trends = {t.which: t for t in self._said.trends if t_ns - t.t_ns <= AGE_DAYS * DAY_NS}
        for trend in sorted(trends.values(), key=lambda t: abs(t.slope[1]) / abs(t.limit or 1.0), reverse=True):
            cause = next((which for which in causes if self._quantities.akin(which, trend.which)), trend.which)
            causes.setdefault(cause, []).append(trend)
        made = [self._drift(t_ns, trends[which], limits, akin) for which, akin in causes.items()]
        made.sort(key=lambda drift: drift.days[1])
        known = self._history.t_ns
        return Progression(
            t_ns=t_ns,
            trends=tuple(made[:MOST_SAID]),
            watched=len(self._quantities),
            seen_days=(int(known[-1]) - int(known[0])) / DAY_NS if len(known) else 0.0,
            more=max(len(made) - MOST_SAID, 0),
            life=self._left(),
            states=() if self._condition is None else self._condition.told,
            states_since_ns=0 if self._condition is None else self._condition.since_ns,
        )

    def _left(self) -> RemainingLife | None:
        """How long what wears will last, where that can be told."""
        index = self._index
        found = None if index is None else index.remaining(self._life.course)
        if index is None or found is None:
            return None
        low, expected, high = (points * index.point_s for points in (found.low, found.middle, found.high))
        return RemainingLife(low_s=low, expected_s=expected, high_s=high, capped=found.capped)

    def _drift(self, t_ns: int, trend: Trend, limits: Limits, akin: Sequence[Trend]) -> DriftTrend:
        soonest, expected, latest = (max(days - (t_ns - trend.t_ns) / DAY_NS, 0.0) for days in trend.days)
        signals = dict.fromkeys(self._quantities.all[other.which].signal for other in akin if other is not trend)
        quantity = self._quantities.all[trend.which]
        return DriftTrend(
            quantity=quantity,
            level=trend.level,
            per_day=trend.slope,
            limit=trend.limit,
            limit_source=limits.source[trend.which],
            days=(soonest, expected, latest),
            since_ns=trend.stated_ns,
            with_it=tuple(name for name in signals if name != quantity.signal)[:MOST_SAID],
        )

    # --- on the disk

    def _nothing(self) -> Kept:
        life = LifeCarry.begin(len(self._plant.tags))
        return Kept(owner=self._owner, keys=(), history=History.empty(0), said=Said.nothing(0), life=life, first=None)

    def _kept(self) -> Kept:
        return Kept(
            owner=self._owner,
            keys=self._keys,
            history=self._history.copy(),
            said=self._said,
            life=self._life.copy(),
            first=None if self._condition is None else self._condition.first,
        )

    def _save(self) -> None:
        """Write in the background; while that lasts, the next hour's comes later."""
        if self._file is not None and (self._writing is None or self._writing.done()):
            self._writing = self._writer.submit(self._write, self._kept())

    def _write(self, kept: Kept) -> None:
        """The whole file or the old one; a full disk is said."""
        if self._file is None:
            return
        arrays, tree = dump_state(kept)
        try:
            with whole_file(self._file) as aside, aside.open("wb") as stream:
                np.savez(stream, allow_pickle=False, **{TREE: np.array(json.dumps(tree))}, **arrays)
        except OSError as error:
            if not self.trouble:
                log.error("state: %s: %s; trends begin anew after a restart", self._file, error)
            self.trouble = f"{self._file}: {error.strerror}"
        else:
            self.trouble = ""

    def _read(self) -> Kept | None:
        """What an earlier run has left; None where that is nothing, of another plant, damaged or of another version."""
        if self._file is None or not self._file.exists():
            return None
        try:
            with self._file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                arrays = dict(stored)
            tree = json.loads(str(arrays.pop(TREE)))
            kept = load_state(Kept, arrays, tree)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, CheckpointError) as error:
            log.warning("state: %s cannot be read (%s); trends begin anew", self._file, error)
            return None
        return kept if kept.owner == self._owner else None


def alarming(engine: Engine) -> dict[str, float]:
    """The raw energy at which each raises an alarm in the present operating state; those that may raise."""
    calibration, model, state = engine.calibration, engine.model, engine.state
    told = np.where(calibration.raising, calibration.median + calibration.threshold * calibration.scale, np.inf)
    raw = model.operating.raw(told, max(state.operating.state, 0))
    relief = state.carry.local.relief
    if relief is not None:
        raw[: len(relief)] *= relief
    return dict(zip(calibration.names, raw.tolist(), strict=True))


def _state(engine: Engine | None) -> int:
    """The operating state of the tick that was judged last."""
    if engine is None:
        return 0
    return NO_STATE if TRANSITION in engine.flags else max(engine.state.operating.state, 0)
