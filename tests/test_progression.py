"""Slow drifts: their trend, the time to a limit, what interrupts them, and the wire to those who read of them."""

import asyncio
import json
from types import SimpleNamespace

import numpy as np
import pytest
from mosquitto import Mosquitto, needs_broker
from test_ledger import PLANT as SMALL
from test_ledger import running, until
from test_models_relations import fitted, make_plant, run

from fusion.alarms import MarkKind, MarkOrder
from fusion.daemon.audit import Audit
from fusion.daemon.clerk import Clerk
from fusion.daemon.outlet import FileOutlet
from fusion.daemon.progression import FILE, MOST_SAID, Progress, alarming
from fusion.daemon.seat import Seat
from fusion.dashboard.board import Board
from fusion.dashboard.progression import progression, progression_lines, trend_text
from fusion.outcome import Outcome
from fusion.plant import Balance, Plant, Signal
from fusion.publish.messages import decode, encode
from fusion.publish.progression import progression_message
from fusion.recordings.marks import Mark
from fusion.records import NS_PER_S
from fusion.targets import Target
from fusion.trends import DriftTrend, LimitSource, Progression, Quantity, QuantityKind
from models.monitors.balance import Laws
from models.monitors.monitors import MonitorCarry
from models.monitors.piece import piece
from models.progression.history import KEPT_BLOCKS, NO_STATE, Grid, History
from models.progression.quantities import Quantities
from models.progression.trend import Course, daily, reached
from models.progression.watch import DAY_NS, Said, Trend, last_jump, look, points_of
from tests.grid_runs import frame_of, from_process_grid

GRID = Grid(60.0)
HOUR_NS = GRID.block_ns
T0 = 20_000 * DAY_NS
TANK = Plant(
    name="tank",
    step_s=60.0,
    signals=(
        Signal(name="LT1", unit="m", low=0.0, high=10.0, period_s=60.0, stale_after_s=180.0),
        Signal(name="TT1", unit="Cel", period_s=60.0, stale_after_s=180.0, description="bed temperature"),
        Signal(name="FT1", unit="kg/s", period_s=60.0, stale_after_s=180.0),
    ),
    targets=(Target(signal="TT1", high=90.0),),
)


def hours(values, first=0):
    """Values [N, Q] of consecutive hours as a history."""
    history = History.empty(values.shape[1])
    history.t_ns = T0 + (np.arange(len(values), dtype=np.int64) + 1 + first) * HOUR_NS
    history.value, history.state = values, np.zeros(len(values), np.int64)
    return history


def stated(values, limit=1.0, every=1, first=48):
    """What is stated after each hour of values [N, Q]."""
    said, found = Said.nothing(values.shape[1]), {}
    for end in range(first, len(values) + 1, every):
        found[end] = look(hours(values[:end]), *np.full((2, values.shape[1]), limit) * [[-1], [1]], said, GRID)
    return found


def test_a_line_in_noise_is_told_with_an_interval_and_a_wander_is_no_trend():
    rng = np.random.default_rng(0)
    t, covered = np.arange(96) / 24.0, 0
    for _ in range(10):
        made = Course(t, 0.1 * t + rng.normal(size=96) * 0.02, np.ones(96), daily(t), t[-1], 4)
        low, middle, high = made.slope()
        assert made.rises > 0.99
        assert high - low < 0.1
        assert middle == pytest.approx(0.1, abs=0.03)
        soonest, _, latest = reached(made.by(0.6, rising=True))
        covered += soonest <= (0.6 - 0.1 * t[-1]) / 0.1 <= latest
    assert covered >= 8
    walks = np.cumsum(rng.normal(size=(96, 10)), axis=0) * 0.1
    rises = [Course(t, walk, np.ones(96), daily(t), t[-1], 4).rises for walk in walks.T]
    assert sum(0.01 < rise < 0.99 for rise in rises) >= 9


def test_a_swing_is_neither_a_trend_nor_missing_from_the_way_to_the_limit():
    t = np.arange(96) / 24.0
    y = 0.5 * np.sin(2 * np.pi * t) + np.random.default_rng(1).normal(size=96) * 0.02
    made = Course(t, y, np.ones(96), daily(t), t[-1], 4)
    assert (0.05 < made.rises < 0.95, made.swing) == (True, pytest.approx(0.5, abs=0.05))
    assert made.level == pytest.approx(0.0, abs=0.1)
    assert reached(np.zeros(32)) == (np.inf, np.inf, np.inf)


