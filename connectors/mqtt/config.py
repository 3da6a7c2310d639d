"""MQTT: plain numbers and JSON from any broker, protocol 5 or 3.1.1.

A payload that is no number is a value of bad quality, never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import ClassVar

from connectors.mqtt.paths import parse_path
from connectors.settings import Supervision, choose
from fusion.errors import ConfigError
from fusion.mqtt.broker import Broker

FORMATS = ("json", "plain")
TIME_UNITS = ("ns", "us", "ms", "s", "iso")
CHOICES = {
    "format": FORMATS,
    "time_unit": TIME_UNITS,
    "quality_code": ("opcua", "opcda", "profibus"),
    "quality_missing": ("good", "uncertain", "bad"),
    "decimal": (".", ","),
}


@dataclass(kw_only=True, slots=True)
class TopicConfig:
    """One topic and the signal it carries, or ``{signal}`` in topic or paths for a list of ``signals``.

    A plain payload is a number, true or false. In a JSON payload the paths name keys from the outside in, separated
    by dots, in quotes where they hold dots themselves (``data."1.7.0"``); ``values[id=TT101].v`` is the element of a
    list whose ``id`` is TT101, wherever it stands. Numbers may be text, with ``decimal`` before the decimals;
    ``states`` are words that stand for numbers. ``time_unit`` is ns, us, ms, s since 1970 or iso. A quality is good,
    uncertain or bad, a truth value, or a code of the kind ``quality_code``; where the payload has none it is
    ``quality_missing``.
    """

    topic: str
    signal: str | None = None
    signals: list[str] = field(default_factory=list)
    format: str = "json"
    value_path: str = "value"
    time_path: str | None = None
    time_unit: str = "ns"
    quality_path: str | None = None
    quality_code: str = "opcua"
    quality_missing: str = "uncertain"
    decimal: str = "."
    states: dict[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject a topic that could not say which signal it carries."""
        for name, accepted in CHOICES.items():
            choose(self.key(name), getattr(self, name), accepted)
        if not self.bare or any(sign in self.topic for sign in "+#"):
            raise ConfigError(f"mqtt.topics: {self.topic!r} is not accepted; wildcards cannot name one signal")
        named = any("{signal}" in text for text in (self.topic, self.value_path))
        if named != bool(self.signals) or bool(self.signals) == bool(self.signal):
            raise ConfigError(
                f"mqtt.topics.{self.topic}: give signal, or signals and {{signal}} in topic or value_path"
            )
        if {"True", "False"} & self.states.keys():
            raise ConfigError(
                f'{self.key("states")}: write words such as "ON" in quotes, ON alone is a truth value to YAML'
            )
        for name in ("value_path", "time_path", "quality_path"):
            parse_path(self.key(name), getattr(self, name) or "")

    def key(self, name: str) -> str:
        """Where a setting stands, for messages."""
        return f"mqtt.topics.{self.topic}.{name}"

    @property
    def bare(self) -> str:
        """The topic of its messages: without the group of a shared subscription (``$share/group/topic``)."""
        return self.topic.split("/", 2)[-1] if self.topic.startswith("$share/") else self.topic

    def expanded(self) -> list[tuple[TopicConfig, str]]:
        """Pairs of the settings for one signal, and its name."""
        if self.signal is not None:
            return [(self, self.signal)]
        return [(self._of(name), name) for name in self.signals]

    def _of(self, signal: str) -> TopicConfig:
        texts = {name: getattr(self, name) for name in ("topic", "value_path", "time_path", "quality_path")}
        named = {name: text and text.replace("{signal}", signal) for name, text in texts.items()}
        return replace(self, signal=signal, signals=[], **named)


@dataclass(kw_only=True, slots=True)
class SparkplugConfig:
    """A Sparkplug B edge ``node`` of a ``group``, and what to take from it or one ``device`` of it.

    ``metrics`` are signals and the names of their metrics; ``signals`` are named as their metrics are.
    """

    group: str
    node: str
    device: str = ""
    metrics: dict[str, str] = field(default_factory=dict)
    signals: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Reject names that no topic can hold."""
        for name in ("group", "node", "device"):
            text = getattr(self, name)
            if any(sign in text for sign in "+#/") or (not text and name != "device"):
                raise ConfigError(
                    f"mqtt.sparkplug.{name}: {text!r} is not accepted; expected a name without +, # and /"
                )

    def named(self) -> dict[str, str]:
        """The metric of each signal."""
        return {**{name: name for name in self.signals}, **self.metrics}


@dataclass(kw_only=True, slots=True)
class MqttConfig(Broker):
    """One broker and what to take from it.

    ``silence_s`` makes a broker that delivers no message at all for so long count as lost; without it only the
    keep-alive decides.
    """

    SECTION: ClassVar[str] = "mqtt"

    topics: list[TopicConfig] = field(default_factory=list)
    sparkplug: list[SparkplugConfig] = field(default_factory=list)
    qos: int = 0
    silence_s: float | None = None
    max_payload_bytes: int = 65_536
    supervision: Supervision = field(default_factory=Supervision)

    def __post_init__(self) -> None:
        """Reject what no broker can be reached with."""
        Broker.__post_init__(self)  # a class with slots is made twice: super() would not find itself
        if self.qos not in (0, 1, 2):
            raise ConfigError(f"mqtt.qos: {self.qos} is not accepted; expected 0, 1 or 2")
        if self.max_payload_bytes < 1:
            raise ConfigError("mqtt.max_payload_bytes: must be at least 1")
