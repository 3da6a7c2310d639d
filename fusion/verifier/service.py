"""`fusion verify`: the gate between MQTT and OPC UA, one step an interval; whatever fails hands back.

Letters come in on MQTT and are heard before each step; what was written is read back within the step.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections import deque

import msgspec

from fusion.clock import CLOCK, Clock
from fusion.ending import ignore_hangup, stop_on_signals
from fusion.errors import ConfigError, FusionError, SourceError
from fusion.garbage import set_apart
from fusion.mqtt.client import Client
from fusion.notify import notify
from fusion.plant import Plant
from fusion.publish import messages, orders
from fusion.publish.encoding import verifier_message
from fusion.publish.messages import HealthMessage, RecommendationMessage
from fusion.verifier.gate import Gate, GateState, Picture
from fusion.verifier.plc import Plc
from fusion.verifier.settings import VerifierConfig, addresses, checked_loops, read_plant

log = logging.getLogger(__name__)

HEARD = (("recommendation",), ("recommendation", "ack"), ("health",), ("verifier", "order"))
WAITING = 1000
RETRY_S = 2.0
TELL_EVERY_S = 2.0
COUNTER = 1_000_000


class Verifier:
    """One plant's verifier; it runs until ``stop`` is set."""

    def __init__(self, config: VerifierConfig, clock: Clock = CLOCK) -> None:
        self._config, self._clock = config, clock
        self._plant: Plant = read_plant(config)
        self._loops = checked_loops(config, self._plant)
        self._addresses = addresses(config)
        self.gate = Gate(
            self._plant,
            self._loops,
            timeout_s=config.heartbeat.timeout_s,
            interval_s=config.interval_s,
            supervised=config.supervised,
            accepted_by=tuple(config.accepted_by),
        )
        self._letters: deque[tuple[str, bytes]] = deque(maxlen=WAITING)
        self._beat = 0
        self._told: tuple[GateState, str] | None = None
        self._told_s = 0.0
        self._checked = False
        self._client = Client(
            config.broker,
            f"fusion-verifier-{self._plant.name}-{os.getpid()}",
            topics=[self._topic(*levels) for levels in HEARD],
            received=self._received,
            last_words=lambda: (self._topic("verifier"), self._state("offline", "")),
        )

    async def run(self, stop: asyncio.Event) -> None:
        """Connect, and step until asked to stop; a control system that is lost is connected to again.

        Raises:
            ConfigError: a node that is not there, or limits that exclude the plant as it is.
            BrokerError: the thread that speaks MQTT has failed.
        """
        self._client.start()
        notify("READY=1")
        try:
            while not stop.is_set():
                try:
                    async with Plc(self._config.opcua, self._addresses) as plc:
                        await self._steps(plc, stop)
                except SourceError as error:
                    self._lost(str(error))
                    await _pause(stop, RETRY_S)
        finally:
            notify("STOPPING=1")
            self._client.close()

    async def _steps(self, plc: Plc, stop: asyncio.Event) -> None:
        """One step an interval; on the way out what is being written is handed back."""
        self._check_present(await plc.read())
        try:
            while not stop.is_set():
                began_s = time.monotonic()
                await self.step(plc)
                await _pause(stop, self._config.interval_s - (time.monotonic() - began_s))
        finally:
            self.gate.trip("the verifier was stopped")
            with contextlib.suppress(SourceError):
                await self._release(plc)
            self._tell()

    async def step(self, plc: Plc) -> None:
        """Hear, look, write, read back, tell."""
        self._client.check()
        now_s = time.monotonic()
        picture = self._seen(await plc.read())
        self._hear(now_s, picture)
        writes = self.gate.step(now_s, self._clock.now_ns(), picture)
        if writes:
            await self._write(plc, writes)
        if self.gate.state is not GateState.HANDED_BACK:
            self._beat = (self._beat + 1) % COUNTER
            await plc.write({"heartbeat.ours": self._beat})
        await self._release(plc)
        self._tell()

    async def _write(self, plc: Plc, writes: dict[str, float]) -> None:
        """Write setpoints and read them back at once; what is refused hands back."""
        refused = await plc.write({f"loops.{name}.node": value for name, value in writes.items()})
        if refused:
            self.gate.trip("; ".join(f"{key}: refused, {why}" for key, why in refused.items()))
        else:
            self.gate.wrote(self._seen(await plc.read()).setpoints)

    async def _release(self, plc: Plc) -> None:
        """Hand loops back, where that was decided and they have a node for it."""
        if not self.gate.release:
            return
        self.gate.release = False
        log.warning("handed back: %s", self.gate.reason)
        values = {n: loop.release_value for n, loop in self._loops.items() if loop.release_value is not None}
        refused = await plc.write({f"loops.{name}.release_node": value for name, value in values.items()})
        for key, why in refused.items():
            log.error("%s: could not hand back, %s", key, why)

    def _lost(self, why: str) -> None:
        self.gate.trip(why)
        self.gate.release = False  # nobody is there to hear it: their watchdog sheds
        log.warning("the control system is lost: %s", why)
        self._tell()

    def _seen(self, values: dict[str, float | None]) -> Picture:
        return Picture(
            setpoints={name: values[f"loops.{name}.node"] for name in self._loops},
            modes={name: values[f"loops.{name}.mode_node"] for name in self._loops},
            theirs=values["heartbeat.theirs"],
            enabled=bool(values["enable_node"]),
        )

    def _check_present(self, values: dict[str, float | None]) -> None:
        """At the first start, limits that exclude the plant as it is are a mistake in the configuration."""
        if self._checked:
            return
        self._checked = True
        for name, loop in self._loops.items():
            value = values[f"loops.{name}.node"]
            if value is not None and not loop.low <= value <= loop.high:
                limits = f"low {loop.low:g}, high {loop.high:g}"
                raise ConfigError(f"loops.{name}: {limits} exclude its present setpoint, {value:g} {loop.unit}")

    # --- MQTT

    def _topic(self, *levels: str) -> str:
        return "/".join(("fusion", self._plant.name, "v1", *levels))

    def _received(self, topic: str, payload: bytes, retained: bool) -> None:
        """In the client's thread: what is retained is old, but for health."""
        if not retained:
            self._letters.append((topic, payload))

    def _hear(self, now_s: float, picture: Picture) -> None:
        while self._letters:
            topic, payload = self._letters.popleft()
            try:
                self._take(topic, payload, now_s, picture)
            except FusionError as error:
                log.warning("%s: %s", topic, error)

    def _take(self, topic: str, payload: bytes, now_s: float, picture: Picture) -> None:
        if topic == self._topic("verifier", "order"):
            order = orders.decode_verifier_order(payload)
            self.gate.order(order.order == "start", order.by, now_s, picture)
            log.warning("verifier: %s", self.gate.reason)
            self._told = None
        elif topic == self._topic("recommendation", "ack"):
            self.gate.hear_answer(orders.decode_answer(payload))
        else:
            message = messages.decode(messages.moved(payload, -self._clock.step_ns()))
            if isinstance(message, HealthMessage):
                self.gate.hear_daemon(now_s, message.state == "online")
            elif isinstance(message, RecommendationMessage):
                self.gate.hear_advice(message)

    def _tell(self) -> None:
        """Answers that are due, and how we are: at each change, and as a heartbeat."""
        for answer in self.gate.answers:
            log.info("recommendation %s: %s %s", answer.id, answer.answer, answer.reason)
            self._client.publish(self._topic("recommendation", "ack"), msgspec.json.encode(answer), 1)
        self.gate.answers.clear()
        now_s, state = time.monotonic(), (self.gate.state, self.gate.reason)
        if state != self._told or now_s - self._told_s >= TELL_EVERY_S:
            self._told, self._told_s = state, now_s
            self._client.publish(self._topic("verifier"), self._state(state[0].value, state[1]), 1, retain=True)
        notify(f"STATUS={state[0].value}: {state[1]}", "WATCHDOG=1")

    def _state(self, state: str, reason: str) -> bytes:
        message = verifier_message(self._plant, self._clock.now_ns(), state, reason, self.gate.writing, self._beat)
        return messages.moved(messages.encode(message), self._clock.step_ns())


def run(config: VerifierConfig) -> None:
    """`fusion verify` until a signal ends it."""
    ignore_hangup()
    set_apart()

    async def life() -> None:
        stop = asyncio.Event()
        with stop_on_signals(stop):
            await Verifier(config).run(stop)

    asyncio.run(life())


async def _pause(stop: asyncio.Event, seconds: float) -> None:
    with contextlib.suppress(TimeoutError):
        await asyncio.wait_for(stop.wait(), max(seconds, 0.0))
