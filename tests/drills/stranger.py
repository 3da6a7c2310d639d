"""A drill of the whole path with a plant that nobody here wrote: node-opcua, GStreamer, and a stranger's four commands.

It needs node with node-opcua (`NODE_PATH` says where), and the system's Python with GStreamer's RTSP server.
"""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import paho.mqtt.client as mqtt
import yaml
from mosquitto import MOSQUITTO
from wire_examples import until

from fusion.plant_file import load_plant
from tests.contract.peers import free_port
from tests.drills.rig import Options, Outcome, Skipped

FOREIGN = Path(__file__).parent / "foreign"
SYSTEM_PYTHON = "/usr/bin/python3"
TAGS = json.loads((FOREIGN / "tags.json").read_text())
SENSE = {
    **dict.fromkeys(("fouling", "pump_wear", "leak", "stiction", "drift", "frozen_level"), "process"),
    **dict.fromkeys(("stuck_wheel", "object", "frozen_camera", "dirt", "dark"), "video"),
    **dict.fromkeys(("squeal", "silence"), "audio"),
}
"""Faults in the order in which they are made, and the sense that has to be named."""
ODD = {
    "clock_1h": lambda health: any(flag.startswith("clock:opcua") for flag in health["flags"]),
    "bad_quality": lambda health: any("E-7.dP: Bad" in source["message"] for source in health["sources"]),
}
"""What is wrong with a source and not with the plant, and how health says it."""
LISTEN_S, SHORT_S = 20.0, 60.0
FAULT_S, CALM_S, QUIET_S = 150.0, 180.0, 900.0
FIRST_MODEL_S = 2 * 3600.0


def needs(what, *command):
    try:
        subprocess.run(command, check=True, capture_output=True, timeout=60)
    except (OSError, subprocess.SubprocessError) as error:
        raise Skipped(f"{what} is not installed") from error


class Foreign:
    """The foreign plant's servers, and a hand on its faults."""

    def __init__(self, folder, seed):
        needs("node-opcua", "node", "-e", "require('node-opcua')")
        server = "import gi; gi.require_version('GstRtspServer', '1.0'); import numpy"
        needs("GStreamer's RTSP server for the system's Python", SYSTEM_PYTHON, "-c", server)
        self.ua, self.rtsp, self.faults = free_port(), free_port(), free_port()
        command = ["node", FOREIGN / "server.cjs", self.ua, self.rtsp, self.faults, seed]
        self._said = (folder / "foreign.log").open("w+")
        environment = os.environ | {"PKI": str(folder)}
        self._process = subprocess.Popen([str(word) for word in command], env=environment, stdout=self._said)
        until(lambda: "serving" in (folder / "foreign.log").read_text(), "the foreign plant serves", 60.0)

    @property
    def addresses(self):
        return [f"opc.tcp://127.0.0.1:{self.ua}", f"rtsp://127.0.0.1:{self.rtsp}/cam1/main"]

    def order(self, *words):
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as hand:
            hand.sendto(" ".join(words).encode(), ("127.0.0.1", self.faults))

    def close(self):
        self._process.terminate()
        self._process.wait(20)
        self._said.close()


class Listener:
    """What a control system hears: the newest health, and raises in the order in which they came."""

    def __init__(self, port):
        self.health, self.raised, self.open = {}, [], set()
        self._client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self._client.on_connect = lambda client, *_: client.subscribe("fusion/#")
        self._client.on_message = self._hear
        self._client.connect("127.0.0.1", port)
        self._client.loop_start()

    def _hear(self, _client, _data, message):
        if message.topic.endswith("/health"):
            self.health = json.loads(message.payload)
        if message.topic.endswith("/anomaly"):
            said = json.loads(message.payload)
            if said["state"] == "raised":
                self.raised.append(said | {"heard_s": time.monotonic()})
                self.open.add(said["id"])
            if said["state"] == "cleared":
                self.open.discard(said["id"])

    def wait(self, condition, seconds):
        """How long it took [s] until a condition held; None where it never did."""
        began = time.monotonic()
        while time.monotonic() - began < seconds:
            if condition():
                return round(time.monotonic() - began, 1)
            time.sleep(0.2)
        return None

    def close(self):
        self._client.disconnect()
        self._client.loop_stop()


