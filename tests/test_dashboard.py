import contextlib
import json
import shutil
import subprocess

import pytest
from wire_examples import CONTROLLED, HORIZON_S, PLANT, Story, free_port, listening, until

from fusion.dashboard import charts, panels
from fusion.dashboard.app import DashboardConfig
from fusion.dashboard.board import Board
from fusion.dashboard.feed import Feed
from fusion.errors import ConfigError
from fusion.mqtt.broker import Broker
from fusion.publish.encoding import anomaly_message, health_message, to_message
from fusion.publish.messages import Delivery, encode
from fusion.records import NS_PER_S, AnomalyState, HoldReason, Verdict

MOSQUITTO = shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin")
STORY = Story(1_800_000_000 * NS_PER_S)


def told(*items, plant=PLANT, clock=lambda: 0.0):
    board = Board(plant, 900.0, clock)
    for item in items:
        message = item if hasattr(item, "__struct_fields__") else to_message(item, PLANT, "m-4711")
        board.take("fusion/lime/v1/any", encode(message))
    return board


# -- the board


def test_empty_board_renders_every_panel_and_chart():
    for plant in (PLANT, None):
        board = Board(plant, 900.0, lambda: 0.0)
        for panel in (panels.header, panels.anomalies, panels.recommendation, panels.sources):
            assert panel(board)
        assert panels.silence(board) == ""
        assert charts.surprise_options(board)["series"] == []
        assert len(charts.trend_options(board, board.controlled(), 600)["grid"]) == (4 if plant else 0)


def test_histories_are_bounded_and_in_order():
    board = told(*(STORY.frame(s) for s in range(2000)), STORY.frame(1500))
    points = board.tags["TT101"]
    assert len(points) <= 901
    assert list(points) == sorted(points)


def test_a_replay_that_begins_again_clears_the_histories():
    board = told(STORY.frame(5000), STORY.frame(0))
    assert len(board.tags["TT101"]) == 1


def test_setpoints_are_found_by_loop_and_unit():
    board = told()
    assert board.setpoint_of("TT101") == "TIC101.SP"
    assert board.setpoint_of("LT201") == "LIC201.SP"
    assert board.setpoint_of("IT103") is None
    assert "FT102" in board.others()
    assert "TIC101.SP" in board.others()


def test_foreign_and_damaged_messages_are_counted_not_raised():
    board = told()
    for topic, payload in (
        ("fusion/lime/v1/health", b"{"),
        ("fusion/lime/v1/health", b'{"schema":"fusion.health/2"}'),
        ("fusion/lime/v1/preview/camera", b"abc"),
        ("fusion/other/v1/health", b"{"),
        ("fusion/lime", b""),
        ("simulator/lime/status", b"not json"),
        ("simulator/lime/status", b""),
    ):
        board.take(topic, payload)
    assert board.rejected == 3
    assert board.simulator is None


def test_page_without_plant_learns_names_from_messages():
    board = told(STORY.frame(0), STORY.forecast(0), plant=None)
    assert board.controlled() == list(CONTROLLED)
    assert board.unit("TT101") == "Cel"
    assert "IT101" in board.others()


def test_latecomer_sees_open_anomalies_from_health():
    opened = anomaly_message(STORY.anomaly(10), PLANT)
    board = told(health_message(STORY.health(10), PLANT, [opened]))
    assert list(board.anomalies) == ["a-17"]
    board.take("fusion/lime/v1/anomaly", encode(to_message(STORY.anomaly(20, AnomalyState.CLEARED), PLANT)))
    board.take("fusion/lime/v1/health", encode(health_message(STORY.health(21), PLANT, [opened])))
    assert not board.anomalies
    assert "cleared" in panels.anomalies(board)


def test_trouble_with_the_outbox_is_shown():
    delivery = Delivery(published={}, dropped={}, waiting=3, message="outbox x: database or disk is full")
    board = told(health_message(STORY.health(10), PLANT, delivery=delivery))
    assert "outbox 3" in panels.sources(board)
    assert "database or disk is full" in panels.sources(board)


