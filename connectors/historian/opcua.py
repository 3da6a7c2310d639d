"""OPC UA historical access: raw values of nodes from a server's own archive."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import polars as pl
from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.ua.uaerrors import UaError

from connectors.historian.rows import Batch, finish
from connectors.historian.stamps import StampReader
from connectors.opcua.nodes import NodeAddress, identifier, parse_node
from connectors.opcua.notifications import to_ns, to_quality
from fusion.errors import ConfigError, HistorianError

VALUES_AT_ONCE = 10_000
LONGEST_SEARCH = 10_000
TIMEOUT_S = 20.0
OLDEST = datetime(1990, 1, 1, tzinfo=UTC)
SCHEMA = {
    "line": pl.Int64,
    "signal": pl.String,
    "stamp": pl.String,
    "t_ns": pl.Int64,
    "why": pl.String,
    "value": pl.String,
    "quality": pl.UInt8,
}


@dataclass(slots=True)
class OpcUaHistoryReader:
    """Values of some nodes, or of all that the server archives, between two times."""

    url: str
    nodes: Sequence[tuple[str, NodeAddress]]
    start: datetime
    end: datetime
    clock: StampReader | None = None
    format: str = "OPC UA historical access"

    @property
    def name(self) -> str:
        """The server, without a password."""
        return _plain(self.url)

    def batches(self) -> Iterator[Batch]:
        """Node by node in order of time.

        Raises:
            HistorianError: where the server cannot be reached, or keeps no history.
        """
        with asyncio.Runner() as runner:
            client = _client(self.url)
            try:
                runner.run(client.connect())
                try:
                    yield from self._all(client, runner)
                finally:
                    runner.run(client.disconnect())
            except (UaError, OSError, TimeoutError) as error:
                reason = type(error).__name__ if isinstance(error, UaError) else (error or "no answer")
                raise HistorianError(f"{self.name}: {reason}") from error

    def _all(self, client: Client, runner: asyncio.Runner) -> Iterator[Batch]:
        nodes = runner.run(_named(client, self.nodes)) if self.nodes else runner.run(_archived(client))
        if not nodes:
            raise HistorianError(
                f"{self.name}: no variable with a history found; name some: --query 'nsu=URI;s=ID,...'"
            )
        line = 0
        for signal, node in nodes:
            start: datetime | None = self.start
            while start is not None:
                values = runner.run(node.read_raw_history(start, self.end, VALUES_AT_ONCE, return_bounds=False))
                rows = [_row(line + i, signal, value) for i, value in enumerate(values, 1)]
                line += len(rows)
                yield finish(pl.DataFrame(rows, schema=SCHEMA, orient="row"), self.name)
                start = _next(start, values)


def _row(line: int, signal: str, value: ua.DataValue) -> tuple[Any, ...]:
    t_ns = to_ns(value.SourceTimestamp or value.ServerTimestamp)
    held = value.Value.Value if value.Value is not None else None
    text = None if held is None else str(held)
    quality = int(to_quality(value.StatusCode.value if value.StatusCode is not None else 0))
    why = "no time stamp" if t_ns is None else None
    return line, signal, "" if t_ns is None else str(t_ns), t_ns, why, text, quality


def _next(start: datetime, values: Sequence[ua.DataValue]) -> datetime | None:
    """Where to go on asking; None where the answer was not full."""
    last = values[-1].SourceTimestamp or values[-1].ServerTimestamp if len(values) >= VALUES_AT_ONCE else None
    if last is None:
        return None
    last = last.replace(tzinfo=UTC) if last.tzinfo is None else last
    return last if last > start else last + timedelta(microseconds=1)


async def _named(client: Client, nodes: Sequence[tuple[str, NodeAddress]]) -> list[tuple[str, Node]]:
    namespaces, found = await client.get_namespace_array(), []
    for tag, address in nodes:
        index = address.index_in(namespaces)
        if index is None:
            raise HistorianError(f"namespace {address.uri!r} is not served; the server has {', '.join(namespaces)}")
        node = client.get_node(ua.NodeId(identifier(address), index))  # type: ignore[arg-type]
        found.append((tag or (await node.read_browse_name()).Name or address.identifier, node))
    return found


async def _archived(client: Client) -> list[tuple[str, Node]]:
    """Every variable below Objects whose history may be read; the server's own are passed over."""
    found: list[tuple[str, Node]] = []
    waiting, seen = [client.nodes.objects], 0
    while waiting and seen < LONGEST_SEARCH:
        node = waiting.pop(0)
        for child in await node.get_children():
            seen += 1
            if child.nodeid.NamespaceIndex == 0:
                continue
            kind = await child.read_node_class()
            if kind == ua.NodeClass.Object:
                waiting.append(child)
            elif kind == ua.NodeClass.Variable and ua.AccessLevel.HistoryRead in await child.get_access_level():
                found.append(((await child.read_browse_name()).Name or str(child.nodeid), child))
    return found


def open_history(url: str, query: str, start: str, end: str) -> OpcUaHistoryReader:
    """A reader of ``url``; ``query`` lists `nsu=URI;s=ID` or `TAG=nsu=URI;s=ID` separated by commas, empty for all.

    Raises:
        ConfigError: where a time or a node cannot be read.
    """
    nodes = [_address(part.strip()) for part in query.split(",") if part.strip()]
    first = _time("--from", start) if start else OLDEST
    last = _time("--to", end) if end else datetime.now(UTC)
    return OpcUaHistoryReader(url, nodes, first, last)


def _address(text: str) -> tuple[str, NodeAddress]:
    """`nsu=URI;s=ID` or `TAG=nsu=URI;s=ID`."""
    tag, mark, rest = text.partition("=nsu=")
    return (tag.strip(), parse_node("--query", f"nsu={rest}")) if mark else ("", parse_node("--query", text))


def _time(option: str, text: str) -> datetime:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(f"{option}: {text!r} is no time; expected ISO 8601 such as 2024-05-13T06:00:00Z") from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)


def _client(url: str) -> Client:
    parts = urlsplit(url)
    client = Client(_plain(url), timeout=TIMEOUT_S)
    if parts.username:
        client.set_user(unquote(parts.username))
        client.set_password(unquote(parts.password or ""))
    return client


def _plain(url: str) -> str:
    parts = urlsplit(url)
    return urlunsplit((parts.scheme, parts.netloc.rsplit("@", 1)[-1], parts.path, parts.query, ""))
