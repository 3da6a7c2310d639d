"""Safety, by chance: whatever comes in, nothing is moved out of range, too fast, or on what is stale or foreign.

``CASES`` bounds what CI tries; `python -m tests.benchmarks.control --task SAFETY --long` tries ten thousand of each.
"""

import math
import os
from dataclasses import replace

import torch
from control_worlds import LinearWorld, small_plant
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from control.advice.advisor import Advisor, AdvisorConfig
from control.advice.constraints import ConstraintConfig, MoveBox, clamp_move
from control.advice.licence import Level, Licence, SignalLicence
from control.advice.planner import Planner, PlannerConfig
from control.advice.situation import Situation
from fusion.errors import ConfigError, ModelError
from fusion.publish.encoding import to_message
from fusion.records import (
    NS_PER_S,
    Anomaly,
    AnomalyKind,
    AnomalyState,
    Answer,
    AnswerKind,
    HoldReason,
    Move,
    Recommendation,
    Verdict,
)
from fusion.verifier.gate import Gate, GateState, Picture
from fusion.verifier.settings import Loop

CASES = int(os.environ.get("SAFETY_CASES", "60"))
BOUNDED = settings(max_examples=CASES, deadline=None, suppress_health_check=list(HealthCheck))
PLANT = small_plant()
NAMES = ("T.SP", "L.SP")
FAST = PlannerConfig(samples=24, iterations=2, elites=4)
ANY = st.floats(allow_nan=True, allow_infinity=True)
NEAR = st.floats(50.0, 110.0)


# --- constraints


@BOUNDED
@given(ANY, ANY, st.floats(0.01, 1.0), st.sampled_from(NAMES))
def test_the_last_clamp_never_leaves_the_range_nor_steps_too_far(current, wanted, largest, name):
    signal = PLANT.by_name[name]
    value = clamp_move(signal, current, wanted, ConstraintConfig(largest_step=largest))
    if math.isfinite(current) and math.isfinite(wanted):
        assert signal.low <= value <= signal.high
        if signal.low <= current <= signal.high:
            assert abs(value - current) <= largest * (signal.high - signal.low) * (1 + 1e-9)
    else:
        assert value is current


@BOUNDED
@given(st.integers(1, 6), st.data())
def test_every_path_keeps_range_and_rate(knots, data):
    box = MoveBox(PLANT, NAMES)
    inside = st.tuples(st.floats(70, 90), st.floats(0.3, 0.8))
    now = torch.tensor(data.draw(inside))
    wanted = torch.tensor([data.draw(st.lists(inside, min_size=knots, max_size=knots))])
    coming = torch.tensor(data.draw(st.lists(inside, max_size=3))).reshape(-1, 2)
    path = box.paths(wanted, now, coming)[0]
    assert path.shape == (60, 2)
    own = torch.cat([(coming[-1:] if len(coming) else now[None]), path[len(coming) :]])
    assert (own.diff(dim=0).abs() <= box._step * (1 + 1e-5) + 1e-6).all()
    assert ((path >= box.low - 1e-5) & (path <= box.high + 1e-5)).all()


# --- the advisor


class Odd(LinearWorld):
    """A world that may fail in any of the ways a model can."""

    def __init__(self, fault="", **rest):
        super().__init__(**rest)
        self.fault = fault

    def foretold(self, paths, at_s):
        made = super().foretold(paths, at_s)
        if self.fault == "nan":
            made[...] = float("nan")
        if self.fault == "some_nan":
            made[:, 3, 0] = float("nan")
        if self.fault == "raises":
            raise ModelError("out of order")
        return made[:, :4] if self.fault == "shape" else made

    def half_band(self):
        return super().half_band() * (float("inf") if self.fault == "band" else 1.0)


def anomaly(kind):
    rest = {"by_modality": {"process": 1.0}, "top_signals": (), "energies": (), "model_id": "m"}
    return Anomaly(id="a", t_onset_ns=0, t_ns=0, state=AnomalyState.HELD, p_value=1e-6, kind=kind, **rest)


