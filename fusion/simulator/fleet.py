"""Scenarios played on many lines at once: setpoints, disturbances, faults and instruments, second by second."""

from __future__ import annotations

import heapq
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.plant import Plant, Signal
from fusion.simulator.line.faults import FAULTS
from fusion.simulator.line.laws import FOLLOWED
from fusion.simulator.line.physics import STEPS_PER_S, Line, Parameters
from fusion.simulator.line.silo import FILL_KG_S
from fusion.simulator.noise import keyed
from fusion.simulator.scenario import FaultEvent, LawEvent, NuisanceEvent, Scenario

Floats = NDArray[np.float64]

NOISE = {
    "LT001": 0.003, "IT101": 0.03, "ST102": 0.0005, "WT101": 0.002, "WT101M": 0.01, "IT102": 0.03, "TT101": 0.05,
    "TT102": 0.05, "LT101": 0.002, "FT101": 0.004, "IT103": 0.05, "FT102": 0.005, "PT102": 0.005, "IT104": 0.03,
    "DT201": 0.001, "LT201": 0.001, "FT103": 0.005, "TT103": 0.05,
}  # fmt: skip
REPLAY_S = 120
COARSE, SKEW_S, LATE_S = 0.05, 5.0, 10.0  # at full severity: step as a share of the span, clock error, lateness


@dataclass(frozen=True, slots=True)
class Change:
    """A setpoint reaches ``value`` at ``end_s``, starting at ``start_s`` from wherever it is."""

    signal: str
    start_s: float
    end_s: float
    value: float


