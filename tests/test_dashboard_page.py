import contextlib
import signal
import time
import urllib.request
from dataclasses import replace

import numpy as np
import pytest
from page_rig import CHROMIUM, MOSQUITTO, Rig, listener, publish_status, talking, tell
from small_plants import write_recording
from wire_examples import CONTROLLED, PLANT, Story, until

from fusion.alarms import MarkKind, ModelOrder
from fusion.model_store import ModelStore
from fusion.mqtt.client import ClientState
from fusion.plant import Modality
from fusion.publish.preview import picture_png, spectrogram
from fusion.publish.publisher import MqttPublisher, PublisherConfig
from fusion.recordings.marks import Journal, Mark
from fusion.recordings.recorder import MARKS
from fusion.recordings.writer import RecordingWriter
from fusion.records import NS_PER_S, AnomalyState, Sample, SignalBlame, Verdict

SHADES = "c => new Set(c.getContext('2d').getImageData(0, 0, c.width, c.height).data).size"


pytestmark = [
    pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed"),
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed"),
]


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
        made.browser = browser
        made.watch(browser.new_page(viewport={"width": 1600, "height": 1000}))
        made.page.goto(made.url)
        yield made


@pytest.fixture
def talker(rig):
    with talking(rig) as made:
        rig.state("NORMAL")
        yield made


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
            "lime", "daemon online", "licence advise", "TIC101.SP", "81.4", "if applied", "IT103", "agitator current",
            "+3.42 A", "Process departs from normal", "microphone and the other senses contradict each other",
            "silo_lidar", "stale", "ADVISE", "valid for",
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
    rig.see("The daemon is offline, last heard at", "reads 15.45 A")
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
        rig.press("Sure")
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
    rig.see("last there at", "what is shown is the last that was known", "was live", "not known now")
    rig.see("No open alarm when the daemon was last heard")
    rig.start_broker()
    rig.state("NORMAL")
    talker.say(talker.story.anomaly(talker.s))
    rig.state("ALARM 1")


def test_the_page_comes_back_with_its_server(rig, talker):
    talker.say(talker.story.anomaly(talker.s))
    rig.state("ALARM 1")
    rig.kill("dashboard")
    rig.see("this page has lost its server since", timeout_s=5)
    assert not rig.page.locator(".head .state").is_visible()
    rig.start_dashboard()
    rig.state("ALARM 1")
    rig.see("reads 15.45 A")
    rig.miss("this page has lost its server")


def test_a_server_that_hangs_is_noticed_by_the_browser(rig, talker):
    process = rig.processes["dashboard"]
    process.send_signal(signal.SIGSTOP)
    try:
        rig.see("this page has lost its server since", timeout_s=6)
        assert not rig.page.locator(".head .state").is_visible()
    finally:
        process.send_signal(signal.SIGCONT)
    rig.miss("this page has lost its server")
    rig.state("NORMAL")


def blaming(talker, *blames):
    """An anomaly that blames these signals, the first most."""
    return replace(talker.story.anomaly(talker.s), top_signals=blames)


def test_what_stands_out_is_marked_where_it_is(rig, talker):
    story = talker.story
    talker.out.publish_preview("camera", picture_png(story.picture()))
    sound = spectrogram(PLANT, PLANT.by_name["microphone"], story.sound(), story.at(talker.s))
    talker.out.publish_preview("microphone", sound)
    talker.say(
        blaming(
            talker,
            SignalBlame(signal="camera", residual=9.3, share=0.6, where="row change 4"),
            SignalBlame(signal="microphone", residual=6.1, share=0.4, where="mel mean 14"),
        )
    )
    rig.see("camera: movement at 38 % of the height from the top is 9.3 normal spreads off")
    rig.see("stands out: movement at 38 %", "stands out: loudness at 1.4 to 1.6 kHz")
    outline, picture = (rig.page.locator(what).bounding_box() for what in (".media .frame rect", ".media img"))
    assert outline["y"] - picture["y"] == pytest.approx(4 / 12 * picture["height"], abs=picture["height"] / 24)
    assert outline["height"] == pytest.approx(picture["height"] / 12, abs=8)
    white = "c => [...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].filter(v => v === 255).length"
    marked = rig.page.locator(".media canvas").first.evaluate(white)
    talker.say(blaming(talker, SignalBlame(signal="IT103", residual=1.0, share=1.0, expected=12.0, seen=13.0)))
    rig.page.locator(".media .frame rect").wait_for(state="detached")
    rig.miss("stands out:")
    assert rig.page.locator(".media canvas").first.evaluate(white) < marked