FAULTS = ("", "nan", "some_nan", "raises", "shape", "band")
WORLDS = st.builds(
    lambda fault, t, level, t_sp, l_sp: Odd(fault, state=(t, level, 0.5), action=(t_sp, l_sp)),
    st.sampled_from(FAULTS),
    st.floats(60, 100),
    st.floats(0.1, 1.0),
    st.floats(65, 95),
    st.floats(0.2, 0.9),
)
CONFIGS = st.builds(
    lambda knots, step, level, late: AdvisorConfig(
        level=level,
        planner=replace(FAST, knots=knots, latency_s=late, constraints=ConstraintConfig(largest_step=step)),
    ),
    st.integers(1, 6),
    st.floats(0.01, 1.0),
    st.sampled_from(list(Level)),
    st.floats(0, 120),
)


@BOUNDED
@given(
    WORLDS,
    CONFIGS,
    st.sampled_from(list(Level)),
    st.sets(st.sampled_from(("T", "L", "F", "T.SP", "L.SP"))),
    st.floats(0, 30),
    st.sampled_from((None, *AnomalyKind)),
    st.fixed_dictionaries({}, optional={n: st.booleans() for n in NAMES}),
)
def test_no_advice_leaves_its_box_or_rests_on_what_is_stale_foreign_or_broken(
    world, config, granted, stale, age_s, kind, available
):
    licence = Licence(signals={n: SignalLicence(signal=n, level=granted) for n in NAMES})
    now_ns = round(age_s * NS_PER_S)
    advisor = Advisor(config, PLANT, Planner(config.planner, PLANT, world), licence, "m", lambda: now_ns)
    anomalies = () if kind is None else (anomaly(kind),)
    said = advisor.advise(world, Situation(t_ns=0, stale=tuple(stale), anomalies=anomalies, available=available))
    assert said is not None
    if said.verdict is Verdict.HOLD:
        assert said.moves == ()
        assert said.reason in HoldReason
        return
    assert world.fault == ""
    assert age_s <= config.largest_age_s
    assert not stale & {"T", "L", "T.SP", "L.SP"}
    assert len(stale) <= config.stale_share * len(PLANT.tags)
    assert kind in (None, AnomalyKind.SENSOR)
    assert granted.allows(Level.ADVISE)
    assert config.level.allows(Level.ADVISE)
    assert said.plant_fingerprint == PLANT.fingerprint
    current = dict(zip(NAMES, world.current_action.tolist(), strict=True))
    for move in said.moves:
        signal = PLANT.by_name[move.signal]
        assert available.get(move.signal, True)
        assert signal.low <= move.recommended <= signal.high
        if signal.low <= current[move.signal] <= signal.high:
            largest = config.planner.constraints.largest_step * (signal.high - signal.low)
            assert abs(move.recommended - current[move.signal]) <= largest * (1 + 1e-5)


@BOUNDED
@given(st.floats(0.0, 10.0), st.floats(0.001, 5.0))
def test_a_planner_that_is_late_gives_nothing(took_s, deadline_s):
    clock = iter(took_s * k for k in range(10_000))
    planner = Planner(replace(FAST, deadline_s=deadline_s), PLANT, LinearWorld(), lambda: next(clock))
    licence = Licence(signals={n: SignalLicence(signal=n, level=Level.ADVISE) for n in NAMES})
    advisor = Advisor(AdvisorConfig(), PLANT, planner, licence, "m", lambda: 0)
    said = advisor.advise(LinearWorld(), Situation(t_ns=0))
    if took_s > deadline_s:
        assert said.reason is HoldReason.MODEL_FAILED


# --- the verifier


LOOP = {"mode_value": 1.0, "release_value": None}
LOOPS = {
    "T.SP": Loop(signal="T.SP", unit="Cel", low=72.0, high=88.0, rate=0.05, largest_step=4.0, tolerance=0.016, **LOOP),
    "L.SP": Loop(signal="L.SP", unit="1", low=0.35, high=0.75, rate=0.002, largest_step=0.1, tolerance=4e-4, **LOOP),
}
INTERVAL_S, TIMEOUT_S = 1.0, 5.0


