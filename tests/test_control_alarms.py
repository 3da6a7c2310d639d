import json
from dataclasses import replace

import pytest

from control.anomaly.alarms import AlarmConfig, AlarmLog
from fusion.errors import ConfigError
from fusion.records import AlarmState, Anomaly, AnomalyKind, AnomalyState, SignalBlame

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
