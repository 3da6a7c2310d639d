"""What every source promises, asked of each against a real server that can be cut."""

import asyncio
import contextlib
import gc
import logging
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from connectors.base import Driver, Source
from connectors.buffer import count
from connectors.kinds import source_of
from connectors.lidar.config import LidarConfig
from connectors.media.config import AudioConfig, VideoConfig
from connectors.mqtt.config import MqttConfig, TopicConfig
from connectors.opcua.config import OpcUaConfig
from fusion.clock import CLOCK
from fusion.health import SourceState
from fusion.records import Item, Sample
from tests.contract.peers import (
    PLANT,
    LidarPeer,
    MqttPeer,
    OpcUaPeer,
    RtspPeer,
    collect,
    supervision,
    until,
)


@dataclass
class Case:
    """A server and how to build a source of it, with so many values of buffer."""

    peer: Any
    build: Callable[..., Source]
    rings: bool = False
    """Whether objects of its library know each other, so that only the collector finds them."""


def opcua(folder: Path) -> Case:
    peer = OpcUaPeer()

    def build(**more: object) -> Source:
        return source_of(
            OpcUaConfig(
                url=peer.url,
                namespace_uri=peer.URI,
                signals=["TT101", "LT101"],
                insecure=True,
                publishing_interval_ms=100,
                sampling_interval_ms=50,
                supervision=supervision(**more),
            ),
            PLANT,
        )

    return Case(peer, build, rings=True)


def mqtt(folder: Path) -> Case:
    if not Path(MqttPeer.EXECUTABLE).exists():
        pytest.skip("mosquitto is not installed")
    peer = MqttPeer(folder)
    topic = TopicConfig(topic="plant/{signal}", signals=["TT101", "LT101"], time_path="t_ns", quality_path="quality")
    return Case(
        peer,
        lambda **more: source_of(MqttConfig(port=peer.port, topics=[topic], supervision=supervision(**more)), PLANT),
        rings=True,
    )


def camera(folder: Path) -> Case:
    peer = RtspPeer()
    url = peer.url("camera")
    return Case(
        peer, lambda **more: source_of(VideoConfig(url=url, signal="camera", supervision=supervision(**more)), PLANT)
    )


def microphone(folder: Path) -> Case:
    peer = RtspPeer()
    url = peer.url("microphone")
    return Case(
        peer,
        lambda **more: source_of(AudioConfig(url=url, signal="microphone", supervision=supervision(**more)), PLANT),
    )


def lidar(folder: Path) -> Case:
    peer = LidarPeer()
    return Case(
        peer,
        lambda **more: source_of(
            LidarConfig(
                signal="lidar", port=peer.port, supervision=supervision(stale_after_s=0.5, open_timeout_s=0.5, **more)
            ),
            PLANT,
        ),
    )


CASES = [opcua, mqtt, camera, microphone, lidar]


@pytest.fixture(params=CASES, ids=[case.__name__ for case in CASES])
def case(request: pytest.FixtureRequest, tmp_path: Path) -> Case:
    return request.param(tmp_path)


async def fed(case: Case, condition: Callable[[], object]) -> None:
    """Keep the server sending until a condition holds."""
    number = 0

    async def feeding() -> None:
        nonlocal number
        while True:
            number += 1
            await case.peer.feed(number)
            await asyncio.sleep(0.05)

    task = asyncio.create_task(feeding())
    try:
        await until(condition)
    finally:
        task.cancel()
        await asyncio.wait({task})


def stamps(items: list[Item]) -> list[int]:
    return [t for item in items for t in ([item.t_ns] if isinstance(item, Sample) else item.t_ns.tolist())]