class Dcs:
    """A control system of two loops that obeys, refuses, or is moved by somebody else; and the clock."""

    def __init__(self, **start):
        self.values = {"T.SP": 80.0, "L.SP": 0.6} | start
        self.modes = dict.fromkeys(LOOPS, 1.0)
        self.beat, self.beating, self.enabled, self.obeys = 0, True, True, True
        self.now_s = 100.0
        self.gate = Gate(PLANT, LOOPS, timeout_s=TIMEOUT_S, interval_s=INTERVAL_S, supervised=True)
        self.online, self.answers = True, []

    def picture(self):
        return Picture(setpoints=self.values, modes=self.modes, theirs=float(self.beat), enabled=self.enabled)

    def turn(self, since_s=INTERVAL_S):
        """One interval: what changed is returned."""
        self.now_s += since_s
        self.beat += self.beating
        if self.online:
            self.gate.hear_daemon(self.now_s, True)
        before = dict(self.values)
        writes = self.gate.step(self.now_s, round(self.now_s * NS_PER_S), self.picture())
        if self.obeys:
            self.values = self.values | writes
        if writes:
            self.gate.wrote(self.values)
        self.answers += self.gate.answers
        self.gate.answers.clear()
        return {n: (before[n], v) for n, v in writes.items() if v != before[n]} if self.obeys else {}

    def start(self):
        self.turn()
        self.turn()
        self.gate.order(True, "kim", self.now_s, self.picture())

    def advise(self, moves, mode="supervised", fingerprint=PLANT.fingerprint, valid_s=60.0, name="r1"):
        t_ns = round(self.now_s * NS_PER_S)
        made = Recommendation(
            id=name,
            sequence=1,
            t_ns=t_ns,
            valid_until_ns=t_ns + round(valid_s * NS_PER_S),
            verdict=Verdict.ADVISE,
            reason=None,
            text="",
            moves=tuple(moves),
            expected=None,
            baseline=None,
            gain=1.0,
            gain_low=0.5,
            gain_high=2.0,
            binding=(),
            stale=(),
            licence="supervised",
            model_id="m",
            plant_fingerprint=fingerprint,
            mode=mode,
        )
        self.gate.hear_advice(to_message(made, PLANT))


def move(name="T.SP", current=80.0, wanted=81.0, unit="Cel"):
    return Move(signal=name, current=current, recommended=wanted, unit=unit, low=70.0, high=90.0, rate=0.05)


MOVES = st.lists(
    st.builds(
        move,
        st.sampled_from(("T.SP", "L.SP", "T", "refill")),
        st.one_of(NEAR, st.just(80.0), ANY),
        st.one_of(NEAR, ANY),
        st.sampled_from(("Cel", "1", "K")),
    ),
    max_size=3,
)


@BOUNDED
@given(
    MOVES,
    st.sampled_from((PLANT.fingerprint, "foreign")),
    st.floats(-10, 100),
    st.lists(st.floats(0.0, 30.0), min_size=5, max_size=40),
    st.sampled_from(("supervised", "advise")),
)
def test_the_gate_never_writes_beyond_box_or_rate_nor_what_is_foreign_or_old(moves, fingerprint, valid_s, waits, mode):
    dcs = Dcs()
    dcs.start()
    dcs.advise(moves, mode, fingerprint, valid_s)
    for wait_s in waits:
        for name, (before, after) in dcs.turn(wait_s).items():
            loop = LOOPS[name]
            assert (fingerprint, mode) == (PLANT.fingerprint, "supervised")
            assert valid_s > 0
            assert loop.low <= after <= loop.high
            assert abs(after - before) <= loop.rate * min(wait_s, INTERVAL_S) + 1e-9
    for name, loop in LOOPS.items():
        assert abs(dcs.values[name] - {"T.SP": 80.0, "L.SP": 0.6}[name]) <= loop.largest_step + loop.tolerance


def refuses(dcs):
    dcs.obeys = False


