"""Drills of load: many tags commissioned and judged on two cores, and models that change while the stream runs."""

import contextlib
import json
import os
import re
import subprocess
import sys
import threading
import time
import urllib.request

import msgspec
import paho.mqtt.client as mqtt
import yaml
from mosquitto import Mosquitto
from wire_examples import free_port, until

from fusion.model_store import ModelStore
from fusion.plant_file import dump_plant
from tests.drills.rig import Memory, Options, Outcome, Skipped
from tests.small_plants import wide_plant, wide_values, write_recording

CORES = 2
A_MESSAGE = 100
TRAINED_S, FED_S = 3600, 3600
STATION = [sys.executable, "-m", "fusion.cli"]


@contextlib.contextmanager
def cores():
    """Processes that are started meanwhile run on so many cores."""
    before = os.sched_getaffinity(0)
    if len(before) < CORES:
        raise Skipped(f"this machine has {len(before)} cores")
    os.sched_setaffinity(0, set(sorted(before)[:CORES]))
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def commissioned(folder, plant, *settings):
    """A model of an hour of the plant, in ``folder``; how long that took and how much memory."""
    recording = folder.parent / "recording"
    if not recording.exists():
        write_recording(recording, plant, wide_values(plant, 1, TRAINED_S))
    began = time.monotonic()
    command = [*STATION, "train", "--recording", str(recording), "--out", str(folder), *settings]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0, f"fusion train ended with {process.returncode}"
    return {
        "commissioned_min": round((time.monotonic() - began) / 60, 2),
        "commissioned_cpu_min": round((used.ru_utime + used.ru_stime) / 60, 2),
        "commissioned_MiB": round(used.ru_maxrss / 1024),
    }


class Feed(threading.Thread):
    """All tags each second, a hundred in a message, at a broker; ``offsets`` are added to what they say."""

    def __init__(self, port, plant):
        super().__init__(daemon=True)
        self._names = [signal.name for signal in plant.tags]
        values = wide_values(plant, 2, FED_S)
        self._rows = [values[name] for name in self._names]
        self._ended = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.max_queued_messages_set(0)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        self.offsets = {}
        self.sent = 0

    @staticmethod
    def topics(plant):
        names = [signal.name for signal in plant.tags]
        common = {"value_path": "{signal}", "time_path": "t_ns", "quality_missing": "good"}
        parts = [names[at : at + A_MESSAGE] for at in range(0, len(names), A_MESSAGE)]
        return [{"topic": f"wide/{number}", "signals": part, **common} for number, part in enumerate(parts)]

    def run(self):
        began = time.monotonic()
        while not self._ended.wait(max(began + self.sent - time.monotonic(), 0.0)):
            second = self.sent % FED_S
            said = {name: float(row[second]) for name, row in zip(self._names, self._rows, strict=True)}
            said |= {name: said[name] + offset for name, offset in self.offsets.items()}
            for number, at in enumerate(range(0, len(self._names), A_MESSAGE)):
                part = {name: said[name] for name in self._names[at : at + A_MESSAGE]}
                self._client.publish(f"wide/{number}", msgspec.json.encode(part | {"t_ns": time.time_ns()}), qos=1)
            self.sent += 1

    def end(self):
        self._ended.set()
        self.join()
        self._client.disconnect()
        self._client.loop_stop()


class Listener:
    """What the daemon says of each tick, by its time [ns]: the model and how many tags had a value."""

    def __init__(self, port):
        self.ticks, self.events = {}, []
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe(
            [("fusion/wide/v1/frame", 0), ("fusion/wide/v1/anomaly", 1)]
        )
        self._client.on_message = self._hear
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _hear(self, _client, _data, message):
        said = json.loads(message.payload)
        if message.topic.endswith("/frame"):
            self.ticks[said["t_ns"]] = said["model_id"], len(said["values"])
        else:
            self.events.append((said["id"], said["state"]))

    def missing(self, step_ns=10**9):
        """Ticks between the first and the last of which nothing was heard."""
        return (max(self.ticks) - min(self.ticks)) // step_ns + 1 - len(self.ticks)

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


@contextlib.contextmanager
def running(folder, plant, broker, **settings):
    """`fusion run` on what a feed says; gives the feed, the process and a way to ask for health."""
    dump_plant(plant, folder / "plant.yaml")
    port, feed = free_port(), Feed(broker.port, plant)
    site = {
        "plant": "plant.yaml",
        "state": "state",
        "http": {"port": port},
        "publish": {"port": broker.port},
        **settings,
    }
    site["connectors"] = {"wide": {"kind": "mqtt", "port": broker.port, "topics": Feed.topics(plant)}}
    (folder / "site.yaml").write_text(yaml.safe_dump(site))
    with (folder / "daemon.log").open("w") as said:
        process = subprocess.Popen([*STATION, "run", "--config", str(folder / "site.yaml")], stderr=said)
    feed.start()

    def ask(path="health"):
        with contextlib.suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/{path}", timeout=5) as got:
            return got.read().decode()
        return ""

    try:
        until(lambda: process.poll() is not None or '"ticks": 0' not in (ask() or '"ticks": 0'), "the daemon", 120.0)
        assert process.poll() is None, (folder / "daemon.log").read_text()[-2000:]
        yield feed, process, ask
    finally:
        process.terminate()
        process.wait(60)
        feed.end()