def test_a_source_delivers_stops_survives_a_cut_and_conserves(case: Case):
    async def scenario() -> None:
        await case.peer.start()
        source = case.build()
        assert source.signals
        await source.start()
        items: list[Item] = []
        try:
            await fed(case, lambda: items.extend(source.drain()) or sum(map(count, items)) >= 8)
            check_items(source, items)
            assert source.health().state is SourceState.LIVE
            assert source.health().rate_hz > 0

            epoch = source.epoch
            await case.peer.stop()
            await until(lambda: source.health().state in (SourceState.DOWN, SourceState.STALE))
            assert source.health().message
            items += source.drain()

            await case.peer.start()
            again: list[Item] = []
            await fed(case, lambda: again.extend(source.drain()) or sum(map(count, again)) >= 3)
            assert source.epoch > epoch
            assert source.health().state is SourceState.LIVE
            (gap, *_) = source.gaps()
            assert gap.t_from_ns < gap.t_to_ns <= CLOCK.now_ns()
            assert gap.reason

            await source.stop()
            await source.stop()
            drained = sum(map(count, items + again + source.drain()))
            health = source.health()
            assert health.received == drained + sum(health.dropped.values())
            assert health.state is SourceState.DOWN
        finally:
            await source.stop()
            await case.peer.stop()

    asyncio.run(scenario())


@contextlib.contextmanager
def uncollected():
    """The collector stands still meanwhile: what goes has gone because nothing knows it, nor a log that is kept."""
    gc.collect()
    gc.disable()
    logging.disable()
    try:
        yield
    finally:
        logging.disable(logging.NOTSET)
        gc.enable()


def test_a_connection_that_ended_and_attempts_that_failed_leave_nothing(case: Case, monkeypatch: pytest.MonkeyPatch):
    async def scenario() -> None:
        await case.peer.start()
        source, drivers = case.build(), list[weakref.ref[Driver]]()
        make = source._connect
        monkeypatch.setattr(source, "_connect", lambda: drivers.append(weakref.ref(driver := make())) or driver)
        await source.start()
        try:
            await fed(case, lambda: source.drain())
            with uncollected():
                await case.peer.stop()
                await until(lambda: source.epoch >= 4)
                await source.stop()
                if case.rings:
                    gc.collect()
                assert [driver() for driver in drivers[:3]] == [None] * 3
        finally:
            await source.stop()
            await case.peer.stop()

    asyncio.run(scenario())


def check_items(source: Source, items: list[Item]) -> None:
    """Values carry the time at the source, in UTC, before they arrived; only declared signals appear."""
    now_ns = CLOCK.now_ns()
    assert all(now_ns - 60e9 < t_ns < now_ns + 0.2e9 for t_ns in stamps(items))
    for item in items:
        names = (item.signal,) if isinstance(item, Sample) else item.signals
        assert set(names) <= set(source.signals)
        assert item.clock
        assert not item.replayed
        if isinstance(item, Sample):
            signal = PLANT.by_name[item.signal]
            assert item.value.ndim == len(signal.shape)
            assert item.value.dtype == {2: np.uint8, 1: np.float32}.get(len(signal.shape)) or item.value.shape[1] == 4
            assert now_ns - 60e9 < item.received_ns <= now_ns
        else:
            assert np.all(np.diff(item.received_ns) >= 0)


def test_a_small_buffer_drops_the_oldest_and_counts(case: Case):
    async def scenario() -> None:
        await case.peer.start()
        source = case.build(buffer_values=3)
        await source.start()
        try:
            await fed(case, lambda: source.health().dropped.get("buffer_full", 0) >= 3)
            await source.stop()
            items = source.drain()
            assert 0 < sum(map(count, items)) <= 3
            health = source.health()
            assert health.received == sum(map(count, items)) + sum(health.dropped.values())
        finally:
            await source.stop()
            await case.peer.stop()

    asyncio.run(scenario())


def test_a_source_without_a_server_keeps_trying_and_stops_quickly(case: Case):
    async def scenario() -> None:
        source = case.build()
        await source.start()
        await until(lambda: source.epoch >= 2)
        assert source.health().state is SourceState.DOWN
        assert source.drain() == []
        started_s = time.monotonic()
        await source.stop()
        assert time.monotonic() - started_s < 3

    asyncio.run(scenario())


def test_collect_is_bounded():
    async def scenario() -> None:
        source = source_of(LidarConfig(signal="lidar", port=0), PLANT)
        with pytest.raises(AssertionError, match="in time"):
            await collect(source, lambda items: items, seconds=0.05)

    asyncio.run(scenario())
