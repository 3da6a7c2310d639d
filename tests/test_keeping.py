"""What deploy/README.md says of backups, updates, rolling back and logs is done, word for word, on a small site."""

import json
import os
import re
import shutil
import subprocess
import sys
import threading
import urllib.request
from pathlib import Path

import pytest
import yaml
from mosquitto import Mosquitto, needs_broker
from wire_examples import free_port, until

from fusion.daemon.audit import check_audit
from fusion.model_store import ModelStore
from fusion.plant_file import dump_plant
from tests.small_plants import SMALL, small_values, write_recording

ROOT = Path(__file__).parents[1]
SECTION = (ROOT / "deploy" / "README.md").read_text().split("\n## Keeping it\n")[1].split("\n## ")[0]
BLOCKS = {
    part.partition("\n")[0]: [block.splitlines() for block in re.findall(r"^```sh\n(.*?)^```", part, re.M | re.S)]
    for part in SECTION.split("\n### ")[1:]
}
PLACES = ("/etc/", "/var/lib/", "/opt/")
needs_git = pytest.mark.skipif(
    not (shutil.which("git") and (ROOT / ".git").exists()), reason="this is no clone, or git is not installed"
)


class Machine:
    """A folder that stands for a machine, its service manager, and a plant that sends values to its broker."""

    def __init__(self, folder):
        self.root, self.broker, self.port = folder / "machine", Mosquitto(folder), free_port()
        self.etc, self.state, self.program = (
            self.root / place for place in ("etc/fusion", "var/lib/fusion", "opt/fusion")
        )
        self.did, self._process = [], None
        self._ended = threading.Event()
        self._plant = threading.Thread(target=self._send, daemon=True)
        for place in (self.etc, self.state):
            place.mkdir(parents=True)
        dump_plant(SMALL, self.etc / "plant.yaml")
        topic = {"topic": "small", "signals": [s.name for s in SMALL.signals], "value_path": '"{signal}"'}
        site = {
            "plant": "plant.yaml",
            "state": str(self.state / "state"),
            "record": {"folder": str(self.state / "records"), "free_gib": 0.01},
            "learn": {"models": str(self.state / "models")},
            "publish": {"port": self.broker.port, "outbox": str(self.state / "outbox.sqlite")},
            "connectors": {"small": {"kind": "mqtt", "port": self.broker.port, "topics": [topic]}},
            "http": {"port": self.port},
        }
        (self.etc / "site.yaml").write_text(yaml.safe_dump(site))
        self._plant.start()

    def _send(self):
        values, second = small_values(9, 3600), 0
        while not self._ended.wait(0.5):
            said = {name: float(row[second % 3600]) for name, row in values.items()}
            subprocess.run(self._publish(json.dumps(said)), check=False)
            second += 1

    def _publish(self, payload):
        return [shutil.which("mosquitto_pub"), "-p", str(self.broker.port), "-t", "small", "-m", payload]

    @property
    def environment(self):
        path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
        program = self.program if self.program.exists() else ROOT
        return os.environ | {"PATH": path, "PYTHONPATH": str(program), "OMP_NUM_THREADS": "1"}

    def carry_out(self, heading, number=0):
        """Do what stands under a heading, line by line."""
        for line in BLOCKS[heading][number]:
            words = line.split()
            if words[0] == "systemctl":
                self._systemctl(words[1], words[2:])
            elif words[0] == "make":
                self._made(line)
            else:
                self._run(line)
        return self

    def _run(self, line):
        for place in PLACES:
            line = line.replace(place, f"{self.root}{place}")
        line = line.replace("--directory /", f"--directory {self.root}")
        done = subprocess.run(
            ["bash", "-ec", line], cwd=self.root, env=self.environment, capture_output=True, text=True, timeout=120
        )
        assert done.returncode == 0, (line, done.stdout, done.stderr)
        self.did.append(done.stdout)

    def _made(self, line):
        """What is installed here already is there; that the program has such a target is what can be told."""
        _, _, folder, target = line.split()
        command = ["make", "--dry-run", "--old-file=.venv/.ready", "-C", f"{self.root}{folder}", target]
        subprocess.run(command, check=True, capture_output=True, timeout=30)

    def _systemctl(self, verb, units):
        assert verb in ("start", "stop", "restart")
        if "fusion" not in units:
            return
        if verb in ("stop", "restart") and self._process is not None:
            self._process.terminate()
            assert self._process.wait(60) == 0
            self._process = None
        if verb in ("start", "restart"):
            unit = (ROOT / "deploy" / "systemd" / "fusion.service").read_text()
            arguments = re.search(r"^ExecStart=\S+/fusion (.*)$", unit, re.M)[1].replace("/etc/", f"{self.root}/etc/")
            command = [sys.executable, "-m", "fusion.cli", *arguments.split()]
            self._process = subprocess.Popen(command, cwd=self.state, env=self.environment)
            until(lambda: self.health().get("ticks", 0) >= 2, "ticks", 120.0)

    def health(self):
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/health", timeout=5) as answer:
                return json.load(answer)
        except OSError:
            assert self._process.poll() is None, "the daemon ended by itself"
            return {}

    def close(self):
        self._ended.set()
        self._plant.join()
        self._systemctl("stop", ["fusion"])
        self.broker.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A model in closed form of five half hours."""
    folder = tmp_path_factory.mktemp("learned")
    dump_plant(SMALL, folder / "plant.yaml")
    for i in range(5):
        write_recording(folder / "records" / f"{i}", SMALL, small_values(i, 1800), 1_700_000_000 + 3600 * i)
    command = [sys.executable, "-m", "fusion.cli", "learn", "--plant", "plant.yaml", "--records", "records"]
    subprocess.run([*command, "--models", "models", "steps=0", "threads=1"], cwd=folder, check=True, timeout=300)
    return folder / "models" / "0001"


@pytest.fixture
def machine(model, tmp_path):
    made = Machine(tmp_path)
    store = ModelStore(made.state / "models")
    for name in ("0001", "0002"):
        shutil.copytree(model, store.next_place())
        store.choose(name, "test")
    try:
        yield made
    finally:
        made.close()


@needs_broker
def test_a_site_is_backed_up_lost_and_restored(machine):
    machine._systemctl("start", ["fusion"])
    machine.carry_out("Back up")
    assert "whole" in machine.did[-1] or "lines" in machine.did[-1], machine.did[-1]
    machine._systemctl("stop", ["fusion"])
    before = check_audit(machine.state / "state" / "audit.jsonl")
    shutil.rmtree(machine.state)
    shutil.rmtree(machine.etc)
    machine.state.mkdir()
    machine.carry_out("Restore, or move to another machine")
    after = check_audit(machine.state / "state" / "audit.jsonl")
    assert after.broken is None
    assert 0 < after.lines <= before.lines + 1
    assert ModelStore(machine.state / "models").current.name == "0002"
    assert not [flag for flag in machine.health()["flags"] if "aside" in flag]


@needs_broker
def test_a_model_is_taken_back_while_the_daemon_runs_and_the_audit_is_put_away(machine):
    machine._systemctl("start", ["fusion"])
    ticks = machine.health()["ticks"]
    machine.carry_out("Roll back", number=1)
    assert "* 0002" in machine.did[-2]
    assert ModelStore(machine.state / "models").current.name == "0001"
    until(lambda: machine.health()["ticks"] > ticks + 3, "it goes on", 30.0)
    machine.carry_out("Logs and the audit file", number=1)
    (away,) = machine.state.glob("audit-*/audit.jsonl")
    for file in (away, machine.state / "state" / "audit.jsonl"):
        assert check_audit(file).broken is None
    assert json.loads((machine.state / "state" / "audit.jsonl").read_text().splitlines()[0])["what"] == "started"
    machine.carry_out("Logs and the audit file")
    assert "SystemMaxUse=1G" in (machine.root / "etc/systemd/journald.conf.d/size.conf").read_text()


@needs_broker
@needs_git
def test_a_program_is_updated_and_rolled_back(machine, tmp_path):
    def git(*arguments):
        who = ["-c", "user.name=test", "-c", "user.email=test@test"]
        return subprocess.run(["git", *who, *arguments], check=True, capture_output=True, text=True, timeout=60).stdout

    origin = tmp_path / "origin"
    git("clone", "--quiet", "--shared", str(ROOT), str(origin))
    git("-C", str(origin), "checkout", "--quiet", "-B", "release")
    machine.program.parent.mkdir(parents=True)
    git("clone", "--quiet", "--shared", str(origin), str(machine.program))
    (origin / "NEWS").write_text("newer\n")
    git("-C", str(origin), "add", "NEWS"), git("-C", str(origin), "commit", "--quiet", "--message", "newer")
    machine._systemctl("start", ["fusion"])
    machine.carry_out("Update")
    assert (machine.program / "NEWS").exists()
    assert machine.health()["ticks"] >= 2
    machine.carry_out("Roll back")
    assert not (machine.program / "NEWS").exists()
    audit = (machine.state / "state" / "audit.jsonl").read_text().splitlines()
    assert [json.loads(line)["what"] for line in audit].count("started") == 3
    assert check_audit(machine.state / "state" / "audit.jsonl").broken is None


def test_every_command_of_the_section_is_done_by_a_test():
    done = Path(__file__).read_text()
    assert all(f'"{heading}"' in done for heading in BLOCKS)
    assert sum(map(len, BLOCKS.values())) == 7
