import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import pytest
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
SHADES = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"


SCRIPT = (
    "import json, sys; from fusion.plant_file import plant_from_dict; from fusion.dashboard.app import *\n"
    "plant = plant_from_dict(json.load(open(sys.argv[3])))\n"
    "run(DashboardConfig(port=int(sys.argv[1]), broker=Broker(port=int(sys.argv[2]))), plant)\n"
)
LOST_SERVER = "() => getComputedStyle(document.querySelector('.head'), '::before').content.includes('lost its server')"

pytestmark = [
    pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed"),
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed"),
]


class Rig:
    """A broker and a dashboard process that can be killed and started again, and one browser page for all tests."""

    def __init__(self, folder):
        self.broker_port, self.page_port = free_port(), free_port()
        self.url = f"http://127.0.0.1:{self.page_port}/"
        self.settings, self.plant, self.log = folder / "mosquitto.conf", folder / "plant.json", folder / "page.log"
        self.settings.write_text(f"listener {self.broker_port} 127.0.0.1\nallow_anonymous true\npersistence false\n")
        self.plant.write_text(json.dumps(plant_to_dict(PLANT)))
        self.processes = {}
        self.page = None
        self.errors, self.foreign = [], []

    def start_broker(self):
        quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
        self.processes["broker"] = subprocess.Popen([MOSQUITTO, "-c", str(self.settings)], **quiet)
        until(lambda: listening(self.broker_port), "broker")

    def start_dashboard(self):
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("PYTEST_CURRENT_TEST", None)
        arguments = [str(self.page_port), str(self.broker_port), str(self.plant)]
        with self.log.open("a") as output:
            self.processes["dashboard"] = subprocess.Popen(
                [sys.executable, "-c", SCRIPT, *arguments], stdout=output, stderr=output, env=environment
            )
        until(lambda: listening(self.page_port), f"dashboard ({self.log.read_text()})", 30.0)

    def kill(self, name):
        running = self.processes.pop(name)
        running.kill()
        running.wait(8)

    def watch(self, page):
        self.page = page
        page.on("pageerror", lambda error: self.errors.append(str(error)))
        page.on("request", lambda r: None if "127.0.0.1" in r.url or "data:" in r.url else self.foreign.append(r.url))

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
        self.page.get_by_role("button", name=name).locator("visible=true").first.click()


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


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    playwright = pytest.importorskip("playwright.sync_api")
    made = Rig(tmp_path_factory.mktemp("page"))
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [made.kill(name) for name in list(made.processes)])
        made.start_broker()
        made.start_dashboard()
        driver = stack.enter_context(playwright.sync_playwright())
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        stack.callback(browser.close)
        made.watch(browser.new_page(viewport={"width": 1600, "height": 1000}))
        made.page.goto(made.url)
        yield made


@pytest.fixture
def talker(rig):
    with talking(rig) as made:
        rig.state("NORMAL")
        yield made


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


def test_operator_sees_the_plant_in_a_browser(rig):
    story = Story(time.time_ns() - 100 * NS_PER_S)
    html = urllib.request.urlopen(rig.url, timeout=10).read().decode()
    assert "https://" not in html  # works without the internet
    out = MqttPublisher(PublisherConfig(port=rig.broker_port, outbox=""), PLANT, "m-4711")
    out.start()
    until(lambda: out.state is ClientState.ONLINE, "publisher")
    page = rig.page
    with contextlib.closing(out):
        tell(out, story, 100)
        status = {"state": "online", "faults": ["bearing_wear", "bridging"], "active": {"bridging": 0.5}}
        publish_status(rig.broker_port, status)
        page.reload()
        rig.see(
            "lime", "online", "licence advise", "TIC101.SP", "81.4", "if applied", "IT103", "agitator current",
            "+3.42 A", "Process departs from normal", "process.spe x3.4", "silo_lidar", "stale", "ADVISE", "valid for",
            "bearing wear",
        )  # fmt: skip
        with listener(rig, "simulator/lime/command") as orders:
            page.get_by_text("bearing wear").click()
            until(lambda: orders, "order")
        assert orders == [{"op": "fault", "name": "bearing_wear", "severity": 1.0, "ramp_s": 10.0}]
        for canvas in page.locator("canvas").all():
            assert canvas.evaluate(SHADES) > 8
        publish_status(rig.broker_port, {"state": "offline"})
        rig.miss("bearing wear")
        out.publish(story.advice(99, Verdict.HOLD))
        rig.see("an anomaly is open")
    rig.state("NO DATA")
    rig.see("The daemon is offline")


