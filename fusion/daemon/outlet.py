"""Where a tick's outcome goes: the MQTT broker with previews for pages, or a file of JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from fusion.alarms import Alarm, Order
from fusion.daemon.follower import Heard
from fusion.daemon.seat import Seat
from fusion.health import Health
from fusion.inference import Engine
from fusion.outcome import Outcome
from fusion.plain import plain
from fusion.plant import Modality, Plant, Role
from fusion.prospects import Prospect, Question
from fusion.publish.encoding import alarm_message, energy_message, ledger_message, to_message
from fusion.publish.messages import Delivery, EnergyMessage, SurpriseOut, encode
from fusion.publish.preview import cloud_bytes, picture_png, spectrogram
from fusion.publish.publisher import MqttPublisher
from fusion.records import Answer, Forecast, Gap


class Outlet(Protocol):
    """What the daemon needs of a place for its results; it never blocks, and raises once it has failed for good."""

    def outcome(self, outcome: Outcome) -> None:
        """Take everything one tick produced."""

    def health(self, health: Health) -> None:
        """Take the state of the daemon."""

    def gap(self, gap: Gap) -> None:
        """Take a stretch without data of one source."""

    def alarm(self, alarm: Alarm, t_ns: int) -> None:
        """Take a change in the life of an alarm."""

    def again(self, alarm: Alarm, t_ns: int) -> None:
        """Take an alarm and its anomaly once more: it may not have been heard of before a restart."""

    def answers(self) -> Sequence[Answer]:
        """What was answered to recommendations since the last call."""

    def orders(self) -> Sequence[Order]:
        """What operators said of alarms, stretches of time and advice since the last call."""

    def questions(self) -> Sequence[Question]:
        """What was asked about the future since the last call."""

    @property
    def verifier(self) -> Heard | None:
        """What the verifier said last of itself; None before it has said anything."""

    def prospect(self, prospect: Prospect) -> None:
        """Take the answer to a question."""

    def refused(self, what: str) -> None:
        """Count something that was read and cannot be done."""

    @property
    def settled(self) -> bool:
        """Whether all that must arrive would outlive the process now."""

    @property
    def trouble(self) -> str:
        """What stands in the way of delivery now, in words."""

    @property
    def flags(self) -> Sequence[str]:
        """What was found amiss at the start."""

    @property
    def delivery(self) -> Delivery | None:
        """What became of the messages so far; None where nothing counts them."""

    def close(self) -> None:
        """Say goodbye."""


class MqttOutlet:
    """Publishes records, surprise and previews."""

    def __init__(self, publisher: MqttPublisher, engine: Engine | Seat) -> None:
        self._publisher, self._engine = publisher, engine
        self._plant = engine.plant
        publisher.start()

    def outcome(self, outcome: Outcome) -> None:
        """Publish one tick."""
        self._publisher.model_id = self._engine.model_id
        send = self._publisher.publish
        send(outcome.frame)
        if (energy := energy_of(outcome, self._engine)) is not None:
            send(energy)
        advice = () if outcome.recommendation is None else (outcome.recommendation,)
        send(*outcome.anomalies, *advice)
        if outcome.ledger is not None:
            send(ledger_message(outcome.ledger, self._plant, outcome.frame.t_ns, self._engine.model_id, outcome.manual))
        if outcome.progression is not None:
            send(outcome.progression)
        if outcome.forecast is not None:
            send(shown(outcome.forecast, self._plant))
        self._previews(outcome)

    def health(self, health: Health) -> None:
        """Publish health, retained."""
        self._publisher.publish(health)

    def gap(self, gap: Gap) -> None:
        """Publish a gap."""
        self._publisher.publish(gap)

    def alarm(self, alarm: Alarm, t_ns: int) -> None:
        """Publish an alarm."""
        self._publisher.publish(alarm_message(alarm, self._plant, t_ns))

    def again(self, alarm: Alarm, t_ns: int) -> None:
        """Publish both, the anomaly under the name it had."""
        self._publisher.publish(alarm.anomaly)
        self.alarm(alarm, t_ns)

    def answers(self) -> Sequence[Answer]:
        """Answers that came over MQTT."""
        return self._publisher.answers()

    def orders(self) -> Sequence[Order]:
        """Orders that came over MQTT."""
        return self._publisher.orders()

    def questions(self) -> Sequence[Question]:
        """Questions that came over MQTT."""
        return self._publisher.questions()

    @property
    def verifier(self) -> Heard | None:
        """What came over MQTT."""
        said = self._publisher.verifier
        return None if said is None else Heard(*said)

    def prospect(self, prospect: Prospect) -> None:
        """Publish an answer."""
        self._publisher.publish(prospect)

    def refused(self, what: str) -> None:
        """Count it among what was dropped."""
        self._publisher.dropped[what] += 1

    @property
    def settled(self) -> bool:
        """Whether the outbox has everything."""
        return self._publisher.settled

    @property
    def trouble(self) -> str:
        """Trouble of the outbox or the broker."""
        return self._publisher.trouble

    @property
    def flags(self) -> Sequence[str]:
        """Whether the outbox was damaged."""
        return self._publisher.flags

    @property
    def delivery(self) -> Delivery:
        """The publisher's counts."""
        return self._publisher.delivery

    def close(self) -> None:
        """Publish ``offline`` and disconnect."""
        self._publisher.close()

    def _previews(self, outcome: Outcome) -> None:
        for signal in self._plant.media:
            value = outcome.frame.media[signal.name].value
            if value is None:
                continue
            if signal.modality is Modality.VIDEO:
                self._publisher.publish_preview(signal.name, picture_png(value))
            elif signal.modality is Modality.AUDIO:
                sound = spectrogram(self._plant, signal, value, outcome.frame.t_ns)
                self._publisher.publish_preview(signal.name, sound)
            else:
                self._publisher.publish_preview(signal.name, cloud_bytes(value))


