"""What may be written now: the verifier's decisions, step by step, without a wire or a clock of its own.

Nothing is written before somebody has ordered the start, nor after anything was amiss until somebody orders it again.
Times are monotonic seconds, but for the validity of an advice, which is UTC.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fusion.plant import Plant
from fusion.publish.messages import MoveOut, RecommendationMessage
from fusion.records import Answer, AnswerKind, HoldReason, Verdict
from fusion.verifier.settings import Loop

BY = "verifier"
HARMLESS = (HoldReason.RATE_LIMITED.value, HoldReason.SMALL_GAIN.value)
"""Reasons to hold that do not revoke an advice that is being written."""


class GateState(StrEnum):
    """Where the verifier stands."""

    HANDED_BACK = "handed_back"
    READY = "ready"
    WRITING = "writing"


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """The control system as read at one moment; None where a value is not good."""

    setpoints: Mapping[str, float | None]
    modes: Mapping[str, float | None]
    theirs: float | None
    enabled: bool


@dataclass(slots=True)
class _Job:
    """An advice that is being written: where each setpoint stands, and where it goes."""

    id: str
    aim: dict[str, float]
    written: dict[str, float]
    asked: dict[str, float] = field(default_factory=dict)


class Gate:
    """One plant's gate; ``answers`` are to be sent, ``release`` says that loops are to be handed back now."""

    def __init__(
        self,
        plant: Plant,
        loops: Mapping[str, Loop],
        *,
        timeout_s: float,
        interval_s: float,
        supervised: bool = False,
        accepted_by: tuple[str, ...] = (),
    ) -> None:
        self._plant, self._loops, self._timeout_s, self._interval_s = plant, loops, timeout_s, interval_s
        self._supervised, self._accepted_by = supervised, accepted_by
        self._advice: RecommendationMessage | None = None
        self._accepted = ""
        self._newest_ns = 0
        self._job: _Job | None = None
        self._armed = False
        self.reason = "started; waits for the order to start"
        self.answers: list[Answer] = []
        self.release = False
        self._heard_s: float | None = None
        self._beat: tuple[float | None, float | None] = (None, None)
        self._stepped_s: float | None = None

    @property
    def state(self) -> GateState:
        """Where it stands."""
        if not self._armed:
            return GateState.HANDED_BACK
        return GateState.READY if self._job is None else GateState.WRITING

    @property
    def writing(self) -> str:
        """The advice that is being written, or ""."""
        return "" if self._job is None else self._job.id

    # --- what is heard

    def hear_daemon(self, now_s: float, online: bool) -> None:
        """The daemon says how it is."""
        self._heard_s = now_s if online else None

    def hear_advice(self, advice: RecommendationMessage) -> None:
        """A recommendation arrives; a newer one takes the place of the one before, a hold revokes it."""
        if advice.plant != self._plant.name or advice.t_ns <= self._newest_ns:
            return
        self._newest_ns, self._accepted = advice.t_ns, ""
        hold = advice.verdict != Verdict.ADVISE.value
        self._advice = None if hold else advice
        if self._job is not None and not (hold and advice.reason in HARMLESS):
            self.trip(f"{self._job.id} was revoked: {advice.text}" if hold else "another advice was given meanwhile")

    def hear_answer(self, answer: Answer) -> None:
        """Somebody answers a recommendation; what is accepted before the start, somebody makes by hand."""
        if answer.answer is AnswerKind.REJECTED:
            self._advice = None if self._advice is not None and self._advice.id == answer.id else self._advice
            if self.writing == answer.id:
                self.trip(f"{answer.id} was rejected while it was written")
        elif answer.answer is AnswerKind.ACCEPTED and self._armed and self._counts(answer.by):
            self._accepted = answer.id

    def _counts(self, by: str) -> bool:
        return not self._accepted_by or by in self._accepted_by

    def order(self, start: bool, by: str, now_s: float, picture: Picture) -> None:
        """Start or stop on somebody's order; the reason says why it cannot be started."""
        if not start:
            self.trip(f"stopped by {by}")
            self.reason = f"stopped by {by}"
        elif amiss := self._amiss(now_s, picture):
            self.trip(amiss)
            self.reason = f"start by {by} is refused: {amiss}"
        else:
            self._armed, self.reason = True, f"started by {by}"

    # --- what is decided

    def step(self, now_s: float, now_ns: int, picture: Picture) -> dict[str, float]:
        """The setpoints to write now; none unless an advice is being followed."""
        self._see_beat(now_s, picture.theirs)
        since_s = self._interval_s if self._stepped_s is None else now_s - self._stepped_s
        self._stepped_s = now_s
        if self._armed and (amiss := self._amiss(now_s, picture) or self._overtaken(picture)):
            self.trip(amiss)
        if not self._armed:
            return {}
        if self._job is None:
            self._begin(now_ns, picture)
        return self._ramp(min(max(since_s, 0.0), self._interval_s))

    def wrote(self, readings: Mapping[str, float | None]) -> None:
        """What was read back at once: anything but what was written hands back."""
        job = self._job
        if job is None:
            return
        for name, value in job.asked.items():
            read = readings.get(name)
            if read is None or not abs(read - value) <= self._loops[name].tolerance:
                self.trip(f"{name}: wrote {value:g}, read {read if read is None else f'{read:g}'}")
                return
        job.written |= job.asked
        job.asked = {}
        if job.written == job.aim:
            self._answer(AnswerKind.APPLIED, job.id, "")
            self._job = None

    def trip(self, reason: str) -> None:
        """Hand back, now, until somebody orders the start again."""
        if self._job is not None:
            self._answer(AnswerKind.FAILED, self._job.id, reason)
        self.release = self.release or self._armed
        self.reason = reason if self._armed else self.reason
        self._armed, self._job, self._advice, self._accepted = False, None, None, ""

    def _answer(self, kind: AnswerKind, advice: str, reason: str) -> None:
        self.answers.append(Answer(id=advice, answer=kind, reason=reason, by=BY))

    def _see_beat(self, now_s: float, theirs: float | None) -> None:
        if theirs is not None and theirs != self._beat[0]:
            self._beat = (theirs, now_s if self._beat[0] is not None else None)

    def _amiss(self, now_s: float, picture: Picture) -> str:
        """What forbids to write anything."""
        beat_s = self._beat[1]
        if not picture.enabled:
            return "the kill switch is off"
        if beat_s is None or now_s - beat_s > self._timeout_s:
            return "the control system's heartbeat is silent"
        if self._heard_s is None or now_s - self._heard_s > self._timeout_s:
            return "the daemon is silent"
        return ""

    def _overtaken(self, picture: Picture) -> str:
        """What forbids to go on with the advice that is being written."""
        if self._job is None:
            return ""
        for name, value in self._job.written.items():
            read = picture.setpoints.get(name)
            if picture.modes.get(name) != self._loops[name].mode_value:
                return f"{name}: its loop takes no setpoint any more"
            if read is None or not abs(read - value) <= self._loops[name].tolerance:
                return f"{name}: somebody else moved it, or it cannot be read"
        return ""

    def _begin(self, now_ns: int, picture: Picture) -> None:
        """Take up an advice that may be followed; what does not pass is answered as failed."""
        advice = self._advice
        unasked = advice is not None and self._supervised and advice.mode == "supervised"
        if self._accepted and (advice is None or advice.id != self._accepted):
            self._answer(AnswerKind.FAILED, self._accepted, "not the advice that stands")
            self._accepted = ""
        if advice is None or not (unasked or advice.id == self._accepted):
            return
        self._advice, self._accepted = None, ""
        if refusal := self._refusal(advice, now_ns, picture):
            self._answer(AnswerKind.FAILED, advice.id, refusal)
            return
        aim = {move.signal: float(move.recommended or 0.0) for move in advice.moves}
        start = {name: float(picture.setpoints[name] or 0.0) for name in aim}
        self._job = _Job(advice.id, aim, start)

    def _refusal(self, advice: RecommendationMessage, now_ns: int, picture: Picture) -> str:
        if advice.valid_until_ns <= now_ns or advice.t_ns > now_ns + round(self._timeout_s * 1e9):
            return "not valid now"
        if advice.plant_fingerprint != self._plant.fingerprint:
            return "made for another plant"
        if not advice.moves or len({move.signal for move in advice.moves}) < len(advice.moves):
            return "no moves, or one signal moved twice"
        return next((text for move in advice.moves if (text := self._objection(move, picture))), "")

    def _objection(self, move: MoveOut, picture: Picture) -> str:
        """Why one move may not be made; "" if it may."""
        loop, now = self._loops.get(move.signal), picture.setpoints.get(move.signal)
        if loop is None:
            return f"{move.signal}: not on the whitelist"
        wanted, current = move.recommended, move.current
        if move.unit != loop.unit:
            return f"{move.signal}: in {move.unit}, expected {loop.unit}"
        if wanted is None or current is None or not math.isfinite(wanted) or not loop.low <= wanted <= loop.high:
            return f"{move.signal}: {wanted} is not within {loop.low:g} to {loop.high:g}"
        if now is None or not loop.low <= now <= loop.high:
            return f"{move.signal}: its setpoint, {now}, cannot be read or is not within its limits"
        if not min(current, wanted) - loop.tolerance <= now <= max(current, wanted) + loop.tolerance:
            return f"{move.signal}: is at {now:g}, the advice was made at {current:g}"
        if abs(wanted - now) > loop.largest_step + loop.tolerance:
            return f"{move.signal}: a step of {abs(wanted - now):g}, {loop.largest_step:g} allowed"
        if picture.modes.get(move.signal) != loop.mode_value:
            return f"{move.signal}: its loop takes no setpoint"
        return ""

    def _ramp(self, since_s: float) -> dict[str, float]:
        """One step of each setpoint towards its aim, from where it stands, at its rate."""
        if self._job is None:
            return {}
        self._job.asked = {}
        for name, aim in self._job.aim.items():
            now, travel = self._job.written[name], self._loops[name].rate * since_s
            self._job.asked[name] = aim if abs(aim - now) <= travel else now + math.copysign(travel, aim - now)
        return dict(self._job.asked)
