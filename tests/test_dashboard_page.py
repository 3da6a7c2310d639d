import contextlib
import json
import os
import shutil
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from wire_examples import PLANT, Story, free_port, listening, until

from fusion.mqtt.client import ClientState
from fusion.plant import plant_to_dict
from fusion.publish.preview import cloud_bytes, picture_png, spectrogram
from fusion.publish.publisher import MqttPublisher, PublisherConfig
from fusion.records import NS_PER_S, AnomalyState, Verdict

ROOT = Path(__file__).parents[1]
MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
CHROMIUM = shutil.which("chromium")
SHADES = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"


@contextlib.contextmanager
def process(*command, **options):
    with subprocess.Popen(command, **options) as running:
        try:
            yield running
        finally:
            running.terminate()
            try:
                running.wait(8)
            except subprocess.TimeoutExpired:
                running.kill()


@contextlib.contextmanager
def served(folder):
    """A broker, a dashboard process and a publisher; yields (publisher, URL, broker port, dashboard log)."""
    broker, page = free_port(), free_port()
    settings, log = folder / "mosquitto.conf", folder / "dashboard.log"
    settings.write_text(f"listener {broker} 127.0.0.1\nallow_anonymous true\npersistence false\n")
    plant = folder / "plant.json"
    plant.write_text(json.dumps(plant_to_dict(PLANT)))
    script = (
        "import json, sys; from fusion.plant_file import plant_from_dict; from fusion.dashboard.app import *\n"
        "plant = plant_from_dict(json.load(open(sys.argv[3])))\n"
        "run(DashboardConfig(port=int(sys.argv[1]), broker=Broker(port=int(sys.argv[2]))), plant)\n"
    )
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with contextlib.ExitStack() as stack:
        stack.enter_context(process(MOSQUITTO, "-c", str(settings), **quiet))
        output = stack.enter_context(log.open("w"))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("PYTEST_CURRENT_TEST", None)
        stack.enter_context(
            process(
                sys.executable,
                "-c",
                script,
                str(page),
                str(broker),
                str(plant),
                stdout=output,
                stderr=output,
                env=environment,
            )
        )
        until(lambda: listening(broker), "broker")
        out = MqttPublisher(PublisherConfig(port=broker, outbox=""), PLANT, "m-4711")
        out.start()
        stack.callback(out.close)
        until(lambda: out.state is ClientState.ONLINE, "publisher")
        until(lambda: listening(page), f"dashboard ({log.read_text()})")
        yield out, f"http://127.0.0.1:{page}/", broker, log


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
def browser_page(url, width=1600, height=1000):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--headless", "--no-sandbox", "--disable-gpu"])
        try:
            page = browser.new_page(viewport={"width": width, "height": height})
            page.goto(url)
            yield page
        finally:
            browser.close()


@pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")
@pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed")
def test_operator_sees_the_plant_in_a_browser(tmp_path):
    story = Story(time.time_ns() - 100 * NS_PER_S)
    with served(tmp_path) as (out, url, broker, log):
        html = urllib.request.urlopen(url, timeout=10).read().decode()
        assert "https://" not in html  # works without the internet
        errors, foreign = [], []
        with browser_page("about:blank") as page:
            page.on("pageerror", lambda error: errors.append(str(error)))
            page.on(
                "request",
                lambda r: foreign.append(r.url) if "127.0.0.1" not in r.url and "data:" not in r.url else None,
            )
            tell(out, story, 100)
            status = {"state": "online", "faults": ["bearing_wear", "bridging"], "active": {"bridging": 0.5}}
            publish_status(broker, status)
            page.goto(url)
            expected = (
                "lime", "online", "licence advise", "TIC101.SP", "81.4", "if applied", "IT103", "agitator current",
                "+3.42 A", "process anomaly", "process.spe x3.4", "silo_lidar", "stale", "ADVISE", "valid for",
                "bearing wear",
            )  # fmt: skip
            for text in expected:
                page.get_by_text(text, exact=False).first.wait_for(timeout=30_000)
            orders = subprocess.Popen(
                [
                    "stdbuf",
                    "-oL",
                    "mosquitto_sub",
                    "-d",
                    "-p",
                    str(broker),
                    "-t",
                    "simulator/lime/command",
                    "-C",
                    "1",
                    "-W",
                    "8",
                ],
                stdout=subprocess.PIPE,
                text=True,
            )
            while not (line := orders.stdout.readline()).startswith("Subscribed"):
                assert line, "mosquitto_sub ended early"
            page.get_by_text("bearing wear").click()
            with orders:
                order = next(line for line in orders.stdout if line.startswith("{"))
            assert json.loads(order) == {"op": "fault", "name": "bearing_wear", "severity": 1.0, "ramp_s": 10.0}
            for canvas in page.locator("canvas").all():
                assert canvas.evaluate(SHADES) > 8
            publish_status(broker, {"state": "offline"})
            page.get_by_text("bearing wear").wait_for(state="hidden", timeout=30_000)
            out.publish(story.advice(99, Verdict.HOLD))
            page.get_by_text("an anomaly is open").first.wait_for(timeout=30_000)
            out.close()
            page.get_by_text("The daemon is offline").wait_for(timeout=30_000)
    assert errors == []
    assert foreign == []
    assert "Traceback" not in log.read_text()


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
