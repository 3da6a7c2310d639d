"""Frame in, everything the plant should hear out: energies, anomalies, forecast, recommendation.

Owns the model and its one thread; knows neither sources nor wire. Every frame updates the state and the monitors; a
forecast and advice are made only on the newest one, so that a backlog is caught up quickly.
"""

from __future__ import annotations

import contextlib
import copy
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from control.advice.advisor import AdvisorConfig
from control.advice.licence import Level, Licence
from control.anomaly.calibration import STRANGE, Calibration
from control.anomaly.detector import Detector, DetectorConfig
from control.anomaly.evidence import Contributions
from fusion.accepted import Accepted
from fusion.checkpoint import Checkpoint
from fusion.continuity import WARMING_UP, Continuity
from fusion.errors import CheckpointError, ConfigError, ModelError
from fusion.ledger import Entry
from fusion.outcome import Outcome
from fusion.outlook import Cadence, Outlook
from fusion.plant import Plant
from fusion.prospects import Prospect, Question, Refusal, refused
from fusion.records import NS_PER_S, Anomaly, Answer, Energy, Forecast, Frame, Recommendation
from fusion.state import load_state
from models.monitors.relief import ACCEPTED_TICKS, FIRST_TICKS
from models.monitors.residual import WARM_UP_TICKS
from models.plant_model import ModelState, PlantModel, Seen
from models.ticks import TickBuilder, Ticks

log = logging.getLogger(__name__)

KNOWS_LITTLE = "knows little"
"""The flag of a model that can tell little of what it sees, with the reason."""
TICKS_AT_ONCE = 120
"""What a replay hands over at once: enough to be quick, little enough to stay in the cache."""


def calibration_of(checkpoint: Checkpoint) -> Calibration:
    """The calibration that a model was trained with.

    Raises:
        CheckpointError: where it is none, or not of as many energies as it names.
    """
    found = load_state(Calibration, checkpoint.part("calibration"), checkpoint.tree("calibration"))
    widths = {len(found.energies), len(found.median), len(found.scale), found.blocks.shape[-1]}
    if len(widths) > 1:
        raise CheckpointError(f"{checkpoint.model_id}: its calibration is not of all its energies; train again")
    return found


@dataclass(frozen=True, slots=True)
class Present:
    """Tags [S] and actions [A] of the last tick, engineering units."""

    tags: NDArray[np.float64]
    action: NDArray[np.float64]