class Fleet:
    """B scenarios on B lines; ``second`` advances all of them and returns what their instruments read."""

    def __init__(self, scenarios: Sequence[Scenario], plant: Plant) -> None:
        self.scenarios = tuple(scenarios)
        self.plant = plant
        self.line = Line([_parameters(s) for s in scenarios])
        for event in (fault for s in scenarios for fault in s.faults):
            check_signal(event, plant)
        self.faults = [list(s.faults) for s in scenarios]
        self.nuisances = [list(s.nuisances) for s in scenarios]
        self._changes = [_changes(s, plant) for s in scenarios]
        self._coming = [next(changes, None) for changes in self._changes]
        self._moving: list[list[Change]] = [[] for _ in scenarios]
        self._drift = np.zeros((len(scenarios), 4))
        self._past: list[dict[str, Floats]] = []
        self._frozen: list[dict[str, float]] = [{} for _ in scenarios]
        self.elapsed_s = -max(int(s.warmup_s) for s in scenarios)
        for row, scenario in enumerate(scenarios):
            for name, value in scenario.setpoints.items():
                self.set(row, name, value)
        while self.elapsed_s < 0:
            self.second()

    def set(self, row: int, signal: str, value: float) -> None:
        """Move a manipulated signal of one line, clipped to its limits.

        Raises:
            ConfigError: for a signal that cannot be moved.
        """
        movable = (*self.line.sp, "VIB001", "XV001")
        if signal not in movable:
            raise ConfigError(f"signal {signal!r} cannot be set; accepted: {', '.join(movable)}")
        limits = self.plant.by_name[signal]
        value = float(np.clip(value, _number(limits.low), _number(limits.high)))
        if signal == "VIB001":
            self.line.vibrator[row] = value
        elif signal == "XV001":
            self.line.refill[row] = FILL_KG_S * value
        else:
            self.line.sp[signal][row] = value

    def fault(self, row: int) -> dict[str, float]:
        """Present severities of one line's faults."""
        present: dict[str, float] = {}
        for event in self.faults[row]:
            present[event.name] = max(present.get(event.name, 0.0), severity(event, self.elapsed_s))
        return present

    def broken(self, row: int) -> dict[str, float]:
        """Present strength of the laws that do not hold on one line."""
        return {event.name: severity(event, self.elapsed_s) for event in self.scenarios[row].laws}

    def nuisance(self, row: int, name: str) -> float:
        """Present strength of a nuisance, 0..1."""
        now = self.elapsed_s
        active = [
            n.severity for n in self.nuisances[row] if n.name == name and n.onset_s <= now < n.onset_s + n.duration_s
        ]
        return max(active, default=0.0)

    def second(self, substep: Callable[[int], None] | None = None) -> dict[str, Floats]:
        """Advance by one second; returns the instruments' readings [B] at its end.

        ``substep`` is called with 0..9 after each tenth of a second, for sensors that look several times per second.
        """
        rows = range(self.line.size)
        present = [self.fault(row) for row in rows]
        names = {name for faults in present for name in faults}
        self.line.fault = {name: np.array([faults.get(name, 0.0) for faults in present]) for name in names}
        self._break_laws()
        for row in rows:
            self._operate(row)
        self._disturb()
        self.line.begin()
        for step in range(STEPS_PER_S):
            self.line.step()
            if substep is not None:
                substep(step)
        readings = self._readings(present)
        self.line.second(readings)
        self.elapsed_s += 1
        return self._replayed(readings, present)

    def _break_laws(self) -> None:
        """Tell the line which laws do not hold; a setpoint that a loop does not follow is remembered as it was."""
        line = self.line
        if not any(scenario.laws for scenario in self.scenarios):
            return
        broken = [self.broken(row) for row in range(line.size)]
        names = {name for laws in broken for name in laws}
        line.broken = {name: np.array([laws.get(name, 0.0) for laws in broken]) for name in names}
        for row, scenario in enumerate(self.scenarios):
            for event in scenario.laws:
                if event.name in FOLLOWED and event.signal in line.sp and severity(event, self.elapsed_s) > 0.0:
                    line.unheard.setdefault((row, event.signal), float(line.sp[event.signal][row]))
                    line.followed[row, event.signal] = FOLLOWED[event.name]

    def _operate(self, row: int) -> None:
        now = self.elapsed_s
        coming = self._coming[row]
        while coming is not None and coming.start_s <= now:
            self._moving[row].append(coming)
            coming = self._coming[row] = next(self._changes[row], None)
        self._moving[row] = [c for c in self._moving[row] if now < max(c.end_s, c.start_s + 1)]
        for change in self._moving[row]:
            old = float(self.line.sp[change.signal][row])
            left = max(change.end_s - now, 1.0)
            self.set(row, change.signal, old + (change.value - old) / left)
        self.line.manual[row] = self.nuisance(row, "mode_change") > 0.0
        for event in self.nuisances[row]:
            if event.name == "setpoint_step" and event.onset_s <= now < event.onset_s + 1:
                self.set(row, "TIC101.SP", float(self.line.sp["TIC101.SP"][row]) + 3.0 * event.severity)
            if event.name == "rate_change" and event.onset_s <= now < event.onset_s + 1:
                self.set(row, "LIC201.SP", float(self.line.sp["LIC201.SP"][row]) + 0.03 * event.severity)
            if event.name == "fill" and event.onset_s <= now <= event.onset_s + event.duration_s:
                self.set(row, "XV001", float(now < event.onset_s + event.duration_s))

    def _disturb(self) -> None:
        """Slow drift of demand, purity and reactivity, and the unevenness of the feed."""
        line, now = self.line, self.elapsed_s
        for row, scenario in enumerate(self.scenarios):
            kick = keyed(scenario.seed, "drift", now + 100_000).standard_normal(4)
            pull = np.array([600.0, 1800.0, 1800.0, 5.0])
            self._drift[row] += -self._drift[row] / pull + np.sqrt(2.0 / pull) * kick
            demand, cao, reactivity, feed = self._drift[row] * scenario.drift
            line.demand[row] = line.p["demand_l_s"][row] * (
                1.0 + 0.04 * demand + 0.15 * self.nuisance(row, "demand_step")
            )
            line.cao[row] = np.clip(line.p["cao"][row] + 0.012 * cao, 0.7, 0.97)
            line.reactivity[row] = line.p["reactivity"][row] * np.exp(0.08 * reactivity)
            line.feed_noise[row] = 0.03 * feed

    def _readings(self, present: Sequence[dict[str, float]]) -> dict[str, Floats]:
        perfect = self.line.tags()
        size = self.line.size
        noise = np.array(
            [keyed(s.seed, "tags", self.elapsed_s + 100_000).standard_normal(len(NOISE)) for s in self.scenarios]
        )
        column = {name: i for i, name in enumerate(NOISE)}
        read = {}
        spread = self.line.p["noise"]
        for name, value in perfect.items():
            full = np.zeros(size) + value
            read[name] = full + NOISE[name] * spread * noise[:, column[name]] if name in NOISE else full
        for row, faults in enumerate(present):
            self._freeze(row, read, faults)
            self._quantise(row, read, faults)
        return read

    def _freeze(self, row: int, read: dict[str, Floats], faults: dict[str, float]) -> None:
        if faults.get("frozen_tag", 0.0) <= 0.0:
            self._frozen[row].clear()
            return
        for event in self.faults[row]:
            if event.name == "frozen_tag" and severity(event, self.elapsed_s) > 0.0:
                name = event.signal or str(FAULTS[event.name].signal)
                read[name][row] = self._frozen[row].setdefault(name, float(read[name][row]))

    def _quantise(self, row: int, read: dict[str, Floats], faults: dict[str, float]) -> None:
        if faults.get("quantised_tag", 0.0) <= 0.0:
            return
        for event in self.faults[row]:
            size = severity(event, self.elapsed_s)
            if event.name == "quantised_tag" and size > 0.0:
                signal = self.plant.by_name[event.signal or str(FAULTS[event.name].signal)]
                step = COARSE * size * (_number(signal.high) - _number(signal.low))
                read[signal.name][row] = np.round(read[signal.name][row] / step) * step

    def delayed(self, row: int) -> dict[str, tuple[float, float]]:
        """By stream, how far its clock is ahead and how late its data may be now [s]; only what is disturbed."""
        found: dict[str, tuple[float, float]] = {}
        for event in self.faults[row]:
            size = severity(event, self.elapsed_s)
            if event.name in ("clock_skew", "late_data") and size > 0.0:
                stream = event.signal or str(FAULTS[event.name].signal)
                skew_s, late_s = found.get(stream, (0.0, 0.0))
                ahead = event.name == "clock_skew"
                found[stream] = (skew_s + SKEW_S * size * ahead, late_s + LATE_S * size * (not ahead))
        return found

    def _replayed(self, readings: dict[str, Floats], present: Sequence[dict[str, float]]) -> dict[str, Floats]:
        """Under ``replayed_tags`` the outside world sees the last undisturbed minutes again and again."""
        replaying = [row for row, faults in enumerate(present) if faults.get("replayed_tags", 0.0) > 0.0]
        if not replaying:
            self._past = [*self._past[-(REPLAY_S - 1) :], readings]
            return readings
        shown = {name: value.copy() for name, value in readings.items()}
        old = self._past[self.elapsed_s % len(self._past)]
        for row in replaying:
            for name, value in shown.items():
                value[row] = old[name][row]
        return shown


