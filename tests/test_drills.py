"""The drills are kept in order: two of the quick ones run, and all are listed."""

import json
import subprocess
import sys
from pathlib import Path

from mosquitto import needs_broker

ROOT = Path(__file__).parents[1]


@needs_broker
def test_drills_say_what_was_lost_and_with_which_figures(tmp_path):
    report = tmp_path / "drills.json"
    command = [sys.executable, "-m", "tests.drills", "--only", "clock_step", "publisher_kills", "--kills", "2"]
    done = subprocess.run([*command, "--json", str(report)], cwd=ROOT, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stdout + done.stderr
    found = {drill["name"]: drill for drill in json.loads(report.read_text())["drills"]}
    assert set(found) == {"clock_step", "publisher_kills"}
    assert found["publisher_kills"]["state"] == "passed"
    assert found["publisher_kills"]["counts"]["lost"] == 0
    assert found["publisher_kills"]["parameters"]["kills"] == 2
    assert "0 of 20 recommendations expired early" in found["clock_step"]["lost"]
