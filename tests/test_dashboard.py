import contextlib
import json
import re
import shutil
import subprocess
from dataclasses import replace

import pytest
from msgspec import structs
from wire_examples import CONTROLLED, HORIZON_S, PLANT, Story, free_port, listening, until

from fusion.alarms import AlarmState
from fusion.dashboard import alarms, charts, courses, header, mimic, panels, words
from fusion.dashboard.app import DashboardConfig
from fusion.dashboard.board import Board
from fusion.dashboard.feed import Feed
from fusion.dashboard.look import DARK, LIGHT, Look
from fusion.errors import ConfigError
from fusion.health import PlantState
from fusion.mqtt.broker import Broker
from fusion.plant import Plant, Role, Signal
from fusion.publish.encoding import alarm_message, anomaly_message, bare_health, health_message, to_message
from fusion.publish.messages import BlameOut, Delivery, encode
from fusion.records import NS_PER_S, AdviceKind, AnomalyState, HoldReason, Verdict
from tests.grid_runs import frame_of

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
        for panel in (header.header, alarms.calm, panels.recommendation, panels.sources):
            assert panel(board)
        assert header.silence(board) == alarms.cleared(board) == ""
        assert "nothing is judged yet" in alarms.unexplained(board)
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


@pytest.mark.parametrize(
    ("tag", "setpoint", "one"),
    [
        ("窑1.TT106", "窑1.TIC106.SP", True),
        ("窑1.温度", "窑1.温度.SP", True),
        ("HX7.T.PV", "HX7.T.SP", True),
        ("line1/TT106", "line2/TIC106.SP", False),
        ("oil", "water.SP", False),
        ("TT101", "TIC102.SP", False),
        ("TT101", "FIC101.SP", False),
    ],
)
def test_a_setpoint_is_of_the_loop_of_its_own_part_of_the_plant(tag, setpoint, one):
    signals = (
        Signal(name=tag, unit="Cel", role=Role.CONTROLLED),
        Signal(name=setpoint, unit="Cel", role=Role.MANIPULATED, low=0.0, high=9.0, max_rate=1.0),
    )
    assert Board(Plant(name="p", signals=signals), 900.0).setpoint_of(tag) == (setpoint if one else None)


def test_trends_begin_with_what_is_blamed_and_there_are_some_where_little_is_controlled():
    board = told(STORY.frame(1))
    assert charts.trend_names(board, ["IT103"], []) == ["IT103", *CONTROLLED]
    few = told(STORY.frame(1), plant=nothing_controlled())
    assert charts.trend_names(few, [], []) == ["TT101", "LT101", "DT201"]
    assert charts.trend_names(few, ["IT103"], ["FT102"]) == ["IT103", "FT102", "TT101"]


def nothing_controlled():
    return Plant(name="lime", signals=tuple(replace(s, role=Role.MEASURED) for s in PLANT.signals if not s.max_rate))


def test_the_legend_has_the_lines_that_are_drawn_and_no_others():
    past = told(STORY.frame(1))
    said = charts.legend(charts.trend_options(past, ["IT103"], 600.0))
    assert ("measured" in said, "forecast" in said, "limit" in said) == (True, False, False)
    said = charts.legend(charts.trend_options(told(STORY.frame(1), STORY.forecast(1)), ["TT101"], 600.0))
    assert all(word in said for word in ("measured", "setpoint", "forecast", "90 % band", "limit"))
    assert "if applied" not in said


def test_what_is_old_is_not_said_as_if_it_were_so_now():
    board = told(STORY.health(10), STORY.advice(10))
    assert "was live" in panels.sources(board, old=True)
    assert "badge bad" not in panels.sources(board, old=True)
    assert "daemon not heard now" in panels.sources(board, old=True)
    assert "No open alarm when the daemon was last heard" in alarms.calm(board, old=True)
    assert "not known now" in mimic.below(board, old=True)
    assert "set TIC101.SP" not in mimic.below(board, old=True)


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
    assert board.unit("TT101") == "°C"
    assert "IT101" in board.others()


# -- what stands


def told_on(board, *items):
    for item in items:
        message = item if hasattr(item, "__struct_fields__") else to_message(item, PLANT, "m-4711")
        board.take("fusion/lime/v1/any", encode(message))


