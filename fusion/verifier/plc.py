"""The control system over OPC UA: every node read at once, setpoints written with the type that they have."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Self

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds

from connectors.opcua.channel import connect
from connectors.opcua.config import OpcUaConfig
from connectors.opcua.nodes import NodeAddress, identifier
from connectors.opcua.reasons import FAILURES, refusal_or_loss, said
from fusion.errors import ConfigError, SourceError


class Plc:
    """One session, as an async context; nodes are called by the keys of the configuration."""

    def __init__(self, config: OpcUaConfig, addresses: Mapping[str, NodeAddress]) -> None:
        self._config, self._addresses = config, addresses
        self._client: Client | None = None
        self._nodes: dict[str, ua.NodeId] = {}
        self._types: dict[str, ua.VariantType] = {}

    async def __aenter__(self) -> Self:
        """Connect and find every node.

        Raises:
            SourceError: the server cannot be reached, or refuses us.
            ConfigError: a node that is not there, or holds no number.
        """
        client = Client(self._config.url, timeout=self._config.request_timeout_s)
        client.application_uri = self._config.application_uri
        self._client = client
        try:
            await connect(client, self._config)
            namespaces = await client.get_namespace_array()
            self._nodes = {key: _node(key, address, namespaces) for key, address in self._addresses.items()}
            found = await self._attributes(AttributeIds.Value)
        except FAILURES as error:
            await self.__aexit__()
            raise _lost(self._config.url, error) from error
        for key, value in found.items():
            self._types[key] = _type(key, value)
        return self

    async def __aexit__(self, *_: object) -> None:
        """Leave, whether the server still answers or not."""
        client, self._client = self._client, None
        if client is not None:
            try:
                await client.disconnect()
            except FAILURES:
                return

    async def read(self) -> dict[str, float | None]:
        """Every node's value as a number; None where it is not good.

        Raises:
            SourceError: the server does not answer.
        """
        try:
            found = await self._attributes(AttributeIds.Value)
        except FAILURES as error:
            raise _lost(self._config.url, error) from error
        return {key: _number(value) for key, value in found.items()}

    async def write(self, values: Mapping[str, float]) -> dict[str, str]:
        """Write numbers; why it was refused, by key.

        Raises:
            SourceError: the server does not answer.
        """
        keys = list(values)
        data = [ua.DataValue(ua.Variant(_as(self._types[k], values[k]), self._types[k])) for k in keys]
        try:
            codes = await self._session.write_attributes([self._nodes[k] for k in keys], data, AttributeIds.Value)
        except FAILURES as error:
            raise _lost(self._config.url, error) from error
        return {key: code.name for key, code in zip(keys, codes, strict=True) if not code.is_good()}

    @property
    def _session(self) -> Any:
        if self._client is None:
            raise SourceError(f"{self._config.url}: not connected")
        return self._client.uaclient

    async def _attributes(self, attribute: AttributeIds) -> dict[str, Any]:
        found = await self._session.read_attributes(list(self._nodes.values()), attribute)
        return dict(zip(self._nodes, found, strict=True))


def _node(key: str, address: NodeAddress, namespaces: list[str]) -> ua.NodeId:
    index = address.index_in(namespaces)
    if index is None:
        raise ConfigError(f"{key}: the server has no namespace {address.uri}; it has {', '.join(namespaces)}")
    return ua.NodeId(identifier(address), index)  # type: ignore[arg-type]


def _type(key: str, value: Any) -> ua.VariantType:
    if value.StatusCode is not None and value.StatusCode.name == "BadNodeIdUnknown":
        raise ConfigError(f"{key}: there is no such node on the server")
    if value.Value is None or not isinstance(value.Value.Value, bool | int | float):
        raise ConfigError(f"{key}: holds no number that can be read ({value.StatusCode.name})")
    found: ua.VariantType = value.Value.VariantType
    return found


def _number(value: Any) -> float | None:
    good = value.StatusCode is None or value.StatusCode.is_good()
    if not good or value.Value is None or not isinstance(value.Value.Value, bool | int | float):
        return None
    number = float(value.Value.Value)
    return number if math.isfinite(number) else None


def _as(kind: ua.VariantType, value: float) -> bool | int | float:
    if kind is ua.VariantType.Boolean:
        return bool(value)
    return value if kind in (ua.VariantType.Double, ua.VariantType.Float) else round(value)


def _lost(url: str, error: BaseException) -> SourceError:
    found = refusal_or_loss(error)
    return type(found)(f"{url}: {said(error)}")
