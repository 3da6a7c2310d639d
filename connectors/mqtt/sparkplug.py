"""Sparkplug B edge nodes: births name the metrics, data follow by alias and number, deaths end what was current.

Source: Eclipse Sparkplug specification 3.0, chapters 4 to 6.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from connectors.base import ARRIVAL_CLOCK, Tally
from connectors.columns import UNUSABLE, plausible
from connectors.mqtt.config import SparkplugConfig
from connectors.mqtt.sparkplug_payload import decode, is_good, rebirth, value_of
from fusion.records import Quality

Row = tuple[str, tuple[int, int, int, float, int]]

NAMESPACE = "spBv1.0"
SEQUENCE = 256
ASK_AGAIN_S = 5.0


@dataclass(slots=True)
class Tag:
    """A signal and what is known of its metric; ``t_ns`` is the stamp of its newest value."""

    signal: str
    index: int
    device: str
    metric: str
    alive: bool = False
    t_ns: int | None = None


@dataclass(frozen=True, slots=True)
class Metric:
    """What a birth said of a metric: its name and type."""

    name: str
    datatype: int


@dataclass(slots=True)
class Birth:
    """What the node has announced since it was born: metrics by device, by name and by alias."""

    death: int | None
    sequence: int
    named: dict[tuple[str, str], Metric] = field(default_factory=dict)
    aliases: dict[int, Metric] = field(default_factory=dict)


class EdgeNode:
    """One edge node and the tags taken from it and its devices; ``ask`` publishes a command to it.

    A tag whose node or device has died is not current: its value is repeated under its own stamp, as bad.
    """

    def __init__(
        self,
        config: SparkplugConfig,
        tags: Sequence[Tag],
        clock: str,
        tally: Tally,
        ask: Callable[[str, bytes], object],
    ) -> None:
        self.topic = f"{NAMESPACE}/{config.group}/+/{config.node}/#"
        self.name = f"{config.group}/{config.node}"
        self._command = f"{NAMESPACE}/{config.group}/NCMD/{config.node}"
        self._tags = {(tag.device, tag.metric): tag for tag in tags}
        self._clock = clock
        self._tally = tally
        self._ask = ask
        self._asked_s: float | None = None
        self._birth: Birth | None = None

    @property
    def alive(self) -> list[str]:
        """Signals that are current as long as nobody says otherwise."""
        return [tag.signal for tag in self._tags.values() if tag.alive]

    @property
    def message(self) -> str:
        """What is missing: the node's birth, or metrics that it did not name."""
        if self._birth is None:
            return f"{self.name}: not born"
        dead = [tag.signal for tag in self._tags.values() if not tag.alive]
        return f"{self.name}: not among the births: {', '.join(dead[:5])}" if dead else ""

    def ask_for_birth(self) -> None:
        """Ask the node to announce itself, but not all the time."""
        now_s = time.monotonic()
        if self._asked_s is None or now_s - self._asked_s >= ASK_AGAIN_S:
            self._asked_s = now_s
            self._ask(self._command, rebirth(time.time_ns() // 1_000_000))

    def rows(self, kind: str, device: str, data: bytes, received_ns: int) -> list[Row]:
        """What a message of that kind (NBIRTH, DDATA, ...) brings, in rows."""
        if kind not in ("NBIRTH", "NDATA", "NDEATH", "DBIRTH", "DDATA", "DDEATH"):
            return []
        payload = decode(data)
        if payload is None:
            self._tally.note("payload that is no Sparkplug", self.name)
            return []
        if kind == "NDEATH":
            return self._node_died(payload, received_ns)
        if kind == "NBIRTH":
            lost = self._died("", received_ns, everything=True)
            self._birth = Birth(_death_number(payload), payload.seq)
            return [*lost, *self._born("", payload, received_ns)]
        if self._birth is None:
            self._tally.note("message before the birth", self.name)
            self.ask_for_birth()
            return []
        self._check_sequence(payload)
        if kind == "DDEATH":
            return self._died(device, received_ns)
        born = kind == "DBIRTH"
        return self._born(device, payload, received_ns) if born else self._told(device, payload, received_ns)

    def _check_sequence(self, payload: Any) -> None:
        assert self._birth is not None  # noqa: S101 - asked before
        if not payload.HasField("seq"):
            return
        expected, self._birth.sequence = (self._birth.sequence + 1) % SEQUENCE, payload.seq
        if payload.seq != expected:
            self._tally.note("gap in the sequence", self.name)
            self.ask_for_birth()

    def _node_died(self, payload: Any, received_ns: int) -> list[Row]:
        """The broker tells so, maybe late: a death of an earlier life than this is none."""
        number = _death_number(payload)
        if self._birth is None or (number is not None and self._birth.death not in (None, number)):
            return []
        self._birth = None
        return self._died("", received_ns, everything=True)

    def _died(self, device: str, received_ns: int, *, everything: bool = False) -> list[Row]:
        rows: list[Row] = []
        for tag in self._tags.values():
            if tag.alive and (everything or tag.device == device):
                tag.alive = False
                t_ns = received_ns if tag.t_ns is None else tag.t_ns
                clock = ARRIVAL_CLOCK if tag.t_ns is None else self._clock
                rows.append((clock, (tag.index, t_ns, received_ns, *UNUSABLE)))
        return rows

    def _born(self, device: str, payload: Any, received_ns: int) -> list[Row]:
        assert self._birth is not None  # noqa: S101 - asked before
        for metric in payload.metrics:
            known = Metric(metric.name, metric.datatype)
            self._birth.named[device, metric.name] = known
            if metric.HasField("alias"):
                self._birth.aliases[metric.alias] = known
            if (tag := self._tags.get((device, metric.name))) is not None:
                tag.alive = True
        return self._told(device, payload, received_ns, birth=True)

    def _told(self, device: str, payload: Any, received_ns: int, *, birth: bool = False) -> list[Row]:
        assert self._birth is not None  # noqa: S101 - asked before
        rows: list[Row] = []
        for metric in payload.metrics:
            by_name = self._birth.named.get((device, metric.name))
            known = self._birth.aliases.get(metric.alias) if metric.HasField("alias") else by_name
            if known is None:
                self._tally.note("metric that no birth named", f"{self.name} {metric.name or metric.alias}")
                self.ask_for_birth()
            elif (tag := self._tags.get((device, known.name))) is not None:
                rows.append(self._row(tag, metric, known, payload, received_ns, birth=birth))
        return rows

    def _row(self, tag: Tag, metric: Any, known: Metric, payload: Any, received_ns: int, *, birth: bool) -> Row:
        value = value_of(metric, metric.datatype or known.datatype)
        clock, t_ns = self._stamp(metric, payload, received_ns)
        if birth and clock == self._clock:  # what a birth says holds now, since whenever it does
            t_ns = max(t_ns, tag.t_ns or 0)
        if clock == self._clock and not metric.is_historical:
            tag.t_ns = max(t_ns, tag.t_ns or 0)
        if value is None or not is_good(metric):
            self._tally.note("value not good", tag.signal)
            return clock, (tag.index, t_ns, received_ns, *UNUSABLE)
        return clock, (tag.index, t_ns, received_ns, value, int(Quality.GOOD))

    def _stamp(self, metric: Any, payload: Any, received_ns: int) -> tuple[str, int]:
        for stamp_ms in (metric.timestamp, payload.timestamp):
            if plausible(stamp_ms * 1_000_000, received_ns):
                return self._clock, stamp_ms * 1_000_000
        return ARRIVAL_CLOCK, received_ns


def _death_number(payload: Any) -> int | None:
    """The number that ties a death to its birth."""
    for metric in payload.metrics:
        if metric.name == "bdSeq":
            return int(metric.long_value if metric.HasField("long_value") else metric.int_value)
    return None
