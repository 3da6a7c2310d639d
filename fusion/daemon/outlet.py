"""Where a tick's outcome goes: the MQTT broker with previews for pages, or a file of JSON lines."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import IO, Protocol

import numpy as np
from numpy.typing import NDArray

from fusion.inference import Engine, Outcome
from fusion.plant import Modality, Plant, Role
from fusion.publish.encoding import energy_message, to_message
from fusion.publish.messages import EnergyMessage, Surprise, encode
from fusion.publish.preview import cloud_bytes, picture_png, spectrogram
from fusion.publish.publisher import MqttPublisher
from fusion.records import Forecast, Health


class Outlet(Protocol):
    """What the daemon needs of a place for its results; it never blocks, and raises once it has failed for good."""

    def outcome(self, outcome: Outcome) -> None:
        """Take everything one tick produced."""

    def health(self, health: Health) -> None:
        """Take the state of the daemon."""

    def close(self) -> None:
        """Say goodbye."""


class MqttOutlet:
    """Publishes records, surprise and previews; a recommendation only when it is a new one."""

    def __init__(self, publisher: MqttPublisher, engine: Engine) -> None:
        self._publisher, self._engine = publisher, engine
        self._plant = engine.plant
        self._last_advice = ""
        publisher.start()

    def outcome(self, outcome: Outcome) -> None:
        """Publish one tick."""
        send = self._publisher.publish
        send(outcome.frame)
        if (energy := energy_of(outcome, self._engine)) is not None:
            send(energy)
        for anomaly in outcome.anomalies:
            send(anomaly)
        if outcome.forecast is not None:
            send(shown(outcome.forecast, self._plant))
        advice = outcome.recommendation
        if advice is not None and advice.id != self._last_advice:
            self._last_advice = advice.id
            send(advice)
        self._previews(outcome)

    def health(self, health: Health) -> None:
        """Publish health, retained."""
        self._publisher.publish(health)

    def close(self) -> None:
        """Publish ``offline`` and disconnect."""
        self._publisher.close()

    def _previews(self, outcome: Outcome) -> None:
        for signal in self._plant.media:
            value = outcome.frame.values.get(signal.name)
            if not isinstance(value, np.ndarray):
                continue
            if signal.modality is Modality.VIDEO:
                self._publisher.publish_preview(signal.name, picture_png(value))
            elif signal.modality is Modality.AUDIO:
                sound = spectrogram(self._plant, signal, value, outcome.frame.t_ns)
                self._publisher.publish_preview(signal.name, sound)
            else:
                self._publisher.publish_preview(signal.name, cloud_bytes(value))


class FileOutlet:
    """Writes anomalies and recommendations, one JSON message per line; health is not of interest in replay."""

    def __init__(self, file: Path, plant: Plant, model_id: str) -> None:
        self._stream: IO[bytes] = file.open("wb")
        self._plant, self._model_id = plant, model_id
        self._last_advice = ""

    def outcome(self, outcome: Outcome) -> None:
        """Write what one tick produced."""
        advice = outcome.recommendation
        news = [*outcome.anomalies]
        lines = [to_message(anomaly, self._plant, self._model_id) for anomaly in news]
        if advice is not None and advice.id != self._last_advice:
            self._last_advice = advice.id
            lines.append(to_message(advice, self._plant, self._model_id))
        for line in lines:
            self._stream.write(encode(line) + b"\n")

    def health(self, health: Health) -> None:
        """Nothing to write."""

    def close(self) -> None:
        """Finish the file."""
        self._stream.close()


class Outlets:
    """Several outlets as one."""

    def __init__(self, outlets: Sequence[Outlet]) -> None:
        self._outlets = outlets

    def outcome(self, outcome: Outcome) -> None:
        """Pass on."""
        for outlet in self._outlets:
            outlet.outcome(outcome)

    def health(self, health: Health) -> None:
        """Pass on."""
        for outlet in self._outlets:
            outlet.health(health)

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
    )


def energy_of(outcome: Outcome, engine: Engine) -> EnergyMessage | None:
    """The surprise of a tick, by modality and by energy; None before the first."""
    surprise, calibration = outcome.surprise, engine.calibration
    if surprise is None:
        return None
    rows = [
        Surprise(name=name, modality=modality, value=_number(value), limit=calibration.threshold, p_value=None)
        for name, modality, value in zip(calibration.names, calibration.modality, surprise.standardised, strict=True)
    ]
    groups = []
    for modality in dict.fromkeys(calibration.modality):
        values = surprise.standardised[np.array([m == modality for m in calibration.modality])]
        p_value = float(calibration.p_values(np.array([_largest(values)]))[0])
        value = _number(_largest(values))
        groups.append(
            Surprise(name=modality, modality=modality, value=value, limit=calibration.threshold, p_value=p_value)
        )
    limit = float(calibration.p_values(np.array([calibration.threshold]))[0])
    t_ns = outcome.frame.t_ns
    return energy_message(
        engine.plant, t_ns, groups, rows, p_value=surprise.p_value, p_limit=limit, model_id=engine.model_id
    )


def _largest(values: NDArray[np.float64]) -> float:
    present = values[np.isfinite(values)]
    return float(present.max()) if len(present) else float("nan")


def _number(value: float) -> float | None:
    return float(value) if np.isfinite(value) else None
