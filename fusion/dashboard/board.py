"""What the page knows: the last message of each kind and bounded histories; no browser, no network."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from functools import cached_property

from fusion.alarms import AlarmState
from fusion.clock import STEP_NS
from fusion.dashboard.acts import ActLog
from fusion.dashboard.courses import Points
from fusion.dashboard.layout import loop_of
from fusion.dashboard.previews import POINT_BYTES, Picture, Sound, picture_of, sound_after
from fusion.dashboard.simulated import Simulator, simulator_of
from fusion.dashboard.words import unit_text
from fusion.errors import FusionError
from fusion.plant import Modality, Plant, Role
from fusion.publish.messages import (
    AlarmMessage,
    AlarmOut,
    AnomalyMessage,
    AnyMessage,
    EnergyMessage,
    ForecastMessage,
    FrameMessage,
    HealthMessage,
    LedgerMessage,
    RecommendationMessage,
    SpectrogramMessage,
    SurpriseOut,
    WhatifMessage,
    decode,
)
from fusion.publish.progression import ProgressionMessage
from fusion.records import NS_PER_S, AnomalyState

log = logging.getLogger(__name__)

SILENT_AFTER_S = 6.0
CLEARED_KEPT = 5
EXPECTED_KEPT = 600
SINCE_KEPT = 1000
OVERLOAD_S = 60.0
ORDERS = ("ack", "order", "request")
EVENTS_KEPT = 500
ANSWERS_KEPT = 50
PEAK_NS, PEAKS_KEPT = 10 * NS_PER_S, 8640


class Board:
    """The state behind every open page, changed only by ``take``; ``window_s`` bounds the histories.

    ``daemon`` is the state that the daemon said last; ``health`` is its last full health, which stays when it goes
    offline, and ``told`` whether the last word was a full one. What stands is what the last full health lists, and what
    was said since. ``expected`` is what was expected of signals, by the id of the event. Times in histories are UTC
    milliseconds, as charts want them, and None is a tick without a value. ``clock`` gives monotonic seconds.
    """

    def __init__(
        self,
        plant: Plant | None,
        window_s: float,
        clock: Callable[[], float] = time.monotonic,
        acts: ActLog | None = None,
    ) -> None:
        self.plant = plant
        self.name = plant.name if plant else ""
        self.window_s = window_s
        self.daemon = ""
        self.told = False
        self.health: HealthMessage | None = None
        self.frame: FrameMessage | None = None
        self.forecast: ForecastMessage | None = None
        self.advice: RecommendationMessage | None = None
        self.energy: EnergyMessage | None = None
        self.anomalies: dict[str, AnomalyMessage] = {}
        self.alarms: dict[str, AlarmOut] = {}
        self.evidence: dict[str, AnomalyMessage] = {}
        self.cleared: list[AnomalyMessage] = []
        self.events: dict[str, AnomalyMessage] = {}
        self.acts = acts or ActLog()
        self.ledger: LedgerMessage | None = None
        self.progression: ProgressionMessage | None = None
        self.answers: dict[str, WhatifMessage] = {}
        self.expected: dict[str, dict[str, Points]] = {}
        self.tags: dict[str, Points] = {}
        self.surprise: dict[str, Points] = {}
        self.peaks: dict[str, Points] = {}
        self.above_ns: dict[str, int] = {}
        self.pictures: dict[str, Picture] = {}
        self.sounds: dict[str, Sound] = {}
        self.clouds: dict[str, bytes] = {}
        self.simulator: Simulator | None = None
        self.rejected = 0
        self._since: deque[AnomalyMessage | AlarmMessage] = deque(maxlen=SINCE_KEPT)
        self._skipped: deque[tuple[float, int]] = deque()
        self._clock = clock
        self._heard_s: float | None = None
        self._newest_ns = 0
        self._newest_s = 0.0
        self._begun_ns = 0

    # -- time

    @property
    def begun_ns(self) -> int:
        """The daemon's time when it was first heard; now while it was not."""
        return self._begun_ns or self.now_ns

    @property
    def silent_s(self) -> float | None:
        """Seconds since the daemon was last heard; None before the first message."""
        return None if self._heard_s is None else self._clock() - self._heard_s

    @property
    def now_ns(self) -> int:
        """The daemon's time now: of its newest message, carried on; the same for live data and for replay."""
        elapsed_s = self._clock() - self._newest_s
        return self._newest_ns + int(elapsed_s * NS_PER_S) if self._newest_ns else time.time_ns()

    # -- names

    def controlled(self) -> list[str]:
        """Controlled signals, from the plant or, without one, from the last forecast."""
        if self.plant:
            return [s.name for s in self.plant.roles(Role.CONTROLLED) if s.modality is Modality.PROCESS]
        return [c.signal for c in self.forecast.signals if c.role == Role.CONTROLLED] if self.forecast else []

    def others(self) -> list[str]:
        """Every other process signal that may be shown."""
        known = [s.name for s in self.plant.of(Modality.PROCESS)] if self.plant else sorted(self.tags)
        return [name for name in known if name not in self.controlled()]

    def unit(self, name: str) -> str:
        """Unit of a signal as people write it, "" when unknown or a plain number."""
        if self.plant and name in self.plant.by_name:
            return unit_text(self.plant.by_name[name].unit)
        courses = self.forecast.signals if self.forecast else []
        return unit_text(next((c.unit for c in courses if c.signal == name), ""))

    def description(self, name: str) -> str:
        """What a signal is, "" when unknown."""
        return self.plant.by_name[name].description if self.plant and name in self.plant.by_name else ""

    def modality(self, name: str) -> Modality:
        """The kind of a signal, that of its previews where there is no plant."""
        if self.plant:
            return self.plant.by_name[name].modality if name in self.plant.by_name else Modality.PROCESS
        previews = ((self.pictures, Modality.VIDEO), (self.sounds, Modality.AUDIO), (self.clouds, Modality.LIDAR))
        return next((kind for known, kind in previews if name in known), Modality.PROCESS)

    def named(self, name: str) -> str:
        """A signal with what it is, or what it is alone where that begins with its name."""
        description = self.description(name)
        return description if description.lower().startswith(name.lower()) else f"{name} {description}".rstrip()

    def setpoint_of(self, name: str) -> str | None:
        """The manipulated setpoint of a controlled signal's loop, in the same unit."""
        if self.plant is None:
            return None
        loop = loop_of(name)
        unit = self.plant.by_name[name].unit if name in self.plant.by_name else ""
        matching = (s.name for s in self.plant.actions if s.name != name and loop_of(s.name) == loop and s.unit == unit)
        return next(matching, None)

    @cached_property
    def setpoints(self) -> dict[str, str]:
        """The setpoint of each controlled signal whose loop has one."""
        pairs = ((name, self.setpoint_of(name)) for name in (self.controlled() if self.plant else ()))
        return {name: setpoint for name, setpoint in pairs if setpoint}

    def beyond(self, name: str, value: float) -> tuple[bool, bool]:
        """Whether a value is below or above an operating limit of the plant's targets."""
        mine = [target for target in (self.plant.targets if self.plant else ()) if target.signal == name]
        low, high = [t.low for t in mine if t.low is not None], [t.high for t in mine if t.high is not None]
        return any(value < limit for limit in low), any(value > limit for limit in high)

    def value(self, name: str) -> float | None:
        """The last value of a process signal."""
        return self.frame.values.get(name) if self.frame else None

    def refusals(self, kind: str) -> int:
        """How many orders of a kind (mark, mode, model ...) the daemon says it has refused or not understood."""
        delivery = self.health.delivery if self.health else None
        return sum(n for what, n in (delivery.dropped if delivery else {}).items() if what.startswith(f"{kind}:"))

    @property
    def skipped_lately(self) -> int:
        """Ticks that the daemon left out in the last minute because it was too slow."""
        return self._skipped[-1][1] - self._skipped[0][1] if self._skipped else 0

    # -- messages

    def take(self, topic: str, payload: bytes) -> None:
        """Let one message in; one that cannot be read is counted and left."""
        levels = topic.split("/")
        if levels[0] == "simulator" and len(levels) == 3:
            self.simulator = simulator_of(payload)
            return
        if levels[0] != "fusion" or len(levels) < 4 or (self.name and levels[1] != self.name):
            return
        if levels[-1] in ORDERS:
            self.acts.heard(levels[3:], payload, self.now_ns)
            return
        self.name = self.name or levels[1]
        if levels[3] == "preview" and not payload.startswith(b"{"):
            self._take_media(levels[-1], payload)
            return
        try:
            self._take_message(decode(payload))
        except FusionError as error:
            self.rejected += 1
            log.debug("%s: %s", topic, error)

    def _take_message(self, message: AnyMessage) -> None:
        self._heard(message)
        match message:
            case HealthMessage():
                self._take_health(message)
            case AnomalyMessage():
                self._since.append(message)
                self._take_anomaly(message)
            case AlarmMessage():
                self._since.append(message)
                self._take_alarm(message.alarm)
                self.acts.told(message)
            case LedgerMessage():
                self.ledger = message
            case ProgressionMessage():
                self.progression = message
            case WhatifMessage():
                self.answers[message.id] = message
                while len(self.answers) > ANSWERS_KEPT:
                    self.answers.pop(next(iter(self.answers)))
            case ForecastMessage():
                self.forecast = message
            case RecommendationMessage():
                self.advice = message
            case FrameMessage():
                self._take_frame(message)
            case EnergyMessage():
                self.energy = message
                for surprise in message.by_modality:
                    self._note(self.surprise, surprise.modality or surprise.name, message.t_ns, surprise.value)
                    self._note_peak(surprise.modality or surprise.name, message.t_ns, surprise.value)
                    self._note_above(surprise, message.t_ns)
            case SpectrogramMessage():
                self._take_sound(message)

    def _heard(self, message: AnyMessage) -> None:
        if isinstance(message, HealthMessage) and message.state == "offline":
            return
        self._heard_s = self._clock()
        if isinstance(message, FrameMessage) or message.t_ns > self._newest_ns:
            self._newest_ns, self._newest_s = message.t_ns, self._clock()
            self._begun_ns = self._begun_ns or message.t_ns

    def _take_frame(self, frame: FrameMessage) -> None:
        if self.frame and frame.t_ns < self.frame.t_ns - STEP_NS:
            self.tags.clear()  # another recording began, or the daemon's clock was set back
            self.surprise.clear()
            self.peaks.clear()
            self.above_ns.clear()
        self.frame = frame
        for name in {**self.tags, **frame.values}:
            self._note(self.tags, name, frame.t_ns, frame.values.get(name))

    def _note(self, histories: dict[str, Points], name: str, t_ns: int, value: float | None) -> None:
        history = histories.setdefault(name, deque(maxlen=int(2 * self.window_s)))
        t_ms = t_ns // 1_000_000
        if not history or t_ms > history[-1][0]:
            history.append((t_ms, value))
        while history[0][0] < t_ms - self.window_s * 1000:
            history.popleft()

    def _note_peak(self, name: str, t_ns: int, value: float | None) -> None:
        """The largest surprise of each ten seconds of a day, for a page without recordings."""
        peaks = self.peaks.setdefault(name, deque(maxlen=PEAKS_KEPT))
        t_ms = t_ns // PEAK_NS * PEAK_NS // 1_000_000
        if peaks and peaks[-1][0] == t_ms:
            known = [v for v in (peaks.pop()[1], value) if v is not None]
            value = max(known, default=None)
        if not peaks or t_ms > peaks[-1][0]:
            peaks.append((t_ms, value))

    def _note_above(self, surprise: SurpriseOut, t_ns: int) -> None:
        name = surprise.modality or surprise.name
        if exceeds(surprise):
            self.above_ns.setdefault(name, t_ns)
        else:
            self.above_ns.pop(name, None)

    def _take_health(self, health: HealthMessage) -> None:
        """Let the daemon's word on what stands take the place of everything known, but for what was said after it.

        A birth or a last will says nothing of the plant, and takes nothing away.
        """
        self.daemon, self.told = health.state, health.state != "offline" and not _is_bare(health)
        if not self.told:
            return
        self.health = health
        self._note_skipped(health)
        self.anomalies.clear()
        self.alarms.clear()
        for anomaly in health.open_anomalies:
            self._take_anomaly(anomaly)
        for alarm in health.alarms:
            self._take_alarm(alarm)
        later = [message for message in self._since if message.t_ns > health.t_ns]
        self._since.clear()
        for message in later:  # was said while this health was on its way
            self._take_alarm(message.alarm) if isinstance(message, AlarmMessage) else self._take_anomaly(message)
        wanted = {*self.anomalies, *self.alarms, *(gone.id for gone in self.cleared)}
        wanted |= {anomaly.earlier for anomaly in self.anomalies.values()}
        self.evidence = {key: value for key, value in self.evidence.items() if key in wanted}
        self.expected = {key: value for key, value in self.expected.items() if key in wanted}

    def _note_skipped(self, health: HealthMessage) -> None:
        now_s = self._clock()
        if self._skipped and health.skipped_ticks < self._skipped[-1][1]:
            self._skipped.clear()  # another daemon counts
        self._skipped.append((now_s, health.skipped_ticks))
        while self._skipped[0][0] < now_s - OVERLOAD_S:
            self._skipped.popleft()

    def _take_anomaly(self, anomaly: AnomalyMessage) -> None:
        self.evidence[anomaly.id] = self.events[anomaly.id] = anomaly
        while len(self.events) > EVENTS_KEPT:
            self.events.pop(next(iter(self.events)))
        self._note_expected(anomaly)
        gone = [other for other in self.cleared if other.id != anomaly.id]
        if anomaly.state == AnomalyState.CLEARED:
            self.anomalies.pop(anomaly.id, None)
            gone.insert(0, anomaly)
        else:
            self.anomalies[anomaly.id] = anomaly
        self.cleared = gone[:CLEARED_KEPT]

    def _note_expected(self, anomaly: AnomalyMessage) -> None:
        """Keep what was expected of each blamed signal, whenever the daemon says something new."""
        courses = self.expected.setdefault(anomaly.id, {})
        for blame in anomaly.top_signals:
            course = courses.setdefault(blame.signal, deque(maxlen=EXPECTED_KEPT))
            said = (anomaly.t_ns // 1_000_000, blame.expected)
            if blame.expected is not None and (not course or (said[0] > course[-1][0] and said[1] != course[-1][1])):
                course.append(said)

    def _take_alarm(self, alarm: AlarmOut) -> None:
        self.alarms.pop(alarm.id, None)
        if alarm.state != AlarmState.NORMAL:
            self.alarms[alarm.id] = alarm

    def _take_sound(self, message: SpectrogramMessage) -> None:
        before = self.sounds.get(message.signal)
        self.sounds[message.signal] = sound_after(before, message)

    def _take_media(self, signal: str, payload: bytes) -> None:
        if (picture := picture_of(payload)) is not None:
            self.pictures[signal] = picture
        elif payload and len(payload) % POINT_BYTES == 0:
            self.clouds[signal] = payload
        else:
            self.rejected += 1

    def modalities(self) -> list[SurpriseOut]:
        """The newest surprise of each modality."""
        return list(self.energy.by_modality) if self.energy else []


def exceeds(surprise: SurpriseOut) -> bool:
    """Whether a surprise is above its limit."""
    return surprise.limit is not None and surprise.value is not None and surprise.value > surprise.limit


def _is_bare(health: HealthMessage) -> bool:
    return not health.plant_state and not health.sources and health.uptime_s is None
