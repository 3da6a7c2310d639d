"""Drills of time: a whole daemon on real servers that are restarted in turn, and one whose events come and go."""

import asyncio
import contextlib
import json
import math
import os
import subprocess
import sys
import time
import urllib.request

import numpy as np
import yaml
from mosquitto import Mosquitto
from wire_examples import until

from fusion.plant_file import dump_plant
from fusion.recordings.writer import RecordingWriter
from fusion.records import NS_PER_S, Columns, Quality, Sample
from fusion.training.settings import train_config
from fusion.training.train import train
from tests.contract.peers import PLANT, LidarPeer, MqttPeer, OpcUaPeer, RtspPeer, free_port, picture, tone
from tests.drills.rig import Memory, Options, Outcome

OPCUA, MQTT = ("TT101", "LT101"), ("FT101",)
A_SECOND = 10
TAGS_S, MEDIA_S = [900] * 6, [480] * 5
FEED_S, DOWN_S, SHOWN_S = 0.2, 2.0, 8.0
UPSET_EVERY, UPSET_BY = 9, 25.0
MOST_MIB_PER_H = 1.0
TELLING_S = 1800.0
"""What is shorter cannot tell growth from warming up."""
WARM = 0.5
"""Of a soak: trails of ticks and averages fill for half an hour, and an event that clears begins some of them anew."""


# --- the plant: what its servers say, and a model of it


def course(tag, t_s):
    """What a tag shows at a time [s]: two slow waves, one of them shared with its neighbours, and noise."""
    number = (*OPCUA, *MQTT).index(tag)
    waves = (1 + number) * 5 * math.sin(t_s / 60) + 2 * math.sin(t_s / 17 + number)
    return 40 + 10 * number + waves + np.random.default_rng([int(1e3 * t_s), number]).normal(0, 0.2)


def room():
    """A cloud as the LiDAR sees its round room, five metres wide."""
    turn, up = np.meshgrid(np.linspace(0, 2 * np.pi, 240), np.radians(np.arange(-15, 16, 2)))
    points = 5 * np.stack([np.cos(up) * np.sin(turn), np.cos(up) * np.cos(turn), np.sin(up)], -1)
    return np.concatenate([points.reshape(-1, 3), np.full((turn.size, 1), 50.0)], 1).astype(np.float32)


