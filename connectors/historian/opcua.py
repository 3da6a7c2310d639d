"""OPC UA historical access: raw values of nodes from a server's own archive."""

from __future__ import annotations

import asyncio
import re
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any
from urllib.parse import unquote, urlsplit, urlunsplit

import polars as pl
from asyncua import ua
from asyncua.client.client import Client
from asyncua.common.node import Node
from asyncua.ua.uaerrors import (
    BadContinuationPointInvalid,
    BadHistoryOperationInvalid,
    BadHistoryOperationUnsupported,
    BadNodeIdUnknown,
    BadNotReadable,
    BadNotSupported,
    BadUserAccessDenied,
    UaError,
)

from connectors.historian.rows import Batch, finish
from connectors.historian.stamps import StampReader
from connectors.opcua.nodes import NodeAddress, identifier, parse_node
from connectors.opcua.notifications import to_ns, to_quality
from fusion.errors import ConfigError, HistorianError

VALUES_AT_ONCE = 10_000
ROWS_AT_ONCE = 200_000
LONGEST_SEARCH = 200_000
TIMEOUT_S = 20.0
DENIED = (
    *(BadHistoryOperationInvalid, BadHistoryOperationUnsupported, BadNodeIdUnknown, BadNotReadable, BadNotSupported),
    BadUserAccessDenied,
)
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
    unread: list[str] = field(default_factory=list)
    aside: Sequence[str] = ()

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
        line, rows = 0, list[tuple[Any, ...]]()
        for signal, node in nodes:
            for values in self._answers_of(signal, node, runner):
                rows += [_row(line + i, signal, value) for i, value in enumerate(values, 1)]
                line += len(values)
                if len(rows) >= ROWS_AT_ONCE:
                    yield finish(pl.DataFrame(rows, schema=SCHEMA, orient="row"), self.name)
                    rows = []
        yield finish(pl.DataFrame(rows, schema=SCHEMA, orient="row"), self.name)

    def _answers_of(self, signal: str, node: Node, runner: asyncio.Runner) -> Iterator[Sequence[ua.DataValue]]:
        """The answers of a node; one whose history is denied is named and the others go on."""
        try:
            yield from self._answers(node, runner)
        except DENIED as error:
            self.unread.append(f"{signal} ({type(error).__name__})")
        except UaError as error:
            raise HistorianError(f"{self.name}: history of {signal}: {type(error).__name__}") from error

    def _answers(self, node: Node, runner: asyncio.Runner) -> Iterator[Sequence[ua.DataValue]]:
        """The values of a node, answer by answer, until there are none.

        A server may cap an answer with or without saying so: what it holds back comes with its continuation point, else
        by asking again from the last stamp, whose values are known by then.
        """
        asked = start = self.start
        point, known = b"", 0
        while True:
            try:
                values, after = runner.run(_read(node, asked, self.end, point))
            except BadContinuationPointInvalid:
                if not point:
                    raise
                asked, point = start, b""
                continue
            if not point:
                values = [value for value in values if (_stamp(value) or start) >= start]
            stamps = [moment for value in values if (moment := _stamp(value)) is not None]
            again = 0 if point else stamps[:known].count(start)
            yield values[again:]
            if stamps and stamps[-1] >= start:
                before, start = start, stamps[-1]
                known = stamps.count(start) + (known if point and start == before else 0)
            elif not after:
                return
            if after and after != point:
                point = after
                continue
            if start == asked and again == len(values):
                start, known = start + timedelta(microseconds=1), 0
            asked, point = start, b""


async def _read(node: Node, start: datetime, end: datetime, point: bytes) -> tuple[Sequence[ua.DataValue], bytes]:
    """One answer, and where it goes on."""
    details = ua.ReadRawModifiedDetails(
        IsReadModified=False, StartTime=start, EndTime=end, NumValuesPerNode=VALUES_AT_ONCE, ReturnBounds=False
    )
    answer = await node.history_read(details, point or None)
    answer.StatusCode.check()
    data = answer.HistoryData
    return getattr(data, "DataValues", None) or [], answer.ContinuationPoint or b""


