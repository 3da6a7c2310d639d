"""Promised against delivered: every advice with what was answered, what was moved, and what came of it.

The course that came is compared with the promised one from the first move on, averaged around each horizon, and costed
by the same objective. Knows no model and no wire.
Shape letters: H horizons, S signals, A actions.
"""
# ruff: noqa: N815  # shape-suffixed names of arrays

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray

from control.advice.objective import Objective, ObjectiveConfig
from fusion.ledger import Entry, EntryState
from fusion.plain import plain
from fusion.plant import Plant, Role
from fusion.records import NS_PER_S, Answer, AnswerKind, Forecast, Recommendation

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]
KEPT = 30
HOURS = 24
ANSWERED = {
    AnswerKind.ACCEPTED: EntryState.ACCEPTED,
    AnswerKind.REJECTED: EntryState.REJECTED,
    AnswerKind.EXPIRED: EntryState.EXPIRED,
    AnswerKind.APPLIED: EntryState.APPLIED,
    AnswerKind.FAILED: EntryState.FAILED,
}
LEAVES = {
    EntryState.OPEN: (*EntryState,),
    EntryState.ACCEPTED: (EntryState.APPLIED, EntryState.FAILED, EntryState.EXPIRED, EntryState.WITHDRAWN),
    EntryState.APPLIED: (EntryState.FAILED,),
}


@dataclass(slots=True)
class _Measured:
    """What comes after the first move of an advice: sums [H, S] and counts [H, S] around each horizon."""

    advice: Recommendation
    expected: Forecast
    baseline: Forecast
    edges_s: Floats
    total_HS: Floats
    count_HS: Floats
    began_ns: int | None = None
    whole: bool = False


@dataclass(slots=True)
class _Hour:
    """Ticks of an hour, and of each loop those at which it took no setpoint."""

    hour: int
    ticks: int
    manual: list[int]