def standing(s, *names):
    """A health that lists these anomalies and no other."""
    return health_message(STORY.health(s), PLANT, [anomaly_message(STORY.anomaly(s, name=n), PLANT) for n in names])


def test_latecomer_sees_open_anomalies_from_health():
    board = told(standing(10, "a-17"))
    assert list(board.anomalies) == ["a-17"]
    told_on(board, STORY.anomaly(20, AnomalyState.CLEARED))
    assert not board.anomalies
    assert "over: since" in alarms.cleared(board)
    told_on(board, standing(21, "a-17"))
    assert list(board.anomalies) == ["a-17"]


def test_a_raise_is_shown_whatever_was_cleared_before():
    board = told(STORY.health(0), STORY.anomaly(1), STORY.anomaly(2, AnomalyState.CLEARED))
    assert not board.anomalies
    told_on(board, STORY.anomaly(3))
    assert list(board.anomalies) == ["a-17"]
    assert not board.cleared
    told_on(board, standing(4, "a-17"))
    assert header.glance(board).text == "ALARM 1"


def test_what_health_lists_no_more_is_gone():
    board = told(standing(10, "a-17", "a-18"))
    told_on(board, bare_health(PLANT, STORY.at(11), "offline", "m"))
    assert set(board.anomalies) == {"a-17", "a-18"}
    told_on(board, bare_health(PLANT, STORY.at(20), "online", "m"))
    assert set(board.anomalies) == {"a-17", "a-18"}  # a birth says nothing of the plant
    told_on(board, standing(22, "a-18"))
    assert set(board.anomalies) == {"a-18"}
    told_on(board, STORY.health(24))
    assert not board.anomalies


def test_what_was_said_after_a_health_outlives_it_once_on_its_way():
    board = told(STORY.health(10), STORY.anomaly(12), STORY.health(11))
    assert list(board.anomalies) == ["a-17"]
    told_on(board, STORY.anomaly(14, AnomalyState.CLEARED), standing(13, "a-17"))
    assert not board.anomalies
    told_on(board, STORY.anomaly(99), STORY.health(20), STORY.health(22))
    assert not board.anomalies  # a stamp of the future is no ghost


def test_alarms_follow_health_and_what_is_said_between():
    seen = {"acknowledged_ns": STORY.at(11), "acknowledged_by": "Ana"}
    board = told(health_message(STORY.health(10, alarms=(STORY.alarm(10),)), PLANT, [shown(STORY.anomaly(10))]))
    assert [e.state for e in alarms.entries(board)] == [AlarmState.UNACKNOWLEDGED]
    told_on(board, alarm_message(STORY.alarm(10, **seen), PLANT, STORY.at(11)))
    assert [e.state for e in alarms.entries(board)] == [AlarmState.ACKNOWLEDGED]
    assert "Acknowledged by Ana at" in alarms.card(board, alarms.entries(board)[0])
    told_on(board, STORY.health(12))
    assert not alarms.entries(board)
    assert not board.alarms


def test_a_returned_alarm_stays_with_its_evidence_until_it_is_seen():
    over = STORY.anomaly(20, AnomalyState.CLEARED)
    board = told(STORY.health(10), STORY.anomaly(11), over)
    told_on(board, alarm_message(STORY.alarm(20, over), PLANT, STORY.at(20)))
    (entry,) = alarms.entries(board)
    assert entry.state is AlarmState.RETURNED
    text = alarms.card(board, entry)
    assert "not yet seen" in text
    assert "agitator current" in text
    assert "a-17" not in alarms.cleared(board)
    assert header.glance(board).text == "NORMAL"
    assert "1 returned, not yet seen" in header.header(board)
    done = STORY.alarm(20, over, acknowledged_ns=STORY.at(30), acknowledged_by="Ana")
    told_on(board, alarm_message(done, PLANT, STORY.at(30)))
    assert not alarms.entries(board)
    assert "IT103" in alarms.cleared(board)


