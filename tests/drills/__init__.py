"""Drills: what goes wrong in a plant, done on purpose, each with what was lost. `python -m tests.drills --json OUT`."""

import os
import sys
from pathlib import Path

TESTS = Path(__file__).parents[1]
for place in (str(TESTS), str(TESTS.parent)):  # the shared rigs of the tests, here and in child processes
    if place not in sys.path:
        sys.path.insert(0, place)
os.environ["PYTHONPATH"] = os.pathsep.join([str(TESTS.parent), str(TESTS), os.environ.get("PYTHONPATH", "")])
