"""Flowsheets played second by second: what operators, weather and faults do, and what the instruments say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.plant import Role
from fusion.simulator.flowsheets.drawing import draw
from fusion.simulator.flowsheets.sheet import Loop, Sheet
from fusion.simulator.noise import keyed

Floats = NDArray[np.float64]

SENSOR_FAULTS = ("bias", "drift", "frozen", "noisy", "scaled")
BIAS, DRIFT, NOISY, SCALED = 0.06, 0.08, 6.0, 0.12  # at severity 1: shares of the span, times the noise, of the reading
WARM_UP_S = 3600
CORRELATED_S = {"supply": 120.0, "warmth": 3600.0, "purity": 5400.0, "ambient": 7200.0}
DAY_S = 86400.0
DRAWN_S = 3600  # seconds whose noise is drawn at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """A fault: of an instrument where ``at`` is a signal, else of a block; it grows for ``ramp_s`` and lasts."""

    name: str
    at: str
    onset_s: float
    end_s: float = np.inf
    ramp_s: float = 0.0
    severity: float = 1.0

    def strength(self, now_s: float) -> float:
        """Present severity."""
        if not self.onset_s <= now_s < self.end_s:
            return 0.0
        return self.severity * (min(1.0, (now_s - self.onset_s) / self.ramp_s) if self.ramp_s > 0 else 1.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """One row: whose random numbers it has, how often an operator moves a setpoint, and what goes wrong.

    Operators move each setpoint every ``interval_s`` on average, within ``share`` of its range.
    """

    seed: int
    interval_s: float = 2400.0
    share: float = 0.8
    troubles: tuple[Trouble, ...] = field(default=())


def played(seed: int, courses: Sequence[Course], seconds: int, warm_up_s: int = WARM_UP_S) -> Floats:
    """What the process signals of the flowsheet ``seed`` read [T, P, B], in the order of its plant, each second.

    Before it is recorded it runs for ``warm_up_s``, until it has settled from how it was drawn.

    Raises:
        ConfigError: for a fault of a signal or block that this plant does not have.
    """
    sheet = draw(seed, len(courses))
    play = _Play(sheet, courses, warm_up_s)
    for _ in range(warm_up_s):
        play.second()
    read = np.empty((seconds, len(sheet.plant.signals), len(courses)))
    for row in range(seconds):
        read[row] = play.second()
    return read


class _Play:
    """A sheet on its way; the time at which courses begin is zero, before it is the warm-up."""

    def __init__(self, sheet: Sheet, courses: Sequence[Course], warm_up_s: int) -> None:
        self.sheet, self.courses = sheet, courses
        self.now_s, self._begins_s = -warm_up_s, -warm_up_s
        names = [s.name for s in sheet.plant.signals]
        self._row = {name: i for i, name in enumerate(names)}
        self._blocks = {node.name: node.block for node in sheet.nodes}
        self._span = np.array([float(s.high or 0.0) - float(s.low or 0.0) for s in sheet.plant.signals])
        self._check()
        self._noise = np.array([p.noise for p in sheet.points])
        self._targets = {id(loop): loop.setpoint.copy() for loop in sheet.loops}
        self._slow = np.zeros((4, len(courses)))
        self._frozen: dict[tuple[int, str], float] = {}
        self._read = np.zeros((len(names), len(courses)))
        self._drawn: tuple[int, Floats] = (-1, np.zeros((0, 0, 0)))

    def second(self) -> Floats:
        """All instruments [P, B] after one more second."""
        noise = self._random()
        self._weather(noise[:4])
        self._operate()
        self._break()
        supply, warmth, purity, ambient = self._slow * self._spread()
        day = np.sin(2.0 * np.pi * self.now_s / DAY_S) * self.sheet.weather.ambient
        self.sheet.second(1.0 + supply, warmth + 0.3 * day, purity, 20.0 + ambient + day)
        read = np.array([point.read() for point in self.sheet.points]) + self._noise[:, None] * noise[4:]
        self._look(read, noise[4:])
        for loop in self.sheet.loops:
            loop.second(self._read[self._row[loop.measured]])
        self.now_s += 1
        return self._read.copy()

    def _random(self) -> Floats:
        """Standard normal numbers [4 + points, B] of this second, each row's own."""
        part, second = divmod(self.now_s - self._begins_s, DRAWN_S)
        if self._drawn[0] != part:
            count = 4 + len(self.sheet.points)
            rows = [keyed(c.seed, "flowsheet.noise", part).standard_normal((DRAWN_S, count)) for c in self.courses]
            self._drawn = part, np.stack(rows, 2)
        return np.asarray(self._drawn[1][second])

    def _spread(self) -> Floats:
        w = self.sheet.weather
        return np.array([[w.supply], [w.warmth], [w.purity], [w.ambient]])

    def _weather(self, kick: Floats) -> None:
        pull = np.array(list(CORRELATED_S.values()))[:, None]
        self._slow += -self._slow / pull + np.sqrt(2.0 / pull) * kick

    def _operate(self) -> None:
        """Setpoints on their way to where operators want them, each at its own rate."""
        for loop in self.sheet.loops:
            if loop.name:
                signal = self.sheet.plant.by_name[loop.name]
                wanted, rate = self._wanted(loop), float(signal.max_rate or 0.0)
                loop.setpoint = loop.setpoint + np.clip(wanted - loop.setpoint, -rate, rate)

    def _wanted(self, loop: Loop) -> Floats:
        """Where operators want a setpoint [B] from now on."""
        wanted, signal = self._targets[id(loop)], self.sheet.plant.by_name[loop.name]
        low, high = float(signal.low or 0.0), float(signal.high or 0.0)
        for row, course in enumerate(self.courses):
            rng = keyed(course.seed, f"move.{loop.name}", self.now_s - self._begins_s)
            if rng.uniform() < 1.0 / course.interval_s:
                wanted[row] = (low + high) / 2.0 + (high - low) / 2.0 * course.share * rng.uniform(-1.0, 1.0)
        return wanted

    def _break(self) -> None:
        for block in self._blocks.values():
            block.wrong.clear()
        for row, course in enumerate(self.courses):
            for trouble in course.troubles:
                size = trouble.strength(self.now_s)
                if trouble.at in self._blocks and size > 0.0:
                    wrong = self._blocks[trouble.at].wrong
                    wrong.setdefault(trouble.name, np.zeros(len(self.courses)))[row] = size

    def _look(self, true: Floats, noise: Floats) -> None:
        """Readings, with what is wrong with instruments in them; setpoints read as they are."""
        rows = [self._row[point.signal] for point in self.sheet.points]
        self._read[rows] = true
        for loop in self.sheet.loops:
            if loop.name:
                self._read[self._row[loop.name]] = loop.setpoint
        for row, course in enumerate(self.courses):
            for trouble in course.troubles:
                size = trouble.strength(self.now_s)
                if trouble.at in self._row and size > 0.0:
                    self._falsify(trouble, size, row, noise)

    def _falsify(self, trouble: Trouble, size: float, row: int, noise: Floats) -> None:
        at = self._row[trouble.at]
        value, span = float(self._read[at, row]), float(self._span[at])
        point = next(i for i, p in enumerate(self.sheet.points) if p.signal == trouble.at)
        wrong = {
            "bias": value + BIAS * span * size,
            "drift": value - DRIFT * span * size,
            "scaled": value * (1.0 + SCALED * size),
            "noisy": value + NOISY * size * float(self._noise[point] * noise[point, row]),
            "frozen": self._frozen.setdefault((row, trouble.at), value),
        }
        self._read[at, row] = wrong[trouble.name]

    def _check(self) -> None:
        possible = set(self.sheet.faults())
        measured = {p.signal for p in self.sheet.points}
        for trouble in (t for course in self.courses for t in course.troubles):
            of_instrument = trouble.at in measured and trouble.name in SENSOR_FAULTS
            if not of_instrument and (trouble.name, trouble.at) not in possible:
                accepted = ", ".join(f"{name} of {at}" for name, at in sorted(possible))
                raise ConfigError(
                    f"fault {trouble.name!r} of {trouble.at!r}: expected one of {', '.join(SENSOR_FAULTS)} of a "
                    f"measured signal, or {accepted}"
                )


def troubles_of(seed: int, count: int, onset_s: float, end_s: float) -> tuple[Trouble, ...]:
    """So many faults of a flowsheet, drawn from its seed: half of instruments, half of blocks, severities .4 to 1.

    A third of them, and all drifts, grow for half of the time that they last.
    """
    sheet, rng = draw(seed), keyed(seed, "flowsheet.troubles", 0)
    measured = [p.signal for p in sheet.points if sheet.plant.by_name[p.signal].role is not Role.MANIPULATED]
    blocks, found = list(sheet.faults()), []
    for i in range(count):
        if i % 2:
            name, at = blocks[int(rng.integers(len(blocks)))]
        else:
            name, at = SENSOR_FAULTS[int(rng.integers(len(SENSOR_FAULTS)))], str(rng.choice(measured))
        grows = name == "drift" or rng.uniform() < 1 / 3
        ramp_s = (end_s - onset_s) / 2.0 if grows else 0.0
        severity = float(rng.uniform(0.4, 1.0))
        found.append(Trouble(name=name, at=at, onset_s=onset_s, end_s=end_s, ramp_s=ramp_s, severity=severity))
    return tuple(found)
