"""Drills of the page: a browser left open on a plant that lives, by what it holds once its garbage is collected."""

import contextlib
import time

import numpy as np
from page_rig import CHROMIUM, MOSQUITTO, SCRIPT, Rig, Talker
from wire_examples import PLANT

from fusion.publish.preview import cloud_bytes, picture_png, spectrogram
from fusion.records import AnomalyState
from tests.drills.rig import Memory, Options, Outcome, Skipped, growth

READINGS_S, READINGS = 20.0, 20
WARM_S = 1200.0
"""Trends hold a quarter of an hour: only then does what leaves make room for what comes."""
TELLING_S = 1800.0
EVENT_EVERY_S, EVENT_LASTS_S = 60, 25
NEW_IDS, FEW_IDS = 10**9, 5  # the record of alarms shows the last forty: with new ids its list fills for that long
VIEWS = ("Alarm record", "Advice", "Model", "Plant")
SHOWN_MS = 1500
BREAK = "window.socket.io.engine.close()"
"""JavaScript: the connection to the server breaks, and the page makes a new one."""
MOST_HEAP_MIB_PER_H, MOST_SERVER_MIB_PER_H, MOST_PER_H = 2.0, 6.0, 60.0


class Living(Talker):
    """A daemon that says all it can each second; an event comes each minute and goes again, with one of ``ids`` ids."""

    def __init__(self, port, ids):
        self.ids = ids
        super().__init__(port)

    def say(self, *items):
        s, story = self.s, self.story
        tick, number = int(s) % EVENT_EVERY_S, int(s) // EVENT_EVERY_S % self.ids
        self.out.publish_preview("camera", picture_png(story.picture()))
        self.out.publish_preview("silo_lidar", cloud_bytes(story.cloud()))
        microphone = PLANT.by_name["microphone"]
        self.out.publish_preview("microphone", spectrogram(PLANT, microphone, story.sound(), story.at(s)))
        said = [story.frame(s), story.energy(s), story.forecast(s), story.advice(s)]
        if tick < EVENT_LASTS_S:
            said.append(story.anomaly(s, name=f"a-{number}"))
        elif tick == EVENT_LASTS_S:
            said.append(story.anomaly(s, AnomalyState.CLEARED, name=f"a-{number}"))
        super().say(*said, *items)


class Tab:
    """What one tab of Chromium holds after its garbage was collected: heap [MiB], nodes, listeners, documents."""

    NAMES = ("JSHeapUsedSize", "Nodes", "JSEventListeners", "Documents")

    def __init__(self, page):
        self._session, self._began_s = page.context.new_cdp_session(page), time.monotonic()
        self._session.send("Performance.enable")
        self.rows = []

    def note(self):
        self._session.send("HeapProfiler.collectGarbage")
        found = {m["name"]: m["value"] for m in self._session.send("Performance.getMetrics")["metrics"]}
        self.rows.append((time.monotonic() - self._began_s, *(found[name] for name in self.NAMES)))

    def counts(self, warm_s):
        """Of each: first, first when warm, last and most, and the slope an hour once warm with its error."""
        seconds, *columns = np.array(self.rows).T
        warm = seconds >= min(warm_s, seconds[-1])
        found = {"readings": [[round(float(x), 1) for x in row] for row in self.rows]}
        for name, column in zip(("heap_MiB", "nodes", "listeners", "documents"), columns, strict=True):
            held = column / 2**20 if name == "heap_MiB" else column
            found[name] = [round(float(x), 2) for x in (held[0], held[warm][0], held[-1], held.max())]
            found[f"{name}_per_h_warm"], found[f"{name}_per_h_warm_error"] = growth(seconds[warm] / 3600, held[warm])
        return found


@contextlib.contextmanager
def watched(folder, script=SCRIPT, ids=NEW_IDS):
    """A page in a browser, with its daemon's voice."""
    if not (MOSQUITTO and CHROMIUM):
        raise Skipped("mosquitto or chromium is not installed")
    from playwright.sync_api import sync_playwright

    rig = Rig(folder, script)
    with contextlib.ExitStack() as stack:
        stack.callback(lambda: [rig.kill(name) for name in list(rig.processes)])
        rig.start_broker()
        rig.start_dashboard()
        talker = Living(rig.broker_port, ids)
        stack.callback(talker.leave)
        driver = stack.enter_context(sync_playwright())
        flags = ["--headless", "--no-sandbox", "--disable-gpu"]
        rig.browser = browser = driver.chromium.launch(executable_path=CHROMIUM, args=flags)
        stack.callback(browser.close)
        rig.watch(browser.new_page(viewport={"width": 1366, "height": 768}))
        rig.page.goto(rig.url)
        rig.see("Recommendation")
        yield rig


def soak_page(options: Options, folder):
    """The overview left open: heap, nodes and listeners of the browser and memory of the server that feeds it."""
    return _soaked(options, folder, NEW_IDS, lambda _rig: None)


def soak_page_views(options: Options, folder):
    """The same while somebody goes from view to view, picks tags, looks back, and the network breaks at times."""
    turns = iter(range(10**9))
    return _soaked(options, folder, FEW_IDS, lambda rig: wander(rig, next(turns)))


def wander(rig, turn):
    """A round through all that can be looked at; of every fifth, the connection breaks."""
    for view in VIEWS:
        rig.press(f"^{view}$")
        rig.page.wait_for_timeout(SHOWN_MS)
    rig.page.locator(".mimic .cell", has_text=("IT101", "IT103", "FT102")[turn % 3]).first.click()
    rig.press("^Pause$")
    rig.press("^1 h$")
    rig.page.wait_for_timeout(SHOWN_MS)
    rig.press("Back to now")
    if turn % 5 == 4:
        rig.page.evaluate(BREAK)
        rig.page.wait_for_timeout(SHOWN_MS)


def _soaked(options, folder, ids, do):
    every_s = min(READINGS_S, options.soak_s / READINGS)
    with watched(folder, ids=ids) as rig:
        tab, server, began_s = Tab(rig.page), Memory(rig.processes["dashboard"].pid), time.monotonic()
        while time.monotonic() - began_s < options.soak_s:
            due_s = time.monotonic() + every_s
            do(rig)
            rig.page.wait_for_timeout(max(1.0, 1000 * (due_s - time.monotonic())))
            tab.note()
            server.note()
        errors = [*rig.errors, *rig.foreign]
    warm_s = min(WARM_S, options.soak_s / 3)
    return _outcome(options, tab.counts(warm_s), server.counts(warm_s), errors)


def _outcome(options, tab, server, errors):
    """Judged by what grows once trends are full, and by what the console said."""
    heap, own = tab["heap_MiB_per_h_warm"], server["own_MiB_per_h_warm"]
    grown = {name: tab[f"{name}_per_h_warm"] for name in ("nodes", "listeners", "documents")}
    telling = options.soak_s >= TELLING_S
    steady = not telling or (
        heap < MOST_HEAP_MIB_PER_H and own < MOST_SERVER_MIB_PER_H and max(grown.values()) < MOST_PER_H
    )
    said = f"{heap} MiB of heap and {grown['nodes']} nodes an hour once warm, {own} MiB of the server"
    return Outcome(
        passed=steady and not errors,
        lost=said + (f"; {errors[:3]}" if errors else ""),
        parameters={"soak_s": options.soak_s},
        counts={"browser": tab, "server": server},
    )


DRILLS = (soak_page, soak_page_views)
