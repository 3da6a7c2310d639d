"""ADVISE or HOLD: whether a plan may be spoken now, and the recommendation that says it.

The reasons to HOLD are asked in a fixed order, cheap ones before the plan is made: stale data, operator mode, open
anomaly, no licence, rate limit; then model failure, trained region, constraints, gain. Knows no model and no wire.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import torch

from control.advice.drift import DriftConfig
from control.advice.licence import Level, Licence
from control.advice.moves import outside, worth_sending
from control.advice.planner import Plan, Planner, PlannerConfig
from control.advice.prospect import forecast_of
from control.advice.retreat import before_advice
from control.advice.situation import Situation
from control.advice.world import World
from fusion.clock import iso_time
from fusion.errors import ConfigError, ModelError
from fusion.plant import Plant
from fusion.records import (
    NS_PER_S,
    AdviceKind,
    Anomaly,
    AnomalyKind,
    AnomalyState,
    Answer,
    AnswerKind,
    HoldReason,
    Move,
    Recommendation,
    Verdict,
)

OLDEST_STEPS = 1.5  # a tick is the latest for one step, and the next may come late

_KEPT = 1e-6
_RELIEF = 0.5


@dataclass(kw_only=True, slots=True)
class AdvisorConfig:
    """How long an advice holds, how often one may come, and how fresh the data must be.

    ``level`` is the most that an operator may ask for; the licence may grant less. It is what is asked for at first,
    but supervised, which somebody has to ask for. A tick older than ``oldest_s`` allows, a stale target or move, or
    more than ``stale_share`` of the tags stale is no ground for advice. Moves below ``deadband`` (share of range) are
    not sent, nor is a gain below ``least_gain`` per hour. An anomaly touches a signal from ``touching`` of its blame.
    """

    level: Level = Level.ADVISE
    valid_s: float = 300.0
    per_hour: int = 6
    interval_s: float = 300.0
    after_rejection_s: float = 900.0
    largest_age_s: float = 5.0
    stale_share: float = 0.2
    deadband: float = 0.01
    least_gain: float = 0.0
    touching: float = 0.1
    drift: DriftConfig = field(default_factory=DriftConfig)
    planner: PlannerConfig = field(default_factory=PlannerConfig)

    @property
    def first(self) -> Level:
        """The mode of the start: nothing is followed unasked before somebody says so."""
        return Level.ADVISE if self.level is Level.SUPERVISED else self.level

    def oldest_s(self, step_s: float) -> float:
        """The largest age of a tick that may be looked ahead from: it is the latest until the next is there."""
        return max(self.largest_age_s, OLDEST_STEPS * step_s)

    def __post_init__(self) -> None:
        """Reject what could flood an operator or never speak."""
        for name in ("valid_s", "interval_s", "after_rejection_s", "largest_age_s"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"advisor.{name}: {getattr(self, name)} must be positive")
        if self.per_hour < 1 or not 0 <= self.stale_share <= 1 or self.deadband < 0 or self.least_gain < 0:
            raise ConfigError("advisor: per_hour >= 1, stale_share in [0, 1], deadband and least_gain >= 0 expected")


@dataclass(frozen=True, slots=True)
class _Hold:
    reason: HoldReason
    text: str
    plan: Plan | None = None
    astray: bool = False  # the model may not be right of the plant as it is now


class Advisor:
    """Says each recommendation once: an advice that stands, and a HOLD for the same reason, are not said again.

    A HOLD that hides a plan, in shadow or because no move is worth making, is new with each plan.
    """

    def __init__(
        self,
        config: AdvisorConfig,
        plant: Plant,
        planner: Planner,
        licence: Licence,
        model_id: str,
        clock_ns: Callable[[], int],
        sequence: int = 0,
    ) -> None:
        self._config, self._plant, self._planner = config, plant, planner
        self._model_id, self._clock_ns = model_id, clock_ns
        self.licence = licence
        self.mode = config.first
        self.sequence = sequence
        self._advice: Recommendation | None = None
        self._hold: Recommendation | None = None
        self.said: Recommendation | None = None
        self._issued_ns: deque[int] = deque(maxlen=config.per_hour)
        self._quiet_until_ns = 0
        self._planned_ns: int | None = None
        self._returned_ns = -self._ahead_ns

    def advise(self, world: World | None, situation: Situation) -> Recommendation | None:
        """What is new to be said at a tick, None while what was ``said`` last stands; no ``world``: no forecast."""
        standing = self._standing(world, situation)
        news = standing if standing is not self.said else None
        self.said = standing
        return news

    def _standing(self, world: World | None, situation: Situation) -> Recommendation:
        """ADVISE or HOLD, the one said before where it still stands."""
        hold = self._forbidden(situation)
        back = hold is not None and hold.astray and self._advice is not None and self._advice.kind is AdviceKind.RETURN
        if (hold is None or back) and self._stands(world, situation) and self._advice is not None:
            return self._advice
        self._advice = None
        if hold is not None:
            return self._said(self._returned(hold, world, situation), world, situation)
        silent = not self._free(situation, Level.ADVISE)
        soon = None if silent else self._too_often(situation.t_ns)
        found = soon or self._planned(world, situation, silent=silent)
        if isinstance(found, _Hold):
            found = self._returned(found, world, situation)
        return self._said(found, world, situation)

    def _said(self, found: Recommendation | _Hold, world: World | None, situation: Situation) -> Recommendation:
        return self._held(found, world, situation) if isinstance(found, _Hold) else found

    def answer(self, answer: Answer, t_ns: int) -> bool:
        """Note what became of an advice; rejected or failed, no other comes for a while. False if it came too late."""
        if self._advice is None or self._advice.id != answer.id or t_ns > self._advice.valid_until_ns:
            return False
        if answer.answer in (AnswerKind.REJECTED, AnswerKind.FAILED):
            self._quiet_until_ns = t_ns + round(self._config.after_rejection_s * NS_PER_S)
        if answer.answer in (AnswerKind.REJECTED, AnswerKind.FAILED, AnswerKind.EXPIRED):
            self._advice = None
        return True

    def retarget(self, plant: Plant, planner: Planner) -> None:
        """Go on with other targets: what was advised for the old ones is withdrawn."""
        self._plant, self._planner, self._advice, self.said = plant, planner, None, None

    # --- reasons that need no plan

    def _forbidden(self, situation: Situation) -> _Hold | None:
        """The first reason that forbids advice, whatever the plan would be."""
        if text := self._stale(situation):
            return _Hold(HoldReason.STALE_DATA, text)
        if situation.hands_off or not self.mode.allows(Level.SHADOW):
            return _Hold(HoldReason.OPERATOR_MODE, "the operator has switched advice off")
        licensed = self.licence.allowed(Level.SHADOW)
        if licensed and not self._free(situation, Level.SHADOW):
            return _Hold(HoldReason.OPERATOR_MODE, "no licensed loop takes a setpoint now")
        touching = [a for a in situation.anomalies if self._touches(a)]
        if touching:
            astray = any(a.kind is not AnomalyKind.SENSOR for a in touching)
            text = f"open anomaly {touching[0].id} ({touching[0].kind.value})"
            return _Hold(HoldReason.ANOMALY, text, astray=astray)
        if not licensed:
            why = next((r for s in self.licence.signals.values() for r in s.reasons), "the model has no licence")
            return _Hold(HoldReason.NO_LICENCE, f"the model may only observe: {why}")
        return None

    def _stale(self, situation: Situation) -> str:
        age_s = (self._clock_ns() - situation.t_ns) / NS_PER_S
        allowed_s = self._config.oldest_s(self._plant.step_s)
        if age_s > allowed_s:
            return f"the latest tick is more than {allowed_s:g} s old"
        needed = {t.signal for t in self._plant.targets} | set(self._planner.box.names)
        if missing := [name for name in situation.stale if name in needed]:
            return f"stale or missing: {', '.join(missing)}"
        tags = [s for s in self._plant.tags if s.name in situation.stale]
        if len(tags) > self._config.stale_share * len(self._plant.tags):
            return f"{len(tags)} of {len(self._plant.tags)} tags are stale"
        return ""

    def _touches(self, anomaly: Anomaly) -> bool:
        """Whether an anomaly forbids advice: any but a sensor's, and a sensor's where it blames a process value."""
        if anomaly.state is AnomalyState.CLEARED:
            return False
        blamed = {b.signal for b in anomaly.top_signals if b.share >= self._config.touching}
        values = {s.name for s in (*self._plant.tags, *self._plant.actions)}
        return anomaly.kind is not AnomalyKind.SENSOR or bool(blamed & values)

    def _free(self, situation: Situation, level: Level) -> tuple[str, ...]:
        """Signals that may be moved at a level and whose loops take a setpoint."""
        if not self.mode.allows(level):
            return ()
        allowed = [n for n in self.licence.allowed(level) if n in self._planner.box.names]
        return tuple(n for n in allowed if situation.available.get(n, True))

    def _too_often(self, t_ns: int, not_before_ns: int = 0) -> _Hold | None:
        config, issued = self._config, self._issued_ns
        wait_ns = max(self._quiet_until_ns, not_before_ns) - t_ns
        if issued:
            wait_ns = max(wait_ns, issued[-1] + round(config.interval_s * NS_PER_S) - t_ns)
        if len(issued) == config.per_hour:
            wait_ns = max(wait_ns, issued[0] + 3600 * NS_PER_S - t_ns)
        if wait_ns <= 0:
            return None
        return _Hold(HoldReason.RATE_LIMITED, f"next advice at {iso_time(t_ns + wait_ns)} at the earliest")

    def _stands(self, world: World | None, situation: Situation) -> bool:
        """Whether the last advice is valid, may be followed now, is not applied and not overtaken by the operator."""
        advice = self._advice
        if advice is None or world is None or situation.t_ns >= advice.valid_until_ns:
            return False
        moves = {m.signal: m for m in advice.moves}
        if not moves.keys() <= set(self._free(situation, Level.ADVISE)):
            return False
        near_A = (self._config.deadband * self._planner.box.span).tolist()
        applied = True
        for name, value, near in zip(self._planner.box.names, world.current_action.tolist(), near_A, strict=True):
            start = advice.rollback[name]
            aim = moves[name].recommended if name in moves else start
            if not min(start, aim) - near <= value <= max(start, aim) + near:
                return False
            applied = applied and abs(value - aim) <= near
        return not applied

    # --- reasons that need one

    def _planned(self, world: World | None, situation: Situation, *, silent: bool) -> Recommendation | _Hold:
        """Plan, judge, and advise; in shadow the plan is made but not spoken."""
        if world is None:
            return _Hold(HoldReason.MODEL_FAILED, "the model gave no forecast")
        free = self._free(situation, Level.SHADOW if silent else Level.ADVISE)
        now = self._now(world)
        if astray := outside(self._plant, now, free, self._config.deadband):
            free = tuple(name for name in free if name not in astray)
        if astray and not free:
            return _Hold(HoldReason.CONSTRAINT, "; ".join(astray.values()))
        try:
            plan = self._planner.plan(world, free, self._since_plan_s(situation.t_ns), t_ns=situation.t_ns)
        except ModelError as error:
            return _Hold(HoldReason.MODEL_FAILED, str(error))
        if silent:
            why = next((f" ({s.reasons[-1]})" for s in self.licence.signals.values() if s.reasons), "")
            return _Hold(HoldReason.NO_LICENCE, f"in shadow: the plan is recorded, not spoken{why}", plan)
        if max(plan.support, plan.baseline_support) > 1:
            text = f"the state is at {max(plan.support, plan.baseline_support):.1f} of the limit of the trained region"
            return _Hold(HoldReason.OUT_OF_REGION, text, plan, astray=plan.baseline_support > 1)
        if situation.accepted:
            text = "what was accepted as normal still stands, and the model was not trained on it"
            return _Hold(HoldReason.OUT_OF_REGION, text, plan, astray=True)
        relief = plan.baseline_violation > _KEPT and plan.violation <= _RELIEF * plan.baseline_violation
        if not relief and (soon := self._too_often(situation.t_ns, self._returned_ns + self._ahead_ns)):
            return soon
        if plan.violation > _KEPT and not relief:
            text = "no allowed move keeps the limits with their back-off"
            return _Hold(HoldReason.CONSTRAINT, text, plan)
        target = dict(zip(now, plan.target.tolist(), strict=True))
        moves = self._moves(now, {name: target[name] for name in free})
        if not moves:
            return _Hold(HoldReason.SMALL_GAIN, "no move is worth making", plan)
        if not relief and (plan.gain_low <= 0 or plan.gain < self._config.least_gain):
            text = f"gain {plan.gain:.3g} per hour ({plan.gain_low:.3g} .. {plan.gain_high:.3g}) is not certain"
            return _Hold(HoldReason.SMALL_GAIN, text, plan)
        return self._advised(plan, moves, world, situation)

    def _since_plan_s(self, t_ns: int) -> float:
        before, self._planned_ns = self._planned_ns, t_ns
        return 0.0 if before is None else max(t_ns - before, 0) / NS_PER_S

    def _moves(self, now: Mapping[str, float], aims: Mapping[str, float]) -> tuple[Move, ...]:
        """Moves to aims that are worth sending."""
        config = self._config
        return worth_sending(self._plant, now, aims, config.deadband, config.planner.constraints)

    @property
    def _ahead_ns(self) -> int:
        """How far plans look ahead."""
        return round(self._planner.ahead_s * NS_PER_S)

    def _now(self, world: World) -> dict[str, float]:
        """Present values of what may be moved, by name."""
        return dict(zip(self._planner.box.names, world.current_action.tolist(), strict=True))

    # --- own moves taken back

    def _returned(self, hold: _Hold, world: World | None, situation: Situation) -> Recommendation | _Hold:
        """Advice to take own moves back, where the model is out of its depth while they still take effect.

        The model has no say in where to, only against it: not where it sees a limit come nearer by it.
        """
        if world is None or not hold.astray:
            return hold
        now, config = self._now(world), self._config
        near = dict(zip(now, (config.deadband * self._planner.box.span).tolist(), strict=True))
        since_ns = situation.t_ns - self._ahead_ns
        aims = before_advice(situation.given, since_ns, now, near)
        free = set(self._free(situation, Level.ADVISE)) - set(outside(self._plant, now, aims, config.deadband))
        moves = self._moves(now, {name: aim for name, aim in aims.items() if name in free})
        if not moves or self._too_often(situation.t_ns):
            return hold
        target = now | {move.signal: move.recommended for move in moves}
        try:
            plan = self._planner.weigh(world, torch.tensor([target[name] for name in now]), situation.t_ns)
        except ModelError:
            return hold
        if plan.violation > plan.baseline_violation + _KEPT:
            return replace(hold, text=f"{hold.text}; to take own moves back would come nearer to a limit")
        self._returned_ns = situation.t_ns
        return self._advised(plan, moves, world, situation, because=hold.text)

    # --- the answer

    def _advised(
        self, plan: Plan, moves: tuple[Move, ...], world: World, situation: Situation, *, because: str = ""
    ) -> Recommendation:
        """Moves of a plan, or back to where they were ``because`` of something; that is never followed unasked."""
        said = ", ".join(f"{m.signal} {m.current:.4g} -> {m.recommended:.4g} {m.unit}" for m in moves)
        expects = f"expected gain {plan.gain:.3g} per hour ({plan.gain_low:.3g} .. {plan.gain_high:.3g})"
        limits = f"; limited by {', '.join(plan.binding)}" if plan.binding else ""
        text = f"Take own moves back, {said}: {because}" if because else f"Move {said}; {expects}{limits}"
        rest = self._record(Verdict.ADVISE, None, text, world, situation, plan)
        self._advice = replace(
            rest,
            moves=moves,
            mode=(Level.ADVISE if because else self._mode(moves, situation)).value,
            kind=AdviceKind.RETURN if because else AdviceKind.PLAN,
            requires=tuple(f"{m.signal}: loop in automatic and taking a setpoint" for m in moves),
            rollback=dict(zip(self._planner.box.names, world.current_action.tolist(), strict=True)),
        )
        self._issued_ns.append(situation.t_ns)
        self._hold = None
        return self._advice

    def _mode(self, moves: Sequence[Move], situation: Situation) -> Level:
        """Whether all moves may be made without asking first."""
        free = set(self._free(situation, Level.SUPERVISED))
        return Level.SUPERVISED if {move.signal for move in moves} <= free else Level.ADVISE

    def _held(self, hold: _Hold, world: World | None, situation: Situation) -> Recommendation:
        """HOLD; the same one again while it is valid and nothing new is to be said."""
        old, text = self._hold, f"Hold: {hold.text}"
        same = old is not None and old.reason is hold.reason and old.text == text and old.stale == situation.stale
        if old is not None and same and hold.plan is None and situation.t_ns < old.valid_until_ns:
            return old
        self._hold = self._record(Verdict.HOLD, hold.reason, text, world, situation, hold.plan)
        return self._hold

    def _record(
        self,
        verdict: Verdict,
        reason: HoldReason | None,
        text: str,
        world: World | None,
        situation: Situation,
        plan: Plan | None,
    ) -> Recommendation:
        self.sequence += 1
        t_ns = situation.t_ns
        expected = forecast_of(world, plan.expected, plan.half_band, t_ns) if plan and world else None
        baseline = forecast_of(world, plan.baseline, plan.half_band, t_ns) if plan and world else None
        return Recommendation(
            id=f"{self._plant.name}-{t_ns // NS_PER_S}-{self.sequence}",
            sequence=self.sequence,
            t_ns=t_ns,
            valid_until_ns=t_ns + round(self._config.valid_s * NS_PER_S),
            verdict=verdict,
            reason=reason,
            text=text,
            moves=(),
            expected=expected,
            baseline=baseline,
            gain=plan.gain if plan else 0.0,
            gain_low=plan.gain_low if plan else 0.0,
            gain_high=plan.gain_high if plan else 0.0,
            binding=plan.binding if plan else (),
            stale=situation.stale,
            licence=self.licence.level.value,
            model_id=self._model_id,
            plant_fingerprint=self._plant.fingerprint,
        )