def test_a_page_that_begins_late_shows_a_returned_alarm_without_evidence():
    over = STORY.alarm(20, STORY.anomaly(20, AnomalyState.CLEARED))
    board = told(STORY.health(30, alarms=(over,)))
    (entry,) = alarms.entries(board)
    assert "Process departs from normal" in alarms.card(board, entry)
    assert "well again" in alarms.card(board, entry)


def test_shelved_alarms_come_last_and_do_not_count():
    aside = STORY.alarm(10, shelved_until_ns=STORY.at(3610), shelved_by="Ana")
    opened = [shown(STORY.anomaly(10)), shown(STORY.anomaly(8, name="a-16"))]
    board = told(health_message(STORY.health(10, alarms=(aside,)), PLANT, opened))
    assert [e.id for e in alarms.entries(board)] == ["a-16", "a-17"]
    assert header.glance(board).text == "ALARM 1"
    assert re.search(r"Shelved until [\d:]+ by Ana", alarms.card(board, alarms.entries(board)[1]))


def shown(anomaly):
    return anomaly_message(anomaly, PLANT)


# -- the plant at a glance


@pytest.mark.parametrize("state", PlantState)
def test_every_state_of_the_plant_has_a_word_a_shape_and_its_reason(state):
    board = told(STORY.health(0, plant_state=state, reason="84 s left"))
    text = header.header(board)
    assert header.WORDS[state] in text
    assert header.SHAPES[state] in text
    assert "84 s left" in text
    assert len(set(header.SHAPES.values())) == len(PlantState)


def test_without_a_model_the_page_says_that_nothing_is_judged_and_once_what_it_waits_for():
    waits = "no model: 0.20 of 1 h of normal operation recorded"
    board = told(STORY.health(0, plant_state=PlantState.LEARNING, reason=waits, flags=(waits,)))
    assert header.header(board).count(waits) == 1
    assert "nothing is judged yet" in alarms.calm(board)


def test_an_alarm_counts_as_soon_as_it_is_told_and_only_while_the_daemon_is_heard():
    now = [0.0]
    board = told(STORY.health(0), STORY.anomaly(1), clock=lambda: now[0])
    assert header.glance(board).text == "ALARM 1"
    lost = header.glance(board, "broker 127.0.0.1:1883 cannot be reached: refused; trying again")
    assert (lost.text, lost.reason) == ("NO DATA", "broker 127.0.0.1:1883 cannot be reached")
    now[0] = 20.0
    assert header.glance(board).text == "NO DATA"
    assert "silent for 20 s" in header.header(board)
    assert len(alarms.entries(board)) == 1


def test_a_daemon_that_says_nothing_of_the_plant_is_no_data():
    board = told(bare_health(PLANT, STORY.at(0), "online", "m"))
    assert header.glance(board).text == "NO DATA"
    assert "nothing is known" in alarms.calm(board)


def test_overload_is_said_in_the_head():
    now = [0.0]
    board = told(STORY.health(0, skipped_ticks=5), clock=lambda: now[0])
    assert header.glance(board).text == "NORMAL"
    told_on(board, STORY.health(2, skipped_ticks=12))
    assert header.glance(board).text == "DEGRADED"
    assert "7 ticks skipped in the last minute" in header.header(board)
    assert "7 ticks skipped" in panels.sources(board)
    now[0] = 100.0
    told_on(board, STORY.health(102, skipped_ticks=12))
    assert header.glance(board).text == "NORMAL"
    told_on(board, STORY.health(104, skipped_ticks=1))
    assert board.skipped_lately == 0


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ({}, "no event yet"),
        ({"flags": ("settling",)}, "settling after a setpoint move"),
        ({"flags": ("uncalibrated:process",)}, "tags not judged: unlike all that the model was trained on"),
        ({"plant_state": PlantState.WARMING_UP, "reason": "84 s left"}, "warming up, 84 s left"),
    ],
)
def test_a_surprise_above_its_limit_without_an_event_is_explained(said, why):
    board = told(STORY.health(900, **said), STORY.energy(900))
    lines = alarms.unexplained(board)
    assert "tags: above the limit for 0 s, no event" in lines
    assert why in lines
    told_on(board, STORY.anomaly(901))
    assert alarms.unexplained(board) == ""


# -- evidence in words


