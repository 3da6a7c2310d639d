import asyncio
import os

import numpy as np
import pytest

from connectors.base import ARRIVAL_CLOCK, Source
from connectors.kinds import source_of
from connectors.lidar.config import LidarConfig
from connectors.lidar.crop import Crop, voxel_means
from connectors.lidar.files import name_ns
from connectors.lidar.velodyne import HOUR_NS, from_hour
from fusion.errors import ConfigError
from fusion.health import SourceState
from fusion.records import NS_PER_S, Quality
from tests.contract.peers import PLANT, LidarPeer, collect, supervision, until


def build(peer: LidarPeer, **options: object) -> Source:
    settings = {"signal": "lidar", "port": peer.port, "supervision": supervision(stale_after_s=1, open_timeout_s=2)}
    return source_of(LidarConfig(**{**settings, **options}), PLANT)


def test_scans_wrong_packets_and_an_empty_cloud():
    async def scenario() -> None:
        peer = LidarPeer(distance_m=5.0)
        source = build(peer)
        await source.start()
        await peer.start()
        try:
            items = await collect(source, lambda items: len(items) >= 3)
            cloud = items[-1].value
            assert cloud.shape[1] == 4
            assert 3000 < len(cloud) <= 5760
            assert np.linalg.norm(cloud[:, :3], axis=1) == pytest.approx(5.0, abs=0.1)
            assert items[-1].quality is Quality.GOOD
            assert items[-1].clock == f"lidar:127.0.0.1:{peer.port}"
            assert 0 <= items[-1].received_ns - items[-1].t_ns < 0.5e9

            for garbage in (b"", b"x" * 100, b"x" * 1206, b"\0" * 1206, b"x" * 512):
                peer.send(garbage)
            peer.distance_m = 0.0
            (*_, last) = await collect(source, lambda items: any(not len(item.value) for item in items))
            assert last.value.shape == (0, 4)
            assert last.quality is Quality.UNCERTAIN
            assert source.health().state is SourceState.LIVE
            assert "empty cloud" in source.health().message
            assert source.health().dropped["packet of wrong size"] == 2
            assert source.health().dropped["packet of no VLP16"] >= 2
        finally:
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())


def test_a_sensor_clock_that_cannot_be_believed_gives_way_to_arrival():
    async def scenario() -> None:
        peer = LidarPeer(off_s=600)
        source = build(peer, region=[-10, 0, -10, 10, 10, 10], voxel_m=0.5, intensity_scale=0.01)
        await peer.start()
        await source.start()
        try:
            (item, *_) = await collect(source, lambda items: items)
            assert item.clock == ARRIVAL_CLOCK
            assert item.t_ns == item.received_ns
            assert "off by 600" in source.health().message
            assert item.value[:, 1].min() >= 0
            assert len(item.value) < 1500
            assert item.value[:, 3] == pytest.approx(0.5)
        finally:
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())


def test_a_port_that_is_taken_is_said():
    async def scenario() -> None:
        peer = LidarPeer()
        first, second = build(peer), build(peer)
        await first.start()
        await asyncio.sleep(0.05)
        await second.start()
        await until(lambda: "Address already in use" in second.health().message)
        await first.stop()
        await second.stop()

    asyncio.run(scenario())


def test_the_hour_is_that_of_the_arrival():
    noon_ns = 1_800_000_000 * NS_PER_S // HOUR_NS * HOUR_NS
    assert from_hour(HOUR_NS - NS_PER_S, noon_ns + NS_PER_S) == noon_ns - NS_PER_S
    assert from_hour(NS_PER_S, noon_ns - NS_PER_S) == noon_ns + NS_PER_S
    assert from_hour(1800 * NS_PER_S, noon_ns + 1801 * NS_PER_S) == noon_ns + 1800 * NS_PER_S


