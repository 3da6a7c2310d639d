"""Ask every address what it has, by the protocol that it names."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from connectors.lidar.config import LidarConfig
from connectors.media.config import MediaConfig
from connectors.mqtt.config import MqttConfig
from connectors.opcua.config import OpcUaConfig
from connectors.settings import redacted
from fusion.errors import ConfigError, FusionError
from fusion.site.found import Found
from fusion.site.proposal import counts

FORMS = "opc.tcp://HOST:PORT, mqtt://HOST:PORT, mqtts://HOST:PORT, rtsp://HOST:PORT/PATH, lidar://HOST:PORT"
PORTS = {"mqtt": 1883, "mqtts": 8883, "lidar": 2368, "udp": 2368}
EVERYWHERE = "0.0.0.0"  # noqa: S104 - where a LiDAR sends to is for it to say


@dataclass(frozen=True, slots=True, kw_only=True)
class DiscoverConfig:
    """How to look: for how long, at what, as whom.

    ``site`` is the folder that keeps certificates. ``only`` is a pattern of names and paths, for MQTT also a topic
    filter; ``most`` bounds the tags of one address. ``certificate``, ``private_key`` and ``peer_certificate`` are for
    OPC UA, and for MQTT with TLS, where the last one is the authority.
    """

    site: Path = Path()
    seconds: float = 60.0
    only: str = ""
    most: int = 2000
    username: str | None = None
    password_file: str | None = None
    insecure: bool = False
    certificate: str | None = None
    private_key: str | None = None
    peer_certificate: str | None = None

    def __post_init__(self) -> None:
        """Reject what finds nothing."""
        if self.seconds <= 0 or self.most < 1:
            raise ConfigError("--seconds and --most: must be positive")


Ask = Callable[[], Coroutine[Any, Any, Found]]
Settings = dict[str, Any]


def look(urls: Sequence[str], config: DiscoverConfig) -> tuple[list[Found], list[str]]:
    """What was found at each address that answered, all asked at the same time, and why others did not.

    Raises:
        ConfigError: an address that is none, or cannot be asked so.
    """
    asked = [_asked(url, config) for url in urls]

    async def all_at_once() -> list[Found | FusionError]:
        return await asyncio.gather(*(_answer(ask) for ask, _ in asked))

    found, failed = [], []
    for url, (_, settings), answer in zip(urls, asked, asyncio.run(all_at_once()), strict=True):
        if isinstance(answer, Found):
            answer.settings = {key: value for key, value in settings.items() if value is not None}
            _leave_out_unwritable(answer)
            _leave_out_counters(answer)
            found.append(answer)
        else:
            failed.append(f"{redacted(url)}: {str(answer).removeprefix(f'{redacted(url)}: ')}")
    return found, failed


def _leave_out_unwritable(found: Found) -> None:
    """A configuration would take ``${`` in an address for a reference."""
    kept = [tag for tag in found.tags if "${" not in tag.address]
    if len(kept) < len(found.tags):
        found.left_out = {**found.left_out, "${ in its address": len(found.tags) - len(kept)}
        found.tags = kept


def _leave_out_counters(found: Found) -> None:
    """A total leaves every level that a model was trained on, and foretells itself to many digits."""
    counters = [tag for tag in found.tags if counts(tag)]
    if counters:
        names = ", ".join(tag.path[-1] for tag in counters)
        found.left_out = {**found.left_out, f"a counter, which only grows or wraps ({names})": len(counters)}
        found.tags = [tag for tag in found.tags if tag not in counters]


async def _answer(ask: Ask) -> Found | FusionError:
    try:
        return await ask()
    except FusionError as error:
        return error


def _asked(url: str, config: DiscoverConfig) -> tuple[Ask, Settings]:
    """What asks an address, and the settings of its connector as a daemon configuration has them."""
    parts = urlsplit(url)
    if parts.password is not None:
        raise ConfigError(f"{redacted(url)}: holds a password; use --username and --password-file")
    login = {"username": config.username, "password_file": _absolute(config.password_file)}
    match parts.scheme:
        case "opc.tcp":
            return _opcua({"kind": "opcua", "url": url, **login}, config)
        case "mqtt" | "mqtts" if parts.hostname:
            return _mqtt({"kind": "mqtt", **_place(url), **login, **_tls(parts.scheme, config)}, config)
        case "rtsp" | "rtsps" if parts.hostname:
            return _media({"kind": "video", "url": url, **login}, config)
        case "lidar" | "udp":
            return _lidar({"kind": "lidar", **_place(url)}, config)
    raise ConfigError(f"{redacted(url)!r} is not accepted; expected {FORMS}")


def _place(url: str) -> Settings:
    parts = urlsplit(url)
    try:
        port = parts.port or PORTS[parts.scheme]
    except ValueError as error:
        raise ConfigError(f"{redacted(url)}: {error}") from error
    return {"host": parts.hostname or EVERYWHERE, "port": port}


def _absolute(file: str | None) -> str | None:
    return None if file is None else str(Path(file).resolve())


def _given_security(config: DiscoverConfig) -> Settings:
    """What was said about encryption; nothing where the site's own certificates are to be used."""
    if config.insecure:
        return {"insecure": True}
    files = {
        "certificate": _absolute(config.certificate),
        "private_key": _absolute(config.private_key),
        "server_certificate": _absolute(config.peer_certificate),
    }
    if any(files.values()) and not all(files.values()):
        raise ConfigError("--certificate, --private-key and --peer-certificate: give all three, or none")
    return {**files} if all(files.values()) else {}


def _tls(scheme: str, config: DiscoverConfig) -> Settings:
    if scheme == "mqtt":
        return {}
    files = {"tls_ca": config.peer_certificate, "tls_certificate": config.certificate, "tls_key": config.private_key}
    return {"tls": True, **{key: _absolute(file) for key, file in files.items()}}


def _opcua(settings: Settings, config: DiscoverConfig) -> tuple[Ask, Settings]:
    from fusion.site.opcua import discover
    from fusion.site.pki import trusted

    given = _given_security(config)
    settings |= given
    OpcUaConfig(**_own(settings | ({} if given else {"insecure": True})))

    async def ask() -> Found:
        said = ""
        if not given:
            security, said = await trusted(settings["url"], config.site)
            settings.update(security)
        found = await discover(OpcUaConfig(**_own(settings)), config.only, config.most, config.seconds)
        found.remarks += [said] if said else []
        return found

    return ask, settings


def _mqtt(settings: Settings, config: DiscoverConfig) -> tuple[Ask, Settings]:
    from fusion.site.mqtt import discover

    own = MqttConfig(topics=[], **_own(settings))
    own.check()
    return lambda: discover(own, config.only, config.most, config.seconds), settings


def _media(settings: Settings, config: DiscoverConfig) -> tuple[Ask, Settings]:
    from fusion.site.media import discover

    own = MediaConfig(signal="", **_own(settings))
    return lambda: discover(own, config.seconds), settings


def _lidar(settings: Settings, config: DiscoverConfig) -> tuple[Ask, Settings]:
    from fusion.site.lidar import discover

    own = LidarConfig(signal="", **_own(settings))
    return lambda: discover(own, config.seconds), settings


def _own(settings: Settings) -> Settings:
    """What a connector's own class takes."""
    return {key: value for key, value in settings.items() if key != "kind" and value is not None}
