"""A drill of the whole daemon: killed at random moments."""

import json
import os
import subprocess
import sys

from mosquitto import Mosquitto
from test_kills import Operator
from wire_examples import until

from fusion.daemon.audit import AUDIT, check_audit
from tests.drills import TESTS
from tests.drills.rig import Options, Outcome

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


DRILLS = (daemon_kills,)
