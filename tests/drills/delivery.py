"""Drills of the way out: broker, disk, clock and kills between a result and its reader."""

import contextlib
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time

from wire_examples import anomaly, recommendation, until

from fusion.clock import Clock
from fusion.mqtt.client import ClientState
from fusion.records import NS_PER_S
from tests.drills.rig import Options, Outcome, Reader, Skipped, broker, delivered, publisher, verdict

RATE_HZ = 50.0
HOUR_NS = 3600 * NS_PER_S


def broker_down(options: Options, folder):
    """The broker is away while letters are published at a steady rate."""
    down_s = 600.0 if options.long else 6.0
    served = broker(folder)
    reader, out = Reader(served.port), publisher(served.port, folder / "outbox.sqlite", outbox_capacity=100_000)
    out.start()
    names, kept = [], True
    try:
        until(lambda: out.state is ClientState.ONLINE, "online")
        for name in _at_rate(RATE_HZ, 2.0, "before"):
            names.append(name), out.publish(anomaly(name))
        served.stop()
        for name in _at_rate(RATE_HZ, down_s, "down"):
            names.append(name)
            kept &= out.publish(anomaly(name))
        served.start()
        for name in _at_rate(RATE_HZ, 2.0, "after"):
            names.append(name), out.publish(anomaly(name))
        counts = delivered(reader, names, 60.0)
    finally:
        out.close(), reader.close(), served.stop()
    passed, said = verdict(counts)
    parameters = {"rate_hz": RATE_HZ, "down_s": down_s}
    return Outcome(passed=passed and kept, lost=said, parameters=parameters, counts=counts)


def _at_rate(rate_hz, duration_s, prefix):
    """Names at a steady pace."""
    began = time.monotonic()
    for number in range(round(rate_hz * duration_s)):
        time.sleep(max(began + number / rate_hz - time.monotonic(), 0.0))
        yield f"{prefix}-{number}"


@contextlib.contextmanager
def _small_disk(folder, size_kib):
    """A disk of its own, as small as that."""
    place = folder / "disk"
    place.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size_kib}k", "tmpfs", str(place)], capture_output=True, text=True
    )
    if made.returncode:
        raise Skipped(f"no small disk can be mounted here: {made.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def disk_full(options: Options, folder):
    """The disk of the outbox is full for a while, first with the broker there, then without, then there is room."""
    size_kib, many = 8192, 50
    served = broker(folder)
    reader = Reader(served.port)
    with _small_disk(folder, size_kib) as disk:
        out = publisher(served.port, disk / "outbox.sqlite")
        out.start()
        try:
            until(lambda: out.state is ClientState.ONLINE, "online")
            names = [f"room-{i}" for i in range(10)]
            stored = {"before": sum(out.publish(anomaly(name)) for name in names)}
            filler = _fill(disk)
            for phase in ("full", "full_and_no_broker"):
                if phase != "full":
                    served.stop()
                fresh = [f"{phase}-{i}" for i in range(many)]
                stored[phase] = sum(out.publish(anomaly(name)) for name in fresh)
                names += fresh
                time.sleep(2.0)
            said = out.trouble
            filler.unlink()
            until(lambda: "outbox" not in out.trouble, "the publisher comes back")
            fresh = [f"room-again-{i}" for i in range(20)]
            stored["after"] = sum(out.publish(anomaly(name)) for name in fresh)
            names += fresh
            served.start()
            counts = delivered(reader, names) | {"stored": stored, "said_in_health": "outbox" in said}
        finally:
            out.close(), reader.close(), served.stop()
    passed, lost = verdict(counts)
    passed &= counts["said_in_health"] and stored["after"] == 20
    return Outcome(passed=passed, lost=lost, parameters={"disk_KiB": size_kib, "letters": many}, counts=counts)


def outbox_locked(options: Options, folder):
    """Another process locks the outbox for a while; letters go on, and the broker goes away in the middle."""
    locked_s, served, path = 8.0, broker(folder), folder / "outbox.sqlite"
    reader, out = Reader(served.port), publisher(served.port, path)
    out.start()
    names, slowest_s = [], 0.0
    try:
        until(lambda: out.state is ClientState.ONLINE, "online")
        with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN EXCLUSIVE")
            for name in _at_rate(6.125, locked_s, "locked"):
                began = time.monotonic()
                names.append(name), out.publish(anomaly(name))
                slowest_s = max(slowest_s, time.monotonic() - began)
                if len(names) == 25:
                    served.stop()
            other.execute("ROLLBACK")
        until(lambda: out.settled, "stored")
        served.start()
        counts = delivered(reader, names) | {"slowest_publish_s": round(slowest_s, 2)}
    finally:
        out.close(), reader.close(), served.stop()
    passed, said = verdict(counts)
    return Outcome(passed=passed, lost=said, parameters={"locked_s": locked_s}, counts=counts)


def _fill(disk):
    file = disk / "filler"
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 1024)
    return file