def test_of_several_alarms_the_first_says_why_and_the_others_on_a_press(rig, talker):
    page, story = rig.page, talker.story
    found = [story.anomaly(talker.s, name=name) for name in ("a-1", "a-2", "a-3")]
    talker.alarms = tuple(story.alarm(0, anomaly) for anomaly in found)
    talker.say()
    rig.state("ALARM 3")
    opened = page.locator(".alarms .anomaly details[open]")
    until(lambda: opened.count() == 1, "one is unfolded")
    assert page.locator(".alarms .anomaly").first.locator("details[open]").count() == 1
    page.locator(".alarms .anomaly summary").nth(2).click()
    rig.see("Its trends")
    talker.say()
    page.wait_for_timeout(2500)  # two rounds of the page leave it as it was left
    assert opened.count() == 2
    page.get_by_role("button", name="Its trends").nth(1).click()
    until(lambda: opened.count() == 3, "the picked one is unfolded")
    talker.alarms = talker.alarms[:1]
    talker.say()
    rig.state("ALARM 1")


@pytest.mark.parametrize(("width", "height"), [(1366, 768), (390, 844)])
def test_an_alarm_is_in_sight_and_nothing_is_wider_than_the_screen(rig, talker, width, height):
    talker.say(talker.story.anomaly(talker.s))
    with rig.elsewhere(viewport={"width": width, "height": height}) as page:
        rig.see("reads 15.45 A, expected 12.03 A", "Look on the plant at IT103", "seen 15.45 A")
        box = page.get_by_role("button", name="Acknowledge").bounding_box()
        assert box["y"] + box["height"] < height
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        for panel in page.locator(".panel:visible").all():
            assert panel.evaluate("p => p.scrollWidth - p.clientWidth") <= 1
        first, trends = (page.locator(what).bounding_box()["y"] for what in (".alarms", ".legend"))
        assert first < trends


def test_the_page_follows_the_browser_in_colours_and_time(rig, talker):
    brightness = "e => getComputedStyle(e).backgroundColor.match(/\\d+/g).slice(0, 3).reduce((a, b) => a + +b, 0) / 3"
    for scheme, dark in (("light", False), ("dark", True)):
        with rig.elsewhere(color_scheme=scheme, timezone_id="Asia/Tokyo") as page:
            rig.see("JST")
            for what in ("body", ".panel >> nth=0", ".head"):
                assert (page.locator(what).evaluate(brightness) < 128) is dark
            page.emulate_media(color_scheme="light" if dark else "dark")
            page.wait_for_function(f"document.body.classList.contains('body--dark') !== {str(dark).lower()}")


def test_a_plant_without_media_has_no_tiles(rig, talker):
    bare = replace(PLANT, signals=tuple(s for s in PLANT.signals if s.modality is Modality.PROCESS))
    with rig.beside("bare", bare) as page:
        rig.state("NORMAL")
        assert page.locator(".media .panel:visible").count() == 0
        assert page.locator(".legend").is_visible()


