"""A thread that keeps a connection to an MQTT broker, for everyone who has no loop of their own to turn one."""

from __future__ import annotations

import logging
import sys
import threading
import time
from collections.abc import Callable, Sequence
from enum import StrEnum

from fusion.errors import BrokerError, BrokerRefused, ConfigError
from fusion.mqtt.broker import Broker, client_name
from fusion.mqtt.connection import Connection
from fusion.mqtt.driver import Received

log = logging.getLogger(__name__)

STEP_S = 0.5
REFUSED_RETRY_S = 10.0
GOODBYE_S = 1.0
CLOSE_DEADLINE_S = 2.0


class ClientState(StrEnum):
    """Where a client stands with its broker."""

    CONNECTING = "connecting"
    ONLINE = "online"
    DOWN = "down"
    REFUSED = "refused"
    CLOSED = "closed"


class Client:
    """A thread that keeps one connection to a broker and comes back after every loss.

    Each connection subscribes to ``topics``. ``turn`` is called in the thread between two steps, with the connection
    or, while there is none, with None. ``last_words`` makes a retained message for everyone who looks for us: the
    broker publishes it (the will) if we are lost, we ourselves if we leave. Once the thread has failed, every call
    says why.
    """

    def __init__(
        self,
        broker: Broker,
        client_id: str = "",
        *,
        topics: Sequence[str] = (),
        received: Received | None = None,
        turn: Callable[[Connection | None], None] = lambda _: None,
        last_words: Callable[[], tuple[str, bytes]] | None = None,
        retry_s: float = 0.5,
        retry_max_s: float = 5.0,
    ) -> None:
        broker.check()
        self.state = ClientState.CONNECTING
        self.message = f"connecting to broker {broker.address}"
        self.denied = ""
        self._broker, self._where = broker, broker.address
        self._client_id = broker.client_id or client_id or client_name()
        self._topics = topics
        self._received = received
        self._turn = turn
        self._last_words = last_words
        self._retry_s = self._retry_min_s = retry_s
        self._retry_max_s = retry_max_s
        self._connection: Connection | None = None
        self._news = threading.Event()
        self._answered = threading.Event()
        self._stopping = threading.Event()
        self._failure: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name=self._client_id, daemon=True)

    def start(self) -> None:
        """Begin to connect; returns at once."""
        self._thread.start()

    def check(self) -> None:
        """Hear whether the thread still lives.

        Raises:
            BrokerError: it has failed; the cause is attached.
        """
        if self._failure is not None:
            raise BrokerError(f"{self.message}: {self._failure!r}") from self._failure

    def reach(self) -> None:
        """Wait for the outcome of the first attempt to connect.

        Raises:
            BrokerError: there is no broker, or it refuses us.
        """
        self._answered.wait()
        self.check()
        if self.state is not ClientState.ONLINE:
            raise BrokerError(self.message)

    def publish(self, topic: str, payload: bytes, qos: int = 0, *, retain: bool = False) -> None:
        """Send a message; while there is no connection it is lost."""
        self.check()
        connection = self._connection
        if connection is not None:
            connection.publish(topic, payload, qos, retain=retain)

    def wake(self) -> None:
        """Have ``turn`` called soon."""
        self._news.set()
        connection = self._connection
        if connection is not None:
            connection.wake()

    def close(self) -> bool:
        """Say the last words and leave, in two seconds or a vain attempt to connect; whether the thread has ended."""
        self._stopping.set()
        self.wake()
        if self._thread.ident is None:
            return False
        self._thread.join(max(CLOSE_DEADLINE_S, self._broker.connect_timeout_s + STEP_S))
        if self._thread.is_alive():
            log.warning("%s: broker %s did not answer in time; left without goodbye", self._client_id, self._where)
        return not self._thread.is_alive()

    # -- in the thread

    def _run(self) -> None:
        try:
            while not self._stopping.is_set():
                self._session()
                self._idle(REFUSED_RETRY_S if self.state is ClientState.REFUSED else self._retry_s)
                self._retry_s = min(2 * self._retry_s, self._retry_max_s)
        finally:
            failure = sys.exception()
            ended = "closed" if failure is None else f"the thread of MQTT client {self._client_id} has failed"
            self.state, self.message, self._failure = ClientState.CLOSED, ended, failure
            self._answered.set()

    def _session(self) -> None:
        """One connection, from hello to its loss."""
        will = self._last_words() if self._last_words is not None else None
        connection = Connection(
            self._broker, self._client_id, received=self._received, will=will, stopping=self._stopping
        )
        try:
            connection.open()
            self._connection = connection
            self._greeted(connection)
            self._serve(connection)
        except (BrokerError, ConfigError) as error:
            if not self._stopping.is_set():
                self._lost(error)
        finally:
            self._connection = None
            connection.close()

    def _greeted(self, connection: Connection) -> None:
        denied = connection.subscribe(self._topics, 1) if self._topics else []
        self.state, self.message = ClientState.ONLINE, f"broker {self._where}, MQTT {connection.version}"
        log.info("%s: connected to %s", self._client_id, self.message)
        self.denied = f"broker {self._where} denied to subscribe {', '.join(denied)}" if denied else ""
        if denied:
            log.warning("%s: %s", self._client_id, self.denied)
        self._retry_s = self._retry_min_s
        self._answered.set()

    def _serve(self, connection: Connection) -> None:
        while not connection.lost and not self._stopping.is_set():
            self._turn(connection)
            connection.step(STEP_S)
        if connection.lost:
            raise BrokerError(f"broker {self._where} was lost: {connection.lost}")
        self._turn(connection)
        if self._last_words is not None:  # a broker acknowledges in order: what was sent before has arrived then, too
            connection.deliver(*self._last_words(), timeout_s=GOODBYE_S, retain=True)
        connection.leave()

    def _idle(self, duration_s: float) -> None:
        """Wait before the next attempt."""
        deadline = time.monotonic() + duration_s
        self._turn(None)
        while not self._stopping.is_set() and (left_s := deadline - time.monotonic()) > 0:
            self._news.wait(min(left_s, STEP_S))
            self._news.clear()
            self._turn(None)

    def _lost(self, error: Exception) -> None:
        refused = isinstance(error, BrokerRefused | ConfigError)
        before, self.state = self.state, ClientState.REFUSED if refused else ClientState.DOWN
        self.message = f"{error}; trying again"
        if self.state is not before:
            log.warning("%s: %s", self._client_id, self.message)
        self._answered.set()