def test_a_card_says_what_is_seen_beside_what_is_expected():
    board = told(STORY.health(9), STORY.anomaly(10, earlier="a-12", revision="a second look"))
    text = alarms.card(board, alarms.entries(board)[0])
    for part in (
        "IT103 agitator current reads 15.45 A, expected 12.03 A",
        "seen <b>80.7 °C</b>, expected <b>82.4 °C</b> <small>-1.7 °C</small>",
        "loudness at 1.4 to 1.6 kHz, <b>6.1 normal spreads</b> off",
        "microphone and the other senses contradict each other (3.4 times its limit)",
        "a tag contradicts the tags that it goes with (1.9 times its limit)",
        "tags 58 %, sound 27 %, camera 10 % and LiDAR 5 %",
        "Look on the plant at IT103 agitator current and TT101 slaker temperature",
        "<dt>similar</dt><dd>a-12",
        "a second look",
        "new alarm",
    ):
        assert part in text


@pytest.mark.parametrize(
    ("blame", "text"),
    [
        (BlameOut(signal="x", residual=-2.0, unit="1", share=1.0), "x is 2 below what is expected"),
        (BlameOut(signal="x", residual=2.0, unit="Cel/s", share=1.0), "x is 2 °C/s above what is expected"),
        (BlameOut(signal="x", residual=None, unit="", share=1.0), "x"),
        (BlameOut(signal="x", residual=-9.0, unit="spreads", share=1.0), "x is 9 normal spreads off"),
    ],
)
def test_blame_is_half_a_sentence(blame, text):
    assert words.blame_text(blame, "x") == text


def test_accused_tags_are_drawn():
    board = told(STORY.frame(0), STORY.health(0), STORY.anomaly(10))
    assert list(alarms.accused(board)) == ["IT103", "TT101"]


def test_trouble_with_the_outbox_is_shown():
    delivery = Delivery(published={}, dropped={}, waiting=3, message="outbox x: database or disk is full")
    board = told(health_message(STORY.health(10), PLANT, delivery=delivery))
    assert "3 waiting" in panels.sources(board)
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
    assert header.silence(board) == ""
    assert "valid for 2 min 00 s" in panels.recommendation(board)
    now[0] = 150.0
    assert "silent for 150 s" in header.silence(board)
    assert "expired" in panels.recommendation(board)


def test_offline_health_is_said_and_takes_nothing_away():
    board = told(STORY.frame(0), STORY.health(0), STORY.anomaly(1), bare_health(PLANT, STORY.at(2), "offline", "m"))
    assert "offline" in header.silence(board)
    assert "silo_lidar" in panels.sources(board)
    assert len(alarms.entries(board)) == 1


def test_hold_is_shown_with_its_reason_in_words():
    text = panels.recommendation(told(STORY.advice(0, Verdict.HOLD)))
    assert "HOLD" in text
    assert "an anomaly is open" in text
    assert all(reason in words.HOLD_TEXTS for reason in HoldReason)


def test_moves_that_are_taken_back_are_shown_with_why_and_without_a_saving():
    given = replace(STORY.advice(0), kind=AdviceKind.RETURN, text="Take own moves back, because")
    text = panels.recommendation(told(given))
    assert "RETURN" in text
    assert "Take own moves back, because" in text
    assert "saves about" not in text
    assert "TIC101.SP" in text
    assert "saves about" in panels.recommendation(told(STORY.advice(0)))


def test_text_from_the_wire_cannot_become_markup():
    bad = "<img src=x>"
    alarm = STORY.alarm(
        0, STORY.anomaly(0, name=bad, earlier=bad, revision=bad), acknowledged_ns=1, acknowledged_by=bad
    )
    board = told(
        STORY.health(0, "<b>", reason=bad, flags=(bad,), alarms=(alarm,)), STORY.anomaly(0, name=bad, earlier=bad)
    )
    board.name = "<script>"
    cards = "".join(alarms.card(board, entry) for entry in alarms.entries(board))
    everything = header.header(board) + cards + panels.sources(board)
    assert "<script>" not in everything
    assert bad not in everything
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