def unreadable(dcs):
    dcs.values = dcs.values | {"T.SP": None}


def not_a_number(dcs):
    dcs.values = dcs.values | {"T.SP": float("nan")}


def by_hand(dcs):
    dcs.values = dcs.values | {"T.SP": dcs.values["T.SP"] + 0.5}


def left_mode(dcs):
    dcs.modes = dcs.modes | {"T.SP": 0.0}


def off(dcs):
    dcs.enabled = False


def silent_dcs(dcs):
    dcs.beating = False


def silent_daemon(dcs):
    dcs.online = False


def offline(dcs):
    dcs.online = False
    dcs.gate.hear_daemon(dcs.now_s, False)


AT_ONCE = (refuses, unreadable, not_a_number, by_hand, left_mode, off, offline)
AFTER_SILENCE = (silent_dcs, silent_daemon)


@BOUNDED
@given(st.sampled_from((*AT_ONCE, *AFTER_SILENCE)), st.integers(1, 15), st.integers(1, 30))
def test_whatever_goes_amiss_hands_back_within_one_interval_and_stays_so(happens, before, after):
    dcs = Dcs()
    dcs.start()
    dcs.advise([move(wanted=81.0)])
    for _ in range(before):
        dcs.turn()
    assert dcs.gate.state is GateState.WRITING
    happens(dcs)
    silence = 0 if happens in AT_ONCE else math.ceil(TIMEOUT_S / INTERVAL_S)
    for _ in range(silence + 1):
        changed = dcs.turn()
    assert dcs.gate.state is GateState.HANDED_BACK
    assert changed == {}
    assert dcs.gate.release
    assert [a.answer for a in dcs.answers] == [AnswerKind.FAILED]
    dcs.beating = dcs.online = dcs.enabled = dcs.obeys = True
    dcs.modes = dict.fromkeys(LOOPS, 1.0)
    dcs.values = dcs.values | {"T.SP": 80.5}
    dcs.advise([move(current=80.5, wanted=82.0)], name="r2")
    dcs.gate.hear_answer(Answer(id="r2", answer=AnswerKind.ACCEPTED, by="kim"))
    assert all(dcs.turn() == {} for _ in range(after))


@BOUNDED
@given(
    st.lists(st.sampled_from(("start", "stop", "accept", "reject", "advise", "hold", "off", "on", "turn")), max_size=40)
)
def test_nothing_is_written_but_between_a_start_and_the_next_trouble(events):
    dcs = Dcs()
    dcs.turn()
    for event in events:
        if event in ("start", "stop"):
            dcs.gate.order(event == "start", "kim", dcs.now_s, dcs.picture())
        elif event in ("accept", "reject"):
            kind = AnswerKind.ACCEPTED if event == "accept" else AnswerKind.REJECTED
            dcs.gate.hear_answer(Answer(id="r", answer=kind, by="kim"))
        elif event == "advise":
            dcs.now_s += 0.001
            dcs.advise([move(current=dcs.values["T.SP"], wanted=min(dcs.values["T.SP"] + 1, 88.0))], "advise", name="r")
        elif event in ("off", "on"):
            dcs.enabled = event == "on"
        before = dcs.gate.state
        changed = dcs.turn()
        if changed:
            assert dcs.enabled
            assert before is not GateState.HANDED_BACK


@BOUNDED
@given(st.floats(60, 100), st.floats(60, 100))
def test_an_advice_is_all_or_nothing(t, level):
    dcs = Dcs()
    dcs.start()
    dcs.advise([move(wanted=81.0), move("L.SP", 0.6, level / 100, "1")])
    changed = dcs.turn()
    accepted = 0.35 <= level / 100 <= 0.75 and abs(level / 100 - 0.6) <= 0.1 + 4e-4
    assert bool(changed) == accepted


def test_a_configuration_that_could_leave_the_range_does_not_exist():
    for bad in ({"largest_step": 0.0}, {"largest_step": 1.1}, {"band_share": -1.0}):
        try:
            ConstraintConfig(**bad)
        except ConfigError:
            continue
        raise AssertionError(bad)