def test_an_hour_is_the_median_of_its_parts_and_gaps_states_and_spikes_leave_it_alone():
    history, tick_ns = History.empty(2), 60 * NS_PER_S

    def play(first, ticks, value, state=0):
        return sum(history.take(T0 + (first + i) * tick_ns, np.array(value, float), state, GRID) for i in range(ticks))

    assert play(0, 20, (1.0, 5.0)) + play(20, 10, (900.0, np.nan)) + play(30, 30, (1.0, np.nan)) == 0
    assert play(60, 60, (2.0, 5.0)) == 1  # the first hour is closed by the first tick of the next
    np.testing.assert_array_equal(history.value, [[1.0, np.nan]])
    assert play(120, 20, (7.0, 7.0), state=1) + play(140, 40, (3.0, 3.0), state=2) == 1
    assert play(180, 60, (0.0, 0.0), state=NO_STATE) == 1
    assert (history.value[-1].tolist(), history.state.tolist()) == ([3.0, 3.0], [0, 0, 2])
    assert play(240, 60, (4.0, 4.0)) == 0  # an hour that only passed from state to state is none
    assert play(2400, 1, (4.0, 4.0)) == 1
    assert len(history.t_ns) == 4
    history.begin_anew(int(history.t_ns[-2]), np.array([True, False]))
    np.testing.assert_array_equal(np.isnan(history.known())[:, 0], [True, True, True, False])
    other = history.of(np.array([1, -1, 0]))
    np.testing.assert_array_equal(other.value[-1], [4.0, np.nan, 4.0])
    assert play(0, 61, (1.0, 1.0)) == 1  # the clock was set back
    assert len(history.t_ns) == 1


def test_the_memory_is_bounded():
    history = History.empty(1)
    for hour in range(KEPT_BLOCKS + 20):
        for part in range(13):
            history.take(T0 + hour * HOUR_NS + part * GRID.part_ns, np.ones(1), 0, Grid(300.0))
    assert (len(history.t_ns), len(history.parts) <= 12) == (KEPT_BLOCKS, True)


def test_a_jump_is_found_and_a_ramp_that_begins_is_none():
    rng = np.random.default_rng(2)
    noise = rng.normal(size=240) * 0.02
    assert last_jump(noise) == 0
    assert 100 <= last_jump(noise + (np.arange(240) >= 100)) <= 103
    assert last_jump(noise + np.clip(np.arange(240) - 120, 0, None) * 0.02) == 0


def test_a_drift_is_stated_in_time_and_a_jump_or_a_repair_takes_it_back():
    rng = np.random.default_rng(3)
    t = np.arange(24 * 16) / 24.0
    ramp = np.clip((t - 5) / 10, 0, None)
    values = np.column_stack([ramp, np.zeros(len(t))]) + rng.normal(size=(len(t), 2)) * 0.03
    said = stated(values[: 24 * 15], every=3)
    first = next(hour for hour, trends in said.items() if trends)
    assert 24 * 5 < first < 24 * 13
    for hour, trends in said.items():
        for trend in trends:
            assert (trend.which, trend.limit) == (0, 1.0)
            assert trend.days[0] <= 15 - hour / 24 + 0.75, "it does not come before it is expected at the soonest"
    hour, (last,) = [(h, trends) for h, trends in said.items() if trends and h < 24 * 14][-1]
    assert last.days[0] <= 15 - hour / 24 <= last.days[2]
    assert last.slope[0] < 0.1 < last.slope[2]
    assert last.level == pytest.approx(ramp[hour - 1], abs=0.05)

    repaired = values.copy()
    repaired[24 * 13 :, 0] -= ramp[24 * 13 :]
    assert not any(trends for hour, trends in stated(repaired, every=3).items() if hour > 24 * 13 + 12)

    history, both = hours(values[: 24 * 13]), Said.nothing(2)
    for _ in range(3):
        look(history, np.full(2, -1.0), np.full(2, 1.0), both, GRID)
    assert len(both.trends) == 1
    history.begin_anew(int(history.t_ns[-30]))
    assert look(history, np.full(2, -1.0), np.full(2, 1.0), both, GRID) == ()


