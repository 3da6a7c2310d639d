"""Rules of a site for its alarms: what is none in a state of the plant, what is how urgent, what they are called."""

import asyncio
import contextlib
from dataclasses import replace
from pathlib import Path

import pytest
import yaml
from grid_runs import frame_of
from scripted_daemon import Ticking, event
from test_clock import Listening
from wire_examples import health

from control.anomaly.alarms import AlarmConfig, AlarmLog
from control.anomaly.rules import AlarmRules, Suppression, Urgency
from fusion.alarms import AlarmOrder, AlarmState, MarkKind, OrderKind, Priority
from fusion.daemon import clerk
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.service import Daemon
from fusion.daemon.settings import load_daemon_config
from fusion.daemon.store import Store
from fusion.dashboard.alarms import entries, head
from fusion.dashboard.board import Board
from fusion.dashboard.header import glance
from fusion.dashboard.look import PLAIN
from fusion.errors import ConfigError
from fusion.health import PlantState
from fusion.plain import decode
from fusion.plant import Plant, Signal
from fusion.plant_file import load_plant
from fusion.publish.encoding import alarm_message, full_health
from fusion.publish.messages import encode
from fusion.recordings.marks import marks_of
from fusion.recordings.recorder import MARKS, Recorder, RecorderConfig
from fusion.records import AnomalyKind, AnomalyState, SignalBlame
from models.ticks import TickBuilder

S = 1_000_000_000
PLANT = Plant(
    name="mill",
    signals=(
        Signal(name="XS1"),
        Signal(name="IT1", equipment="mill"),
        Signal(name="TT1", equipment="mill"),
        Signal(name="LT9", equipment="silo"),
    ),
)
CLEANED = Suppression(tag="XS1", equals=[0, 2], equipment=["mill"], because="the mill is cleaned", after_s=5)


def blamed(signal, name="mill-1", at_s=1.0, state=AnomalyState.RAISED):
    blame = SignalBlame(signal=signal, residual=1.0, share=1.0)
    return replace(event(name, round(at_s * S), state, S), top_signals=(blame,))


def at(t_s, **values):
    return frame_of(PLANT, round(t_s * S), {"XS1": 1.0, "IT1": 0.0, "TT1": 0.0, "LT9": 0.0} | values)


def test_a_rule_is_about_its_part_lasts_a_while_longer_and_a_bad_tag_suppresses_nothing():
    rules = AlarmRules([CLEANED], plant=PLANT)
    of_mill, of_silo = blamed("TT1"), blamed("LT9")
    assert rules.suppressed_by(of_mill) == ""
    rules.see(at(1, XS1=2.0))
    assert rules.suppressed_by(of_mill) == "the mill is cleaned (XS1 is 0 or 2)"
    assert rules.suppressed_by(of_silo) == ""
    rules.see(at(6))
    assert rules.suppressed_by(of_mill)
    rules.see(at(7))
    assert rules.suppressed_by(of_mill) == ""
    dead = at(8, XS1=0.0)
    rules.see(replace(dead, observed_S=dead.observed_S & False))
    assert rules.suppressed_by(of_mill) == ""


@pytest.mark.parametrize(
    ("rule", "values", "holds"),
    [
        (Suppression(tag="IT1", below=5.0), (4.9, 5.0, 6.0), (True, False, False)),
        (Suppression(tag="IT1", above=5.0, signals=["TT1"]), (4.9, 5.0, 6.0), (False, False, True)),
        (Suppression(tag="IT1", equals=[5.0]), (4.9, 5.0, 6.0), (False, True, False)),
    ],
)
def test_states_are_values_or_sides_of_a_limit(rule, values, holds):
    for value, expected in zip(values, holds, strict=True):
        rules = AlarmRules([rule], plant=PLANT)
        rules.see(at(1, IT1=value))
        assert bool(rules.suppressed_by(blamed("TT1"))) is expected


@pytest.mark.parametrize(
    ("rule", "text"),
    [
        ({"tag": "XS7", "above": 1}, "tag: 'XS7' is not accepted; expected one of: IT1, LT9, TT1, XS1"),
        ({"tag": "XS1", "above": 1, "signals": ["camera"]}, "signals: 'camera'"),
        (
            {"tag": "XS1", "above": 1, "equipment": ["kiln"]},
            "equipment: 'kiln' is not accepted; expected one of: mill, silo",
        ),
        ({"tag": "XS1"}, "say one of equals, above and below"),
        ({"tag": "XS1", "above": 1, "below": 0}, "say one of equals, above and below"),
        ({"tag": "XS1", "above": 1, "after_s": -1}, "after_s of 'XS1' must not be negative"),
    ],
)
def test_a_rule_that_cannot_be_is_refused_by_its_key(rule, text):
    with pytest.raises(ConfigError, match="alarms.suppress") as refused:
        AlarmDesk(AlarmConfig(suppress=[Suppression(**rule)]), plant=PLANT)
    assert text in str(refused.value)