def clock_step(options: Options, folder):
    """The system's clock is stepped by an hour, forth and back, with advice under way."""
    served = broker(folder)
    reader, counts, passed = Reader(served.port), {}, True
    for hours in (1, -1):
        step = [0]
        clock = Clock(lambda step=step: time.time_ns() + step[0], time.monotonic_ns, "boot")
        served.stop()
        path, lasting, ending = folder / f"outbox{hours}.sqlite", [], []
        out = publisher(served.port, path, clock=clock)
        out.start()
        for i in range(10):
            lasting.append(recommendation(clock.now_ns() + i, 60.0))
            ending.append(recommendation(clock.now_ns() + i, 0.5))
            out.publish(lasting[-1], ending[-1])
        step[0] = hours * HOUR_NS
        time.sleep(1.0)
        served.start()
        try:
            found = delivered(reader, [r.id for r in lasting], 10.0)
            lived = [r.id for r in ending if r.id in reader.times]
        finally:
            out.close()
        counts[f"step_{hours:+}_h"] = found | {"to_expire": len(ending), "lived_long": len(lived)}
        passed &= verdict(found)[0] and not lived
    reader.close(), served.stop()
    early, late = (sum(c[k] for c in counts.values()) for k in ("lost", "lived_long"))
    lost = f"{early} of 20 recommendations expired early, {late} of 20 lived long"
    return Outcome(passed=passed, lost=lost, parameters={"steps_h": [1, -1]}, counts=counts)


PUBLISHES = """
import sys, time
from wire_examples import anomaly
from tests.drills.rig import publisher
port, outbox, life, rate_hz = int(sys.argv[1]), sys.argv[2], sys.argv[3], float(sys.argv[4])
out = publisher(port, outbox)
out.start()
print("started", flush=True)
number, began = 0, time.monotonic()
while True:
    if out.publish(anomaly(f"{life}-{number}")):
        print(f"{life}-{number}", flush=True)
    number += 1
    time.sleep(max(began + number / rate_hz - time.monotonic(), 0.0))
"""


def publisher_kills(options: Options, folder):
    """A process that publishes is killed at a random moment, again and again, over one outbox."""
    chance, served = random.Random(options.seed), broker(folder)
    reader, names = Reader(served.port), []
    try:
        for life in range(options.kills):
            command = [
                sys.executable,
                "-c",
                PUBLISHES,
                str(served.port),
                str(folder / "outbox"),
                f"{life}",
                f"{RATE_HZ}",
            ]
            with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) as process:
                assert process.stdout.readline() == "started\n"
                time.sleep(chance.uniform(0.1, 1.5))
                process.send_signal(signal.SIGKILL)
                names += process.stdout.read().split()
        out = publisher(served.port, folder / "outbox")
        out.start()
        counts = delivered(reader, names)
        out.close()
    finally:
        reader.close(), served.stop()
    passed, lost = verdict(counts)
    return Outcome(passed=passed, lost=lost, parameters={"kills": options.kills, "rate_hz": RATE_HZ}, counts=counts)


DRILLS = (broker_down, disk_full, outbox_locked, clock_step, publisher_kills)