def _stamp(value: ua.DataValue) -> datetime | None:
    moment = value.SourceTimestamp or value.ServerTimestamp
    return moment.replace(tzinfo=UTC) if moment is not None and moment.tzinfo is None else moment


def _row(line: int, signal: str, value: ua.DataValue) -> tuple[Any, ...]:
    t_ns = to_ns(value.SourceTimestamp or value.ServerTimestamp)
    held = value.Value.Value if value.Value is not None else None
    text = None if held is None else str(held)
    quality = int(to_quality(value.StatusCode.value if value.StatusCode is not None else 0))
    why = "no time stamp" if t_ns is None else None
    return line, signal, "" if t_ns is None else str(t_ns), t_ns, why, text, quality


async def _named(client: Client, nodes: Sequence[tuple[str, NodeAddress]]) -> list[tuple[str, Node]]:
    """Nodes by the names that were given, else by their browse names; where two are alike, by their identifiers."""
    namespaces, found = await client.get_namespace_array(), list[tuple[str, NodeAddress, Node]]()
    for tag, address in nodes:
        index = address.index_in(namespaces)
        if index is None:
            raise HistorianError(f"namespace {address.uri!r} is not served; the server has {', '.join(namespaces)}")
        node = client.get_node(ua.NodeId(identifier(address), index))  # type: ignore[arg-type]
        found.append((tag or (await node.read_browse_name()).Name or address.identifier, address, node))
    count = Counter(name for name, _, _ in found)
    named = [(name if count[name] == 1 else address.identifier, node) for name, address, node in found]
    twice = [name for name, n in Counter(name for name, _ in named).items() if n > 1]
    if twice:
        raise ConfigError(f"--query: two nodes are called {twice[0]!r}; name them: TAG=nsu=URI;s=ID")
    return named


async def _archived(client: Client) -> list[tuple[str, Node]]:
    """Every variable below Objects whose history may be read; the server's own are passed over."""
    found: list[tuple[tuple[str, ...], Node]] = []
    waiting: deque[tuple[tuple[str, ...], Node]] = deque([((), client.nodes.objects)])
    seen = {client.nodes.objects.nodeid}
    while waiting:
        path, node = waiting.popleft()
        for child in await node.get_children_descriptions():
            if child.NodeId.NamespaceIndex == 0 or child.NodeId in seen:
                continue
            seen.add(child.NodeId)
            if len(seen) > LONGEST_SEARCH:
                raise HistorianError(f"more than {LONGEST_SEARCH} nodes; name some: --query 'nsu=URI;s=ID,...'")
            below, place = client.get_node(child.NodeId), (*path, child.BrowseName.Name or str(child.NodeId))
            waiting.append((place, below))
            archived = child.NodeClass == ua.NodeClass.Variable
            if archived and ua.AccessLevel.HistoryRead in await below.get_access_level():
                found.append((place, below))
    names = _shortest([path for path, _ in found])
    return [(name, node) for name, (_, node) in zip(names, found, strict=True)]


def _shortest(paths: Sequence[tuple[str, ...]]) -> list[str]:
    """For each path as much of its end as no other has: `PV`, or `FIC101.PV` where there are two.

    Raises:
        HistorianError: where two are the same.
    """
    ends = Counter(path[-size:] for path in paths for size in range(1, len(path) + 1))
    names = []
    for path in paths:
        size = next((n for n in range(1, len(path) + 1) if ends[path[-n:]] == 1), len(path))
        names.append(".".join(path[-size:]))
    twice = [name for name, n in Counter(names).items() if n > 1]
    if twice:
        raise HistorianError(f"two variables are called {twice[0]!r}; name them: --query 'TAG=nsu=URI;s=ID,...'")
    return names


def open_history(url: str, query: str, start: str, end: str) -> OpcUaHistoryReader:
    """A reader of ``url``; ``query`` lists `nsu=URI;s=ID` or `TAG=nsu=URI;s=ID` separated by commas, empty for all.

    Raises:
        ConfigError: where a time or a node cannot be read.
    """
    nodes = [_address(part.strip()) for part in re.split(r"[,\n]", query) if part.strip()]
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
