import asyncio
import time
from pathlib import Path

import numpy as np
import pytest

from connectors.base import Source
from connectors.columns import ColumnsBuilder
from connectors.kinds import source_of
from connectors.replay import ReplayConfig
from fusion.errors import ConfigError, PlantMismatch, RecordingError
from fusion.health import SourceState
from fusion.plant import Plant
from fusion.recordings.recording import Recording, arrival_ns
from fusion.recordings.writer import RecordingWriter
from fusion.records import NS_PER_S, Item, Sample
from tests.contract.peers import PLANT, picture, supervision, until

T0_NS = 1_800_000_000 * NS_PER_S


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twenty seconds of two tags, a picture each second."""
    path = tmp_path_factory.mktemp("replay") / "recording"
    with RecordingWriter(path, PLANT) as writer:
        for second in range(20):
            t_ns = T0_NS + second * NS_PER_S
            rows = ColumnsBuilder()
            for index in range(2):
                rows.add(index, t_ns, t_ns + 50_000_000, second + 0.5 * index, 2)
            writer.write(rows.columns(("TT101", "LT101"), "opcua:x"))
            writer.write(
                Sample(signal="camera", t_ns=t_ns, received_ns=t_ns + 80_000_000, value=picture(second), clock="rtsp:x")
            )
    return path


async def play(source: Source, pause_s: float = 0.0) -> list[Item]:
    items: list[Item] = []
    await source.start()
    try:
        while not source.finished:
            await asyncio.wait_for(source.wake.wait(), 10)
            items += source.drain()
            await asyncio.sleep(pause_s)
    finally:
        await source.stop()
    return items


def test_a_recording_is_replayed_as_it_was_and_ends(folder: Path):
    source = source_of(ReplayConfig(path=str(folder)), PLANT)
    items = asyncio.run(play(source))
    expected = list(Recording(folder).items())
    assert len(items) == len(expected)
    for got, want in zip(items, expected, strict=True):
        assert type(got) is type(want)
        assert got.replayed
        assert got.clock == want.clock
        assert np.array_equal(got.value, want.value)
        assert np.array_equal(got.t_ns, want.t_ns)
        assert np.array_equal(got.received_ns, want.received_ns)
    assert [arrival_ns(item) for item in items] == sorted(arrival_ns(item) for item in items)
    assert source.health().state is SourceState.DOWN
    assert source.health().message == "end of recording"
    assert source.health().received == 60


def test_a_slow_consumer_loses_nothing(folder: Path):
    source = source_of(ReplayConfig(path=str(folder), supervision=supervision(buffer_values=5)), PLANT)
    items = asyncio.run(play(source, pause_s=0.01))
    assert sum(1 if isinstance(item, Sample) else len(item) for item in items) == 60
    assert source.health().dropped == {}


def test_speed_is_kept(folder: Path):
    started_s = time.monotonic()
    asyncio.run(play(source_of(ReplayConfig(path=str(folder), speed=20.0), PLANT)))
    assert 0.9 <= time.monotonic() - started_s < 3


def test_it_can_be_stopped_on_the_way_and_begins_anew(folder: Path):
    async def scenario() -> None:
        source = source_of(ReplayConfig(path=str(folder), speed=1.0), PLANT)
        for _ in range(2):
            await source.start()
            first = await until(source.drain)
            assert arrival_ns(first[0]) == T0_NS + 50_000_000
            assert not source.finished
            await source.stop()
            await source.stop()
            source.drain()

    asyncio.run(scenario())


def test_foreign_or_missing_recordings_are_refused(folder: Path, tmp_path: Path):
    with pytest.raises(PlantMismatch, match="another plant"):
        source_of(ReplayConfig(path=str(folder)), Plant(name="other", signals=PLANT.signals))
    with pytest.raises(RecordingError):
        source_of(ReplayConfig(path=str(tmp_path / "none")), PLANT)
    with pytest.raises(ConfigError, match="speed"):
        ReplayConfig(path=str(folder), speed=-1)