class Engine:
    """One plant's inference, tick by tick.

    ``calibration`` takes the place of the checkpoint's; without ``networks`` the linear core alone forecasts. Energies
    that may not raise are computed only ``with_silent``. ``clock_ns`` is the time of day that a tick ages by; a replay
    has none but that of its ticks. ``sequence`` is the number of the last event that was ever told.
    """

    def __init__(
        self,
        checkpoint: Checkpoint,
        *,
        detector: DetectorConfig | None = None,
        advisor: AdvisorConfig | None = None,
        cadence: Cadence | None = None,
        calibration: Calibration | None = None,
        networks: bool = True,
        with_silent: bool = False,
        sequence: int = 0,
        clock_ns: Callable[[], int] | None = None,
    ) -> None:
        self.plant: Plant = checkpoint.plant
        known = calibration or calibration_of(checkpoint)
        self.calibration = known if with_silent else known.heard()
        self._limits_strange = known.typical >= STRANGE
        self.model = PlantModel.from_checkpoint(checkpoint.learned).hearing(self.calibration.names)
        if not _same(self.model.energies, self.calibration.energies):
            raise CheckpointError(f"{checkpoint.model_id}: its calibration is of other energies; train again")
        if not networks:
            self.model.world_model.shut()
        self.model_id = checkpoint.model_id
        config = (detector or DetectorConfig()).of_step(self.plant.step_s)
        self.detector = Detector(config, self.calibration, self.plant, self.model_id, sequence)
        self.outlook = Outlook(
            self.plant,
            self.model_id,
            Licence.from_dict(checkpoint.tree("licence")),
            advisor or AdvisorConfig(),
            cadence or Cadence(),
            clock_ns or self.now_ns,
        )
        self._settling_ns = round(config.settling_s * NS_PER_S)
        self._builder = TickBuilder(self.plant, self.model.stem, self.model.eye)
        self._state = ModelState()
        self._now_ns = 0
        self._seen: Present | None = None
        self._missing: tuple[str, ...] = ()
        self._last_action: NDArray[np.float64] | None = None
        self._settling_until_ns = 0
        lasting_ns = round(ACCEPTED_TICKS * self.plant.step_s * NS_PER_S)
        self._accepted = Accepted(self.calibration, len(self.model.monitors.energies), lasting_ns)
        self._stream = Continuity(self.plant, self.calibration.energies)
        self.flags: tuple[str, ...] = ()

    @property
    def state(self) -> ModelState:
        """What the stream has left behind."""
        return self._state

    @property
    def calibrated_hours(self) -> float:
        """Hours of later normal operation behind the limits."""
        return self.calibration.hours

    def step(self, frame: Frame, newest: bool = True) -> Outcome:
        """Take one tick; with ``newest`` also forecast and advise when their time has come."""
        self._now_ns, self._missing = frame.t_ns, frame.missing
        if self._stream.incomplete(frame):
            self.flags = (*frame.flags, "waiting for first values")
            return Outcome.empty(frame, self.flags)
        ticks = self._stream.continued(frame, self._builder.tick(frame))
        (seen,) = self.model.step(ticks, self._state, explain=self.detector.attentive)
        changes = self._judge(frame, ticks, seen)
        if self._turned():
            self._turn()
        self.outlook.watch(self._now_ns, ticks, moved=self._now_ns < self._settling_until_ns)
        forecast, advice = self._look_ahead(frame) if newest else (None, None)
        return Outcome(
            frame=frame,
            surprise=self.detector.surprise,
            anomalies=tuple(changes),
            open_anomalies=self.detector.open,
            forecast=forecast,
            recommendation=advice,
            flags=self.flags,
            ticks=ticks,
            ledger=self._ledger_news(),
            manual=self.outlook.ledger.manual,
        )

    def _ledger_news(self) -> tuple[Entry, ...] | None:
        ledger = self.outlook.ledger
        changed, ledger.changed = ledger.changed, False
        return ledger.entries if changed else None

    def catch_up(self, frames: Sequence[Frame]) -> tuple[Ticks | None, list[Anomaly]]:
        """Take consecutive ticks at once: the anomalies that ``step`` would tell one by one, in a fraction of its time.

        Returned with them are the ticks as the model saw them; None where all are still waiting for first values.
        """
        complete = [frame for frame in frames if not self._stream.incomplete(frame)]
        if not complete:
            return None, []
        for frame in complete:
            self._builder.add(frame)
        ticks, changes, first = self._builder.drain(), list[Anomaly](), 0
        while first < len(ticks):
            first, told = self._catch_up(complete, ticks, first)
            changes += told
        return ticks, changes

    def _catch_up(self, frames: Sequence[Frame], ticks: Ticks, first: int) -> tuple[int, list[Anomaly]]:
        """Take ticks from ``first`` on at once, to their end or the next turn; where to go on, and what changed."""
        before = copy.deepcopy(self._state)
        seen, explained, changes = self.model.step(ticks[first:], self._state), False, list[Anomaly]()
        for i in range(first, len(ticks)):
            if self.detector.attentive and not explained:
                self._state = copy.deepcopy(before)
                seen, explained = self.model.step(ticks[first:], self._state, explain=True), True
            self._now_ns = frames[i].t_ns
            told = self._judge(frames[i], ticks[i : i + 1], seen[i - first])
            changes += told
            if self._turned():
                if i + 1 < len(ticks):
                    self._state = before
                    self.model.step(ticks[first : i + 1], self._state)
                self._turn()
                return i + 1, changes
        return len(ticks), changes

    def _turned(self) -> bool:
        """Whether the first event has begun or the last has ended, and the model does not know it yet."""
        return bool(self.detector.open) == self._state.carry.learns

    def _turn(self) -> None:
        """Tell the model: while an event stands nothing is learned as usual; what it left behind is void."""
        stands = bool(self.detector.open)
        if not stands:
            self.model.recover(self._state)
        self.model.heed(stands, self._state)

    def _judge(self, frame: Frame, tick: Ticks, seen: Seen) -> list[Anomaly]:
        """What changes with one tick."""
        self._seen = Present(tick.tags[-1], tick.action[-1])
        own = (
            *self._warming_up(),
            *self._settling(tick.action[-1]),
            *self._relieved(),
            *self._stream.flags(self._now_ns),
            *self._knows_little(),
        )
        own += ("drift",) if self.outlook.drifted else ()
        self.flags = tuple(sorted({*frame.flags, *seen.flags, *own}))
        evidence = None
        if seen.shares is not None and seen.residual is not None and self.detector.attentive:
            evidence = Contributions(
                signals=self.model.signals,
                shares=seen.shares,
                residual=seen.residual,
                sensor=seen.sensor,
                seen=np.concatenate([tick.tags[-1], np.full(len(self.model.signals) - tick.tags.shape[1], np.nan)]),
                where=seen.where,
            )
        energies = self._stream.trusted(seen.energies, frame.t_ns)
        self._accepted.watch(frame.t_ns, energies, self._state.carry.local.relief)
        return self.detector.step(frame.t_ns, energies, evidence, self.flags)

    def _present(self) -> Present:
        if self._seen is None:
            raise ModelError("no tick has been seen yet")
        return self._seen

    def _settling(self, action: NDArray[np.float64]) -> tuple[str, ...]:
        """A move of the operator widens the limits of fast energies for a short while."""
        if self._last_action is not None and not np.allclose(action, self._last_action):
            self._settling_until_ns = self._now_ns + self._settling_ns
        self._last_action = action.copy()
        return ("settling",) if self._now_ns < self._settling_until_ns else ()

    def _warming_up(self) -> tuple[str, ...]:
        """At the start of a stream averages settle and nothing is judged; or what is usual is learned."""
        carry = self._state.carry
        least = FIRST_TICKS if carry.local.begins_well else WARM_UP_TICKS
        left_s = max(least - carry.ticks, 0) * self.plant.step_s
        return (f"{WARMING_UP}, {left_s:.0f} s left",) if left_s else ()

    def _relieved(self) -> tuple[str, ...]:
        """The senses of which some energy that could raise is judged by a level that an operator has accepted."""
        relieved = self._state.carry.local.relieved
        if relieved is None:
            return ()
        energies = zip(self.calibration.energies, relieved, strict=False)
        return tuple(sorted({f"relieved:{energy.modality}" for energy, by in energies if by and energy.raises}))

    def _knows_little(self) -> tuple[str, ...]:
        """Why the model can tell little: its limits rest on a foreign time, or what is usual here is foreign to it."""
        if self._limits_strange:
            return (f"{KNOWS_LITTLE}: its limits were set on times unlike those it was trained on",)
        beyond = self._state.carry.local.beyond(self.calibration.raising)
        far = f"{KNOWS_LITTLE}: what is usual here lies {beyond:.0f} times beyond what it was trained on"
        return (far,) if beyond >= STRANGE else ()

    def _look_ahead(self, frame: Frame) -> tuple[Forecast | None, Recommendation | None]:
        if not self._state.ready:
            return None, None
        judged = not self._warming_up()
        world, accepted = self.model.world(self._state), self._accepted.stands(frame.t_ns)
        return self.outlook.look(world, frame, self.detector.open, judged=judged, accepted=accepted)

    def accept(self, anomaly_id: str) -> bool:
        """Take what an event shows for how the plant is from now on; False where it does not stand."""
        own = self.detector.own(anomaly_id)
        self.model.accept(own, self._state)
        self._accepted.add(own)
        return bool(own.any())

    @property
    def accepted(self) -> dict[str, float]:
        """By how much each energy that was accepted is relieved, by name."""
        relief = self._state.carry.local.relief
        names = self.calibration.names
        return {} if relief is None else {n: float(r) for n, r in zip(names, relief, strict=False) if r > 1.0}

    def _relieve(self, accepted: Mapping[str, float]) -> None:
        """Take up what was accepted before a restart; energies that there are no more do not count."""
        monitored = self.calibration.names[: len(self.model.monitors.energies)]
        self._state.carry.local.relief = np.array([accepted.get(name, 1.0) for name in monitored])
        self._accepted.add(self._state.carry.local.relief > 1.0)

    def answer(self, answer: Answer) -> None:
        """Take what the operator, or a verifier, says of a recommendation."""
        self.outlook.answer(answer)

    @property
    def mode(self) -> Level:
        """What advice may do, as far as the operator is concerned."""
        return self.outlook.mode

    def order(self, mode: str) -> bool:
        """Do what an operator asks of advice; False where that changes nothing.

        Raises:
            ConfigError: where it is more than the configuration allows.
        """
        return self.outlook.order(mode)

    def retarget(self, plant: Plant) -> None:
        """Take over the targets of a plant that is otherwise the same."""
        self.plant = replace(self.plant, targets=plant.targets)
        self.outlook.retarget(self.plant, self.model.world(self._state) if self._state.ready else None)

    def whatif(self, question: Question) -> Prospect:
        """What happens next if signals are moved, and if nothing is, from the last tick on; changes nothing."""
        if not self._state.ready:
            text = "too little has been seen to look ahead"
            return refused(question, self._now_ns, Refusal.WARMING_UP, text, self.model_id)
        world = self.model.world(self._state, every=True)
        return self.outlook.whatif(question, world, self._now_ns, self._missing)

    # --- over a restart

    @property
    def sequence(self) -> int:
        """The number of the last event: what the next start must not use again."""
        return self.detector.sequence

    @property
    def notes(self) -> dict[str, Any]:
        """What else must outlive a restart, as plain values: accepted levels, the mode, the ledger."""
        return {"accepted": self.accepted, "mode": str(self.mode), "ledger": self.outlook.ledger.kept}

    def resume(self, anomalies: Sequence[Anomaly], notes: Mapping[str, Any] | None = None) -> None:
        """Take over the anomalies that stood before a restart, and the notes of that time."""
        self.detector.resume(anomalies)
        self.model.heed(bool(self.detector.open), self._state)
        notes = notes or {}
        local = self._state.carry.local
        if self.detector.open or (notes and self._stream.recalled):
            local.begins_well = False  # the stream began before
        if accepted := notes.get("accepted"):
            self._relieve(accepted)
        self._resume_mode(str(notes.get("mode", self.mode)))
        self.outlook.ledger.resume(notes.get("ledger", ()))

    def _resume_mode(self, mode: str) -> None:
        """The mode of an earlier run, where the configuration still allows it; supervised does not return by itself."""
        with contextlib.suppress(ConfigError):
            self.order(str(Level.ADVISE) if mode == Level.SUPERVISED else mode)

    def recall(self, ticks: Ticks) -> None:
        """Bring the model to where it was with the ticks that it saw before a restart; nothing is told of them.

        The first of them are left out where values had not arrived, as they would have been by ``step``.

        Raises:
            ModelError: where something has been seen already, or the ticks are not made as this model's are.
        """
        if self._seen is not None or not self._builder.makes(ticks):
            raise ModelError("these are not ticks of this plant as this version makes them, or they come too late")
        ticks = self._stream.judged(ticks)
        for start in range(0, len(ticks), TICKS_AT_ONCE):
            self.model.step(ticks[start : start + TICKS_AT_ONCE], self._state)
        for self._now_ns, action in zip(ticks.t_ns.tolist(), ticks.action, strict=True):
            self._settling(action)
        self._stream.recall(ticks)

    def note_skipped(self) -> None:
        """Hear that ticks are missing now: what looks back over them, forecasts and balances, says nothing a while."""
        self._stream.skip(self._now_ns)

    @property
    def ready(self) -> bool:
        """Whether enough has been seen to look ahead."""
        return self._state.ready

    @property
    def present_action(self) -> NDArray[np.float64]:
        """Every action [A] as last known, engineering units."""
        return self._present().action

    @property
    def present_tags(self) -> NDArray[np.float64]:
        """Every tag [S] as last known, engineering units."""
        return self._present().tags

    @torch.no_grad()
    def rollout(self, paths: torch.Tensor) -> NDArray[np.float64]:
        """Expected tags [N, H, S] under paths [N, K, A] of all actions from now on, engineering units."""
        return np.asarray(self.model.world(self._state, every=True).rollout(paths).numpy())

    def now_ns(self) -> int:
        """Time of the last tick: inference lives in plant time, live and in replay."""
        return self._now_ns

    @property
    def level(self) -> Level:
        """What the model may do."""
        return self.outlook.licence.level


def _same(one: Sequence[Energy], other: Sequence[Energy]) -> bool:
    """Whether these are the same energies in the same order, whatever of them may raise."""
    return [replace(e, raises=True) for e in one] == [replace(e, raises=True) for e in other]