def test_an_anomaly_that_is_raised_again_is_shown_again(rig, talker):
    for _ in range(2):
        talker.say(talker.story.anomaly(talker.s))
        rig.state("ALARM 1")
        rig.see("reads 15.45 A, expected 12.03 A")
        talker.say(talker.story.anomaly(talker.s, AnomalyState.CLEARED))
        rig.state("NORMAL")
        rig.see("No open alarm")
        rig.miss("reads 15.45 A")


def test_a_restarted_daemon_that_lists_none_leaves_no_ghost(rig):
    with talking(rig) as talker:
        talker.say(talker.story.anomaly(talker.s))
        rig.state("ALARM 1")
    rig.state("NO DATA")
    rig.see("The daemon is offline", "reads 15.45 A")
    with talking(rig):
        rig.state("NORMAL")
        rig.see("No open alarm")
        rig.miss("reads 15.45 A")


def test_orders_of_an_operator_go_out_and_their_outcome_is_shown(rig, talker):
    anomaly = talker.story.anomaly(talker.s)
    now_ns = time.time_ns()
    talker.say(anomaly)
    rig.state("ALARM 1")
    with listener(rig, "fusion/lime/v1/alarm/order") as orders:
        rig.press("Acknowledge")
        rig.see("Your name is needed")
        rig.page.get_by_label("your name").fill("Ana")
        rig.press("Acknowledge")
        until(lambda: len(orders) == 1, "acknowledge")
        life = {"acknowledged_ns": now_ns, "acknowledged_by": "Ana"}
        talker.alarms = (talker.story.alarm(0, anomaly, **life),)
        talker.say()
        rig.see("Acknowledged by Ana at")
        rig.press("Shelve 1 h")
        until(lambda: len(orders) == 2, "shelve")
        life |= {"shelved_until_ns": now_ns + 3600 * NS_PER_S, "shelved_by": "Ana"}
        talker.alarms = (talker.story.alarm(0, anomaly, **life),)
        talker.say()
        rig.state("NORMAL")
        rig.see("Shelved: 1")
        rig.miss("reads 15.45 A")
        rig.page.get_by_text("Shelved: 1").click()
        rig.press("Unshelve")
        until(lambda: len(orders) == 3, "unshelve")
        rig.press("This is normal")
        rig.press("Sure?")
        until(lambda: len(orders) == 4, "normal")
    said = [(order["id"], order["order"], order["by"], order["for_s"]) for order in orders]
    assert said == [
        ("a-17", "acknowledge", "Ana", 0.0),
        ("a-17", "shelve", "Ana", 3600.0),
        ("a-17", "unshelve", "Ana", 0.0),
        ("a-17", "normal", "Ana", 0.0),
    ]
    rig.page.reload()
    until(lambda: rig.page.get_by_label("your name").input_value() == "Ana", "the name is kept")


def test_the_page_comes_back_with_its_broker(rig, talker):
    rig.kill("broker")
    rig.state("NO DATA")
    rig.see("cannot be reached")
    rig.start_broker()
    rig.state("NORMAL")
    talker.say(talker.story.anomaly(talker.s))
    rig.state("ALARM 1")


def test_the_page_comes_back_with_its_server(rig, talker):
    talker.say(talker.story.anomaly(talker.s))
    rig.state("ALARM 1")
    rig.kill("dashboard")
    rig.page.wait_for_function(LOST_SERVER, timeout=30_000)
    rig.start_dashboard()
    rig.state("ALARM 1")
    rig.see("reads 15.45 A")
    assert rig.page.evaluate(LOST_SERVER) is False


def test_nothing_failed_on_the_way(rig):
    assert rig.errors == []
    assert rig.foreign == []
    assert "Traceback" not in rig.log.read_text()


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