@pytest.fixture
def recorded(rig, tmp_path):
    """A page beside the others that reads an hour of recordings, with a mark in it; restarted, it remembers nothing."""
    now_s = time.time_ns() // NS_PER_S
    values = {name: np.full(3000, middle) for name, (_, _, middle, _) in CONTROLLED.items()}
    values["TT101"] = np.where(np.arange(3000) < 600, 61.5, 80.0)
    write_recording(tmp_path / "hour", PLANT, values, now_s - 3600)
    with RecordingWriter(tmp_path / "pictures", PLANT) as writer:
        picture = np.full((96, 96), 90, np.uint8)
        for s in range(-1900, -1500, 4):
            t_ns = (now_s + s) * NS_PER_S
            writer.media(Sample(signal="camera", t_ns=t_ns, received_ns=t_ns, value=picture, clock="box"))
    with rig.beside("past", recordings=str(tmp_path)):
        yield tmp_path


def test_the_past_is_there_after_a_restart_and_can_be_scrubbed(rig, talker, recorded):
    page = rig.page
    rig.state("NORMAL")
    shown = "echarts.getInstanceByDom(document.querySelector('[aria-label=Trends]'))"
    page.evaluate("() => import('nicegui-echart').then((m) => { window.echarts = m.echarts })")
    points = f"() => {shown}.getOption().series.find((s) => s.id === 'TT101.actual').data.map((p) => p[1])"
    rig.press("1 h")
    page.wait_for_function(f"() => ({points})().includes(61.5)", timeout=30_000)
    slider = page.locator(".timebar [role=slider] [tabindex]")
    slider.press("ArrowLeft")
    rig.see("Back to now", "ago; 1 h 00 min shown", "nothing recorded then")
    minutes = page.locator(".timebar [role=slider]")
    until(lambda: slider.press("ArrowLeft") or int(minutes.get_attribute("aria-valuenow")) <= -30, "half an hour back")
    page.locator(".media img[src]").wait_for(timeout=30_000)
    box = page.locator("[aria-label=Trends]").bounding_box()
    page.mouse.move(box["x"] + 200, box["y"] + 50)
    rig.see("TT101 measured")
    page.keyboard.down("Control")
    page.mouse.wheel(0, -400)
    page.keyboard.up("Control")
    rig.miss("1 h 00 min shown")
    rig.press("Back to now")
    rig.see("now, the last 15 min")


def test_an_operator_marks_a_stretch_and_sees_that_it_was_written(rig, talker, recorded):
    page = rig.page
    rig.state("NORMAL")
    page.get_by_label("your name").fill("Ana")
    with listener(rig, "fusion/lime/v1/mark/order") as orders:
        rig.press("Pause")
        rig.press("Mark this time")
        rig.press("^Mark$")
        rig.see("Say in a word or two what happened")
        page.get_by_label("what happened").fill("pump trip")
        page.get_by_text("maintenance: not learned from").click()
        rig.press("^Mark$")
        until(lambda: orders, "mark")
        rig.see("pump trip: sent")
        said = orders[0]
        assert (said["name"], said["kind"], said["by"]) == ("pump trip", "maintenance", "Ana")
        assert said["t_from_ns"] is not None
        mark = Mark(name="pump trip", kind=MarkKind.MAINTENANCE, onset_ns=said["t_from_ns"], by="Ana")
        Journal(recorded / MARKS).add(mark)
        rig.see("pump trip: marked")


def test_an_operator_answers_advice_and_asks_what_if(rig, talker):
    page, story = rig.page, talker.story
    talker.say(story.frame(talker.s), story.advice(talker.s))
    page.get_by_label("your name").fill("Ana")
    with listener(rig, "fusion/lime/v1/recommendation/ack") as answers:
        rig.press("Reject")
        page.get_by_text("equipment does not allow it").click()
        until(lambda: answers, "answer")
    assert answers[0]["answer"] == "rejected"
    assert (answers[0]["reason"], answers[0]["by"]) == ("equipment does not allow it", "Ana")
    rig.see("rejected: sent")
    rig.press("^Advice$")
    rig.see("no advice has been given yet")
    with listener(rig, "fusion/lime/v1/whatif/request") as questions:
        page.locator("[role=slider][aria-label='TIC101.SP'] [tabindex]").press("ArrowRight")
        until(lambda: questions, "question")
    asked = questions[-1]
    assert asked["by"] == "Ana"
    assert list(asked["moves"]) == ["TIC101.SP"]
    talker.say(story.prospect(talker.s, asked["id"]))
    rig.see("of the way to the border", "(moved)")
    rig.press("^Plant$")
    rig.see("Sources:", "Advice: set TIC101.SP")