def check_signal(event: FaultEvent, plant: Plant) -> None:
    """Refuse a fault of a stream that the plant does not have.

    Raises:
        ConfigError: naming the streams that are accepted.
    """
    if event.signal is None:
        return
    accepted = [s.name for s in plant.media] + ["process"]
    if event.name in ("frozen_tag", "quantised_tag"):
        accepted = [s.name for s in plant.tags]
    if event.signal not in accepted:
        raise ConfigError(
            f"fault {event.name!r}: signal {event.signal!r} is not accepted; expected one of {', '.join(accepted)}"
        )


def severity(event: FaultEvent | LawEvent, now_s: float) -> float:
    """Severity of a fault at a time: zero before its onset and after its end, ramping between."""
    if now_s < event.onset_s or (event.end_s is not None and now_s >= event.end_s):
        return 0.0
    return event.severity * (min(1.0, (now_s - event.onset_s) / event.ramp_s) if event.ramp_s > 0 else 1.0)


def truck_and_light(fleet: Fleet, row: int, frame: int) -> tuple[float, float]:
    """Strength of a passing truck and the lamp's brightness for one picture."""
    flicker = fleet.nuisance(row, "lamp_flicker")
    wobble = 0.12 * flicker * float(keyed(fleet.scenarios[row].seed, "lamp", frame).standard_normal())
    return fleet.nuisance(row, "truck"), float(np.clip(1.0 - 0.08 * flicker + wobble, 0.4, 1.3))