class FileOutlet:
    """Writes anomalies, recommendations and trends, one JSON message per line; health is not of interest in replay."""

    def __init__(self, file: Path, plant: Plant, model_id: str) -> None:
        self._stream: IO[bytes] = file.open("wb")
        self._plant, self._model_id = plant, model_id

    def outcome(self, outcome: Outcome) -> None:
        """Write what one tick produced."""
        advice = () if outcome.recommendation is None else (outcome.recommendation,)
        told = outcome.progression
        trends = () if told is None or not (told.trends or told.states) else (told,)
        for record in (*outcome.anomalies, *advice, *trends):
            self._stream.write(encode(to_message(record, self._plant, self._model_id)) + b"\n")

    def health(self, health: Health) -> None:
        """Ignore the state of the daemon."""

    def gap(self, gap: Gap) -> None:
        """A recording that is replayed has none of its own."""

    def alarm(self, alarm: Alarm, t_ns: int) -> None:
        """Nobody operates a file."""

    def again(self, alarm: Alarm, t_ns: int) -> None:
        """A file begins with its recording."""

    def answers(self) -> Sequence[Answer]:
        """No answers: nobody reads a file while it is written."""
        return ()

    def orders(self) -> Sequence[Order]:
        """No orders either."""
        return ()

    def questions(self) -> Sequence[Question]:
        """Nor questions."""
        return ()

    @property
    def verifier(self) -> None:
        """A file has none."""
        return None

    def prospect(self, prospect: Prospect) -> None:
        """Nobody asked."""

    def refused(self, what: str) -> None:
        """Nothing is read, so nothing is refused."""

    @property
    def settled(self) -> bool:
        """What is written stays."""
        return True

    @property
    def trouble(self) -> str:
        """None that does not end the replay."""
        return ""

    @property
    def flags(self) -> Sequence[str]:
        """Nothing is found: the file is new."""
        return ()

    @property
    def delivery(self) -> None:
        """A file takes all."""
        return None

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()


