"""The kinds of connectors that a configuration may name: a new one is listed here, and nowhere else."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from connectors.base import Source
from connectors.lidar.config import LidarConfig
from connectors.lidar.source import source as lidar_source
from connectors.media.config import AudioConfig, VideoConfig
from connectors.media.source import audio_source, video_source
from connectors.mqtt.config import MqttConfig
from connectors.mqtt.source import source as mqtt_source
from connectors.opcua.config import OpcUaConfig
from connectors.opcua.source import source as opcua_source
from connectors.replay import ReplayConfig, replay_source
from fusion.errors import ConfigError, FusionError
from fusion.plain import decode
from fusion.plant import Plant

KINDS: Mapping[str, tuple[type, Callable[..., Source]]] = {
    "opcua": (OpcUaConfig, opcua_source),
    "mqtt": (MqttConfig, mqtt_source),
    "video": (VideoConfig, video_source),
    "audio": (AudioConfig, audio_source),
    "lidar": (LidarConfig, lidar_source),
    "replay": (ReplayConfig, replay_source),
}
"""The settings of each kind, and what makes a supervised source of them."""


def settings_of(values: Any, key: str) -> Any:
    """The settings of a connector from plain values with its ``kind``; ``key`` is where they stand.

    Raises:
        ConfigError: naming the full key and what would be accepted.
    """
    given = dict(values) if isinstance(values, Mapping) else {}
    kind = given.pop("kind", None)
    if kind not in tuple(KINDS):
        said = "missing" if kind is None else f"{kind!r} is not accepted"
        raise ConfigError(f"{key}.kind: {said}; expected one of {', '.join(KINDS)}")
    settings, _ = KINDS[kind]
    return decode(given, settings, key)


def source_of(config: Any, plant: Plant, name: str = "") -> Source:
    """A source of a connector's settings; without a ``name`` that of its kind.

    Raises:
        ConfigError: where the settings do not fit the plant.
    """
    kind, make = next((kind, make) for kind, (settings, make) in KINDS.items() if type(config) is settings)
    return make(config, plant, name or kind)


def made_sources(connectors: Mapping[str, Any], plant: Plant) -> list[Source]:
    """A source for each connector of a configuration, by name.

    Raises:
        FusionError: where one cannot be made, with the key of its connector.
    """
    return [_made(config, plant, name) for name, config in connectors.items()]


def _made(config: Any, plant: Plant, name: str) -> Source:
    try:
        return source_of(config, plant, name)
    except FusionError as error:
        raise type(error)(f"connectors.{name}: {error}") from error
