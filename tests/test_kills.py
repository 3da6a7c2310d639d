"""Two hundred kills with events open: no ghost, no lost event, no id twice, and what was acknowledged stays so."""

import json
import os
import subprocess
import sys
import threading
from collections import defaultdict
from pathlib import Path

import paho.mqtt.client as mqtt
from mosquitto import Mosquitto, needs_broker
from wire_examples import until

HERE = Path(__file__).parent
KILLS = 200


class Operator:
    """Hears everything, and acknowledges every second alarm that is raised."""

    def __init__(self, port):
        self.onsets, self.states, self.alarms, self.health = defaultdict(set), defaultdict(set), defaultdict(set), {}
        self.ready = threading.Event()
        self.client = mqtt.Client(mqtt.CallbackAPIVersion.VERSION2)
        self.client.on_subscribe = lambda *_: self.ready.set()
        self.client.on_message = self.hear
        self.client.connect("127.0.0.1", port)
        self.client.loop_start()
        self.client.subscribe("fusion/#", qos=1)
        assert self.ready.wait(5)

    def hear(self, client, _data, message):
        kind = message.topic.rsplit("/", 1)[-1]
        if kind == "anomaly":
            said = json.loads(message.payload)
            self.onsets[said["id"]].add(said["t_onset_ns"])
            self.states[said["id"]].add(said["state"])
            if said["state"] == "raised" and int(said["id"].rsplit("-", 1)[-1]) % 2:
                order = {"id": said["id"], "order": "acknowledge", "by": "kim"}
                client.publish("fusion/kiln/v1/alarm/order", json.dumps(order), qos=1)
        elif kind == "alarm":
            alarm = json.loads(message.payload)["alarm"]
            self.alarms[alarm["id"]].add((alarm["state"], alarm["acknowledged_by"]))
        elif kind == "health":
            self.health = json.loads(message.payload) if b'"offline"' not in message.payload else self.health

    def close(self):
        self.client.disconnect()
        self.client.loop_stop()


@needs_broker
def test_two_hundred_kills_leave_no_ghost_lose_no_event_and_use_no_id_twice(tmp_path):
    broker = Mosquitto(tmp_path)
    operator = Operator(broker.port)
    path = os.pathsep.join([str(HERE.parent), str(HERE)])
    try:
        ended = subprocess.run(
            [sys.executable, str(HERE / "scripted_daemon.py"), str(tmp_path), str(broker.port), str(KILLS)],
            env={**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert ended.returncode == 0, ended.stderr[-3000:]
        assert "aside" not in ended.stderr
        stored = json.loads((tmp_path / "state" / "alarms.json").read_text())
        standing = {a["anomaly"]["id"]: a["anomaly"]["state"] != "cleared" for a in stored["alarms"]}
        until(lambda: set(operator.states) >= set(standing), "what is stored is told")
    finally:
        operator.close()
        broker.stop()
    assert len(standing) > KILLS / 4  # on a busy machine many a life is too short for an event
    for alarm in stored["alarms"]:
        operator.onsets[alarm["anomaly"]["id"]].add(alarm["anomaly"]["t_onset_ns"])
    assert [name for name, onsets in operator.onsets.items() if len(onsets) > 1] == []
    assert set(operator.states) == set(standing)
    assert {name: "cleared" not in states for name, states in operator.states.items()} == standing
    still = sorted(name for name, stands in standing.items() if stands)
    assert still
    assert sorted(json.loads(ended.stdout)["resumed"]) == still
    assert sorted(a["id"] for a in operator.health["open_anomalies"]) == still
    assert stored["sequence"] >= max(int(name.rsplit("-", 1)[-1]) for name in standing)
    assert stored["untold"] == []
    seen = {a["anomaly"]["id"] for a in stored["alarms"] if a["acknowledged_by"] == "kim"}
    told = {name for name, said in operator.alarms.items() if any(by == "kim" for _, by in said)}
    assert len(told) > 10
    assert told == seen
    assert not list((tmp_path / "state").glob("*.aside"))
