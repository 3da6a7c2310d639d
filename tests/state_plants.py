"""Plants that run, stand and are cleaned, as ticks of three weeks with faults in the third, for tests and a benchmark.

A dryer that stands at weekends and says so; a reactor that stands at night, is cleaned every other day and tells
nobody; a kiln of two grades that stopped once.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from fusion.plant import Modality, Plant, Role, Signal
from fusion.records import NS_PER_S
from tests.grid_runs import from_process_grid

MONDAY_NS = 1_714_953_600 * NS_PER_S
DAY_S, WEEKS = 86_400, 3
FAULT_S = 5_400
RUNS, STANDS, CLEANS = 0, 1, 2


@dataclass(frozen=True)
class Fault:
    """What is added to a tag, or multiplies it, from a time on [s after the third week begins], in a true state."""

    name: str
    start_s: float
    tag: str
    add: float = 0.0
    times: float = 1.0


@dataclass(frozen=True)
class StatePlant:
    """A plant, the ticks of its three weeks, the true state [T] of each, and its faults."""

    plant: Plant
    make: Callable[[np.random.Generator, int], tuple[dict[str, np.ndarray], np.ndarray]]
    faults: tuple[Fault, ...]

    def ticks(self, seed, faults=()):
        """Three weeks as ticks, with these faults in the third, and the true state [T]."""
        step_s = self.plant.step_s
        rng, rows = np.random.default_rng(seed), round(WEEKS * 7 * DAY_S / step_s)
        values, state = self.make(rng, rows)
        for fault in faults:
            a = round((14 * DAY_S + fault.start_s) / step_s)
            b = a + round(FAULT_S / step_s)
            values[fault.tag][a:b] = values[fault.tag][a:b] * fault.times + fault.add
        t_ns = MONDAY_NS + (np.arange(rows) * step_s * NS_PER_S).astype(np.int64)
        return from_process_grid(self.plant, t_ns, values), state


def _plant(name, step_s, **signals):
    made = (
        Signal(name=n, modality=Modality.PROCESS, unit="1", period_s=step_s, stale_after_s=3 * step_s, **more)
        for n, more in signals.items()
    )
    return Plant(name=name, step_s=step_s, signals=tuple(made))


def _follow(target, ticks_to_follow):
    """A first-order lag, slower or faster by tick."""
    made, value = np.empty(len(target)), float(target[0])
    for i, (wanted, slow) in enumerate(zip(target, np.broadcast_to(ticks_to_follow, len(target)), strict=True)):
        value += (wanted - value) / slow
        made[i] = value
    return made


def _chosen(rng, rows, every, values):
    return np.repeat(rng.choice(values, rows // every + 1), every)[:rows].astype(float)


def _dryer(rng, rows):
    hour = np.arange(rows) * 30 / 3600
    week_h = hour % 168
    runs = (week_h >= 6) & (week_h < 118)
    setpoint = _chosen(rng, rows, 960, [82, 84, 85, 86, 88])
    wanted = np.where(runs, 12 + 1.5 * np.sin(2 * np.pi * hour / 24) + 0.8 * np.sin(np.arange(rows) / 200), 0.0)
    feed = _follow(wanted, 4)
    temperature = _follow(np.where(runs, setpoint, 20.0), np.where(runs, 20, 400))
    moisture = _follow(np.where(runs, 10 - 0.06 * (temperature - 60) + 0.25 * feed, 8.0), 60)
    values = {
        "TIC1": temperature + rng.normal(0, 0.15, rows),
        "FIC1": np.maximum(0, feed + rng.normal(0, 0.05, rows) * (feed > 0.1)),
        "PT1": _follow(1 + 0.02 * feed**2, 3) + rng.normal(0, 0.01, rows),
        "MT1": moisture + rng.normal(0, 0.05, rows),
        "TIC1.SP": setpoint,
        "XV1": runs.astype(float),
    }
    return values, np.where(runs, RUNS, STANDS)


def _reactor(rng, rows):
    hour = np.arange(rows) / 60
    day_h, day = hour % 24, hour // 24
    cleans = (day % 2 == 1) & (day_h >= 22) & (day_h < 23.5)
    runs = (day_h >= 5) & (day_h < 22)
    load = _chosen(rng, rows, 240, [0.8, 0.9, 1.0, 1.1])
    flow = _follow(np.where(runs, 30 * load, np.where(cleans, 45, 0.0)), 3)
    temperature = _follow(np.where(runs, 70 + 4 * load, np.where(cleans, 82, 25.0)), np.where(runs | cleans, 8, 90))
    salt = _follow(np.where(cleans, 60.0, np.where(runs, 6.0, 4.0)), 5)
    stirrer = _follow(np.where(runs, 20 + 6 * load, 0.0), 2)
    values = {
        "TT": temperature + rng.normal(0, 0.2, rows),
        "FT": np.maximum(0, flow + rng.normal(0, 0.15, rows) * (flow > 0.5)),
        "PT": _follow(1 + 0.002 * flow**2, 2) + rng.normal(0, 0.01, rows),
        "QT": salt + rng.normal(0, 0.15, rows),
        "IT": stirrer + rng.normal(0, 0.1, rows) * (stirrer > 0.5),
        "LOAD.SP": load,
    }
    return values, np.where(cleans, CLEANS, np.where(runs, RUNS, STANDS))


def _kiln(rng, rows):
    stops = np.zeros(rows, bool)
    stops[round(5.2 * 1440) : round(6.1 * 1440)] = True
    grade = _chosen(rng, rows, 2160, [0, 1])
    feed = _follow(np.where(stops, 0.0, 40 + 3 * np.sin(np.arange(rows) / 300)), 5)
    burner = _follow(np.where(stops, 0.0, 55 + 25 * grade + 0.3 * (feed - 40)), 6)
    zone = _follow(np.where(stops, 300.0, 900 + 4 * (burner - 55)), np.where(stops, 200, 40))
    drive = _follow(np.where(stops, 0.0, 12 + 0.5 * feed), 3)
    values = {
        "FEED": feed + rng.normal(0, 0.2, rows) * (feed > 0.5),
        "BURNER": burner + rng.normal(0, 0.3, rows) * (burner > 0.5),
        "ZONE": zone + rng.normal(0, 1.5, rows),
        "DRIVE": drive + rng.normal(0, 0.2, rows) * (drive > 0.5),
        "GRADE.SP": grade,
    }
    return values, np.where(stops, STANDS, RUNS)


def _at(day, hour):
    return day * DAY_S + hour * 3600


STATE_PLANTS = {
    "dryer": StatePlant(
        _plant(
            "dryer", 30.0, TIC1={}, FIC1={}, PT1={}, MT1={}, XV1={},
            **{"TIC1.SP": {"role": Role.MANIPULATED, "low": 80.0, "high": 90.0}},
        ),
        _dryer,
        (
            Fault("temperature reads high, running", _at(1, 10), "TIC1", add=3.0),
            Fault("moisture reads high, running", _at(2, 2), "MT1", times=1.08),
            Fault("pressure reads low, running", _at(3, 12), "PT1", add=-0.5),
            Fault("flow reads low, running", _at(4, 4), "FIC1", times=0.8),
            Fault("something flows, standing", _at(5, 10), "FIC1", add=0.6),
            Fault("pressure rises, standing", _at(5, 20), "PT1", add=0.15),
            Fault("moisture reads high, standing", _at(6, 12), "MT1", add=0.5),
        ),
    ),
    "reactor": StatePlant(
        _plant(
            "reactor", 60.0, TT={}, FT={}, PT={}, QT={}, IT={},
            **{"LOAD.SP": {"role": Role.MANIPULATED, "low": 0.7, "high": 1.2}},
        ),
        _reactor,
        (
            Fault("temperature reads high, running", _at(1, 10), "TT", add=3.0),
            Fault("pressure reads low, running", _at(2, 14), "PT", add=-0.25),
            Fault("stirrer is loaded, running", _at(3, 9), "IT", times=1.15),
            Fault("something flows, standing", _at(4, 1), "FT", add=2.0),
            Fault("salt leaks in, standing", _at(5, 2), "QT", add=1.5),
            Fault("cleaned too weakly", _at(1, 22), "QT", times=0.75),
            Fault("cleaned too slowly", _at(5, 22), "FT", times=0.8),
        ),
    ),
    "kiln": StatePlant(
        _plant(
            "kiln", 60.0, FEED={}, BURNER={}, ZONE={}, DRIVE={},
            **{"GRADE.SP": {"role": Role.MANIPULATED, "low": -0.1, "high": 1.1}},
        ),
        _kiln,
        (
            Fault("zone reads low", _at(1, 10), "ZONE", add=-15.0),
            Fault("feed reads high", _at(3, 3), "FEED", times=1.08),
            Fault("drive is loaded", _at(4, 16), "DRIVE", times=1.08),
            Fault("burner reads low", _at(6, 5), "BURNER", times=0.93),
        ),
    ),
}  # fmt: skip
