"""A stranger's plant from its address to a running site: discovered, recorded, up, marked, stopped."""

import json
import os
import signal
import subprocess
import sys
import threading
import urllib.request
from argparse import ArgumentTypeError
from contextlib import closing

import pytest
from wire_examples import listening, until

from fusion.cli import main
from fusion.command import moment
from fusion.daemon.settings import load_daemon_config
from fusion.daemon.store import Store
from fusion.errors import ConfigError
from fusion.mqtt.broker import Broker
from fusion.mqtt.client import Client
from fusion.plant_file import load_plant
from fusion.recordings.marks import Journal
from fusion.recordings.recorder import Recorder
from fusion.recordings.recording import Recording
from fusion.site.up import _alone, _own_broker, run_site
from tests.contract.peers import free_port
from tests.foreign_server import Background, ForeignServer, Tag, discover

TAGS = (
    Tag("Kessel/Druck", "bar", range=(0, 16)),
    Tag("Kessel/Füllstand", "mm", range=(0, 4000)),
    Tag("Kessel/Rücklauf", "Cel", text="°C", code=False, range=(0, 120)),
)
UNITS = {"bar", "mm", "Cel"}


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site as `fusion discover` leaves it, of a server that runs; its results go to a port where nobody is."""
    folder = tmp_path_factory.mktemp("works")
    with Background(ForeignServer(TAGS)) as running:
        assert discover(folder, running.server.url, seconds=0.5) == 0
        daemon = folder / "daemon.yaml"
        daemon.write_text(daemon.read_text().replace("port: 1883", f"port: {free_port()}"))
        yield folder


def test_what_was_discovered_is_recorded_with_its_names_and_units(site, capsys):
    assert main(["record", "--config", str(site / "daemon.yaml"), "--for", "3s"]) == 0
    said = capsys.readouterr().out
    assert "values of 3 signals; nothing came" not in said
    (place,) = (site / "records").glob("2*")
    recording = Recording.verified(place)
    table = recording.table()
    names = {signal.name: signal.unit for signal in recording.plant.signals}
    assert set(names.values()) == UNITS
    assert set(table["signal"].unique()) == set(names)
    assert table.filter(table["quality"] == 2).height > 20
    ranges = {s.name: (s.low, s.high) for s in load_plant(site / "plant.yaml").signals}
    for name, value in zip(table["signal"], table["value"], strict=True):
        assert ranges[name][0] <= value <= ranges[name][1]


def test_a_recording_of_which_nothing_was_kept_is_an_error(site, capsys):
    text = (site / "daemon.yaml").read_text()
    config = site / "short.yaml"
    config.write_text(text.replace("folder: records", "folder: short\n  free_gib: 1000000000"))
    assert main(["record", "--config", str(config), "--for", "1s"]) == 1
    assert "record.free_gib keeps 1e+09" in capsys.readouterr().err


class Up:
    """`fusion up` as a process of its own, with what it says and the last health of its daemon."""

    def __init__(self, site):
        self.page = free_port()
        self.health, self.said = {}, []
        command = [sys.executable, "-m", "fusion.cli", "up", str(site), "--port", str(self.page)]
        alone = {key: value for key, value in os.environ.items() if not key.startswith("PYTEST")}  # NiceGUI looks at it
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
        self.process = subprocess.Popen(command, env=alone, **pipe)
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self):
        for line in self.process.stdout:
            self.said.append(line)

    def hear(self, broker):
        def take(topic, payload, _):
            self.health = json.loads(payload)

        return Client(broker, topics=["fusion/+/v1/health"], received=take)

    def stop(self):
        self.process.send_signal(signal.SIGINT)
        self.process.wait(30)
        self._reader.join(5)
        self.process.stdout.close()


def test_a_site_is_up_learns_takes_marks_and_ends_in_order(site, capsys):
    config = load_daemon_config(site / "daemon.yaml")
    before = set((site / "records").glob("2*"))
    running = Up(site)
    listener = None
    try:
        until(lambda: any("the page is at" in line for line in running.said), "the page", 60.0)
        listener = running.hear(Broker(port=config.publish.port))
        listener.start()
        until(lambda: running.health.get("plant_state") == "learning", "the daemon learns", 40.0)
        until(lambda: "of 1 h of normal operation" in running.health["reason"], "what it waits for", 10.0)
        with urllib.request.urlopen(f"http://127.0.0.1:{running.page}/", timeout=10) as page:
            assert page.status == 200
        assert main(["status", str(site)]) == 0
        assert ": LEARNING - no model: " in capsys.readouterr().out
        assert mark(site, "trip of the pump", "--kind", "fault") == 0
        assert "by the daemon" in capsys.readouterr().out
        ticks = running.health["ticks"]  # a recording shows what was marked only where something came after it
        until(lambda: running.health["ticks"] >= ticks + 3, "ticks after the mark", 20.0)
    finally:
        if listener is not None:
            listener.close()
        running.stop()
    assert running.process.returncode == 0, running.said
    assert "no broker answered" in running.said[0]
    assert not listening(config.publish.port)
    assert not listening(running.page)
    recorded = [Recording.verified(place) for place in set((site / "records").glob("2*")) - before]
    assert [(one.kind, one.events[0].name, one.events[0].end_ns) for one in recorded] == [
        ("marked", "trip of the pump", None)
    ]
    assert mark(site, "trip of the pump", "--kind", "good", "--to", "now", "--by", "kim") == 0
    assert "no daemon runs" in capsys.readouterr().out
    assert Recording.verified(recorded[0].path).kind == "normal"
    (held,) = Journal(site / "records" / "marks.jsonl").within(0, 2**62)
    assert (held.by, held.onset_ns) == ("kim", recorded[0].events[0].onset_ns)
    assert held.end_ns


def mark(site, *arguments):
    return main(["mark", *arguments, "--config", str(site / "daemon.yaml")])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["x", "--kind", "fault", "--from", "2026-11-30T12:00", "--to", "2026-11-30T11:00"], "it ends before it beg"),
        ([" ", "--kind", "fault"], "a name is missing"),
        (["x", "--kind", "fault", "--by", " "], "by is missing"),
    ],
)
def test_a_mark_that_says_nothing_is_refused(site, arguments, said, capsys):
    (site / "records").mkdir(exist_ok=True)
    assert mark(site, *arguments) == 2
    assert said in capsys.readouterr().err


def test_times_of_marks_are_of_this_machines_zone_or_that_they_name():
    assert moment("2026-11-30T12:00Z") == moment("2026-11-30T14:00+02:00") == 1_796_040_000 * 10**9
    with pytest.raises(ArgumentTypeError, match="'noon' is not accepted; expected now or 2026"):
        moment("noon")


def test_a_site_that_cannot_be_up_says_why_before_anything_starts(tmp_path):
    assert main(["init", str(tmp_path / "s")]) == 0
    with pytest.raises(ConfigError, match="no connectors yet; fusion discover"):
        run_site(tmp_path / "s", 8080)


def test_a_site_that_is_up_is_not_taken_up_again(site):
    """By another `fusion up` that has begun, or by a daemon of another command."""
    with _alone(site), pytest.raises(ConfigError, match="is up already, by another `fusion up`"):
        run_site(site, 8080)
    daemon = Store(site / "var" / "state", load_plant(site / "plant.yaml").name)
    with closing(daemon), pytest.raises(ConfigError, match="is used by another daemon"):
        run_site(site, 8080)


def test_a_broker_elsewhere_that_does_not_answer_is_not_replaced():
    with pytest.raises(ConfigError, match="no broker answers at broker.invalid:1883; start it"):
        _own_broker(Broker(host="broker.invalid"))


def test_a_mark_that_nobody_takes_is_an_error(site, capsys):
    """Something records here, and it is no daemon."""
    config = load_daemon_config(site / "daemon.yaml")
    recorder = Recorder(config.record, load_plant(site / "plant.yaml"))
    try:
        assert mark(site, "trip", "--kind", "fault") == 1
        assert "the mark is not made" in capsys.readouterr().err  # there is no broker either
    finally:
        recorder.close()
