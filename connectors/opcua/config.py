"""OPC UA: subscribe to tags of any server, by namespace URI, and take every change in columns.

Each connection is made by a fresh client, because what a client library carries over a loss is what goes wrong
silently: dead subscriptions, dropped items, namespaces that moved. See docs/connectors.md.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from pathlib import Path
from urllib.parse import urlsplit

from connectors.opcua.nodes import NodeAddress, parse_node
from connectors.settings import Supervision, choose, redacted, take_beside
from fusion.errors import ConfigError

POLICIES = ("Basic256Sha256", "Aes128Sha256RsaOaep", "Aes256Sha256RsaPss")
MODES = ("SignAndEncrypt", "Sign")


@dataclass(kw_only=True, slots=True)
class StandIn:
    """A server of the same tags: its address and, where it has one of its own, its certificate."""

    url: str
    server_certificate: str | None = None


@dataclass(kw_only=True, slots=True)
class OpcUaConfig:
    """One OPC UA server, and those that stand in for it, each tried in turn where one is lost.

    ``nodes`` maps signal names to ``nsu=URI;s=identifier`` (or i=, g=, b=); ``signals`` lists further signals whose
    name is the identifier in ``namespace_uri``. ``elements`` are the places of signals that are elements of an array,
    counted from 0, one number for each dimension. Security is on: ``certificate`` and ``private_key`` are ours,
    ``server_certificate`` is the only server trusted, and names the host in ``url`` or ``server_name``;
    ``insecure: true`` gives all of that up, knowingly. Of a gap up to ``history_s`` are read from the server's history
    where it has one, ``history_values`` of a tag at once; 0 asks for nothing.
    """

    url: str
    stand_ins: list[StandIn] = field(default_factory=list)
    nodes: dict[str, str] = field(default_factory=dict)
    elements: dict[str, list[int]] = field(default_factory=dict)
    namespace_uri: str | None = None
    signals: list[str] = field(default_factory=list)
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    insecure: bool = False
    security_policy: str = "Basic256Sha256"
    security_mode: str = "SignAndEncrypt"
    certificate: str | None = None
    private_key: str | None = None
    server_certificate: str | None = None
    server_name: str | None = None
    application_uri: str = "urn:fusion:client"
    publishing_interval_ms: float = 250.0
    sampling_interval_ms: float = 250.0
    queue_size: int = 10
    keepalive_s: float = 2.0
    session_timeout_s: float = 60.0
    request_timeout_s: float = 4.0
    batch: int = 1000
    history_s: float = 86_400.0
    history_values: int = 1000
    supervision: Supervision = field(default_factory=Supervision)

    def __post_init__(self) -> None:
        """Reject addresses and security settings that could mislead."""
        for key, url in (("url", self.url), *(("stand_ins.url", other.url) for other in self.stand_ins)):
            if urlsplit(url).scheme != "opc.tcp" or not urlsplit(url).hostname:
                raise ConfigError(f"opcua.{key}: {redacted(url)!r} is not accepted; expected opc.tcp://host:port")
            if urlsplit(url).password is not None:
                raise ConfigError(f"opcua.{key}: holds a password; use username and password_file")
        if self.signals and not self.namespace_uri:
            raise ConfigError("opcua.namespace_uri: required where signals are listed by name")
        for name in ("publishing_interval_ms", "keepalive_s", "session_timeout_s", "request_timeout_s", "batch"):
            if getattr(self, name) <= 0:
                raise ConfigError(f"opcua.{name}: {getattr(self, name)} must be positive")
        if self.history_s < 0 or self.history_values < 1:
            raise ConfigError("opcua: history_s must not be negative, history_values at least 1")
        for name, place in self.elements.items():
            if name not in {*self.nodes, *self.signals} or not place or min(place) < 0:
                raise ConfigError(
                    f"opcua.elements.{name}: {place} is not accepted; expected places from 0 on of a signal in nodes"
                )
        choose("opcua.security_policy", self.security_policy, POLICIES)
        choose("opcua.security_mode", self.security_mode, MODES)
        if not self.insecure:
            self._require_certificates()

    def _require_certificates(self) -> None:
        for name in ("certificate", "private_key", "server_certificate"):
            if not getattr(self, name):
                raise ConfigError(f"opcua.{name}: required; without security say insecure: true")

    def beside(self, folder: Path) -> None:
        """Take relative names of files from a folder."""
        take_beside(self, folder, "password_file", "certificate", "private_key", "server_certificate")
        for other in self.stand_ins:
            take_beside(other, folder, "server_certificate")

    def servers(self) -> list[OpcUaConfig]:
        """The settings for each server, the first choice first."""
        others = ((other.url, other.server_certificate or self.server_certificate) for other in self.stand_ins)
        return [self, *(replace(self, url=url, server_certificate=file) for url, file in others)]

    def addresses(self) -> dict[str, NodeAddress]:
        """Where each signal lives on the server."""
        found = {name: parse_node(f"opcua.nodes.{name}", text) for name, text in self.nodes.items()}
        listed = {name: NodeAddress(uri=self.namespace_uri, kind="s", identifier=name) for name in self.signals}
        return {**listed, **found}