def test_rules_are_read_from_the_configuration_of_the_daemon(tmp_path):
    file = tmp_path / "daemon.yaml"
    file.write_text(
        "defaults: [daemon_schema, _self_]\nplant: p.yaml\nmodel: m\n"
        "alarms:\n  suppress:\n"
        "    - {tag: XS1, equals: [0, 2], equipment: [mill], after_s: 5, because: the mill is cleaned}\n"
        "  priorities:\n    - {priority: high, signals: [TT1]}\n"
    )
    read = load_daemon_config(file).alarms
    assert (read.suppress, read.priorities) == ([CLEANED], [Urgency(priority=Priority.HIGH, signals=["TT1"])])
    file.write_text(file.read_text().replace("high", "urgent"))
    with pytest.raises(ConfigError, match="low, medium, high|alarms.priorities"):
        load_daemon_config(file)


def test_the_rules_of_the_docs_are_accepted_for_the_simulated_plant():
    root = Path(__file__).parent.parent
    blocks = [block.split("```")[0] for block in (root / "docs" / "control.md").read_text().split("```yaml\n")[1:]]
    rules = [decode(yaml.safe_load(block)["alarms"], AlarmConfig) for block in blocks if block.startswith("alarms:")]
    assert [len(rule.suppress) + len(rule.priorities) for rule in rules] == [2, 1]
    for rule in rules:
        AlarmDesk(rule, plant=load_plant(root / "configs" / "plant" / "lime.yaml"))


def test_one_that_is_over_while_suppressed_is_over_and_one_that_stands_becomes_an_alarm():
    log, rules = AlarmLog(), AlarmRules([CLEANED], plant=PLANT)
    log.record([blamed("TT1"), blamed("IT1", "mill-2")])
    rules.see(at(2, XS1=0.0))
    changed = log.judge(rules)
    assert [alarm.state(2 * S) for alarm in changed] == [AlarmState.SUPPRESSED] * 2
    assert log.judge(rules) == ()
    (over,) = log.record([blamed("TT1", at_s=3, state=AnomalyState.CLEARED)])
    assert over.state(3 * S) is AlarmState.NORMAL
    rules.see(at(9))
    (risen,) = log.judge(rules)
    assert (risen.anomaly.id, risen.state(9 * S)) == ("mill-2", AlarmState.UNACKNOWLEDGED)
    again = AlarmLog.from_dict(log.to_dict())
    assert again.alarms == log.alarms


def test_an_alarm_is_as_urgent_as_its_rule_says_else_by_its_kind_and_never_less_than_it_was():
    hot = Urgency(priority=Priority.HIGH, signals=["TT1"])
    log, rules = AlarmLog(), AlarmRules((), [hot, Urgency(priority=Priority.LOW, equipment=["mill"])], PLANT)
    at_instrument = replace(blamed("LT9", "mill-3"), kind=AnomalyKind.SENSOR)
    log.record([blamed("TT1"), blamed("IT1", "mill-2"), at_instrument, blamed("LT9", "mill-4")])
    log.judge(rules)
    assert [a.priority for a in log.alarms] == [Priority.HIGH, Priority.LOW, Priority.LOW, Priority.MEDIUM]
    log.record(
        [replace(blamed("IT1", at_s=2), state=AnomalyState.HELD), replace(at_instrument, kind=AnomalyKind.PROCESS)]
    )
    (changed,) = log.judge(rules)
    assert (changed.anomaly.id, changed.priority) == ("mill-3", Priority.MEDIUM)
    assert log.alarms[0].priority is Priority.HIGH


def test_the_urgent_stand_first_on_the_page_and_say_so():
    desk = AlarmDesk(AlarmConfig(priorities=[Urgency(priority=Priority.HIGH, signals=["TT1"])]), plant=PLANT)
    desk.log.record([blamed("TT1"), replace(blamed("LT9", "mill-2", at_s=9), t_onset_ns=9 * S)])
    desk.log.judge(desk._rules)
    board = Board(PLANT, 900.0)
    known = replace(health(), t_ns=10 * S, alarms=desk.log.alarms)
    board.take("fusion/mill/v1/health", encode(full_health(known, PLANT)))
    assert [(entry.id, entry.priority) for entry in entries(board)] == [("mill-1", "high"), ("mill-2", "medium")]
    assert ">high<" in head(board, entries(board)[0], PLAIN)