def stamp_offset_s(signal: Signal) -> float:
    """Each tag is sampled a little before the full second, by an offset of its own [s]."""
    return 0.02 + 0.38 * (zlib.crc32(signal.name.encode()) % 1000) / 1000.0


def nuisance_end(event: NuisanceEvent) -> float:
    """When a nuisance is over [s]."""
    return event.onset_s + event.duration_s


def truth_row(fleet: Fleet, row: int, t_ns: int) -> dict[str, float]:
    """Hidden state, fault and nuisance severities of one line."""
    state = {name: float(np.broadcast_to(value, fleet.line.size)[row]) for name, value in fleet.line.truth().items()}
    present = fleet.fault(row)
    faults = {f"fault.{name}": present.get(name, 0.0) for name in FAULTS}
    return {"t_ns": t_ns, **state, **faults}


def _parameters(scenario: Scenario) -> Parameters:
    drawn = Parameters.draw(keyed(scenario.seed, "parameters", 0))
    if scenario.plant_seed is not None:
        drawn = drawn.another_plant(keyed(scenario.plant_seed, "plant", 0), scenario.plant_spread)
    try:
        return replace(drawn, **scenario.parameters)
    except TypeError as error:
        accepted = ", ".join(Parameters.__slots__)
        raise ConfigError(f"scenario.parameters: {error}; accepted: {accepted}") from error


def _changes(scenario: Scenario, plant: Plant) -> Iterator[Change]:
    """Moves of the operator and of the excitation in order of time."""
    planned = sorted(scenario.moves, key=lambda move: move.at_s)
    own = (Change(m.signal, m.at_s, m.at_s + m.ramp_s, m.value) for m in planned)
    return heapq.merge(own, _excitation(scenario, plant), key=lambda change: change.start_s)


def _excitation(scenario: Scenario, plant: Plant) -> Iterator[Change]:
    """Random moves of all signals in order of time."""
    if not scenario.excitation.enabled:
        return iter(())
    movable = [s for s in plant.actions if s.max_rate is not None]
    return heapq.merge(*(_moves(scenario, signal) for signal in movable), key=lambda change: change.start_s)


def _moves(scenario: Scenario, signal: Signal) -> Iterator[Change]:
    """Random moves of one signal: half of them steps, half ramps."""
    plan = scenario.excitation
    low, high = plan.ranges.get(signal.name) or _inner(signal, plan.share)
    rng = keyed(scenario.seed, f"excitation.{signal.name}", 0)
    at = -scenario.warmup_s * 0.5 + rng.exponential(plan.mean_interval_s)
    while at < scenario.duration_s:
        ramp_s = rng.uniform(60.0, 300.0) if rng.uniform() < 0.5 else 0.0
        yield Change(signal.name, at, at + ramp_s, rng.uniform(low, high))
        at += ramp_s + rng.exponential(plan.mean_interval_s)


def _inner(signal: Signal, share: float) -> tuple[float, float]:
    low, high = _number(signal.low), _number(signal.high)
    middle, half = (low + high) / 2.0, (high - low) / 2.0 * share
    return middle - half, middle + half


def _number(value: float | None) -> float:
    if value is None:
        raise ConfigError("a manipulated signal needs low and high")
    return value