def test_an_alarm_of_the_record_is_looked_at_in_the_trends(rig, talker):
    talker.say(talker.story.anomaly(talker.s))
    rig.state("ALARM 1")
    rig.press("^Alarm record$")
    rig.see("IT103, TT101, microphone: process, stands", "very likely acceptable")
    rig.press("look at")
    rig.see("Back to now")
    rig.press("Back to now")
    rig.press("^Model$")
    rig.see("h of normal operation", "not told where models are kept")
    rig.press("^Plant$")
    rig.page.locator(".mimic .cell.blamed", has_text="IT103").wait_for()
    talker.say(talker.story.anomaly(talker.s, AnomalyState.CLEARED))
    rig.page.locator(".mimic .cell.blamed").first.wait_for(state="detached")


def test_a_page_that_nobody_sees_is_not_fed(rig, talker):
    with rig.elsewhere() as page:
        rig.state("NORMAL")
        hide = "Object.defineProperty(document, 'hidden', {value: %s, configurable: true});"
        tell = "document.dispatchEvent(new Event('visibilitychange'))"
        page.evaluate(hide % "true" + tell)
        talker.say(talker.story.anomaly(talker.s))
        rig.state("ALARM 1")
        assert page.get_by_text("Look on the plant at IT103").count() == 0
        page.evaluate(hide % "false" + tell)
        rig.see("Look on the plant at IT103")
    talker.say(talker.story.anomaly(talker.s, AnomalyState.CLEARED))


def test_nothing_failed_on_the_way(rig):
    assert rig.errors == []
    assert rig.foreign == []
    assert "Traceback" not in rig.log.read_text()


@pytest.fixture
def storing(rig, tmp_path):
    """A page beside the others that is told where three models are kept, of which the last is in use."""
    store = ModelStore(tmp_path)
    for name in ("0001", "0002", "0003"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "model.json").write_text("{}")
        (tmp_path / name / "report.html").write_text(f"<p>how {name} was made")
    for name in ("0001", "0003"):
        store.choose(name, "backtest")
    with rig.beside("models", models=str(tmp_path)):
        yield store


def test_a_model_that_is_kept_is_put_to_use(rig, talker, storing):
    page = rig.page
    rig.state("NORMAL")
    rig.press("^Model$")
    rig.see("0003 (in use)")
    rig.press("Use it")
    rig.see("Choose a model first")
    page.get_by_role("combobox", name="model to use").click()
    page.get_by_role("option").first.wait_for()
    assert page.get_by_role("option").all_text_contents() == ["0002", "0001"]
    page.get_by_role("option", name="0001").click()
    rig.press("Use it")
    rig.see("Your name is needed")
    page.get_by_label("your name").first.fill("kim")
    rig.press("Use it")
    rig.see("0001: sent")
    heard = []
    until(lambda: heard.extend(talker.out.orders()) or heard, "the order")
    assert heard == [ModelOrder(model="0001", by="kim")]
    storing.choose(heard[0].model, heard[0].by)
    rig.see("0001 is in use", "0001 (in use)")
    rig.press("Go back to 0003")
    until(lambda: heard.extend(talker.out.orders()) or len(heard) == 2, "the order back")
    assert heard[1] == ModelOrder(model="0003", by="kim")
    rig.see("0003: sent, but the daemon has not answered")
    here = page.url.partition("#")[0]
    answer = page.request.get(here + "model/0002/report")
    assert (answer.status, answer.text()) == (200, "<p>how 0002 was made")
    for name in ("0009", "current.json"):
        assert page.request.get(here + f"model/{name}/report").status == 404
