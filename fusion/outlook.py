"""Looking ahead of one plant: a forecast, advice, and whether the plant stays inside the bands that both rest on."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch

from control.advice.advisor import Advisor, AdvisorConfig
from control.advice.drift import BandWatch
from control.advice.ledger import Ledger
from control.advice.licence import Level, Licence
from control.advice.planner import Planner
from control.advice.prospect import foresee
from control.advice.situation import Situation
from fusion.errors import ConfigError, ModelError
from fusion.plant import Plant, Role
from fusion.prospects import Prospect, Question, Refusal, refused
from fusion.records import NS_PER_S, Anomaly, Answer, Forecast, Frame, Recommendation, Verdict
from models.plant_model import PresentWorld
from models.ticks import Ticks

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Cadence:
    """How often a forecast and advice are made [s]; ``advise`` off keeps every recommendation silent."""

    forecast_every_s: float = 5.0
    advise_every_s: float = 30.0
    advise: bool = True


class Outlook:
    """Makes a forecast and advice, each when its time has come, with what ``licence`` allows.

    ``clock_ns`` is the time of day by which answers are judged.
    """

    def __init__(
        self,
        plant: Plant,
        model_id: str,
        licence: Licence,
        advisor: AdvisorConfig,
        cadence: Cadence,
        clock_ns: Callable[[], int],
    ) -> None:
        self.licence = licence
        self.drifted = False
        self._plant = plant
        self._model_id = model_id
        self._config = advisor
        self._cadence = cadence
        self._clock_ns = clock_ns
        self._advisor: Advisor | None = None
        self.mode = advisor.first if cadence.advise else Level.OBSERVE
        self.ledger = Ledger(plant, advisor.planner.objective, advisor.deadband)
        self._watched = [i for i, s in enumerate(plant.tags) if s.role is Role.CONTROLLED]
        self._bands = BandWatch(advisor.drift, [plant.tags[i].name for i in self._watched])
        self._due_ns = {"forecast": 0, "advice": 0}

    def order(self, mode: str) -> bool:
        """Do what an operator asks of advice from now on; False where that changes nothing.

        Raises:
            ConfigError: where it is more than the configuration allows.
        """
        if mode not in [*Level]:
            raise ConfigError(f"mode {mode!r} is not accepted; expected one of {', '.join(Level)}")
        wanted = Level(mode)
        if not self._ceiling.allows(wanted):
            raise ConfigError(f"mode {wanted}: advisor.level of the configuration allows {self._ceiling} at most")
        changed, self.mode = wanted is not self.mode, wanted
        if self._advisor is not None:
            self._advisor.mode = wanted
        return changed

    def retarget(self, plant: Plant, world: PresentWorld | None) -> None:
        """Take other targets: limits, setpoints and prices, which no model depends on."""
        self._plant = plant
        self.ledger.retarget(plant)
        if self._advisor is not None and world is not None:
            self._advisor.retarget(plant, Planner(self._config.planner, plant, world))

    @property
    def _ceiling(self) -> Level:
        return self._config.level if self._cadence.advise else Level.OBSERVE

    def watch(self, t_ns: int, tick: Ticks, moved: bool) -> None:
        """Demote the licence where the plant no longer stays inside the bands; nothing but a restart restores it.

        A forecast assumes that nothing is moved: after a move, those made before it say nothing of the model.
        """
        self.ledger.see(t_ns, tick.tags[-1], tick.action[-1])
        if not self._watched:
            return
        if moved:
            self._bands.forget()
        self._bands.see(t_ns, tick.tags[-1, self._watched], tick.observed[-1, self._watched])
        reason = self._bands.drifted()
        self.drifted = self.drifted or bool(reason)
        if reason and self.licence.level.allows(Level.ADVISE):
            log.warning("the licence is demoted to shadow: %s", reason)
            self.licence = self.licence.demoted(Level.SHADOW, reason)
            if self._advisor is not None:
                self._advisor.licence = self.licence

    @torch.no_grad()
    def look(
        self, world: PresentWorld, frame: Frame, anomalies: Sequence[Anomaly], *, judged: bool, accepted: bool
    ) -> tuple[Forecast | None, Recommendation | None]:
        """What is due at a tick: nothing is moved that nobody has ``judged``, or only ``accepted`` as it now is."""
        due = self._due("forecast", frame.t_ns, self._cadence.forecast_every_s)
        forecast = self._forecast(world, frame.t_ns) if due else None
        due = judged and self._due("advice", frame.t_ns, self._cadence.advise_every_s)
        return forecast, self._advice(world, frame, anomalies, accepted) if due else None

    def _due(self, what: str, t_ns: int, every_s: float) -> bool:
        if t_ns < self._due_ns[what]:
            return False
        self._due_ns[what] = t_ns + int(every_s * NS_PER_S)
        return True

    def _forecast(self, world: PresentWorld, t_ns: int) -> Forecast | None:
        """What happens next if nothing is moved."""
        try:
            mean = world.rollout(world.hold())[0].double().numpy()
        except ModelError as error:
            log.warning("no forecast: %s", error)
            return None
        half = world.half_band().double().numpy()
        names = tuple(s.name for s in self._plant.tags)
        forecast = Forecast(
            t_ns=t_ns, horizon_s=world.horizon_s, signals=names, mean=mean, low=mean - half, high=mean + half
        )
        if self._watched:
            self._bands.foretell(forecast)
        return forecast

    def _advice(
        self, world: PresentWorld, frame: Frame, anomalies: Sequence[Anomaly], accepted: bool
    ) -> Recommendation | None:
        if self._advisor is None:
            planner = Planner(self._config.planner, self._plant, world)
            self._advisor = Advisor(self._config, self._plant, planner, self.licence, self._model_id, self._clock_ns)
            self._advisor.mode = self.mode
        situation = Situation(
            t_ns=frame.t_ns,
            anomalies=tuple(anomalies),
            stale=frame.missing,
            available=available(self._plant, frame),
            hands_off=not self._cadence.advise,
            accepted=accepted,
            given=self.ledger.entries,
        )
        news = self._advisor.advise(world, situation)
        if news is not None and news.verdict is Verdict.ADVISE:
            self.ledger.issue(news)
        elif news is not None:
            self.ledger.withdraw()
        return news

    def whatif(self, question: Question, world: PresentWorld, t_ns: int, stale: tuple[str, ...]) -> Prospect:
        """The answer to a question; none where what it would rest on is old."""
        age_s = (self._clock_ns() - t_ns) / NS_PER_S
        allowed_s = self._config.oldest_s(self._plant.step_s)
        if age_s > allowed_s:
            text = f"the latest tick is {age_s:.0f} s old, {allowed_s:g} s allowed"
            found = refused(question, t_ns, Refusal.STALE_DATA, text)
        elif lost := [name for name in stale if name in question.moves or self._targeted(name)]:
            found = refused(question, t_ns, Refusal.STALE_DATA, f"stale or missing: {', '.join(lost)}")
        else:
            found = foresee(question, world, self._plant, t_ns, self._config.planner)
        return replace(found, stale=stale, model_id=self._model_id)

    def _targeted(self, name: str) -> bool:
        return any(target.signal == name for target in self._plant.targets)

    def answer(self, answer: Answer) -> None:
        """Take what the operator, or a verifier, says of a recommendation."""
        now_ns = self._clock_ns()
        stood = self._advisor is not None and self._advisor.answer(answer, now_ns)
        known = self.ledger.answer(answer, now_ns) or stood
        said = f"{answer.id}: {answer.answer}" + (f" ({answer.reason})" if answer.reason else "")
        if known:
            log.info("recommendation %s", said)
        else:
            log.warning("recommendation %s, but it does not stand any more, or never did", said)


def available(plant: Plant, frame: Frame) -> dict[str, bool]:
    """Whether the loops that say so take a setpoint at a tick; one whose word is missing does not."""
    said = frame.values
    return {s.name: bool(said.get(s.auto_tag, 0.0)) for s in plant.actions if s.auto_tag}
