"""What the drills share: what one is told and says, a reader that misses nothing, and resident memory."""

import json
import os
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

import numpy as np
import paho.mqtt.client as mqtt
from mosquitto import Mosquitto
from wire_examples import KILN

from fusion.clock import CLOCK
from fusion.publish.publisher import MqttPublisher, PublisherConfig

PAGE_MIB = os.sysconf("SC_PAGE_SIZE") / 2**20


@dataclass(frozen=True, kw_only=True)
class Options:
    """How long and how often; ``long`` has the full lengths."""

    kills: int = 5
    long: bool = False
    soak_s: float = 20.0
    seed: int = 11
    tags: int = 1000
    hours: float = 0.1


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a drill found: ``lost`` in one sentence, whether that is what it should be, and the figures behind it."""

    passed: bool
    lost: str
    parameters: dict = field(default_factory=dict)
    counts: dict = field(default_factory=dict)


class Skipped(Exception):
    """This machine lacks what a drill needs."""


def broker(folder):
    """A broker that keeps what it took for readers that are away."""
    store = folder / "broker"
    store.mkdir()
    return Mosquitto(
        folder,
        ("allow_anonymous true", "persistence true", f"persistence_location {store}/", "max_queued_messages 0"),
    )


def publisher(port, outbox, clock=CLOCK, **more):
    config = PublisherConfig(port=port, outbox=str(outbox), **{"retry_s": 0.05, "retry_max_s": 0.5, **more})
    return MqttPublisher(config, KILN, "m", clock=clock)


class Reader:
    """A reader with a session of its own at the broker: what arrived, how often, and in which order."""

    def __init__(self, port, topic="fusion/#"):
        self.times, self.order, self.payloads = Counter(), [], {}
        self._ready = threading.Event()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2, "drill-reader", clean_session=False)
        self._client.on_connect = lambda client, *_: client.subscribe(topic, qos=1)
        self._client.on_subscribe = lambda *_: self._ready.set()
        self._client.on_message = self._hear
        self._client.reconnect_delay_set(0.1, 0.5)
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()
        assert self._ready.wait(5)

    def _hear(self, _client, _data, message):
        if message.topic.endswith("/health"):
            return
        said = json.loads(message.payload)
        name = said.get("id") or said["message_id"]
        self.times[name] += 1
        self.payloads.setdefault(name, set()).add(message.payload)
        if self.times[name] == 1:
            self.order.append(name)

    def wait(self, names, timeout_s=30.0):
        """Wait until all of these have arrived, or the time is over; what is missing then."""
        deadline = time.monotonic() + timeout_s
        while (missing := [n for n in names if n not in self.times]) and time.monotonic() < deadline:
            time.sleep(0.05)
        return missing

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


def delivered(reader, names, timeout_s=30.0):
    """Counts of what was published under these names, as the reader has it."""
    missing = reader.wait(names, timeout_s)
    wanted = set(names)
    arrived = [name for name in reader.order if name in wanted]
    place = {name: i for i, name in enumerate(names)}
    places = [place[name] for name in arrived]
    return {
        "published": len(names),
        "arrived": len(arrived),
        "lost": len(missing),
        "repeats": sum(reader.times[name] - 1 for name in arrived),
        "repeats_with_other_content": sum(len(reader.payloads[name]) > 1 for name in arrived),
        "out_of_order": sum(a > b for a, b in pairwise(places)),
    }


def verdict(counts):
    """Whether nothing is lost, repeats are the same message, and order is kept; and that as a sentence."""
    bad = {k: counts[k] for k in ("lost", "repeats_with_other_content", "out_of_order") if counts[k]}
    said = f"{counts['lost']} of {counts['published']} letters"
    return not bad, said if not bad else f"{said}; {bad}"


class Memory:
    """Resident memory, descriptors and children of a process over time, and how fast the first of these grows.

    ``own`` is resident memory but for pages of files, such as those of libraries that are read for the first time.
    """

    def __init__(self, pid):
        self._place, self._began_s = Path(f"/proc/{pid}"), time.monotonic()
        self.rows = []

    def note(self, at_s=None):
        """One reading, now or at another time [s] than that of the clock, of which growth is then."""
        pages, mapped = map(int, (self._place / "statm").read_text().split()[1:3])
        descriptors = len(list((self._place / "fd").iterdir()))
        children = len((self._place / "task" / self._place.name / "children").read_text().split())
        own = (pages - mapped) * PAGE_MIB
        at_s = time.monotonic() - self._began_s if at_s is None else at_s
        self.rows.append((at_s, pages * PAGE_MIB, descriptors, children, own))

    def counts(self, warm_s):
        """The growth of all readings, and of those from ``warm_s`` on, with the error of the latter's slope."""
        seconds, resident, descriptors, children, own = np.array(self.rows).T
        warm = seconds >= min(warm_s, seconds[-1])
        slope, error = growth(seconds[warm] / 3600, resident[warm])
        slope_own, error_own = growth(seconds[warm] / 3600, own[warm])
        return {
            "resident_MiB_first_warm_last": [
                round(float(x), 1) for x in (resident[0], resident[warm][0], resident[-1])
            ],
            "resident_MiB_most": round(float(resident.max()), 1),
            "resident_MiB_per_h": growth(seconds / 3600, resident)[0],
            "resident_MiB_per_h_warm": slope,
            "resident_MiB_per_h_warm_error": error,
            "own_MiB_warm_last": [round(float(x), 1) for x in (own[warm][0], own[-1])],
            "own_MiB_per_h_warm": slope_own,
            "own_MiB_per_h_warm_error": error_own,
            "warm_s": warm_s,
            "descriptors_first": int(descriptors[warm][0]),
            "descriptors_last": int(descriptors[-1]),
            "descriptors_most": int(descriptors[warm].max()),
            "children_first": int(children[warm][0]),
            "children_last": int(children[-1]),
            "readings": len(seconds),
        }


def growth(hours, held):
    """Slope [1/h] of a straight line through the readings, and its standard error; None of too few."""
    if len(hours) < 4:
        return None, None
    (slope, _), covariance = np.polyfit(hours, held, 1, cov=True)
    return round(float(slope), 2), round(float(np.sqrt(covariance[0, 0])), 2)
