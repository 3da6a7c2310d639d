"""One OPC UA session with one subscription: connect, resolve namespaces, monitor, retry what failed, take changes.

The library's own reconnection is not used: it can report a connection whose subscription is dead. Subscriptions are
created below its convenience layer, which would replace the keep-alive count by one of 45 minutes.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from asyncua import ua
from asyncua.client.client import Client
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaStatusCodeError, UaStructParsingError

from connectors.base import SourceSilent, Tally
from connectors.inbox import Inbox
from connectors.opcua.calls import publish, read_values
from connectors.opcua.certificates import load, told_apart
from connectors.opcua.channel import connect
from connectors.opcua.config import OpcUaConfig
from connectors.opcua.history import HistoryReader
from connectors.opcua.nodes import NodeAddress, identifier
from connectors.opcua.notifications import NotificationReader
from connectors.opcua.past import Past, Stretch
from connectors.opcua.reasons import FAILURES, refusal_or_loss, said
from connectors.opcua.wire import DataValue
from fusion.clock import CLOCK
from fusion.errors import SourceError, SourceRefused
from fusion.records import Columns, Item

log = logging.getLogger(__name__)

FAULTS_SHOWN = 5
RETRY_MIN_S = 2.0
RETRY_MAX_S = 30.0
WATCHDOG_S = 5.0
AUDIT_S = 10.0
AUDIT_NODES = 100
CONFIRM_S = 1.0
FIRST_VALUES_S = 5.0


class OpcUaSession:
    """One session and one subscription."""

    def __init__(
        self, config: OpcUaConfig, addresses: Mapping[str, NodeAddress], tally: Tally, past: Past | None = None
    ) -> None:
        self._config = config
        self._past = past = past or Past()
        self._before = replace(past, newest=dict(past.newest))
        self._addresses = addresses
        self._client: Client | None = None
        self._inbox: Inbox[Columns] = Inbox()
        self._told = asyncio.Event()  # the first value of each tag
        self._intake = NotificationReader(tuple(addresses), urlsplit(config.url).netloc, tally, config.elements)
        self._items: dict[str, tuple[Any, int]] = {}
        self._sampling_s = 0.0
        self._subscription_id = 0
        self._batch = config.batch
        self._silence_s = 0.0
        self._failed: dict[str, str] = {}
        self._tasks: list[asyncio.Task[None]] = []

    @property
    def message(self) -> str:
        """Tags that could not be subscribed to or have no good value, with the reason."""
        faults = [f"{tag}: {reason}" for tag, reason in {**self._intake.faults, **self._failed}.items()]
        more = [f"and {len(faults) - FAULTS_SHOWN} more"] if len(faults) > FAULTS_SHOWN else []
        insecure = ["insecure channel"] if self._config.insecure else []
        return "; ".join([*insecure, *faults[:FAULTS_SHOWN], *more])

    async def open(self) -> None:
        """Connect, subscribe to what exists and keep asking for what does not."""
        config = self._config
        self._client = Client(config.url, timeout=config.request_timeout_s, watchdog_intervall=WATCHDOG_S)
        self._client.session_timeout = int(config.session_timeout_s * 1000)
        self._client.application_uri = config.application_uri
        try:
            await connect(self._client, config)
            await self._subscribe(ua.CreateSubscriptionParameters())
        except FileNotFoundError as error:
            raise SourceRefused(f"{error.filename}: no such file") from error
        except FAILURES as error:
            reason = refusal_or_loss(error)
            another = "" if config.insecure else await self._other_certificate()
            if another:
                raise SourceRefused(f"{config.url}: {another}") from error
            raise type(reason)(f"{config.url}: {reason}") from error
        self._tasks = [asyncio.create_task(work()) for work in (self._retry_failed, self._audit, self._fill)]

    async def _other_certificate(self) -> str:
        """Whether a channel that failed may have failed since the server shows another certificate than the trusted."""
        file = self._config.server_certificate or ""
        try:
            client = Client(self._config.url, timeout=self._config.request_timeout_s)
            endpoints = await client.connect_and_get_server_endpoints()
        except FAILURES:
            return ""
        shown = {bytes(e.ServerCertificate) for e in endpoints if e.ServerCertificate}
        differences = [told_apart(one, file, load("opcua.server_certificate", file)) for one in shown]
        return "" if "" in differences else next(iter(differences), "")

    async def _subscribe(self, params: Any) -> None:
        """Create the subscription with explicit counts: the library's default keep-alive is 45 minutes."""
        assert self._client is not None  # noqa: S101 - opened above
        params.RequestedPublishingInterval = self._config.publishing_interval_ms
        params.RequestedMaxKeepAliveCount = max(
            int(self._config.keepalive_s * 1000 / params.RequestedPublishingInterval), 1
        )
        params.RequestedLifetimeCount = 30 * params.RequestedMaxKeepAliveCount
        params.MaxNotificationsPerPublish = 10_000
        params.PublishingEnabled = True
        session = self._client.uaclient.session
        session.publish = self._publish  # type: ignore[method-assign,assignment] # the library's own drops all for one value
        result = await session.create_subscription(params, self._published)
        self._subscription_id = result.SubscriptionId
        keepalive_s = result.RevisedPublishingInterval * result.RevisedMaxKeepAliveCount / 1000
        self._silence_s = max(2 * keepalive_s, 2.0)
        self._batch = min(self._batch, await self._operation_limit() or self._batch)
        await self._monitor(list(self._addresses))

    async def _publish(self, acknowledged: list[Any]) -> Any:
        assert self._client is not None  # noqa: S101 - opened above
        try:
            return await publish(self._client.uaclient.session, acknowledged)
        except SourceError as error:
            self._inbox.fail(error)
            raise UaStructParsingError from error

    def _published(self, result: Any) -> None:
        """Every publish response arrives here, keep-alives too; runs on the event loop and never waits."""
        try:
            self._inbox.put(*self._intake.columns(result))
            if not self._told.is_set() and self._complete():
                self._told.set()
            self._past.newest.update(self._intake.last_ns)
            self._past.heard_ns = CLOCK.now_ns()
        except SourceError as error:
            self._inbox.fail(error)

    async def _operation_limit(self) -> int:
        assert self._client is not None  # noqa: S101 - opened above
        limit = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxMonitoredItemsPerCall
        try:
            return int(await self._client.get_node(node_id(0, limit)).read_value() or 0)
        except UaStatusCodeError:
            return 0

    async def _monitor(self, tags: list[str]) -> None:
        """Create monitored items; a tag that the server does not have stays in ``_failed`` with the reason."""
        assert self._client is not None  # noqa: S101 - opened above
        namespaces = await self._client.get_namespace_array()
        known = []
        for tag in tags:
            index = self._addresses[tag].index_in(namespaces)
            if index is None:
                self._failed[tag] = f"namespace {self._addresses[tag].uri} is not served"
            else:
                known.append((tag, node_id(index, identifier(self._addresses[tag]))))
        while known:
            batch, rest = known[: self._batch], known[self._batch :]
            known = rest if await self._create(batch) else known

    async def _create(self, batch: list[tuple[str, Any]]) -> bool:
        """Ask for one batch; where the server finds it too large, halve the batch size and say no."""
        assert self._client is not None  # noqa: S101 - opened above
        params = ua.CreateMonitoredItemsParameters()
        params.SubscriptionId = self._subscription_id
        params.TimestampsToReturn = ua.TimestampsToReturn.Both
        params.ItemsToCreate = [self._item(tag, node_id) for tag, node_id in batch]
        try:
            results = await self._client.uaclient.session.create_monitored_items(params)
        except UaStatusCodeError as error:
            if len(batch) > 1:
                self._batch = len(batch) // 2
                return False
            self._failed[batch[0][0]] = ua.StatusCode(error.code).name
            return True
        for (tag, node_id), result in zip(batch, results, strict=True):
            self._note(tag, node_id, result)
        return True

    def _item(self, tag: str, node_id: Any) -> Any:
        request = ua.MonitoredItemCreateRequest()
        request.ItemToMonitor.NodeId = node_id
        request.ItemToMonitor.AttributeId = AttributeIds.Value
        request.MonitoringMode = ua.MonitoringMode.Reporting
        request.RequestedParameters.ClientHandle = self._intake.handle(tag)
        request.RequestedParameters.SamplingInterval = self._config.sampling_interval_ms
        request.RequestedParameters.QueueSize = self._config.queue_size
        request.RequestedParameters.DiscardOldest = True
        return request

    def _note(self, tag: str, node_id: Any, result: Any) -> None:
        if result.StatusCode.is_good():
            self._failed.pop(tag, None)
            self._intake.subscribed.add(tag)
            self._items[tag] = node_id, result.MonitoredItemId
            self._sampling_s = max(self._sampling_s, result.RevisedSamplingInterval / 1000)
        else:
            self._failed[tag] = f"{node_id.to_string()} {result.StatusCode.name}"

    async def _retry_failed(self) -> None:
        """Ask again, ever more rarely, for tags that the server did not have."""
        wait_s = RETRY_MIN_S
        while True:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, RETRY_MAX_S) if self._failed else RETRY_MIN_S
            try:
                await self._monitor(list(self._failed))
            except FAILURES as error:
                self._inbox.fail(SourceError(f"asking again for failed tags: {said(error)}"))

    async def _audit(self) -> None:
        """Ask now and then whether what was told last still holds: of a node made anew nothing is ever told."""
        while True:
            await asyncio.sleep(AUDIT_S)
            with contextlib.suppress(SourceError, *FAILURES):  # keep-alives tell whether the connection holds, not this
                for tag in await self._forgotten():
                    await self._drop(tag)

    def _complete(self) -> bool:
        """Whether every tag was subscribed to, or could not be, and has told a value."""
        asked = self._intake.subscribed | self._failed.keys() == self._addresses.keys()
        return asked and self._intake.subscribed <= self._intake.first_ns.keys()

    async def _fill(self) -> None:
        """Ask the server's history for what was missed since the connection before, once the first values are there."""
        config, intake = self._config, self._intake
        if not (config.history_s and self._before.newest):
            return
        assert self._client is not None  # noqa: S101 - opened above
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._told.wait(), FIRST_VALUES_S)
        self._past.missed(self._before, intake.first_ns, config.history_s)
        session = self._client.uaclient.session
        reader = HistoryReader(self._past, config.url, session, self._found, config.history_values)
        try:
            await reader.run({tag: node for tag, (node, _) in self._items.items()})
        except (SourceError, *FAILURES) as error:
            log.warning("%s: history is not read now: %s", config.url, said(error))

    def _found(self, stretch: Stretch, values: Sequence[DataValue]) -> int:
        """Hand over what history holds of a stretch; the last time stamp there [UTC ns]."""
        columns = self._intake.history(stretch.tag, values, stretch.after_ns, stretch.before_ns)
        if len(columns):
            self._inbox.put(columns)
        return max((data.source_ns for data in values if data.source_ns is not None), default=stretch.after_ns)

    async def _forgotten(self) -> list[str]:
        """Tags whose value on the server is another than was told, for longer than telling takes."""
        assert self._client is not None  # noqa: S101 - opened above
        told = dict(self._intake.newest)
        tags = list(self._items)
        differ = []
        for at in range(0, len(tags), AUDIT_NODES):
            part = tags[at : at + AUDIT_NODES]
            now = await read_values(self._client.uaclient.session, [self._items[tag][0] for tag in part])
            for tag, data in zip(part, now, strict=True):
                last = told.get(tag)
                if last is None or repr((data.value, data.status >> 30)) != repr((last.value, last.status >> 30)):
                    differ.append(tag)
        if differ:
            await asyncio.sleep(2 * max(self._config.publishing_interval_ms / 1000, self._sampling_s) + CONFIRM_S)
        return [tag for tag in differ if self._intake.newest.get(tag) is told.get(tag)]

    async def _drop(self, tag: str) -> None:
        """Give up an item that the server has forgotten; its tag is asked for again, and not current until then."""
        assert self._client is not None  # noqa: S101 - opened above
        node_id, item_id = self._items.pop(tag)
        self._intake.subscribed.discard(tag)
        self._failed[tag] = f"{node_id.to_string()} changed without being told, subscribed to again"
        params = ua.DeleteMonitoredItemsParameters(SubscriptionId=self._subscription_id, MonitoredItemIds=[item_id])
        await self._client.uaclient.session.delete_monitored_items(params)

    async def read(self) -> list[Item]:
        """The next publish response: changes, or a heartbeat for what did not change."""
        started_s = time.monotonic()
        try:
            return [*await self._inbox.take(self._silence_s)]
        except TimeoutError:
            silence_s = time.monotonic() - started_s
            raise SourceSilent(f"connected, but no keep-alive for {silence_s:.1f} s") from None

    async def close(self) -> None:
        """End the session; a server that no longer answers is simply left."""
        for task in self._tasks:
            task.cancel()
        if self._client is None:
            return
        try:
            with contextlib.suppress(TimeoutError, OSError):
                await self._client.disconnect()
        finally:
            self._client.disconnect_socket()


def node_id(namespace: int, value: Any) -> ua.NodeId:
    """The library's address of a node."""
    return ua.NodeId(value, namespace)  # type: ignore[arg-type] # its annotations are names of OPC UA types
