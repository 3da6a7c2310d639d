"""A supervised source of the tags of one OPC UA server."""

from __future__ import annotations

import itertools
from dataclasses import replace

from connectors.base import Driver, Source, Tally
from connectors.opcua.config import OpcUaConfig
from connectors.opcua.past import Past
from connectors.settings import signal_of
from fusion.credentials import secret
from fusion.errors import ConfigError
from fusion.plant import Modality, Plant


def source(config: OpcUaConfig, plant: Plant, name: str = "opcua") -> Source:
    """A source of the configured tags.

    Raises:
        ConfigError: a tag that the plant does not have, no tag at all, or an unreadable password file.
    """
    from connectors.opcua.session import OpcUaSession

    addresses = config.addresses()
    if not addresses:
        raise ConfigError("opcua.nodes: no tags; give nodes or signals with namespace_uri")
    signals = [signal_of(plant, "opcua.nodes", tag, Modality.PROCESS) for tag in addresses]
    secret("opcua.password", config.password, config.password_file)
    tally, past = Tally(), Past()
    servers = itertools.cycle(config.servers())

    def connect() -> Driver:
        return OpcUaSession(next(servers), addresses, tally, past)

    patience_s = max(config.supervision.stale_after_s, 3 * config.keepalive_s)  # the session itself notices earlier
    supervision = replace(config.supervision, stale_after_s=patience_s)
    return Source(name, signals, connect, supervision, tally=tally, resume=past.resume)
