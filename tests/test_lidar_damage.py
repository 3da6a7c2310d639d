"""What a LiDAR meets in the field: packets out of order, of others and forged; files that are not what they promise."""

import asyncio
import os
import random
import signal
import socket
import struct

import numpy as np
import pytest

from connectors.base import Source, Tally
from connectors.kinds import source_of
from connectors.lidar.config import LidarConfig
from connectors.lidar.headers import check
from connectors.lidar.turns import HOUR_US, STRAYS, Turns
from fusion.records import NS_PER_S, Quality, Sample
from tests.contract.peers import PLANT, LidarPeer, collect, supervision, until

STEP, PACKETS, STEP_US = 480, 75, 1333


def packet(number: int, from_us: int = 0, azimuth: int = 0, fill: bytes = b"") -> bytes:
    """Packet ``number`` of a sensor that turns ten times a second, 75 packets a turn."""
    head = struct.pack("<HH", 0xEEFF, (azimuth + STEP * number) % 36000)
    return head.ljust(1200, fill or b"\0") + struct.pack("<IBB", (from_us + STEP_US * number) % HOUR_US, 0x37, 0x22)


def turned(stream: list[bytes]) -> tuple[list[list[int]], dict[str, int]]:
    """The turns of a stream as azimuths [degrees], and what was counted."""
    turns: Turns[bytes] = Turns(tally := Tally())
    found = [turns.take(data, data, i * STEP_US * 1000) for i, data in enumerate(stream)]
    return [[struct.unpack_from("<HH", d)[1] // 100 for d in turn] for turn in found if turn], dict(tally.lost)


IN_ORDER = [packet(i) for i in range(4 * PACKETS)]
WHOLE = [int(4.8 * i) for i in range(PACKETS)]


def test_packets_in_order_are_whole_turns_across_the_hour():
    assert turned(IN_ORDER) == ([WHOLE] * 3, {})
    assert turned([packet(i, HOUR_US - 20 * STEP_US) for i in range(4 * PACKETS)]) == ([WHOLE] * 3, {})


def test_swapped_and_doubled_packets_change_nothing():
    stream = list(IN_ORDER)
    for i in (30, 101, 180):
        stream[i], stream[i + 1] = stream[i + 1], stream[i]
    stream[40:40] = [packet(40), packet(38)]
    assert turned(stream) == ([WHOLE] * 3, {"packet doubled": 2})


def test_forged_packets_cost_no_turn():
    rng = random.Random(0)
    forged = [b"\xff\xee" + rng.randbytes(1204) for _ in range(30)]
    stream = list(IN_ORDER)
    for data in forged:
        stream.insert(rng.randrange(1, len(stream)), data)
    turns, lost = turned(stream)
    assert turns == [WHOLE] * 3
    assert lost == {"packet of no turn": 30}


def test_a_second_sensor_does_not_mix_in_and_one_that_starts_anew_is_followed():
    other = [packet(i, 900_000_000, 17_000) for i in range(4 * PACKETS)]
    mixed = [data for pair in zip(IN_ORDER, other, strict=True) for data in pair]
    assert turned(mixed) == ([WHOLE] * 3, {"packet of no turn": 4 * PACKETS})
    turns, lost = turned([*IN_ORDER[:100], *other])
    assert (len(turns[0]), len(turns[1])) == (PACKETS, PACKETS)
    assert turns[1][0] == (17_000 + STEP * (STRAYS - 1)) % 36000 // 100
    assert lost == {"packet of no turn": STRAYS - 1, "packet of a torn turn": 100 - PACKETS}


@pytest.mark.parametrize("sector", [(9_000, 27_000), (27_000, 9_000), (0, 1_500)])
def test_a_sector_comes_whole(sector: tuple[int, int]):
    begin, end = sector
    inside = [d for d in IN_ORDER if (struct.unpack_from("<HH", d)[1] - begin) % 36000 < (end - begin) % 36000]
    turns, lost = turned(inside)
    assert {len(set(turn)) for turn in turns} == {len(inside) // 4}
    assert (len(turns), lost) == (3, {})


def test_one_sender_a_source():
    """A second sensor on the same port, with the same clock, from another address."""

    async def scenario() -> None:
        peer = LidarPeer(distance_m=5.0)
        source = source_of(LidarConfig(signal="lidar", port=peer.port, supervision=supervision()), PLANT)
        await source.start()
        await peer.start()
        other = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        other.bind(("127.0.0.2", 0))
        try:
            await collect(source, lambda items: items)
            far = LidarPeer(distance_m=9.0)
            for i in range(30):
                other.sendto(far.packet(3600 * i % 36000), ("127.0.0.1", peer.port))
                await asyncio.sleep(0.01)
            items = await collect(source, lambda items: len(items) >= 3)
            ranges = np.concatenate([np.linalg.norm(item.value[:, :3], axis=1) for item in items])
            assert ranges.max() < 6
            assert "packet of another sender 30 (127.0.0.2)" in source.health().message
        finally:
            other.close()
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())


PCD = (
    "VERSION .7\nFIELDS {fields}\nSIZE {sizes}\nTYPE {types}\nCOUNT {counts}\nWIDTH {points}\nHEIGHT 1\n"
    "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS {points}\nDATA {form}\n"
)
XYZ = {"fields": "x y z", "sizes": "4 4 4", "types": "F F F", "counts": "1 1 1"}
PLY = (
    "ply\nformat {form} 1.0\nelement vertex {points}\n"
    + "".join(f"property float {a}\n" for a in "xyz")
    + "end_header\n"
)
ROW = struct.pack("<3f", 1, 2, 3)


def ply(points: int, rows: bytes, form: str = "binary_little_endian") -> bytes:
    return PLY.format(form=form, points=points).encode() + rows


def pcd(points: int, rows: bytes, form: str = "binary", **more: str) -> bytes:
    return PCD.format(points=points, form=form, **{**XYZ, **more}).encode() + rows


TORN = {
    "promises.ply": (ply(2_000_000_000, ROW), "promises 2000000000 points"),
    "promises.pcd": (pcd(2_000_000_000, ROW), "promises 2000000000 points"),
    "short.ply": (ply(1000, ROW * 10), "ends after"),
    "short.pcd": (pcd(1000, ROW * 10), "ends after"),
    "short_text.ply": (ply(3, b"1 2 3\n4 5 6\n", "ascii"), "before the 3 rows"),
    "short_row.pcd": (pcd(2, b"1 2 3\n4 5", "ascii"), "before the 2 rows"),
    "packed.pcd": (
        pcd(1000, struct.pack("<II", 10, 4_000_000_000) + b"x" * 10, "binary_compressed"),
        "holds 4000000000",
    ),
    "headless.pcd": (b"VERSION .7\nDATA ascii\n", "lacks"),
    "endless.ply": (b"ply\nformat ascii 1.0\n", "does not end"),
    "counts.pcd": (pcd(1, ROW, counts="1 1"), "different lengths"),
    "empty.pcd": (b"", "does not end"),
}


@pytest.mark.parametrize("name", TORN)
def test_what_a_header_promises_and_the_file_does_not_keep_is_refused(tmp_path, name: str):
    data, reason = TORN[name]
    (tmp_path / name).write_bytes(data)
    with pytest.raises(ValueError, match=reason):
        check(tmp_path / name)


def play(folder) -> Source:
    config = LidarConfig(signal="lidar", paths=[str(folder / "*.*")], timestamps="mtime", realtime=False)
    return source_of(config, PLANT)


async def all_of(source: Source) -> list[Sample]:
    items: list[Sample] = []
    await until(lambda: items.extend(source.drain()) or source.finished, 30)
    return items


def test_files_that_kill_the_reader_cost_no_other(tmp_path):
    """A field name that stands twice ends the library's process; what is torn never reaches it."""
    twice = {"fields": "x y z _ _", "sizes": "4 4 4 1 1", "types": "F F F U U", "counts": "1 1 1 4 4"}
    files = {
        "a.ply": ply(2, ROW * 2),
        "b.pcd": pcd(3, (ROW + b"\0" * 8) * 3, **twice),
        "c.pcd": pcd(3, ROW * 3),
        "d.ply": TORN["short.ply"][0],
        "e.pcd": pcd(4, b"1 2 3\n" * 4, "ascii"),
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)

    async def scenario() -> None:
        source = play(tmp_path)
        await source.start()
        items = await all_of(source)
        assert [len(item.value) for item in items] in ([2, 3, 4], [2, 3, 3, 4]), "b.pcd is read where the library can"
        assert {item.quality for item in items} == {Quality.GOOD}
        assert all(item.value[0].tolist() == [1, 2, 3, 0] for item in items)
        assert "d.ply: it ends after" in source.health().message
        assert source.health().dropped["unreadable file"] in (1, 2)
        assert source.epoch == 1
        await source.stop()

    asyncio.run(scenario())


def test_a_reader_that_is_killed_is_replaced_and_the_series_goes_on(tmp_path):
    for i in range(6):
        (tmp_path / f"{i}.pcd").write_bytes(pcd(i + 1, ROW * (i + 1)))
        os.utime(tmp_path / f"{i}.pcd", ns=(i * NS_PER_S, i * NS_PER_S))

    async def scenario() -> None:
        config = LidarConfig(signal="lidar", paths=[str(tmp_path / "*.pcd")], timestamps="mtime", realtime=True)
        source = source_of(config, PLANT)
        await source.start()
        first = await collect(source, lambda items: len(items) >= 2, 30)
        os.kill(source._driver._reader.pid, signal.SIGKILL)
        counts = [len(item.value) for item in [*first, *await all_of(source)]]
        assert len(counts) >= 5
        assert counts == sorted(set(counts)), "no cloud comes twice"
        await source.stop()

    asyncio.run(scenario())
