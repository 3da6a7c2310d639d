"""The alarm desk: what the detector tells and operators order becomes the alarm list, on disk before it is told."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

from control.anomaly.alarms import AlarmConfig, AlarmLog
from control.anomaly.rules import AlarmRules
from fusion.alarms import Alarm, AlarmOrder
from fusion.daemon.store import Kept, Store
from fusion.outcome import Outcome
from fusion.plant import Plant
from fusion.records import Anomaly, AnomalyState

log = logging.getLogger(__name__)


class AlarmDesk:
    """The list and its copy in the store; without a store it lasts as long as the process.

    ``untold`` are the anomalies whose last change may not have reached an outbox yet. ``plant`` is needed where the
    settings have rules for alarms.

    Raises:
        ConfigError: where they name what the plant does not have.
    """

    def __init__(
        self, config: AlarmConfig | None = None, store: Store | None = None, plant: Plant | None = None
    ) -> None:
        config = config or AlarmConfig()
        self._rules = AlarmRules(config.suppress, config.priorities, plant)
        kept = store.read(config) if store else Kept(alarms=AlarmLog(config))
        self.log, self.sequence, self.notes, self.flags = kept.alarms, kept.sequence, kept.notes, kept.flags
        self.untold, self._saved = set(kept.untold), kept.untold
        self.trouble = ""
        self._store = store
        self._telling = 0

    @property
    def open(self) -> tuple[Anomaly, ...]:
        """The anomalies that stand."""
        return tuple(alarm.anomaly for alarm in self.log.active)

    @property
    def stale(self) -> bool:
        """Whether what is on the disk is not what it should be."""
        return bool(self.trouble) or self._saved != self.untold

    @contextlib.contextmanager
    def telling(self, settled: bool) -> Iterator[None]:
        """The time from a change to its being handed over; ``settled`` is whether all handed over before is safe."""
        self.settle(settled)
        self._telling += 1
        try:
            yield
        finally:
            self._telling -= 1

    def settle(self, settled: bool) -> None:
        """Note that what was told is safe, where nobody is about to tell something."""
        if settled and not self._telling:
            self.untold.clear()

    def take(self, outcome: Outcome) -> tuple[Outcome, tuple[Alarm, ...]]:
        """Note what a tick changed, and close what stands here and nowhere else.

        Returned are the outcome with what was closed, and the alarms that were raised or returned, or of which
        the rules say something else than before.
        """
        ghosts = self._ghosts(outcome) if outcome.ticks is not None else ()
        if ghosts:
            outcome = replace(outcome, anomalies=(*outcome.anomalies, *ghosts))
        self.untold.update(anomaly.id for anomaly in outcome.anomalies)
        changed = {alarm.anomaly.id: alarm for alarm in self.log.record(outcome.anomalies)}
        self._rules.see(outcome.frame)
        judged = {alarm.anomaly.id: alarm for alarm in self.log.judge(self._rules)}
        self.untold.update(judged)
        return outcome, tuple((changed | judged).values())

    def obey(self, order: AlarmOrder, t_ns: int) -> Alarm | None:
        """Do what an operator says; None where that changes nothing.

        Raises:
            ConfigError: where it cannot be done; the text says why.
        """
        alarm = self.log.obey(order, t_ns)
        if alarm is not None:
            self.untold.add(order.id)
        return alarm

    def unshelve_due(self, t_ns: int) -> tuple[Alarm, ...]:
        """Take back what was shelved until now."""
        due = self.log.unshelve_due(t_ns)
        self.untold.update(alarm.anomaly.id for alarm in due)
        return due

    def again(self) -> list[Alarm]:
        """What may not have been heard of before the restart."""
        return [alarm for alarm in self.log.alarms if alarm.anomaly.id in self.untold]

    def save(self, alarms: Sequence[Alarm], untold: Collection[str], sequence: int, notes: Mapping[str, Any]) -> None:
        """Put these on the disk, in whatever thread; where it takes them not, that is said, and to be tried again."""
        try:
            if self._store is not None:
                self._store.write(alarms, sequence, untold, notes)
        except OSError as error:
            if not self.trouble:
                log.error("state: alarms are not kept: %s", error)
            self.trouble = f"alarms are not kept: {error}"
        else:
            self.notes, self._saved, self.trouble = notes, frozenset(untold), ""

    def close(self) -> None:
        """Let go of the store."""
        if self._store is not None:
            self._store.close()

    def _ghosts(self, outcome: Outcome) -> tuple[Anomaly, ...]:
        """What the detector neither holds nor tells: it is not so any more."""
        known = {anomaly.id for anomaly in (*outcome.open_anomalies, *outcome.anomalies)}
        lost = [anomaly for anomaly in self.open if anomaly.id not in known]
        for anomaly in lost:
            log.warning("alarm %s: the detector does not hold it any more; it has returned", anomaly.id)
        return tuple(replace(anomaly, t_ns=outcome.frame.t_ns, state=AnomalyState.CLEARED) for anomaly in lost)