def recorded(folder, start_s, duration_s, media):
    """A recording of what the servers will say: tags each second, pictures and sound, a cloud each second."""
    with RecordingWriter(folder, PLANT) as writer:
        writer.process(_values(start_s + np.arange(duration_s)))
        for number in range(duration_s * A_SECOND if media else 0):
            t_ns = start_s * NS_PER_S + number * (NS_PER_S // A_SECOND)
            shown = {"microphone": tone(number)}
            if number % 3 == 0:
                shown["camera"] = picture(number)
            if number % A_SECOND == 0:
                shown["lidar"] = room()
            for name, value in shown.items():
                writer.write(Sample(signal=name, t_ns=t_ns, received_ns=t_ns, value=value))
    return folder


def _values(t_s):
    names = (*OPCUA, *MQTT)
    return Columns(
        signals=names,
        index=np.tile(np.arange(len(names), dtype=np.int32), len(t_s)),
        t_ns=(stamps := np.repeat(t_s * NS_PER_S, len(names))),
        received_ns=stamps,
        value=np.array([course(name, t) for t in t_s for name in names]),
        quality=np.full(len(stamps), Quality.GOOD, np.uint8),
    )


def commissioned(folder):
    """A model of a few steps, of what the servers will say."""
    runs = [
        recorded(folder / f"run{number}", 1_700_000_000 + 3600 * number, duration_s, media=number >= len(TAGS_S))
        for number, duration_s in enumerate([*TAGS_S, *MEDIA_S])
    ]
    settings = ["seconds=inf", "steps=16", "validate_every=8", "batch=8", "threads=1", "calibration_share=0.4"]
    train(runs, folder / "model", train_config(settings))


class Servers:
    """Everything the daemon reads and the broker it tells, and a hand that feeds what runs."""

    def __init__(self, folder):
        self.plc, self.values, self.media, self.lidar = OpcUaPeer(), MqttPeer(folder), RtspPeer(), LidarPeer()
        self.told = MqttPeer(folder)
        self.all = (self.plc, self.values, self.media, self.lidar, self.told)
        self.up, self.upset = set(), 0.0

    async def start(self, server):
        await server.start()
        self.up.add(server)

    async def stop(self, server):
        self.up.discard(server)
        await server.stop()

    async def feed(self):
        while True:
            t_s = time.time()
            if self.plc in self.up:
                for tag in OPCUA:
                    await self.plc.write(tag, course(tag, t_s) + self.upset)
            if self.values in self.up:
                said = {"value": course(MQTT[0], t_s), "t_ns": time.time_ns(), "quality": "good"}
                await self.values.publish(f"plant/{MQTT[0]}", json.dumps(said))
            await asyncio.sleep(FEED_S)

    def connectors(self):
        plc = {"url": self.plc.url, "namespace_uri": self.plc.URI, "signals": list(OPCUA), "insecure": True}
        topic = {"topic": "plant/{signal}", "signals": list(MQTT), "time_path": "t_ns", "quality_path": "quality"}
        named = {
            "plc": {"kind": "opcua", **plc},
            "values": {"kind": "mqtt", "port": self.values.port, "topics": [topic]},
            "camera": {"kind": "video", "url": self.media.url("camera"), "signal": "camera"},
            "microphone": {"kind": "audio", "url": self.media.url("microphone"), "signal": "microphone"},
            "lidar": {"kind": "lidar", "port": self.lidar.port, "signal": "lidar"},
        }
        patience = {"backoff_min_s": 0.1, "backoff_max_s": 0.5, "stale_after_s": 4.0}
        return {name: one | {"supervision": patience} for name, one in named.items()}


def site(folder, servers, port):
    """A configuration with everything on, whose stores are small enough to be full when warm."""
    dump_plant(PLANT, folder / "plant.yaml")
    said = {
        "plant": "plant.yaml",
        "model": "model",
        "state": "state",
        "memory_s": 300,
        "connectors": servers.connectors(),
        "alarms": {"keep": 20},
        "record": {"folder": "records", "segment_s": 60, "budget_gib": 0.05, "free_gib": 0.1},
        "publish": {"port": servers.told.port, "outbox": "outbox.sqlite", "retry_max_s": 0.5},
        "http": {"port": port},
    }
    (folder / "site.yaml").write_text(yaml.safe_dump(said))
    return folder / "site.yaml"


# --- the drills


def soak(options: Options, folder):
    """`fusion run` with every server it meets restarted in turn: resident memory and descriptors when all is back."""
    commissioned(folder)
    return asyncio.run(_soaked(options, folder))


async def _soaked(options, folder):
    servers, port, restarts, health = Servers(folder), free_port(), 0, {}
    with (folder / "daemon.log").open("w") as said:
        for server in servers.all:
            await servers.start(server)
        feeding = asyncio.create_task(servers.feed())
        process = _daemon(site(folder, servers, port), said)
        try:
            health, memory, began = await _whole(port, 120.0), Memory(process.pid), time.monotonic()
            memory.note()
            while time.monotonic() - began < options.soak_s:
                server = servers.all[restarts % len(servers.all)]
                servers.upset = UPSET_BY if restarts % UPSET_EVERY > UPSET_EVERY - 3 else 0.0
                await servers.stop(server)
                await asyncio.sleep(DOWN_S)
                await servers.start(server)
                restarts += 1
                await asyncio.sleep(SHOWN_S)
                health = await _whole(port, 60.0)
                memory.note()
        finally:
            feeding.cancel()
            process.terminate()
            await asyncio.to_thread(process.wait, 60)
            for server in servers.all:
                await servers.stop(server)
    counts = memory.counts(WARM * options.soak_s) | {"restarts": restarts, "ticks": health["ticks"]}
    counts |= {"skipped_ticks": health["skipped_ticks"], "events": _events(folder)}
    return _outcome(options, counts, lived=process.returncode == 0)


def _daemon(config, said):
    return subprocess.Popen([sys.executable, "-m", "fusion.cli", "run", "--config", str(config)], stderr=said)


async def _whole(port, seconds):
    """Health once every source is alive and no letter waits."""
    deadline = time.monotonic() + seconds
    while True:
        health = await asyncio.to_thread(_health, port)
        if health and all(source["alive"] for source in health["sources"]):
            return health
        assert time.monotonic() < deadline, f"not everything came back: {health}"
        await asyncio.sleep(0.2)


def _health(port):
    with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as answer:
        return json.load(answer)
    return None


def _events(folder):
    lines = [json.loads(line) for line in (folder / "state" / "audit.jsonl").read_text().splitlines()]
    return len({line["id"] for line in lines if line["what"] == "alarm"})


def _outcome(options, counts, lived):
    """What a soak found: it is judged by what grew after the warm-up."""
    grown, slope = counts["descriptors_last"] - counts["descriptors_first"], counts["resident_MiB_per_h"]
    warm = counts["resident_MiB_per_h_warm"]
    said = f"{warm} MiB an hour once warm ({slope} from the start) and {grown} descriptors"
    steady = options.soak_s < TELLING_S or warm < MOST_MIB_PER_H
    return Outcome(
        passed=lived and steady and grown <= 2,
        lost=said + ("" if lived else "; the daemon ended by itself"),
        parameters={"soak_s": options.soak_s},
        counts=counts,
    )


SOAKS = """
import asyncio, random, sys
from pathlib import Path
from control.anomaly.alarms import AlarmConfig
from fusion.daemon import service
from scripted_daemon import daemon, restless
service.INTAKE_PERIOD_S = 0.1
async def life():
    made, _, _ = daemon(Path(sys.argv[1]), int(sys.argv[2]), restless(random.Random(1)), AlarmConfig())
    await made.run(asyncio.Event())
asyncio.run(life())
"""


def soak_events(options: Options, folder):
    """A daemon of ten ticks a second with events coming and going: resident memory and descriptors over time."""
    broker = Mosquitto(folder)
    command = [sys.executable, "-c", SOAKS, str(folder), str(broker.port)]
    with subprocess.Popen(command, env=os.environ, stderr=subprocess.PIPE, text=True) as process:
        try:
            until(lambda: (folder / "state" / "alarms.json").exists(), "the daemon runs", 30.0)
            memory, began = Memory(process.pid), time.monotonic()
            while time.monotonic() - began < options.soak_s and process.poll() is None:
                memory.note()
                time.sleep(min(5.0, options.soak_s / 20))
            lived = process.poll() is None
        finally:
            process.terminate()
            broker.stop()
    return _outcome(options, memory.counts(WARM * options.soak_s), lived)


DRILLS = (soak, soak_events)
