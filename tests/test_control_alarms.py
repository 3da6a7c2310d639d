import json
from dataclasses import replace

import pytest

from control.anomaly.alarms import AlarmConfig, AlarmLog
from fusion.alarms import AlarmOrder, AlarmState, OrderKind
from fusion.errors import ConfigError
from fusion.records import Anomaly, AnomalyKind, AnomalyState, SignalBlame

S = 1_000_000_000


def anomaly(name="a", t=10, state=AnomalyState.RAISED):
    return Anomaly(
        id=name,
        t_onset_ns=t * S,
        t_ns=t * S,
        state=state,
        p_value=1e-4,
        kind=AnomalyKind.PROCESS,
        by_modality={"audio": 1.0},
        top_signals=(SignalBlame(signal="microphone", residual=0.0, share=1.0),),
        energies=(("cross.microphone.0.02", 2.0),),
        model_id="m",
    )


def changed(a, t, state):
    return replace(a, t_ns=t * S, state=state)


def test_an_alarm_goes_through_its_states():
    log, a = AlarmLog(), anomaly()
    log.record([a])
    assert log.active[0].state(11 * S) is AlarmState.UNACKNOWLEDGED
    log.acknowledge("a", "kim", 12 * S)
    assert log.active[0].state(12 * S) is AlarmState.ACKNOWLEDGED
    log.record([changed(a, 40, AnomalyState.HELD)])
    assert log.active[0].acknowledged_by == "kim"
    log.record([changed(a, 50, AnomalyState.CLEARED)])
    assert log.active == ()
    assert log.alarms[0].state(51 * S) is AlarmState.NORMAL
    assert log.alarms[0].cleared_ns == 50 * S


def test_cleared_before_it_was_seen_stays_to_be_seen():
    log, a = AlarmLog(), anomaly()
    log.record([a, changed(a, 20, AnomalyState.CLEARED)])
    assert log.alarms[0].state(21 * S) is AlarmState.RETURNED


def test_shelved_for_a_limited_time():
    log = AlarmLog(AlarmConfig(longest_shelf_s=100))
    log.record([anomaly()])
    shelved = log.shelve("a", until_ns=10_000 * S, t_ns=20 * S)
    assert shelved.shelved_until_ns == 120 * S
    assert shelved.state(119 * S) is AlarmState.SHELVED
    assert shelved.state(120 * S) is AlarmState.UNACKNOWLEDGED
    assert log.shelve("a", until_ns=0, t_ns=30 * S).state(31 * S) is AlarmState.UNACKNOWLEDGED


def test_the_list_survives_a_restart():
    log = AlarmLog()
    log.record([anomaly(), anomaly("b", 20)])
    log.acknowledge("b", "kim", 30 * S)
    again = AlarmLog.from_dict(json.loads(json.dumps(log.to_dict())))
    assert again.alarms == log.alarms


def test_old_alarms_are_dropped_but_never_active_ones():
    log = AlarmLog(AlarmConfig(keep=2))
    log.record([anomaly("stands", 1)])
    log.record([anomaly(f"n{i}", i, AnomalyState.CLEARED) for i in range(5)])
    assert [a.anomaly.id for a in log.alarms] == ["stands", "n3", "n4"]


def test_unknown_alarms_and_foreign_files_are_refused_by_name():
    log = AlarmLog()
    with pytest.raises(ConfigError, match="'x'"):
        log.acknowledge("x", "kim", 0)
    with pytest.raises(ConfigError, match="fusion-alarms/1"):
        AlarmLog.from_dict({"format": "other"})
    with pytest.raises(ConfigError, match="alarms"):
        AlarmLog.from_dict({"format": "fusion-alarms/1", "alarms": [{"anomaly": {}}]})


def test_only_raises_and_returns_are_changes_and_one_that_comes_again_is_seen_by_nobody():
    log, a = AlarmLog(), anomaly()
    assert [alarm.anomaly.id for alarm in log.record([a])] == ["a"]
    assert log.record([changed(a, 20, AnomalyState.HELD)]) == ()
    log.acknowledge("a", "kim", 25 * S)
    (returned,) = log.record([changed(a, 30, AnomalyState.CLEARED)])
    assert returned.state(30 * S) is AlarmState.NORMAL
    (again,) = log.record([changed(a, 40, AnomalyState.RAISED)])
    assert again.state(40 * S) is AlarmState.UNACKNOWLEDGED


def test_orders_are_done_once_and_signed():
    log, kim = AlarmLog(AlarmConfig(longest_shelf_s=100)), {"id": "a", "by": " kim\n"}
    log.record([anomaly()])
    assert log.obey(AlarmOrder(order=OrderKind.UNSHELVE, **kim), 11 * S) is None
    assert log.obey(AlarmOrder(order=OrderKind.SHELVE, for_s=50, **kim), 20 * S).shelved_until_ns == 70 * S
    assert log.unshelve_due(69 * S) == ()
    assert log.unshelve_due(70 * S)[0].state(70 * S) is AlarmState.UNACKNOWLEDGED
    assert log.unshelve_due(71 * S) == ()
    accepted = log.obey(AlarmOrder(order=OrderKind.NORMAL, **kim), 80 * S)
    assert (accepted.accepted_by, accepted.acknowledged_by, accepted.acknowledged_ns) == ("kim", "kim", 80 * S)
    assert log.obey(AlarmOrder(order=OrderKind.ACKNOWLEDGE, id="a", by="lee"), 90 * S) is None
    for bad, text in (({"by": " "}, "by is empty"), ({"id": "x"}, "'x' is not known"), ({"for_s": 0.0}, "for_s")):
        with pytest.raises(ConfigError, match=text):
            log.obey(AlarmOrder(**{"order": OrderKind.SHELVE, "for_s": 1.0, **kim, **bad}), 99 * S)


def test_what_nobody_has_seen_is_kept_longest_and_shown_until_it_is():
    log = AlarmLog(AlarmConfig(keep=3, shown=2))
    log.record([anomaly(f"n{i}", i, AnomalyState.CLEARED) for i in range(3)])
    log.acknowledge("n1", "kim", 5 * S)
    log.record([anomaly("stands", 6), anomaly("n7", 7, AnomalyState.CLEARED)])
    assert [a.anomaly.id for a in log.alarms] == ["n0", "n2", "stands", "n7"]
    assert [a.anomaly.id for a in log.standing(9 * S)] == ["n2", "stands", "n7"]