class Ledger:
    """The newest advices, oldest first; ``changed`` is set by whatever alters an entry, and reset by who tells it.

    ``deadband`` is the share of a signal's range within which two values are the same.
    """

    def __init__(self, plant: Plant, objective: ObjectiveConfig, deadband: float) -> None:
        self._plant, self._objective, self._deadband = plant, objective, deadband
        self._entries: dict[str, Entry] = {}
        self._measured: _Measured | None = None
        self._tags = tuple(s.name for s in plant.tags)
        self._actions = tuple(s.name for s in plant.actions)
        self._autos = [(s.name, self._tags.index(s.auto_tag)) for s in plant.actions if s.auto_tag in self._tags]
        self._hours: deque[_Hour] = deque(maxlen=HOURS)
        self._told: dict[str, int] = {}
        self.kept: list[dict[str, Any]] = []
        self.changed = False

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The newest advices, oldest first."""
        return tuple(self._entries.values())

    def issue(self, advice: Recommendation) -> None:
        """Note an advice that was given; one that still stood is withdrawn, what of it is measured comes to nothing."""
        self.withdraw(advice.id)
        self._end("another advice was given")
        self._put(
            Entry(
                id=advice.id,
                t_ns=advice.t_ns,
                valid_until_ns=advice.valid_until_ns,
                mode=advice.mode,
                moves=advice.moves,
                gain=advice.gain,
                gain_low=advice.gain_low,
                gain_high=advice.gain_high,
                kind=advice.kind,
            )
        )
        if advice.expected is not None and advice.baseline is not None:
            h = np.asarray(advice.expected.horizon_s, np.float64)
            edges = np.concatenate([[0.0], (h[1:] + h[:-1]) / 2, [h[-1]]])
            shape = advice.expected.mean.shape
            nothing = np.zeros(shape), np.zeros(shape)
            self._measured = _Measured(advice, advice.expected, advice.baseline, edges, *nothing)

    def withdraw(self, but: str | None = None) -> None:
        """Note that what stands may not be followed any more, but for the advice ``but``."""
        for entry in self.entries:
            if entry.state.standing and entry.id != but:
                self._put(replace(entry, state=EntryState.WITHDRAWN))

    def answer(self, answer: Answer, t_ns: int) -> bool:
        """Note an answer; False where the advice is not known, or is past that."""
        entry, state = self._entries.get(answer.id), ANSWERED[answer.answer]
        if entry is None or state not in LEAVES.get(entry.state, ()):
            return False
        applied_ns = t_ns if state is EntryState.APPLIED else entry.t_applied_ns
        said = replace(entry, state=state, by=answer.by, reason=answer.reason)
        self._put(replace(said, t_answer_ns=t_ns, t_applied_ns=applied_ns))
        return True

    def see(self, t_ns: int, tags_S: Floats, action_A: Floats) -> None:
        """Take a tick: what expires, what is applied, and what comes of it."""
        self._watch(t_ns, tags_S)
        for entry in self.entries:
            if entry.state is EntryState.OPEN and t_ns > entry.valid_until_ns:
                self._put(replace(entry, state=EntryState.EXPIRED))
        if self._measured is not None:
            self._measure(self._measured, t_ns, tags_S, dict(zip(self._actions, action_A.tolist(), strict=True)))

    @property
    def manual(self) -> dict[str, float]:
        """Share of the last day's ticks at which the loop of a signal took no setpoint, of those whose loops say so."""
        ticks = max(sum(hour.ticks for hour in self._hours), 1)
        return {name: sum(hour.manual[i] for hour in self._hours) / ticks for i, (name, _) in enumerate(self._autos)}

    def _watch(self, t_ns: int, tags_S: Floats) -> None:
        if not self._autos:
            return
        hour = t_ns // (3600 * NS_PER_S)
        if not self._hours or self._hours[-1].hour != hour:
            self._hours.append(_Hour(hour, 0, [0] * len(self._autos)))
        now = self._hours[-1]
        now.ticks += 1
        for i, (_, column) in enumerate(self._autos):
            now.manual[i] += not tags_S[column]
        percent = {name: round(100 * share) for name, share in self.manual.items()}
        self.changed = self.changed or percent != self._told
        self._told = percent

    def resume(self, kept: Sequence[Any]) -> None:
        """Take up what an earlier run kept; what it was measuring then is lost."""
        try:
            entries = msgspec.convert(kept, list[Entry], strict=False)
        except msgspec.ValidationError as error:
            log.warning("what was kept of earlier advice is not used: %s", error)
            return
        for entry in entries:
            unknown = entry.delivered is None and not entry.note and entry.t_applied_ns is not None
            self._put(replace(entry, note="the daemon was started again meanwhile") if unknown else entry)

    def retarget(self, plant: Plant) -> None:
        """Go on with other targets; what stands or is being measured was for the old ones."""
        self.withdraw()
        self._end("targets were changed")
        self._plant = plant

    # --- what comes

    def _measure(self, measured: _Measured, t_ns: int, tags_S: Floats, values: Mapping[str, float]) -> None:
        if measured.began_ns is None:
            if not self._begun(measured, values):
                if t_ns > measured.advice.valid_until_ns:
                    self._measured = None
                return
            measured.began_ns = t_ns
        self._arrived(measured, t_ns, values)
        since_s = (t_ns - measured.began_ns) / NS_PER_S
        row = int(np.searchsorted(measured.edges_s, since_s, side="right")) - 1
        columns = [self._tags.index(name) for name in measured.expected.signals]
        seen = np.isfinite(tags_S[columns])
        if self._measured is measured and row < len(measured.total_HS):
            measured.total_HS[row] += np.where(seen, tags_S[columns], 0.0)
            measured.count_HS[row] += seen
        elif self._measured is measured:
            self._settle(measured)

    def _begun(self, measured: _Measured, values: Mapping[str, float]) -> bool:
        return any(abs(values[m.signal] - m.current) > self._near(m.signal) for m in measured.advice.moves)

    def _near(self, name: str) -> float:
        signal = self._plant.by_name[name]
        return self._deadband * ((signal.high or 0.0) - (signal.low or 0.0))

    def _arrived(self, measured: _Measured, t_ns: int, values: Mapping[str, float]) -> None:
        """Note that all moves are made; that one is unmade again ends the measurement."""
        there = all(abs(values[m.signal] - m.recommended) <= self._near(m.signal) for m in measured.advice.moves)
        if measured.whole and not there:
            self._end("a setpoint was moved again")
        elif there and not measured.whole:
            measured.whole = True
            entry = self._entries.get(measured.advice.id)
            if entry is not None and entry.t_applied_ns is None:
                state = EntryState.APPLIED if entry.state.standing else entry.state
                self._put(replace(entry, state=state, t_applied_ns=t_ns))

    def _settle(self, measured: _Measured) -> None:
        """The horizon has passed: cost what came."""
        if not measured.whole:
            return self._end("not every move was made")
        if not measured.count_HS.all():
            return self._end("ticks are missing")
        came = measured.total_HS / measured.count_HS
        expected, baseline = measured.expected, measured.baseline
        objective = Objective(self._plant, expected.signals, self._actions, expected.horizon_s, self._objective)
        promised, nothing = objective.at(measured.advice.t_ns).outcome(_courses(expected.mean, baseline.mean)).tolist()
        (real,) = objective.at(measured.began_ns or 0).outcome(_courses(came)).tolist()
        known = [self._plant.by_name[name].role is Role.CONTROLLED for name in expected.signals]
        inside = ((expected.low <= came) & (came <= expected.high))[:, known]
        entry = self._entries.get(measured.advice.id)
        if entry is not None:
            delivered = entry.gain + promised - real if np.isfinite(real + nothing) else None
            self._put(replace(entry, delivered=delivered, within=float(inside.mean()) if any(known) else None))
        self._measured = None
        return None

    def _end(self, why: str) -> None:
        """Stop measuring; where something had been moved, say why there is no number."""
        if self._measured is not None and self._measured.began_ns is not None:
            entry = self._entries.get(self._measured.advice.id)
            if entry is not None:
                self._put(replace(entry, note=why))
        self._measured = None

    def _put(self, entry: Entry) -> None:
        self._entries[entry.id] = entry
        while len(self._entries) > KEPT:
            self._entries.pop(next(iter(self._entries)))
        self.kept = [plain(e) for e in self.entries]
        self.changed = True


def _courses(*courses_HS: Floats) -> torch.Tensor:
    return torch.from_numpy(np.stack(courses_HS)).to(torch.get_default_dtype())