class Playing(Listening):
    """An engine and outlet that raise what a script says, from tick to tick."""

    plant = PLANT

    def __init__(self, script, *standing):
        super().__init__()
        self._script, self._builder = script, TickBuilder(PLANT)
        self._standing = {anomaly.id: anomaly for anomaly in standing}

    def step(self, frame, newest):
        second = round(frame.t_ns / S)
        changes = tuple(self._script.get(second, ()))
        for anomaly in changes:
            self._standing[anomaly.id] = anomaly
            if anomaly.state is AnomalyState.CLEARED:
                del self._standing[anomaly.id]
        outcome = super().step(frame, newest)
        standing = tuple(self._standing.values())
        return replace(outcome, anomalies=changes, open_anomalies=standing, ticks=self._builder.tick(frame))


class Course(Ticking):
    """A timeline of one frame a call, second by second."""

    def __init__(self, values):
        self._values, self._second = values, 0

    def advance(self, now_ns):
        self._second += 1
        return [at(self._second, XS1=self._values.get(self._second, 1.0))] if self._second < 40 else []


def lived(playing, values, desk, recorder=None):
    async def scenario():
        stop = asyncio.Event()
        made = Daemon([], Course(values), playing, playing, desk=desk, recorder=recorder)
        task = asyncio.create_task(made.run(stop))
        await asyncio.sleep(1.5)
        stop.set()
        with contextlib.suppress(asyncio.CancelledError):
            await task

    asyncio.run(scenario())


def test_a_daemon_tells_what_the_state_of_the_plant_suppresses_and_what_stands_once_it_is_over(tmp_path, monkeypatch):
    monkeypatch.setattr("fusion.daemon.service.INTAKE_PERIOD_S", 0.01)
    playing = Playing({4: [blamed("TT1", at_s=4)], 6: [blamed("LT9", "mill-2", at_s=6)]})
    store = Store(tmp_path / "state", PLANT.name)
    desk = AlarmDesk(AlarmConfig(suppress=[CLEANED]), store, PLANT)
    lived(playing, dict.fromkeys(range(3, 11), 2.0), desk)
    told = [(alarm.anomaly.id, alarm.state(t_ns), round(t_ns / S)) for alarm, t_ns in playing.alarms]
    assert told == [
        ("mill-1", AlarmState.SUPPRESSED, 4),
        ("mill-2", AlarmState.UNACKNOWLEDGED, 6),
        ("mill-1", AlarmState.UNACKNOWLEDGED, 16),
    ]


def test_what_an_operator_calls_an_alarm_is_a_mark_from_its_beginning_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr("fusion.daemon.service.INTAKE_PERIOD_S", 0.01)
    monkeypatch.setattr(clerk, "ORDERS_PERIOD_S", 0.02)
    kim = AlarmOrder(id="mill-1", order=OrderKind.MAINTENANCE, by="kim")
    raised, cleared = blamed("TT1", at_s=4), blamed("TT1", at_s=35, state=AnomalyState.CLEARED)
    playing = Playing({35: [cleared]}, raised)
    desk, recorder = AlarmDesk(), Recorder(RecorderConfig(folder=str(tmp_path)), PLANT)
    desk.log.record([raised])
    playing.to_order = [replace(kim, order=OrderKind.FAULT), kim]
    lived(playing, {}, desk, recorder)
    said = list(dict.fromkeys(alarm.called for alarm, _ in playing.alarms if alarm.called))
    assert said == [MarkKind.MAINTENANCE, MarkKind.FAULT]
    file = tmp_path / MARKS
    mark = marks_of(file.read_text(), str(file))["alarm mill-1"]
    assert (mark.kind, mark.by, mark.onset_ns, mark.end_ns) == (MarkKind.FAULT, "kim", S, 35 * S)
    assert mark.signals == ("TT1",)
    desk.log.obey(replace(kim, order=OrderKind.NORMAL), 36 * S)
    with pytest.raises(ConfigError, match="kim has taken it for normal"):
        desk.log.obey(kim, 37 * S)


def test_the_page_puts_a_suppressed_alarm_aside_and_says_why(tmp_path):
    desk = AlarmDesk(AlarmConfig(suppress=[CLEANED]), plant=PLANT)
    desk.log.record([blamed("TT1")])
    desk._rules.see(at(2, XS1=0.0))
    (alarm,) = desk.log.judge(desk._rules)
    board = Board(PLANT, 900.0)
    known = replace(health(), t_ns=2 * S, plant_state=PlantState.NORMAL, reason="", alarms=(alarm,))
    for topic, message in (("health", full_health(known, PLANT)), ("alarm", alarm_message(alarm, PLANT, 2 * S))):
        board.take(f"fusion/mill/v1/{topic}", encode(message))
    (entry,) = entries(board)
    assert entry.aside
    assert not entry.shelved
    assert "No alarm while the mill is cleaned (XS1 is 0 or 2)" in head(board, entry, PLAIN)
    assert glance(board).alarms == 0
