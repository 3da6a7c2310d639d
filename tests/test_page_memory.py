"""What a page that is left open holds, counted in browser and server: after views, alarms and broken connections."""

import json
import os
import re
import signal

import pytest
from page_rig import CHROMIUM, MOSQUITTO, SCRIPT
from wire_examples import until

from tests.drills import page as drill

pytestmark = [
    pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed"),
    pytest.mark.skipif(not CHROMIUM, reason="chromium is not installed"),
]
COUNTING = """
import gc, signal
def count(*_):
    from nicegui import Client
    from nicegui.element import Element
    from fusion.dashboard.page import Page
    gc.collect()
    held = [item for item in gc.get_objects() if issubclass(type(item), (Page, Element))]
    counts = {"clients": len(Client.instances), "pages": sum(type(item) is Page for item in held)}
    counts["elements"] = len(held) - counts["pages"]
    print("COUNTS", json.dumps(counts), file=sys.stderr, flush=True)
"""
COUNTS = re.compile(r"^COUNTS (.*)\n", re.MULTILINE)
SCRIPT_THAT_COUNTS = SCRIPT.replace("run(", f"{COUNTING}\nsignal.signal(signal.SIGUSR1, count)\nrun(", 1)
ROUNDS, EVENTS_S = 4, 4
BREAKING = 4  # of five rounds the one in which the connection breaks
READ_MS, BROKEN_MS = 400, 6000
NODES_A_ROUND, LISTENERS_A_ROUND = 10, 3
ELEMENTS = 40  # a card of an alarm, which may stand or not


@pytest.fixture(scope="module")
def rig(tmp_path_factory):
    pytest.importorskip("playwright.sync_api")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drill, "EVENT_EVERY_S", EVENTS_S)
        patch.setattr(drill, "EVENT_LASTS_S", EVENTS_S // 2)
        patch.setattr(drill, "SHOWN_MS", 500)
        with drill.watched(tmp_path_factory.mktemp("page"), SCRIPT_THAT_COUNTS, ids=2) as made:
            yield made


def held(rig):
    """What the server holds now."""
    told = len(COUNTS.findall(rig.log.read_text()))
    os.kill(rig.processes["dashboard"].pid, signal.SIGUSR1)
    until(lambda: len(COUNTS.findall(rig.log.read_text())) > told, "the server counts")
    return json.loads(COUNTS.findall(rig.log.read_text())[-1])


def least(rig, tab):
    """Nodes and listeners in the browser while no alarm stands: the least of some readings."""
    tab.rows.clear()
    for _ in range(2 * EVENTS_S):
        rig.page.wait_for_timeout(READ_MS)
        tab.note()
    return min(row[2] for row in tab.rows), min(row[3] for row in tab.rows)


def test_views_alarms_and_broken_connections_leave_nothing_in_the_browser(rig):
    tab = drill.Tab(rig.page)
    drill.wander(rig, BREAKING)
    nodes, listeners = least(rig, tab)
    for _ in range(ROUNDS):
        drill.wander(rig, BREAKING)
    after = least(rig, tab)
    assert after[0] < nodes + NODES_A_ROUND * ROUNDS
    assert after[1] < listeners + LISTENERS_A_ROUND * ROUNDS


def test_a_connection_that_breaks_for_some_seconds_leaves_the_page_as_it_was(rig):
    page = rig.page
    rig.press("^Advice$")
    rig.see("What became of advice")
    page.evaluate(f"window.socket.io.reconnectionDelay({BROKEN_MS}).randomizationFactor(0); {drill.BREAK}")
    rig.see("this page has lost its server")
    page.wait_for_timeout(BROKEN_MS)
    rig.miss("this page has lost its server")
    assert page.get_by_text("What became of advice").is_visible()
    rig.press("^Plant$")


def test_pages_that_are_closed_or_loaded_again_leave_nothing_in_the_server(rig):
    before = held(rig)
    assert (before["clients"], before["pages"]) == (1, 1)
    for _ in range(ROUNDS):
        with rig.elsewhere():
            rig.see("Recommendation")
        rig.page.reload()
        rig.see("Recommendation")
        rig.page.evaluate(drill.BREAK)
    known = []
    until(lambda: known.append(held(rig)) or (known[-1]["clients"], known[-1]["pages"]) == (1, 1), "all are gone", 90.0)
    assert known[-1]["elements"] < before["elements"] + ELEMENTS
    assert rig.errors == []


def test_the_address_says_which_view_is_shown_through_a_reload_and_back(rig):
    for view, address in (("Alarm record", "alarm-record"), ("Advice", "advice")):
        rig.press(f"^{view}$")
        rig.page.wait_for_url(f"**/#{address}")
    rig.page.reload()
    rig.page.get_by_text("What became of advice").wait_for()
    rig.page.go_back()
    rig.page.get_by_text("What has stood, newest first").wait_for()
    rig.page.go_back()
    rig.page.get_by_text("Recommendation", exact=True).first.wait_for()
