"""The sources of a site, heard for some seconds: what each signal delivered, by which clock, and how it stands."""

from __future__ import annotations

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import dataclass, field

from connectors.base import ARRIVAL_CLOCK, Source
from fusion.health import SourceState
from fusion.records import NS_PER_S, Columns, Quality, Sample

TURN_S = 0.05
OPENING_S = 15.0
FEWEST = 3
ADVICE = {
    SourceState.REFUSED: "correct user, password or certificate; the peer answered and said no",
    SourceState.DOWN: "is it switched on, is the address right, does a firewall stand between?",
    SourceState.STALE: "it is connected and silent: does it still send?",
    SourceState.CONNECTING: "no answer yet: is the address right?",
}


@dataclass(slots=True)
class Heard:
    """What a source delivered; ``by_change`` of one that sends only what changed and says that the rest is alive."""

    signals: tuple[str, ...]
    live: bool = False
    message: str = ""
    advice: str = ""
    seconds: float = 0.0
    by_change: bool = False
    count: Counter[str] = field(default_factory=Counter)
    bad: Counter[str] = field(default_factory=Counter)
    low: dict[str, float] = field(default_factory=dict)
    high: dict[str, float] = field(default_factory=dict)
    delays_s: dict[str, list[float]] = field(default_factory=lambda: defaultdict(list))

    @property
    def values(self) -> int:
        """All good values together."""
        return self.count.total()

    @property
    def offset_s(self) -> dict[str, float]:
        """How far each clock of a device is behind arrival, by the quickest way: not by what was old when we came."""
        own = {c: d for c, d in self.delays_s.items() if c != ARRIVAL_CLOCK and not c.startswith("file:")}
        return {clock: min(delays[1:]) for clock, delays in own.items() if len(delays) > 1}

    def frozen(self, name: str) -> bool:
        """Whether a value never moved; of a source that sends changes, whether none came after the first."""
        return self.count[name] >= (1 if self.by_change else FEWEST) and self.low[name] == self.high[name]

    def take(self, item: Columns | Sample) -> None:
        """Note one batch or one medium's sample."""
        if isinstance(item, Sample):
            (self.bad if item.quality is Quality.BAD else self.count)[item.signal] += 1
            self.low[item.signal], self.high[item.signal] = 0.0, 1.0
            self.delays_s[item.clock].append((item.received_ns - item.t_ns) / NS_PER_S)
            return
        self.by_change = self.by_change or item.heartbeat_ns is not None
        for index, value, quality in zip(item.index, item.value, item.quality, strict=True):
            name = item.signals[index]
            if quality == Quality.BAD:
                self.bad[name] += 1
                continue
            self.count[name] += 1
            self.low[name] = min(self.low.get(name, float(value)), float(value))
            self.high[name] = max(self.high.get(name, float(value)), float(value))
        if len(item):
            self._take_delays(item)

    def _take_delays(self, item: Columns) -> None:
        """The newest value of a batch: an older one may be of a tag that has not changed for long."""
        newest = int(item.t_ns.argmax())
        self.delays_s[item.clock].append(float(item.received_ns[newest] - item.t_ns[newest]) / NS_PER_S)


def listen(sources: Mapping[str, Source], seconds: float) -> dict[str, Heard]:
    """Every source heard for some seconds, all at the same time, from when it is live."""
    return asyncio.run(_all(sources, seconds))


async def _all(sources: Mapping[str, Source], seconds: float) -> dict[str, Heard]:
    heard = await asyncio.gather(*(_one(source, seconds) for source in sources.values()))
    return dict(zip(sources, heard, strict=True))


async def _one(source: Source, seconds: float) -> Heard:
    heard = Heard(tuple(source.signals))
    await source.start()
    try:
        opened = await _opened(source, max(OPENING_S, seconds))
        began_s = time.monotonic()
        while opened and time.monotonic() - began_s < seconds:
            for item in source.drain():
                heard.take(item)
            await asyncio.sleep(TURN_S)
        health = source.health()
        heard.seconds = time.monotonic() - began_s
        heard.live = health.state is SourceState.LIVE or source.finished
        heard.message, heard.advice = health.message, ADVICE.get(health.state, "")
        if "in use" in health.message:
            heard.advice = "somebody listens there already: is the daemon running?"
    finally:
        await source.stop()
    return heard


async def _opened(source: Source, patience_s: float) -> bool:
    """Wait until a source delivers, or has been refused or lost."""
    deadline = time.monotonic() + patience_s
    while time.monotonic() < deadline:
        if source.state is SourceState.LIVE or source.finished:
            return True
        if source.state in (SourceState.REFUSED, SourceState.DOWN):
            return False
        await asyncio.sleep(TURN_S)
    return False
