"""A broker, a dashboard process, a browser page and a daemon's voice, for tests of the page as an operator has it."""

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
from pathlib import Path

from wire_examples import PLANT, Story, free_port, listening, until

from fusion.health import PlantState
from fusion.mqtt.broker import Broker
from fusion.mqtt.client import Client, ClientState
from fusion.plant import plant_to_dict
from fusion.publish.preview import cloud_bytes, picture_png, spectrogram
from fusion.publish.publisher import MqttPublisher, PublisherConfig
from fusion.records import NS_PER_S, Anomaly, AnomalyState, Verdict

ROOT = Path(__file__).parents[1]
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
CHROMIUM = shutil.which("chromium")
SCRIPT = (
    "import json, sys; from fusion.plant_file import plant_from_dict; from fusion.dashboard.app import *\n"
    "plant = plant_from_dict(json.load(open(sys.argv[3])))\n"
    "run(DashboardConfig(port=int(sys.argv[1]), broker=Broker(port=int(sys.argv[2])), recordings=sys.argv[4],\n"
    "    models=sys.argv[5]), plant)\n"
)


class Rig:
    """A broker and a dashboard process that can be killed and started again, and one browser page for all tests."""

    def __init__(self, folder, script=SCRIPT):
        self.script = script
        self.broker_port, self.page_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.page_port}/"
        self.settings, self.plant, self.log = folder / "mosquitto.conf", folder / "plant.json", folder / "page.log"
        self.settings.write_text(f"listener {self.broker_port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self.recordings = self.models = ""
        self.processes = {}
        self.page = self.browser = None
        self.errors, self.foreign = [], []

    def start_broker(self):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes["broker"] = subprocess.Popen([MOSQUITTO, "-c", str(self.settings)], **quiet)
        until(lambda: listening(self.broker_port), "broker")

    def start_dashboard(self, name="dashboard", plant=PLANT):
        self.plant.write_text(json.dumps(plant_to_dict(plant)))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("PYTEST_CURRENT_TEST", None)
        arguments = [str(self.page_port), str(self.broker_port), str(self.plant), self.recordings, self.models]
        with self.log.open("a") as output:
            self.processes[name] = subprocess.Popen(
                [sys.executable, "-c", self.script, *arguments], stdout=output, stderr=output, env=environment
            )
        until(lambda: listening(self.page_port), f"dashboard ({self.log.read_text()})", 30.0)

    def kill(self, name):
        running = self.processes.pop(name)
        running.kill()
        running.wait(8)

    def watch(self, page):
        self.page = page
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("console", self._heard)
        page.on("request", lambda r: None if "127.0.0.1" in r.url or "data:" in r.url else self.foreign.append(r.url))

    def _heard(self, said):
        """Keep what the console calls an error, but for a server that a test has taken away."""
        if said.type == "error" and "ERR_CONNECTION" not in said.text and "WebSocket" not in said.text:
            self.errors.append(said.text)

    @contextlib.contextmanager
    def elsewhere(self, url="", **context):
        """The page in another browser."""
        mine = self.page
        with contextlib.closing(self.browser.new_context(**context)) as other:
            self.watch(other.new_page())
            self.page.goto(url or self.url)
            try:
                yield self.page
            finally:
                self.page = mine

    @contextlib.contextmanager
    def beside(self, name, plant=PLANT, **folders):
        """A page of another process, which reads these ``folders`` (recordings, models)."""
        before = self.page_port, self.recordings, self.models
        self.page_port, self.recordings, self.models = (
            free_port(),
            *(folders.get(f, "") for f in ("recordings", "models")),
        )
        try:
            self.start_dashboard(name, plant)
            with self.elsewhere(f"http://127.0.0.1:{self.page_port}/") as page:
                yield page
        finally:
            self.page_port, self.recordings, self.models = before
            self.kill(name)

    def see(self, *texts, timeout_s=30):
        for text in texts:
            self.page.get_by_text(text, exact=False).first.wait_for(timeout=1000 * timeout_s)

    def state(self, text, timeout_s=30):
        """Wait until the head of the page says this of the plant."""
        shown = self.page.locator(".head .state", has_text=re.compile(f"^{text}$"))
        shown.wait_for(timeout=1000 * timeout_s)

    def miss(self, text, timeout_s=30):
        self.page.get_by_text(text, exact=False).first.wait_for(state="hidden", timeout=1000 * timeout_s)

    def press(self, name):
        self.page.get_by_role("button", name=re.compile(name)).locator("visible=true").first.click()


class Talker:
    """A daemon as far as the page can tell: it says its health every second and what it is asked to say besides."""

    def __init__(self, port):
        self.story = Story(time.time_ns() - 100 * NS_PER_S)
        self.alarms, self.state = (), PlantState.NORMAL
        self.out = MqttPublisher(PublisherConfig(port=port, outbox="", retry_s=0.1), PLANT, "m-4711")
        self.out.start()
        until(lambda: self.out.state is ClientState.ONLINE, "publisher")
        self._lock, self._stop = threading.Lock(), threading.Event()
        self._thread = threading.Thread(target=self._talk)
        self._thread.start()

    @property
    def s(self):
        return (time.time_ns() - self.story.start_ns) / NS_PER_S

    def _talk(self):
        while not self._stop.wait(1.0):
            self.say()

    def say(self, *items):
        with self._lock:
            for item in items:
                self.out.publish(item)
                if isinstance(item, Anomaly):
                    stands = item.state is not AnomalyState.CLEARED
                    self.alarms = (self.story.alarm(0, item),) if stands else ()
            self.out.publish(self.story.health(self.s, plant_state=self.state, alarms=self.alarms))

    def leave(self):
        self._stop.set()
        self._thread.join()
        self.out.close()


@contextlib.contextmanager
def talking(rig):
    talker = Talker(rig.broker_port)
    try:
        talker.say()
        yield talker
    finally:
        talker.leave()


def tell(out, story, seconds, verdict=Verdict.ADVISE):
    """Publish a past of so many seconds and everything that belongs to its end."""
    step = max(1, seconds // 300)
    for s in range(0, seconds, step):
        out.publish(story.frame(s))
        out.publish(story.energy(s))
        if s % 50 == 0:
            until(lambda: not out._volatile, "frames published")
    last = seconds - 1
    for item in (
        story.health(last),
        story.forecast(last, 0.6),
        story.anomaly(last - 200, AnomalyState.CLEARED, "a-16"),
        story.anomaly(last),
        story.advice(last, verdict),
    ):
        out.publish(item)
    out.publish_preview("camera", picture_png(story.picture()))
    out.publish_preview("silo_lidar", cloud_bytes(story.cloud()))
    for s in range(20):
        out.publish_preview("microphone", spectrogram(PLANT, PLANT.by_name["microphone"], story.sound(), story.at(s)))


@contextlib.contextmanager
def listener(rig, topic):
    """What is said on a topic, as it comes."""
    heard = []
    client = Client(
        Broker(port=rig.broker_port), topics=[topic], received=lambda _t, p, _r: heard.append(json.loads(p))
    )
    client.start()
    client.reach()
    try:
        yield heard
    finally:
        client.close()


def publish_status(port, status):
    command = [
        "mosquitto_pub",
        "-p",
        str(port),
        "-t",
        "simulator/lime/status",
        "-r",
        "-q",
        "1",
        "-m",
        json.dumps(status),
    ]
    subprocess.run(command, check=True, timeout=5)
