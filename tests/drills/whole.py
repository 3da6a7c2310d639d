"""Drills of the whole daemon: killed at random moments, and left alone for a long time."""

import json
import os
import subprocess
import sys
import time

from mosquitto import Mosquitto
from test_kills import Operator
from wire_examples import until

from fusion.daemon.audit import AUDIT, check_audit
from tests.drills import TESTS
from tests.drills.rig import Memory, Options, Outcome

SIZES = ("events", "open", "acknowledgements", "audit_lines")


def daemon_kills(options: Options, folder):
    """Daemons with events open are killed at random moments over one state folder and one outbox."""
    kills = max(options.kills, 5)
    broker = Mosquitto(folder)
    operator = Operator(broker.port)
    command = [sys.executable, str(TESTS / "scripted_daemon.py"), str(folder), str(broker.port), str(kills)]
    try:
        ended = subprocess.run(command, env=os.environ, capture_output=True, text=True, timeout=60 + 2 * kills)
        assert ended.returncode == 0, ended.stderr[-2000:]
        stored = json.loads((folder / "state" / "alarms.json").read_text())
        standing = {a["anomaly"]["id"]: a["anomaly"]["state"] != "cleared" for a in stored["alarms"]}
        until(lambda: set(operator.states) >= set(standing), "what is stored is told")
    finally:
        operator.close(), broker.stop()
    resumed, health = json.loads(ended.stdout)["resumed"], operator.health["open_anomalies"]
    still = sorted(name for name, stands in standing.items() if stands)
    told = {name: "cleared" not in states for name, states in operator.states.items()}
    acknowledged = {a["anomaly"]["id"] for a in stored["alarms"] if a["acknowledged_by"] == "kim"}
    heard = {name for name, said in operator.alarms.items() if any(by == "kim" for _, by in said)}
    audit = check_audit(folder / "state" / AUDIT)
    noted = {entry["id"] for entry in _entries(folder) if entry["what"] == "order"}
    counts = {
        "audit_lines": audit.lines,
        "audit_broken": int(audit.broken is not None),
        "audit_torn": audit.torn,
        "audit_without_an_order_that_counts": len(acknowledged - noted),
        "events": len(standing),
        "events_lost": len(set(operator.states) - set(standing)),
        "events_never_told": len(set(standing) - set(operator.states)),
        "events_told_otherwise": sum(told.get(name) != stands for name, stands in standing.items()),
        "ids_used_twice": sum(len(onsets) > 1 for onsets in operator.onsets.values()),
        "open": len(still),
        "open_lost_at_restart": len(set(still) - set(resumed)),
        "ghosts_in_health": len({a["id"] for a in health} - set(still)),
        "acknowledgements": len(heard),
        "acknowledgements_lost": len(heard ^ acknowledged),
        "files_set_aside": len(list((folder / "state").glob("*.aside"))),
    }
    bad = {k: v for k, v in counts.items() if v and k not in SIZES}
    said = (
        f"{counts['events_lost']} of {counts['events']} events, {counts['open_lost_at_restart']} of {len(still)} open"
    )
    return Outcome(passed=not bad, lost=said + (f"; {bad}" if bad else ""), parameters={"kills": kills}, counts=counts)


def _entries(folder):
    return [json.loads(line) for line in (folder / "state" / AUDIT).read_text().splitlines()]


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


def soak(options: Options, folder):
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
    counts = memory.counts(options.soak_s / 3)
    grown = counts["descriptors_last"] - counts["descriptors_first"]
    slope = counts["resident_MiB_per_h"] or 0.0
    said = f"{slope:.0f} MiB an hour and {grown} descriptors" + ("" if lived else "; the daemon ended by itself")
    steady = options.soak_s < 600 or slope < 20  # a short run cannot tell growth from warming up
    return Outcome(
        passed=lived and steady and grown <= 2, lost=said, parameters={"soak_s": options.soak_s}, counts=counts
    )


DRILLS = (daemon_kills, soak)
