"""MQTT: plain numbers and JSON from any broker, protocol 5 or 3.1.1.

A payload that is no number is a value of bad quality, never an exception.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from connectors.settings import Supervision, choose
from fusion.errors import ConfigError
from fusion.mqtt.broker import Broker

FORMATS = ("json", "plain")
TIME_UNITS = ("ns", "us", "ms", "s", "iso")


@dataclass(kw_only=True, slots=True)
class TopicConfig:
    """One topic and the signal it carries, or one pattern with ``{signal}`` for a list of ``signals``.

    A plain payload is a number, true or false. In a JSON payload the paths name keys from the outside in, separated
    by dots (``data.0.value``); ``time_unit`` is ns, us, ms, s since 1970 or iso. A quality is good, uncertain or bad,
    a truth value, or a 32-bit OPC UA status code.
    """

    topic: str
    signal: str | None = None
    signals: list[str] = field(default_factory=list)
    format: str = "json"
    value_path: str = "value"
    time_path: str | None = None
    time_unit: str = "ns"
    quality_path: str | None = None

    def __post_init__(self) -> None:
        """Reject a topic that could not say which signal it carries."""
        choose(f"mqtt.topics.{self.topic}.format", self.format, FORMATS)
        choose(f"mqtt.topics.{self.topic}.time_unit", self.time_unit, TIME_UNITS)
        if not self.topic or any(sign in self.topic for sign in "+#"):
            raise ConfigError(f"mqtt.topics: {self.topic!r} is not accepted; wildcards cannot name one signal")
        if ("{signal}" in self.topic) != bool(self.signals) or bool(self.signals) == bool(self.signal):
            raise ConfigError(f"mqtt.topics.{self.topic}: give signal, or {{signal}} in the topic and signals")

    def expanded(self) -> list[tuple[str, str]]:
        """Pairs of topic and signal."""
        if self.signal is not None:
            return [(self.topic, self.signal)]
        return [(self.topic.replace("{signal}", name), name) for name in self.signals]


@dataclass(kw_only=True, slots=True)
class MqttConfig(Broker):
    """One broker and what to take from it.

    ``silence_s`` makes a broker that delivers no message at all for so long count as lost; without it only the
    keep-alive decides.
    """

    SECTION: ClassVar[str] = "mqtt"

    topics: list[TopicConfig]
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
