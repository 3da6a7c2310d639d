"""A supervised source of the topics of one broker."""

from __future__ import annotations

from collections.abc import Sequence

from connectors.base import Driver, Source, Tally
from connectors.mqtt.config import MqttConfig, TopicConfig
from connectors.mqtt.payload import Extractor
from connectors.settings import signal_of
from fusion.errors import ConfigError
from fusion.mqtt.broker import client_name
from fusion.plant import Modality, Plant


def source(config: MqttConfig, plant: Plant, name: str = "mqtt") -> Source:
    """A source of the configured topics.

    Raises:
        ConfigError: a signal that the plant does not have, no topic at all, or an unreadable password or certificate.
    """
    from connectors.mqtt.session import MqttSession

    if not config.topics and not config.sparkplug:
        raise ConfigError("mqtt.topics: no topics")
    config.check()
    names = [signal for topic in config.topics for _, signal in topic.expanded()]
    names += [signal for one in config.sparkplug for signal in one.named()]
    signals = [signal_of(plant, "mqtt.topics", tag, Modality.PROCESS) for tag in dict.fromkeys(names)]
    if len(signals) < len(names):
        raise ConfigError("mqtt.topics: a signal is named twice")
    tally = Tally()
    client_id = client_name()
    extractors = _extractors(config.topics, [signal.name for signal in signals], tally)
    subscriptions = list(dict.fromkeys(found.topic for topic in config.topics for found, _ in topic.expanded()))

    def connect() -> Driver:
        return MqttSession(config, client_id, subscriptions, extractors, tuple(s.name for s in signals), tally)

    return Source(name, signals, connect, config.supervision, tally=tally)


def _extractors(topics: Sequence[TopicConfig], signals: list[str], tally: Tally) -> dict[str, list[Extractor]]:
    """What to take from a message of each topic."""
    found: dict[str, list[Extractor]] = {}
    for config in topics:
        for one, signal in config.expanded():
            found.setdefault(one.bare, []).append(Extractor(one, signal, signals.index(signal), tally))
    return found