def many_tags(options: Options, folder):
    """A plant of many tags commissioned from an hour of it and judged at 1 Hz, on two cores."""
    plant, broker = wide_plant(options.tags), Mosquitto(folder)
    judged_s, listener = 300.0 if options.long else 30.0, Listener(broker.port)
    try:
        with cores():
            counts = commissioned(folder / "model", plant)
            with running(folder, plant, broker, model="model") as (_, process, ask):
                memory, before, began = Memory(process.pid), _seconds(ask), time.monotonic()
                while time.monotonic() - began < judged_s:
                    memory.note()
                    time.sleep(1.0)
                counts |= _judged(json.loads(ask()), (_seconds(ask) - before) / (time.monotonic() - began), memory)
    finally:
        listener.close(), broker.stop()
    full = sum(tags == options.tags for _, tags in listener.ticks.values())
    counts |= {"ticks_told": len(listener.ticks), "ticks_missing": listener.missing(), "ticks_with_every_tag": full}
    said = f"{counts['skipped_ticks']} of {counts['ticks']} ticks; p99 {counts['tick_p99_ms']} ms"
    return Outcome(
        passed=not counts["skipped_ticks"] and not counts["ticks_missing"] and full > judged_s / 2,
        lost=said,
        parameters={"tags": options.tags, "cores": CORES, "trained_s": TRAINED_S, "judged_s": judged_s},
        counts=counts,
    )


def _judged(health, cores_used, memory):
    return {
        "ticks": health["ticks"],
        "skipped_ticks": health["skipped_ticks"],
        "tick_p50_ms": round(1e3 * health["latency_p50_s"], 1),
        "tick_p99_ms": round(1e3 * health["latency_p99_s"], 1),
        "daemon_cores": round(cores_used, 2),
        "daemon_MiB": round(max(row[1] for row in memory.rows)),
    }


def _seconds(ask):
    return float(re.search(r"^process_cpu_seconds_total (\S+)$", ask("metrics"), re.MULTILINE)[1])


def model_swap(options: Options, folder):
    """The model in use is exchanged again and again while the stream runs and an event stands."""
    plant, broker, store = wide_plant(100), Mosquitto(folder), ModelStore(folder / "models")
    listener = Listener(broker.port)
    for seed in (0, 1):
        commissioned(store.next_place(), plant, f"seed={seed}", "steps=10", "seconds=inf", "threads=1")
    store.choose("0001", "drill")
    learning = {"learn": {"models": "models"}, "record": {"folder": "records", "free_gib": 0.1}}
    lost, swaps = set(), []
    try:
        with running(folder, plant, broker, **learning) as (feed, process, ask):
            until(lambda: json.loads(ask())["plant_state"] in ("normal", "alarm"), "a warm model", 600.0)
            feed.offsets = {"T0007": 40.0}
            until(lambda: json.loads(ask())["open_anomalies"], "an event", 120.0)
            for number in range(max(options.kills, 2)):
                stood, before = _open(ask), json.loads(ask())["model_id"]
                name = ("0002", "0001")[number % 2]
                subprocess.run(
                    [*STATION, "model", "accept", name, "--models", str(store.folder)],
                    check=True,
                    stdout=subprocess.DEVNULL,
                )
                began = time.monotonic()
                until(lambda before=before: json.loads(ask())["model_id"] != before, "the successor", 60.0)
                swaps.append(round(time.monotonic() - began, 1))
                ticks = json.loads(ask())["ticks"]
                until(lambda ticks=ticks: json.loads(ask())["ticks"] >= ticks + 3, "ticks after it", 30.0)
                lost |= stood - _open(ask)
            health = json.loads(ask())
    finally:
        listener.close(), broker.stop()
    told = {name for name, state in listener.events if state == "cleared"}
    counts = {
        "swaps": len(swaps),
        "seconds_until_seated": swaps,
        "models_seen": len({model for model, _ in listener.ticks.values()}),
        "ticks_told": len(listener.ticks),
        "ticks_missing": listener.missing(),
        "skipped_ticks": health["skipped_ticks"],
        "tick_p99_ms": round(1e3 * health["latency_p99_s"], 1),
        "events": len({name for name, _ in listener.events}),
        "events_lost": len(lost - told),
        "events_cleared_at_a_swap": len(lost & told),
    }
    gone = counts["ticks_missing"] + counts["skipped_ticks"]
    return Outcome(
        passed=not gone and not lost and counts["models_seen"] == 2 and process.returncode == 0,
        lost=f"{gone} of {len(listener.ticks)} ticks, {len(lost)} open events in {len(swaps)} swaps",
        parameters={"tags": len(plant.tags), "swaps": len(swaps)},
        counts=counts,
    )


def _open(ask):
    return {anomaly["id"] for anomaly in json.loads(ask())["open_anomalies"]}


DRILLS = (many_tags, model_swap)
