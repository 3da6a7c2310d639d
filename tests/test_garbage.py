"""What connections leave behind goes, however much a process has imported."""

import gc
import subprocess
import sys
from pathlib import Path
from unittest.mock import MagicMock

import pytest

from fusion.daemon import recording, start
from fusion.daemon.settings import DaemonConfig
from fusion.dashboard import app
from fusion.verifier import service as verifier

LEAVES = """
import gc, sys
from fusion.garbage import set_apart

class Connection:
    alive = 0
    def __init__(self):
        self.known = [[self] for _ in range(100)]
        Connection.alive += 1
    def __del__(self):
        Connection.alive -= 1

imported, most = [[] for _ in range(200_000)], 0
if sys.argv[1] == "apart":
    assert set_apart() > len(imported)
for _ in range(300):
    connection = Connection()
    gc.collect(1)  # it lives longer than what is young
    del connection
    [[] for _ in range(1000)]  # what is made and gone has the collector look
    most = max(most, Connection.alive)
print(most)
"""


def test_what_was_a_connection_goes_soon_beside_libraries_that_stay():
    most = {}
    for how in ("apart", "untouched"):
        done = subprocess.run([sys.executable, "-c", LEAVES, how], capture_output=True, text=True, timeout=60)
        assert done.returncode == 0, done.stderr
        most[how] = int(done.stdout)
    assert most["apart"] < 30 < 200 < most["untouched"]


def test_a_process_ends_without_complaints():
    ends = "import connectors.lidar.velodyne; from fusion.garbage import set_apart; set_apart()"
    done = subprocess.run([sys.executable, "-c", ends], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stderr) == (0, "")


class ReachedError(Exception):
    """A process has got as far as it should."""


def reached(*_):
    raise ReachedError(gc.get_freeze_count())


@pytest.fixture
def nothing_apart():
    gc.unfreeze()
    yield
    gc.unfreeze()


def test_the_daemon_sets_apart_its_libraries_and_no_model(monkeypatch, nothing_apart):
    seen = []
    monkeypatch.setattr(start, "load_plant", lambda _: seen.append(gc.get_freeze_count()))
    monkeypatch.setattr(start, "made_sources", lambda *_: seen.append(gc.get_freeze_count()))
    monkeypatch.setattr(start, "first_checkpoint", reached)
    with pytest.raises(ReachedError) as found:
        start.run(DaemonConfig(plant="plant.yaml"))
    assert seen == [0, 0]
    assert found.value.args[0] > 100_000


@pytest.mark.parametrize("process", [recording, verifier, app])
def test_others_that_run_for_long_do_so_too(monkeypatch, process):
    """The recorder that runs alone, the verifier and the page."""
    monkeypatch.setattr(process, "set_apart", reached)
    for before in ("load_daemon_config", "load_plant", "Recorder", "made_sources", "replace", "ignore_hangup"):
        monkeypatch.setattr(process, before, MagicMock(), raising=False)
    with pytest.raises(ReachedError):
        process.record_sources(Path("site.yaml")) if process is recording else process.run(MagicMock())