class Outlets:
    """Several outlets as one."""

    def __init__(self, outlets: Sequence[Outlet]) -> None:
        self._outlets = outlets

    def outcome(self, outcome: Outcome) -> None:
        """Give a tick to each."""
        for outlet in self._outlets:
            outlet.outcome(outcome)

    def health(self, health: Health) -> None:
        """Give the state of the daemon to each."""
        for outlet in self._outlets:
            outlet.health(health)

    def gap(self, gap: Gap) -> None:
        """Give a gap to each."""
        for outlet in self._outlets:
            outlet.gap(gap)

    def alarm(self, alarm: Alarm, t_ns: int) -> None:
        """Give an alarm to each."""
        for outlet in self._outlets:
            outlet.alarm(alarm, t_ns)

    def again(self, alarm: Alarm, t_ns: int) -> None:
        """Give it to each."""
        for outlet in self._outlets:
            outlet.again(alarm, t_ns)

    def answers(self) -> Sequence[Answer]:
        """Answers that any of them heard."""
        return [answer for outlet in self._outlets for answer in outlet.answers()]

    def orders(self) -> Sequence[Order]:
        """Orders that any of them heard."""
        return [order for outlet in self._outlets for order in outlet.orders()]

    def questions(self) -> Sequence[Question]:
        """Questions that any of them heard."""
        return [question for outlet in self._outlets for question in outlet.questions()]

    @property
    def verifier(self) -> Heard | None:
        """The newest that any of them heard."""
        heard = [said for outlet in self._outlets if (said := outlet.verifier) is not None]
        return max(heard, key=lambda said: said.at_s, default=None)

    def prospect(self, prospect: Prospect) -> None:
        """Give an answer to each."""
        for outlet in self._outlets:
            outlet.prospect(prospect)

    def refused(self, what: str) -> None:
        """Let each count."""
        for outlet in self._outlets:
            outlet.refused(what)

    @property
    def settled(self) -> bool:
        """Whether all are."""
        return all(outlet.settled for outlet in self._outlets)

    @property
    def trouble(self) -> str:
        """That of all."""
        return "; ".join(outlet.trouble for outlet in self._outlets if outlet.trouble)

    @property
    def flags(self) -> Sequence[str]:
        """Those of all."""
        return [flag for outlet in self._outlets for flag in outlet.flags]

    @property
    def delivery(self) -> Delivery | None:
        """That of the first that counts."""
        return next((found for outlet in self._outlets if (found := outlet.delivery) is not None), None)

    def close(self) -> None:
        """Close all."""
        for outlet in self._outlets:
            outlet.close()


def shown(forecast: Forecast, plant: Plant) -> Forecast:
    """A forecast of the controlled signals alone, small enough for every few seconds."""
    keep = [i for i, name in enumerate(forecast.signals) if plant.by_name[name].role is Role.CONTROLLED]
    return Forecast(
        t_ns=forecast.t_ns,
        horizon_s=forecast.horizon_s,
        signals=tuple(forecast.signals[i] for i in keep),
        mean=forecast.mean[:, keep],
        low=forecast.low[:, keep],
        high=forecast.high[:, keep],
        model_id=forecast.model_id,
    )


def energy_of(outcome: Outcome, engine: Engine | Seat) -> EnergyMessage | None:
    """The surprise of a tick, by modality and by energy; None before the first."""
    surprise, calibration = outcome.surprise, engine.calibration
    if surprise is None or calibration is None:
        return None
    rows = [
        SurpriseOut(name=name, modality=modality, value=plain(value), limit=calibration.threshold, p_value=None)
        for name, modality, value in zip(calibration.names, calibration.modality, surprise.standardised, strict=True)
    ]
    groups = []
    for modality in dict.fromkeys(calibration.modality):
        values = surprise.standardised[np.array([m == modality for m in calibration.modality])]
        p_value = float(calibration.p_values(np.array([_largest(values)]))[0])
        value = plain(_largest(values))
        groups.append(
            SurpriseOut(name=modality, modality=modality, value=value, limit=calibration.threshold, p_value=p_value)
        )
    limit = float(calibration.p_values(np.array([calibration.threshold]))[0])
    t_ns = outcome.frame.t_ns
    return energy_message(
        engine.plant, t_ns, groups, rows, p_value=surprise.p_value, p_limit=limit, model_id=engine.model_id
    )


def _largest(values: NDArray[np.float64]) -> float:
    present = values[np.isfinite(values)]
    return float(present.max()) if len(present) else float("nan")