def test_crop_voxels_and_limit():
    rng = np.random.default_rng(0)
    cloud = rng.uniform(-1, 1, (1000, 4)).astype(np.float32)
    cloud[0, 0] = np.nan
    assert len(Crop(5000, [], 0.0).cloud(cloud)) == 999
    inside = Crop(5000, [0, 0, 0, 1, 1, 1], 0.0).cloud(cloud)
    assert inside[:, :3].min() >= 0
    assert len(Crop(100, [], 0.0).cloud(cloud)) == 100
    assert len(Crop(5000, [], 1.0).cloud(cloud)) == 8
    means = voxel_means(np.array([[0.1, 0, 0, 1], [0.3, 0, 0, 3], [1.5, 0, 0, 5]], np.float32), 1.0)
    assert np.allclose(means, [[0.2, 0, 0, 2], [1.5, 0, 0, 5]])
    assert Crop(10, [0, 0, 0, 1, 1, 1], 0.1).cloud(np.empty((0, 4))).shape == (0, 4)


def test_files_are_played_with_the_time_in_their_name(tmp_path):
    import open3d as o3d

    for number, points in enumerate((10, 0, 20)):
        positions = o3d.core.Tensor(np.random.default_rng(number).random((points, 3)).astype(np.float32))
        cloud = o3d.t.geometry.PointCloud(positions)
        cloud.point["intensity"] = o3d.core.Tensor(np.full((points, 1), 7, np.float32))
        kind = "ply" if number else "pcd"
        if points:
            o3d.t.io.write_point_cloud(str(tmp_path / f"scan_{1_800_000_000 + number}.{kind}"), cloud)
    (tmp_path / "scan_1800000001.ply").write_text("no cloud\n")

    async def scenario() -> list:
        config = LidarConfig(signal="lidar", paths=[str(tmp_path / "*.*")], timestamps="name", realtime=False)
        source = source_of(config, PLANT)
        await source.start()
        items: list = []
        await until(lambda: items.extend(source.drain()) or source.finished, 30)
        assert source.health().dropped == {"unreadable file": 1}
        assert "end of 3" in source.health().message
        await source.stop()
        return items

    items = asyncio.run(scenario())
    assert [item.t_ns // NS_PER_S for item in items] == [1_800_000_000, 1_800_000_002]
    assert [len(item.value) for item in items] == [10, 20]
    assert items[0].value[:, 3] == pytest.approx(7)


def test_names_with_times():
    assert name_ns("run7/1800000000.pcd") == 1_800_000_000 * NS_PER_S
    assert name_ns(f"a_{1_800_000_000_123}.ply") == 1_800_000_000_123_000_000
    assert name_ns("scan_0001.ply") is None


def test_files_by_modification_time(tmp_path):
    file = tmp_path / "a.pcd"
    file.write_text(
        "VERSION .7\nFIELDS x y z\nSIZE 4 4 4\nTYPE F F F\nCOUNT 1 1 1\nWIDTH 1\nHEIGHT 1\n"
        "VIEWPOINT 0 0 0 1 0 0 0\nPOINTS 1\nDATA ascii\n1 2 3\n"
    )
    os.utime(file, ns=(5 * NS_PER_S, 5 * NS_PER_S))

    async def scenario() -> None:
        source = source_of(LidarConfig(signal="lidar", paths=[str(file)], realtime=False), PLANT)
        await source.start()
        (item,) = await collect(source, lambda items: items, 30)
        assert item.value.tolist() == [[1, 2, 3, 0]]
        assert item.t_ns == 5 * NS_PER_S
        await source.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"model": "X"}, "VLP16"),
        ({"paths": ["a"], "timestamps": "start"}, "start_time"),
        ({"region": [0, 0, 0, 1, 1]}, "lower corner"),
        ({"region": [0, 0, 0, 1, 1, 0]}, "lower corner"),
        ({"port": 70000}, "port"),
        ({"signal": "camera"}, "no lidar signal"),
    ],
)
def test_configuration_errors_name_the_key(options: dict[str, object], key: str):
    with pytest.raises(ConfigError, match=key):
        source_of(LidarConfig(**{"signal": "lidar", **options}), PLANT)
