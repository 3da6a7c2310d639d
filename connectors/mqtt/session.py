"""One connection to an MQTT broker, turned by a thread of our own.

The library's own loop thread dies silently when a callback raises and reconnects behind our back; this one ends with
whatever happened in it, and the next ``read`` raises that.
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor

from connectors.base import ARRIVAL_CLOCK, SourceSilent, Tally
from connectors.columns import ColumnsBuilder
from connectors.inbox import Inbox
from connectors.mqtt.config import MqttConfig
from connectors.mqtt.paths import Document
from connectors.mqtt.payload import Extractor, document_of
from connectors.mqtt.sparkplug import NAMESPACE, EdgeNode, Row, Tag
from fusion.clock import CLOCK
from fusion.errors import BrokerError, BrokerRefused, SourceError, SourceRefused
from fusion.mqtt.connection import Connection
from fusion.records import Item

LOOP_S = 0.5
GATHER_S = 0.05
BEAT_S = 0.9


class MqttSession:
    """The driver of one connection: subscribes, and turns what arrives into columns."""

    def __init__(
        self,
        config: MqttConfig,
        client_id: str,
        subscriptions: Sequence[str],
        extractors: Mapping[str, Sequence[Extractor]],
        signals: tuple[str, ...],
        tally: Tally,
    ) -> None:
        self._config = config
        self._subscriptions = subscriptions
        self._extractors = extractors
        self._signals = signals
        self._tally = tally
        self._clock = f"mqtt:{config.address}"
        self._inbox: Inbox[Row] = Inbox()
        self._lost_counted = 0
        self._silent_since_s = time.monotonic()
        self._denied: list[str] = []
        self._stopping = threading.Event()
        self._connection = Connection(config, client_id, received=self._received, stopping=self._stopping)
        self._nodes = self._edge_nodes()
        self._beaten_s = 0.0
        self._worker = ThreadPoolExecutor(1, thread_name_prefix="mqtt")
        self._granted: Future[list[str]] = Future()

    @property
    def message(self) -> str:
        """Topics that the broker does not let us have, and what edge nodes have not announced."""
        denied = f"subscription denied: {', '.join(self._denied)}" if self._denied else ""
        return "; ".join(filter(None, (denied, *(node.message for node in self._nodes.values()))))

    def _edge_nodes(self) -> dict[str, EdgeNode]:
        """The Sparkplug nodes by group and name; several entries of one node are taken together."""
        tags: dict[str, list[Tag]] = {}
        configs = {f"{one.group}/{one.node}": one for one in self._config.sparkplug}
        for one in self._config.sparkplug:
            for signal, metric in one.named().items():
                index = self._signals.index(signal)
                tags.setdefault(f"{one.group}/{one.node}", []).append(Tag(signal, index, one.device, metric))
        return {
            name: EdgeNode(one, tags.get(name, []), self._clock, self._tally, self._connection.publish)
            for name, one in configs.items()
        }

    async def open(self) -> None:
        """Connect and subscribe.

        Raises:
            SourceRefused: the broker does not accept the credentials, or denied every topic.
            SourceError: it cannot be reached or does not speak this protocol.
        """
        self._worker.submit(self._turn).add_done_callback(self._ended)
        self._denied = await asyncio.wrap_future(self._granted)

    def _turn(self) -> None:
        """The network thread, from hello to the end of the connection."""
        try:
            self._connection.open()
            self._subscribe()
            while not self._connection.lost and not self._stopping.is_set():
                self._connection.step(LOOP_S)
            if self._stopping.is_set():
                self._connection.leave()
        except BrokerRefused as refusal:
            raise SourceRefused(str(refusal)) from refusal
        except BrokerError as error:
            raise SourceError(str(error)) from error
        finally:
            self._connection.close()

    def _subscribe(self) -> None:
        topics = [*self._subscriptions, *(node.topic for node in self._nodes.values())]
        denied = self._connection.subscribe(topics, self._config.qos)
        if len(denied) == len(topics):
            raise SourceRefused(f"the broker denied every subscription: {', '.join(denied)}")
        if not self._granted.done():
            self._granted.set_result(denied)
        for node in self._nodes.values():
            node.ask_for_birth()

    def _ended(self, running: Future[None]) -> None:
        """The thread has ended: whoever waits must hear why."""
        lost = self._connection.lost or "the network thread has ended"
        error = running.exception() or SourceError(f"broker {self._config.address}: {lost}")
        if not self._granted.done():
            self._granted.set_exception(error)
        self._inbox.fail(error)

    def _received(self, topic: str, payload: bytes, retained: bool) -> None:
        """One message; runs on the network thread."""
        if len(payload) > self._config.max_payload_bytes:
            self._tally.lost["payload too large"] += 1
            return
        received_ns = CLOCK.now_ns()
        documents: dict[bool, Document] = {}
        rows: list[Row] = []
        for extractor in self._extractors.get(topic, ()):
            document = documents.get(extractor.plain) or documents.setdefault(
                extractor.plain, document_of(payload, extractor.plain)
            )
            for value, quality, t_ns in extractor.readings(document, received_ns, retained):
                clock, stamp_ns = (ARRIVAL_CLOCK, received_ns) if t_ns is None else (self._clock, t_ns)
                rows.append((clock, (extractor.index, stamp_ns, received_ns, value, quality)))
        if topic.startswith(f"{NAMESPACE}/"):
            rows += self._from_node(topic, payload, received_ns)
        self._inbox.put(*rows)

    def _from_node(self, topic: str, payload: bytes, received_ns: int) -> list[Row]:
        """What a Sparkplug message brings: its topic is namespace, group, kind, node and maybe device."""
        _, group, kind, name, device = [*topic.split("/", 4), "", "", ""][:5]
        node = self._nodes.get(f"{group}/{name}")
        return node.rows(kind, device, payload, received_ns) if node is not None else []

    async def read(self) -> list[Item]:
        """What arrived in the last moment, or nothing where the broker answers but has no news."""
        rows = await self._wait()
        by_clock: dict[str, ColumnsBuilder] = {}
        for clock, row in rows:
            by_clock.setdefault(clock, ColumnsBuilder()).add(*row)
        lost, self._lost_counted = self._inbox.dropped - self._lost_counted, self._inbox.dropped
        self._tally.lost.update({"inbox full": lost} if lost else {})
        found: list[Item] = [gathered.columns(self._signals, clock) for clock, gathered in by_clock.items()]
        return [*found, *self._heartbeats()]

    def _heartbeats(self) -> list[Item]:
        """Metrics of nodes that are born are current while nothing is told: a node reports changes, and its death."""
        now_s = time.monotonic()
        if now_s - self._beaten_s < BEAT_S:
            return []
        self._beaten_s = now_s
        alive = tuple(signal for node in self._nodes.values() for signal in node.alive)
        return [ColumnsBuilder().columns(alive, self._clock, CLOCK.now_ns())] if alive else []

    async def _wait(self) -> list[Row]:
        """Gather for a moment, so that a burst of messages becomes one batch."""
        try:
            rows = await self._inbox.take(1.0)
        except TimeoutError:
            silent_s = time.monotonic() - self._silent_since_s
            if self._config.silence_s is not None and silent_s > self._config.silence_s:
                raise SourceSilent(f"connected, but no message for {silent_s:.1f} s") from None
            return []
        if rows:
            self._silent_since_s = time.monotonic()
            await asyncio.sleep(GATHER_S)
            rows += self._inbox.rest()
        return rows

    async def close(self) -> None:
        """Disconnect and wait for the thread to end."""
        self._stopping.set()
        self._connection.wake()
        await asyncio.get_running_loop().run_in_executor(None, self._worker.shutdown)
