"""The two services whose answers hold values: asked through the library, read by ourselves, value by value."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.ua_binary import nodeid_from_binary, struct_from_binary

from connectors.opcua.wire import DataValue, History, Wire


async def publish(session: UaSession, acknowledged: list[Any]) -> Any:
    """Ask for the next notifications; its ``NotificationData`` are of our own kind.

    Raises:
        SourceError: the answer cannot be read.
    """
    request = ua.PublishRequest()
    request.Parameters.SubscriptionAcknowledgements = acknowledged
    wire = await _answer(session, request, timeout_s=0)
    result = ua.PublishResult(SubscriptionId=wire.number("I"))
    wire.take(4 * wire.count())  # numbers of notifications that could be asked for again
    result.MoreNotifications = wire.number("?")
    result.NotificationMessage.SequenceNumber = wire.number("I")
    wire.time_ns()
    result.NotificationMessage.NotificationData = [wire.notification() for _ in range(wire.count())]
    return ua.PublishResponse(Parameters=result)


async def read_values(
    session: UaSession, nodes: Sequence[ua.NodeId], attribute: AttributeIds = AttributeIds.Value
) -> list[DataValue]:
    """The values of nodes, or another attribute, as they are now, in their order.

    Raises:
        SourceError: the answer cannot be read.
    """
    request = ua.ReadRequest()
    request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Neither
    request.Parameters.NodesToRead = [ua.ReadValueId(NodeId=node, AttributeId=attribute) for node in nodes]
    wire = await _answer(session, request)
    return [wire.data_value() for _ in range(wire.count())]


async def read_history(
    session: UaSession, nodes: Sequence[tuple[ua.NodeId, bytes]], start_ns: int, end_ns: int, values: int
) -> list[History]:
    """Up to so many raw values of each node between two times [UTC ns], or what follows its continuation point.

    Raises:
        SourceError: the answer cannot be read.
    """
    request = ua.HistoryReadRequest()
    request.Parameters.HistoryReadDetails = ua.ReadRawModifiedDetails(
        IsReadModified=False,
        StartTime=_moment(start_ns),
        EndTime=_moment(end_ns),
        NumValuesPerNode=values,
        ReturnBounds=False,
    )
    request.Parameters.TimestampsToReturn = ua.TimestampsToReturn.Both
    request.Parameters.ReleaseContinuationPoints = False
    request.Parameters.NodesToRead = [
        ua.HistoryReadValueId(NodeId=node, ContinuationPoint=point or None) for node, point in nodes
    ]
    wire = await _answer(session, request)
    return [wire.history() for _ in range(wire.count())]


def _moment(t_ns: int) -> datetime:
    return datetime.fromtimestamp(t_ns // 1000 / 1e6, UTC)


async def _answer(session: UaSession, request: Any, timeout_s: float | None = None) -> Wire:
    """The parameters of an answer, whose header said that all is well."""
    data = await session._send_request(request, timeout_s)  # noqa: SLF001 - there is no other way to the bytes
    nodeid_from_binary(data)
    struct_from_binary(ua.ResponseHeader, data)
    return Wire(data.read(len(data)))