def test_simulator_status_lists_faults_in_any_usual_form():
    board = told()
    for status in (
        {"state": "online", "faults": ["bearing", "leak"], "active": {"leak": 0.5}},
        {
            "state": "online",
            "faults": [{"name": "bearing"}, {"name": "leak"}],
            "active": [{"name": "leak", "severity": 0.5}],
        },
    ):
        board.take("simulator/lime/status", json.dumps(status).encode())
        assert board.simulator.faults == ("bearing", "leak")
        assert board.simulator.active == {"leak": 0.5}
    board.take("simulator/lime/status", b'{"state":"offline"}')
    assert board.simulator is None


# -- panels and charts


def test_silence_and_expiry_follow_the_clock():
    now = [0.0]
    board = told(STORY.frame(0), STORY.health(0), STORY.advice(0), clock=lambda: now[0])
    assert panels.silence(board) == ""
    assert "valid for 2 min 00 s" in panels.recommendation(board)
    now[0] = 150.0
    assert "silent for 150 s" in panels.silence(board)
    assert "expired" in panels.recommendation(board)


def test_offline_health_is_said():
    board = told(STORY.frame(0), STORY.health(1, "offline"))
    assert "offline" in panels.silence(board)


def test_hold_is_shown_with_its_reason_in_words():
    text = panels.recommendation(told(STORY.advice(0, Verdict.HOLD)))
    assert "HOLD" in text
    assert "an anomaly is open" in text
    assert all(reason in panels.HOLD_TEXTS for reason in HoldReason)


def test_text_from_the_wire_cannot_become_markup():
    board = told(STORY.health(0), STORY.anomaly(0, name="<img src=x>"))
    board.name = "<script>"
    board.health = to_message(STORY.health(0, "<b>"), PLANT)
    everything = panels.header(board) + panels.anomalies(board) + panels.sources(board)
    assert "<script>" not in everything
    assert "&lt;script&gt;" in everything
    assert "&lt;b&gt;" in everything


def test_trend_rows_carry_setpoint_forecast_band_and_both_courses():
    board = told(*(STORY.frame(s) for s in range(100)), STORY.forecast(99), STORY.advice(99))
    options = charts.trend_options(board, ["TT101", "IT101"], 600)
    lines = {series["id"]: series for series in options["series"]}
    assert set(lines) >= {f"TT101.{x}" for x in ("actual", "setpoint", "mean", "low", "band", "applied", "nothing")}
    assert "IT101.actual" in lines
    low, width = lines["TT101.low"]["data"], lines["TT101.band"]["data"]
    assert all(w[1] > 0 for w in width)
    assert len(low) == len(HORIZON_S)
    json.dumps(options)


def test_long_trends_are_thinned_and_keep_the_newest_point():
    points = [(1000 * i, float(i)) for i in range(3600)]
    shown = charts._thin(points, 3600.0)
    assert len(shown) <= charts.POINTS_SHOWN + 2
    assert shown[-1] == [3599000, 3599.0]


@pytest.mark.parametrize("settings", [{"port": 0}, {"past_s": 1.0}])
def test_bad_settings_are_named(settings):
    with pytest.raises(ConfigError, match=next(iter(settings))):
        DashboardConfig(**settings)


@pytest.mark.skipif(not MOSQUITTO, reason="mosquitto is not installed")
def test_feed_waits_for_a_broker_and_says_so():
    port = free_port()
    feed = Feed(Broker(port=port), "lime")
    feed.start()
    with contextlib.ExitStack() as stack:
        stack.callback(feed.stop)
        until(lambda: "cannot be reached" in feed.message, feed.message)
        broker = stack.enter_context(
            subprocess.Popen([MOSQUITTO, "-p", str(port)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        )
        stack.callback(broker.terminate)
        until(lambda: listening(port), "broker")
        until(lambda: feed.connected, "connected")
        broker.terminate()
        until(lambda: not feed.connected, "loss noticed")
        assert "trying again" in feed.message