def test_gaps_break_the_line():
    seconds = [*range(100), *range(130, 200)]
    frames = [STORY.frame(s) for s in seconds]
    board = told(*frames)
    shown = courses.thin(board.tags["TT101"], 900.0)
    assert [t for t, v in shown if v is None] == [shown[i - 1][0] for i, (_, v) in enumerate(shown) if v is None]
    assert sum(v is None for _, v in shown) == 1
    missing = frame_of(PLANT, STORY.at(200), {"IT101": 4.0}, age_s=0.4)
    told_on(board, missing, STORY.frame(201), STORY.frame(202))
    assert sum(v is None for _, v in courses.thin(board.tags["TT101"], 900.0)) == 2
    told_on(board, frame_of(PLANT, STORY.at(203), {"IT101": 4.0}, age_s=0.4))
    late = charts.trend_options(board, ["TT101"], 600)["series"]
    assert all(line["data"][-1][0] <= STORY.at(202) // 1_000_000 for line in late)


def test_accused_tags_show_what_was_expected_from_the_onset_on():
    board = told(*(STORY.frame(s) for s in range(300)), STORY.health(299), STORY.anomaly(299))
    options = charts.trend_options(board, ["IT103", "LT101"], 600, alarms.accused(board))
    lines = {series["id"]: series for series in options["series"]}
    onset_ms = STORY.at(299 - 95) // 1_000_000
    now_ms = board.now_ns // 1_000_000
    assert lines["IT103.expected"]["data"] == [[onset_ms, 12.03], [now_ms, 12.03], [now_ms, 12.03]]
    assert lines["IT103.actual"]["markArea"]["data"][0][0]["xAxis"] == onset_ms
    assert "LT101.expected" not in lines
    assert options["xAxis"][0]["min"] == onset_ms - charts.BEFORE_ONSET_MS
    rose = structs.replace(
        shown(STORY.anomaly(301)),
        top_signals=[structs.replace(shown(STORY.anomaly(301)).top_signals[0], expected=12.5)],
    )
    told_on(board, rose, rose)
    assert [v for _, v in alarms.accused(board)["IT103"].expected] == [12.03, 12.5]
    told_on(board, STORY.anomaly(302))
    picked = alarms.accused(board, "a-17")
    assert list(picked) == list(alarms.accused(board, "gone")) == ["IT103", "TT101"]


def test_limits_are_red_only_where_they_are_crossed():
    for value, colour in ((82.0, LIGHT.muted), (90.0, LIGHT.alarm)):
        board = told(frame_of(PLANT, STORY.at(0), {"TT101": value}, age_s=0.4))
        marks = charts.trend_options(board, ["TT101"], 600)["series"][0]["markLine"]["data"]
        limits = {mark["yAxis"]: mark["lineStyle"]["color"] for mark in marks if "yAxis" in mark}
        assert limits == {76.0: LIGHT.muted, 88.0: colour}


def test_the_limit_of_a_surprise_is_always_in_sight():
    board = told(*(STORY.energy(s) for s in (0, 1, 5000)))
    options = charts.surprise_options(board)
    assert {(axis["type"], axis["min"], axis["max"]) for axis in options["yAxis"]} == {("log", 0.1, 10.0)}
    drawn = [v for series in options["series"] for _, v in series["data"] if v is not None]
    assert 0.1 <= min(drawn) < max(drawn) == 10.0
    assert all(series["markLine"]["data"][0]["yAxis"] == 1.0 for series in options["series"])
    texts = " ".join(title["text"] for title in options["title"])
    assert "\N{BLACK UP-POINTING TRIANGLE}" in texts
    assert "of its limit" in texts


def test_a_page_in_the_dark_has_other_colours():
    board = told(*(STORY.frame(s) for s in range(9)), STORY.energy(9))
    for options in (charts.trend_options(board, ["TT101"], 60, {}, Look(dark=True)),):
        assert options["grid"][0]["backgroundColor"] == DARK.ground
        assert LIGHT.ink not in json.dumps(options)


def test_long_trends_are_thinned_and_keep_the_newest_point():
    points = [(1000 * i, float(i)) for i in range(3600)]
    shown = courses.thin(points, 3600.0)
    assert len(shown) <= courses.POINTS_SHOWN + 2
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