def fusion(*words):
    """What a command says, and how it ended."""
    command = [sys.executable, "-m", "fusion.cli", *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    return done.returncode, done.stdout + done.stderr


@contextmanager
def up(site):
    """A site that runs, and a listener at its broker."""
    port = free_port()
    file = site / "daemon.yaml"
    file.write_text(re.sub(r"port: \d+", f"port: {port}", file.read_text(), count=1))
    command = [sys.executable, "-m", "fusion.cli", "up", str(site), "--port", str(free_port())]
    with (site / "up.log").open("w") as said, subprocess.Popen(command, stdout=said, stderr=said) as process:
        try:
            until(lambda: "the page is at" in (site / "up.log").read_text(), "the site is up", 120.0)
            listener = Listener(port)
            yield listener
            listener.close()
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(60)


def proposed(site):
    """Of the tags of the plant, how many have the right unit and role; wrong ones that nothing marks as unsure."""
    nodes = yaml.safe_load((site / "daemon.yaml").read_text())["connectors"]["plc"]["nodes"]
    plant, lines = load_plant(site / "plant.yaml"), (site / "plant.yaml").read_text().splitlines()
    names = {address.partition(";s=")[2]: name for name, address in nodes.items()}
    right, unmarked = 0, []
    for tag in TAGS.values():
        name = names.get(f"{tag['folder']}.{tag['name']}")
        signal_ = plant.by_name.get(name)
        said = (None, None) if signal_ is None else (signal_.unit, signal_.role.value)
        truth = (tag["is"]["unit"], tag["is"]["role"])
        right += said == truth or (signal_ is None and truth[1] is None)
        at = next((i for i, line in enumerate(lines) if f"name: {name}," in line), 0)
        if signal_ is not None and said != truth and "# unsure" not in lines[at - 1]:
            unmarked.append(name)
    return {"tags": len(TAGS), "right": right, "wrong_and_not_marked": unmarked}


def stranger(options: Options, folder):
    """`fusion init`, `discover`, `doctor`, `up` on servers nobody here wrote; with --long also a model and faults."""
    if not MOSQUITTO:
        raise Skipped("mosquitto is not installed")
    foreign, site, began = Foreign(folder, options.seed), folder / "works", time.monotonic()
    try:
        answers = {
            "init": fusion("init", site),
            "discover": fusion("discover", *foreign.addresses, "--site", site, "--seconds", LISTEN_S),
            "doctor": fusion("doctor", site, "--seconds", 5),
        }
        counts = {"exit_codes": {verb: code for verb, (code, _) in answers.items()}} | proposed(site)
        with up(site) as listener:
            alive = listener.wait(lambda: _alive(listener.health), SHORT_S)
            counts |= {"all_sources_alive_s": alive, "minutes_until_up": _minutes(began)} | _odd(listener, foreign)
            if options.long:
                counts |= _commissioned(listener, foreign, began)
    finally:
        foreign.close()
    told = None not in [counts[f"{odd}_{when}_after_s"] for odd in ODD for when in ("said", "well")]
    passed = (
        told and alive is not None and not any(counts["exit_codes"].values()) and not counts["wrong_and_not_marked"]
    )
    said = f"{counts['right']} of {counts['tags']} tags have the right unit and role"
    if options.long:
        found = [name for name, told in counts["faults"].items() if told["right_sense"]]
        said += (
            f"; {len(found)} of {len(SENSE)} faults raised by the right sense, {counts['false_raises']} false raises"
        )
        passed = passed and len(found) >= len(SENSE) // 2
    return Outcome(passed=passed, lost=said, parameters={"seed": options.seed, "listen_s": LISTEN_S}, counts=counts)


def _alive(health):
    return bool(health) and health["plant_state"] == "learning" and all(s["alive"] for s in health["sources"])


def _minutes(began):
    return round((time.monotonic() - began) / 60, 1)


def _odd(listener, foreign):
    """How long it takes [s] until health says what is wrong with a source, and until that is over."""
    found = {}
    for odd, said in ODD.items():
        foreign.order(odd, "1.0")
        found[f"{odd}_said_after_s"] = listener.wait(lambda said=said: said(listener.health), SHORT_S)
        foreign.order("clear")
        found[f"{odd}_well_after_s"] = listener.wait(lambda said=said: not said(listener.health), SHORT_S)
    return found


def _commissioned(listener, foreign, began):
    """A first model of what comes, quiet for a while, and then one fault after the other."""
    judged = listener.wait(lambda: listener.health.get("plant_state") in ("normal", "alarm"), FIRST_MODEL_S)
    counts = {"judged_after_min": None if judged is None else _minutes(began), "faults": {}}
    time.sleep(QUIET_S)
    counts["false_raises"] = len(listener.raised)
    for fault, sense in SENSE.items():
        counts["faults"][fault] = _fault(listener, foreign, fault, sense)
    return counts


def _fault(listener, foreign, fault, sense):
    """One fault: when what was raised and said, and whether all was over after it."""
    listener.wait(lambda: not listener.open, CALM_S)
    first, began = len(listener.raised), time.monotonic()
    foreign.order(fault, "1.0")
    listener.wait(lambda: len(listener.raised) > first, FAULT_S)
    time.sleep(15.0)  # for the blame to settle
    told, state = listener.raised[first:], listener.health.get("reason", "")
    foreign.order("clear")
    cleared = listener.wait(lambda: not listener.open, CALM_S)
    strongest = max(told[0]["by_modality"], key=told[0]["by_modality"].get) if told else ""
    return {
        "raised_after_s": round(told[0]["heard_s"] - began, 1) if told else None,
        "raises": len(told),
        "kind": told[0]["kind"] if told else "",
        "by_modality": told[0]["by_modality"] if told else {},
        "blamed": [blame["signal"] for blame in told[0]["top_signals"]][:3] if told else [],
        "reason": state,
        "right_sense": strongest == sense,
        "cleared_after_s": cleared,
    }


DRILLS = (stranger,)