def test_what_goes_nowhere_is_not_mentioned():
    rng = np.random.default_rng(4)
    t = np.arange(24 * 12)[:, None] / 24.0
    walk = np.cumsum(rng.normal(size=(len(t), 3)), axis=0) * 0.01
    swings = 0.5 * np.sin(2 * np.pi * (t + rng.uniform(size=3))) + rng.normal(size=(len(t), 3)) * 0.05
    weekly = np.where((t + rng.uniform(0, 7, 3)) % 7 < 2, -0.4, 0.0) + rng.normal(size=(len(t), 3)) * 0.02
    assert not any(stated(np.column_stack([walk, swings, weekly]), every=6).values())


def test_missing_hours_and_other_states_are_no_obstacle():
    rng = np.random.default_rng(5)
    t = np.arange(24 * 10) / 24.0
    state = (np.arange(len(t)) // 12 % 2).astype(np.int64)
    y = 0.05 * t + 3.0 * state + rng.normal(size=len(t)) * 0.02
    y[100:130] = np.nan
    ends = T0 + (np.arange(len(t), dtype=np.int64) + 1) * HOUR_NS
    made = points_of(ends, y, state, GRID)
    course = Course(made.t, made.y, made.weight, made.design, ends[-1] / DAY_NS, made.daily)
    low, _, high = course.slope()
    assert low < 0.05 < high
    assert course.rises > 0.95
    assert points_of(ends, np.where(np.arange(len(t)) < 220, y, np.nan), state, GRID) is None, "it is too old"
    assert points_of(ends[:40], y[:40], state[:40], GRID) is None, "it is too short"


# --- quantities of a plant


def test_many_states_that_were_seen_for_a_day_each_are_too_little():
    far = np.concatenate([days * 24 + np.arange(6) for days in range(12)])
    history = hours(np.arange(len(far) + 6)[:, None] * 0.01)
    history.t_ns = T0 + np.append(far, 21 * 24 + np.arange(6)) * HOUR_NS
    history.state = np.append(np.repeat(np.arange(1, 13), 6), np.zeros(6, np.int64))
    assert points_of(history.t_ns, history.value[:, 0], history.state, GRID) is None
    assert look(history, np.array([-np.inf]), np.array([1.0]), Said.nothing(1), GRID) == ()


def monitors_of(plant):
    """Monitors with relations alone, and with the laws of the plant."""
    core, relations = fitted(plant)
    runs = [run(plant, seed) for seed in range(4)]
    return SimpleNamespace(core=core, others=(relations, Laws.fit(runs, plant)))


def test_residuals_are_told_in_the_unit_of_the_tag_and_not_where_a_neighbour_is_missing():
    plant = make_plant()
    monitors = monitors_of(plant)
    core, (relations, laws) = monitors.core, monitors.others
    quantities = Quantities(plant, monitors, "m")
    names = [q.name for q in quantities.all]
    assert {"beside.SPEED", "beside.TEMP_A"} <= set(names)
    assert "beside.OTHER" not in names
    drifted = run(plant, 7, TEMP_A=0.5)
    carry = MonitorCarry(others=[relations.begin(), laws.begin()])
    read = piece(drifted, core.encode(drifted)[0], core.scaling, {}, {})
    relations.step(read, carry.others[0])
    told = dict(zip(names, quantities.values(drifted, carry), strict=True))
    assert told["beside.TEMP_A"] == pytest.approx(0.5, abs=0.15)
    drifted.observed[-1, 4] = False  # TEMP_B
    told = dict(zip(names, quantities.values(drifted, carry), strict=True))
    assert np.isnan(told["beside.TEMP_A"])
    assert np.isfinite(told["beside.SPEED"])
    limits = quantities.limits({e.name: 2.0 for e in relations.energies})
    place = names.index("beside.TEMP_A")
    assert (limits.source[place], 0 < limits.high[place] < 0.5) == (LimitSource.ALARM, True)
    assert np.isinf(quantities.limits({}).high[place]), "what cannot raise is no limit"
    assert quantities.akin(names.index("beside.TEMP_A"), names.index("beside.TEMP_B"))


def test_a_leak_is_told_by_the_hour_in_the_unit_of_the_level():
    signals = (Signal(name="LT", unit="m"), Signal(name="FIN", unit="m3/s"), Signal(name="FOUT", unit="m3/s"))
    law = Balance(name="tank", level="LT", capacity=10.0, flows={"FIN": 1.0, "FOUT": -1.0}, window_s=(60.0, 300.0))
    plant = Plant(name="tank", signals=signals, balances=(law,))

    def ticks(leak, seed):
        rng = np.random.default_rng(seed)
        flow_in, flow_out = 1 + 0.2 * np.sin(np.arange(1500) / 60), np.full(1500, 1.0)
        level = 5 + np.cumsum(flow_in - flow_out - leak) / 10
        values = {"LT": level, "FIN": flow_in, "FOUT": flow_out}
        noisy = {n: v + rng.normal(0, 0.001, 1500) for n, v in values.items()}
        return from_process_grid(plant, (np.arange(1500) + 1) * NS_PER_S, noisy)

    laws = Laws.fit([ticks(0.0, 1), ticks(0.0, 2)], plant)
    core = SimpleNamespace(scaling=SimpleNamespace(tags=SimpleNamespace(scale=np.ones(3))))
    quantities = Quantities(plant, SimpleNamespace(core=core, others=(laws,)), "m")
    (quantity,) = quantities.all
    assert (quantity.signal, quantity.unit, quantity.kind) == ("tank", "m/h", QuantityKind.BALANCE)
    leaking = ticks(0.02, 3)
    carry = MonitorCarry(others=[laws.begin()])
    assert np.isnan(quantities.values(leaking, carry)[0])
    for i, monitor in enumerate(laws.monitors):
        _, carry.others[0][i] = monitor.step(leaking, plant, None)
    assert quantities.values(leaking, carry)[0] == pytest.approx(-0.02 / 10 * 3600, rel=0.1)


def test_limits_come_from_targets_before_ranges():
    quantities = Quantities(TANK)
    limits = quantities.limits({})
    assert [q.signal for q in quantities.all] == ["LT1", "TT1"]
    assert limits.source == (LimitSource.RANGE, LimitSource.TARGET)
    assert (limits.low.tolist(), limits.high.tolist()) == ([0.0, -np.inf], [10.0, 90.0])


# --- the daemon


def ticks_of(t_ns, **values):
    known = {"LT1": 5.0, "TT1": 70.0, "FT1": 1.0} | values
    return from_process_grid(TANK, np.array([t_ns]), {n: np.array([v]) for n, v in known.items()})


def lived(progress, days, first=0.0):
    """Each hour's word while TT1 rises by three degrees a day from 70 degrees on."""
    said = []
    for part in range(round(first * 288), round((first + days) * 288)):
        for minute in range(5):
            t_ns = T0 + part * GRID.part_ns + minute * 60 * NS_PER_S
            value = 70.0 + 3.0 * part / 288 + 0.2 * np.sin(part * 7919.0 + minute)
            if (made := progress.step(ticks_of(t_ns, TT1=value), None)) is not None:
                said.append(made)
    return said


@pytest.fixture(scope="module")
def drifted(tmp_path_factory):
    """A progress of five days and its file."""
    file = tmp_path_factory.mktemp("progress") / FILE
    progress = Progress(TANK, file, "tank 1")
    said = lived(progress, 5.0)
    progress.close()
    return file, said


def test_the_daemon_states_a_tag_that_goes_to_its_limit_and_goes_on_after_a_restart(drifted):
    file, said = drifted
    assert len(said) == 24 * 5, "at first, and after each hour"
    assert said[0].trends == ()
    assert said[30].trends == ()
    (trend,) = said[-1].trends
    assert (trend.quantity.name, trend.limit, trend.limit_source) == ("value.TT1", 90.0, LimitSource.TARGET)
    assert trend.days[0] < 5 / 3 < trend.days[2]
    assert trend.per_day[0] < 3.0 < trend.per_day[2]
    again = Progress(TANK, file, "tank 1")
    (told,) = lived(again, 1 / 288, first=5.0)
    assert told.trends[0].quantity == trend.quantity
    assert told.trends[0].since_ns == trend.since_ns
    assert lived(again, 0.2, first=5.0 + 1 / 288)[-1].trends, "and it is still so in the next hours"
    again.close()


def test_what_was_said_long_before_a_restart_is_not_said_and_days_go_on_while_it_stands_still(drifted):
    file, _ = drifted
    found = {}
    for hours_later in (1, 3, 48):
        again = Progress(TANK, file, "tank 1")
        (found[hours_later],) = lived(again, 1 / 288, first=5.0 + hours_later / 24)
        again._writer.shutdown()
    assert found[48].trends == ()
    assert np.subtract(found[1].trends[0].days, found[3].trends[0].days) == pytest.approx(2 / 24)


def test_what_another_plant_or_half_a_disk_has_left_is_not_used(drifted, tmp_path, caplog):
    file, _ = drifted
    for owner, content in (("other", file.read_bytes()), ("tank 1", file.read_bytes()[:2000]), ("tank 1", b"")):
        copy = tmp_path / FILE
        copy.write_bytes(content)
        progress = Progress(TANK, copy, owner)
        (told,) = lived(progress, 1 / 288, first=5.0)
        assert (told.trends, told.seen_days) == ((), 0.0)
        progress.close()
    assert "trends begin anew" in caplog.text


def test_maintenance_and_new_limits_are_heard(drifted, tmp_path):
    file, _ = drifted
    copy = tmp_path / FILE
    copy.write_bytes(file.read_bytes())
    seat = Seat(TANK, progress=Progress(TANK, copy, "tank 1"))
    frame = frame_of(TANK, T0 + 5 * DAY_NS, {"LT1": 5.0, "TT1": 80.0, "FT1": 1.0})
    assert len(seat.step(frame).progression.trends) == 1
    seat.maintained(T0 + 5 * DAY_NS)
    later = frame_of(TANK, T0 + 5 * DAY_NS + 60 * NS_PER_S, {"LT1": 5.0, "TT1": 80.0, "FT1": 1.0})
    assert seat.step(later).progression.trends == ()
    seat.close()


def test_the_hour_in_which_something_was_cleaned_is_of_neither(drifted):
    file, _ = drifted
    progress = Progress(TANK, file, "tank 1")
    lived(progress, 1.5 / 24, first=5.0)
    progress.begin_anew(T0 + 5 * DAY_NS + 3 * HOUR_NS // 2)
    lived(progress, 1.5 / 24, first=5.0 + 1.5 / 24)
    progress._writer.shutdown()
    assert np.isnan(progress._history.known()).all()


def test_a_mark_of_maintenance_reaches_the_trends_and_one_of_a_fault_does_not():
    heard = []
    seat = Seat(TANK)
    seat.maintained = heard.append
    recorder = SimpleNamespace(obey=lambda o: Mark(name=o.name, kind=o.kind, onset_ns=T0, end_ns=o.t_to_ns, by=o.by))

    async def work(do, *given):
        return do(*given)

    clock = SimpleNamespace(now_ns=lambda: 99)
    clerk = Clerk(seat, None, None, Audit(), recorder, None, None, clock, work)
    orders = [
        MarkOrder(name="pump", kind=MarkKind.MAINTENANCE, by="kim", t_to_ns=T0 + 5),
        MarkOrder(name="cleaning", kind=MarkKind.MAINTENANCE, by="kim"),
        MarkOrder(name="trip", kind=MarkKind.FAULT, by="kim", t_to_ns=T0 + 5),
    ]
    for order in orders:
        asyncio.run(clerk._marked(order))
    assert heard == [T0 + 5, 99]


def test_a_disk_that_is_full_is_said(tmp_path):
    progress = Progress(TANK, tmp_path / "gone" / FILE, "tank 1")
    lived(progress, 1 / 288)
    progress.close()
    assert "gone" in progress.trouble


def drift(i=0, **rest):
    quantity = Quantity(name=f"beside.T{i}", kind=QuantityKind.BESIDE, signal="TT1", unit="Cel", basis="m")
    known = {
        "quantity": quantity, "level": -1.2, "per_day": (-0.4, -0.3, -0.2), "limit": -2.4,
        "limit_source": LimitSource.ALARM, "days": (3.0, 4.0, 7.0), "since_ns": T0,
    }  # fmt: skip
    return DriftTrend(**(known | rest))


def message(*trends, **rest):
    known = {"watched": 12, "seen_days": 9.0} | rest
    return progression_message(Progression(t_ns=T0, trends=trends, **known), TANK, "m")


def test_a_trend_is_said_in_plain_words_on_the_page_and_in_the_terminal():
    board = Board(TANK, 60.0)
    assert progression_lines(board) == ["Trends: nothing was said of them yet"]
    board.take("fusion/tank/v1/progression", encode(message(seen_days=1.0)))
    assert progression_lines(board) == ["Trends: nothing is said before two days of data"]
    board.take("fusion/tank/v1/progression", encode(message()))
    assert "nothing drifts towards a limit, of 12 that are watched" in progression(board)
    value = Quantity(name="value.TT1", kind=QuantityKind.VALUE, signal="TT1", unit="Cel")
    balance = Quantity(name="balance.tank", kind=QuantityKind.BALANCE, signal="tank", unit="m/h")
    said = message(
        drift(with_it=("FT1", "LT1")),
        drift(quantity=value, level=84.25, per_day=(1.0, 1.5, 2.0), limit=90.0, limit_source=LimitSource.TARGET),
        drift(quantity=balance, level=-0.03, days=(0.5, 1.0, np.inf)),
        more=2,
    )
    board.take("fusion/tank/v1/progression", encode(said))
    assert [trend_text(board, trend) for trend in board.progression.trends] == [
        "TT1 bed temperature reads 1.2 °C below what the others tell, falling 0.3 °C a day; would be as far off as "
        "raises an alarm in 4 days (3 to 7); FT1 and LT1 with it",
        "TT1 bed temperature is at 84.25 °C, rising 1.5 °C a day; reaches its limit, 90 °C, in 4 days (3 to 7)",
        "The balance of tank loses 0.03 m/h, falling 0.3 m/h a day; would be as far off as raises an alarm in 24 h "
        "(12 to later)",
    ]
    assert "and 2 more" in progression(board)
    assert len(progression_lines(board)) == 4
    assert decode(encode(said)) == said


def test_a_message_is_bounded_and_a_file_has_what_was_said(tmp_path):
    plant = Plant(name="many", signals=tuple(Signal(name=f"T{i}", low=0.0, high=1.0) for i in range(12)))
    progress = Progress(plant)
    progress.step(None, None)
    days, slope = (1.0, 2.0, 3.0), (0.1, 0.2, 0.3)
    progress._said.trends = tuple(Trend(i, T0, T0, 0.5, slope, 1.0, days) for i in range(12))
    said = progress._told(T0, progress._limits(None))
    assert (len(said.trends), said.more) == (MOST_SAID, 12 - MOST_SAID)
    outlet = FileOutlet(tmp_path / "lines", TANK, "m")
    frame = frame_of(TANK, T0, {"LT1": 5.0, "TT1": 80.0, "FT1": 1.0})
    for trends in ((), (drift(),)):
        told = Progression(t_ns=T0, trends=trends, watched=1, seen_days=3.0)
        outlet.outcome(Outcome(**{f: getattr(Outcome.empty(frame, ()), f) for f in FIELDS} | {"progression": told}))
    outlet.close()
    (line,) = (tmp_path / "lines").read_text().splitlines()
    assert json.loads(line)["trends"][0]["days_to_limit_high"] == 7.0
    progress.close()


FIELDS = [name for name in Outcome.__dataclass_fields__ if name != "progression"]


@needs_broker
def test_trends_are_retained_for_a_page_that_comes_later(tmp_path):
    broker = Mosquitto(tmp_path)
    try:
        with running(broker.port) as (_, publisher):
            publisher.publish(Progression(t_ns=T0, trends=(drift(),), watched=1, seen_days=3.0))
            until(lambda: publisher.published["progression"], "the trends are out")
            reader = broker.read(f"fusion/{SMALL.name}/v1/progression", 1)
            with reader:
                (line,) = [line for line in reader.stdout if line.startswith("fusion/")]
            (trend,) = json.loads(line.split(" ", 1)[1])["trends"]
            assert (trend["signal"], trend["level"], trend["days_to_limit"]) == ("TT1", -1.2, 4.0)
    finally:
        broker.stop()


def test_what_raises_an_alarm_is_told_in_raw_energies():
    calibration = SimpleNamespace(
        raising=np.array([True, False]), median=np.array([1.0, 1.0]), scale=np.array([2.0, 2.0]), threshold=3.0,
        names=("a", "b"),
    )  # fmt: skip
    local = SimpleNamespace(relief=np.array([2.0, 1.0]))
    state = SimpleNamespace(operating=SimpleNamespace(state=0), carry=SimpleNamespace(local=local))
    operating = SimpleNamespace(raw=lambda told, _state: told.copy())
    engine = SimpleNamespace(calibration=calibration, model=SimpleNamespace(operating=operating), state=state)
    assert alarming(engine) == {"a": 14.0, "b": np.inf}
