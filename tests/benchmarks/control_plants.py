"""Plants of the control benchmarks: a stirred reactor, four tanks and a pipeline, written down from their equations.

Set-ups are those of published benchmarks (pc-gym, NeoRL-2), the code is our own. States are true, what a controller
sees carries noise. Times are in control intervals.
Shape letters: S states, A inputs.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fusion.clock import iso_time
from fusion.plant import Gain, Plant, Role, Signal
from fusion.records import ACTION_STEP_S, NS_PER_S
from fusion.targets import Change, Target

Floats = NDArray[np.float64]
SUBSTEPS = 20


@dataclass(frozen=True, kw_only=True)
class Task:
    """A plant, its limits, what is wanted of it at each interval, and how a course is scored.

    ``scale`` [S] normalises errors, ``weight`` [S] scales their squares, zero where a state is not tracked; ``effort``
    that of squared moves in shares of range. ``noise`` is a share of each value, ``rate`` the most that an input moves
    in an interval, as a share of its range.
    """

    name: str
    states: tuple[str, ...]
    inputs: tuple[str, ...]
    low: Floats
    high: Floats
    start: Floats
    wanted: Floats
    derivative: Callable[[Floats, Floats, Floats], Floats]
    interval: float
    scale: Floats
    weight: Floats
    effort: float
    noise: float
    span: tuple[tuple[float, float], ...]
    limits: dict[str, tuple[float, float]] = field(default_factory=dict)
    gains: tuple[Gain, ...] = ()
    rate: float = 1.0
    excite_to: tuple[Floats, Floats] | None = None

    @property
    def excite(self) -> tuple[Floats, Floats]:
        """The range of the training data's moves."""
        return (self.low, self.high) if self.excite_to is None else self.excite_to

    def lost(self, state: Floats) -> bool:
        """Whether a state is one that no plant survives."""
        return not bool(np.isfinite(state).all() and np.abs(state).max() < 1e3)

    def advance(self, state: Floats, action: Floats, feed: Floats | None = None) -> Floats:
        """The state an interval later, by Runge-Kutta."""
        h, feed = self.interval / SUBSTEPS, np.zeros(2) if feed is None else feed
        for _ in range(SUBSTEPS):
            k1 = self.derivative(state, action, feed)
            k2 = self.derivative(state + h / 2 * k1, action, feed)
            k3 = self.derivative(state + h / 2 * k2, action, feed)
            k4 = self.derivative(state + h * k3, action, feed)
            state = state + h / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
        return state

    def seen(self, state: Floats, random: np.random.Generator) -> Floats:
        """What a controller is told."""
        return state * (1 + self.noise * random.normal(size=len(state)))

    def scheduled(self) -> Plant:
        """The plant with all that will be wanted, the run beginning at time zero of the clock."""
        known, first = self.plant(self.wanted[0]), self.wanted
        changed = np.flatnonzero((first[1:] != first[:-1]).any(1)) + 1
        targets = [
            replace(t, schedule=tuple(_change(k, first[k, self.states.index(t.signal)]) for k in changed))
            if t.weight
            else t
            for t in known.targets
        ]
        return replace(known, targets=tuple(targets))

    def plant(self, wanted: Floats) -> Plant:
        """The plant as our system knows it: an interval is a step of its action grid."""
        signals = [
            Signal(name=n, role=Role.CONTROLLED if w else Role.MEASURED, low=a, high=b, period_s=ACTION_STEP_S)
            for n, w, (a, b) in zip(self.states, self.weight, self.span, strict=True)
        ]
        signals += [
            Signal(
                name=n,
                role=Role.MANIPULATED,
                low=a,
                high=b,
                max_rate=self.rate * (b - a) / ACTION_STEP_S,
                period_s=ACTION_STEP_S,
            )
            for n, a, b in zip(self.inputs, self.low, self.high, strict=True)
        ]
        targets = [
            Target(signal=n, setpoint=float(w), scale=float(s), weight=float(k))
            for n, w, s, k in zip(self.states, wanted, self.scale, self.weight, strict=True)
            if k
        ]
        targets += [Target(signal=n, low=a, high=b, scale=(b - a) / 10) for n, (a, b) in self.limits.items()]
        return Plant(
            name=self.name, step_s=ACTION_STEP_S, signals=tuple(signals), targets=tuple(targets), gains=self.gains
        )

    def cost(self, state: Floats, wanted: Floats, action: Floats, before: Floats) -> float:
        """What an interval costs: the published reward, its sign turned, on the true state."""
        error = (state - wanted) / self.scale
        move = (action - before) / (self.high - self.low)
        return float((self.weight * error**2).sum() + self.effort * (move**2).sum())


def _change(interval: int, value: float) -> Change:
    return Change(at=iso_time(interval * int(ACTION_STEP_S) * NS_PER_S), setpoint=float(value))


def _reactor(state: Floats, action: Floats, feed: Floats) -> Floats:
    """Concentration and temperature of an exothermic stirred reactor; ``feed`` disturbs Ti [K] and Caf."""
    ca, t = state
    rate = 7.2e10 * np.exp(-8750.0 / t) * ca
    return np.array(
        [
            (1.0 + feed[1] - ca) - rate,
            (350.0 + feed[0] - t) + 5e4 * rate / (1000 * 0.239) + 5e4 * (action[0] - t) / (1000 * 0.239 * 100),
        ]
    )


def _tanks(state: Floats, action: Floats, _feed: Floats) -> Floats:
    """Levels of four tanks that two pumps fill, the upper ones emptying into the lower."""
    out = np.array([0.0035, 0.0030, 0.0020, 0.0025]) * np.sqrt(2 * 9.81 * np.maximum(state, 0.0))
    k1, k2, bypass = 0.00085, 0.00095, 0.2
    return np.array(
        [
            -out[0] + out[2] + bypass * k1 * action[0],
            -out[1] + out[3] + bypass * k2 * action[1],
            -out[2] + (1 - bypass) * k2 * action[1],
            -out[3] + (1 - bypass) * k1 * action[0],
        ]
    )


def reactor() -> Task:
    """T1: concentration to .85, .9, .87 by the jacket's temperature."""
    wanted = np.repeat([[0.85], [0.9], [0.87]], 20, axis=0)
    return Task(
        name="reactor",
        states=("Ca", "T"),
        inputs=("Tc",),
        low=np.array([295.0]),
        high=np.array([302.0]),
        start=np.array([0.8, 330.0]),
        wanted=np.concatenate([wanted, np.zeros_like(wanted)], 1),
        derivative=_reactor,
        interval=26 / 60,
        scale=np.array([0.3, 50.0]),
        weight=np.array([1e3, 0.0]),
        effort=0.1,
        noise=0.001,
        span=((0.7, 1.0), (300.0, 350.0)),
        gains=(Gain(manipulated="Tc", controlled="Ca", sign=-1, low=0.008, high=0.015),),
    )


def constrained_reactor() -> Task:
    """T3: the concentration alternates while the temperature stays between 321 and 327 K."""
    wanted = np.tile([[0.86], [0.9]], (30, 1))
    base = reactor()
    changed = {
        "name": "constrained_reactor",
        "low": np.array([290.0]),
        "high": np.array([310.0]),
        "start": np.array([0.8, 325.0]),
        "wanted": np.concatenate([wanted, np.zeros_like(wanted)], 1),
        "weight": np.array([1.0, 0.0]),
        "effort": 0.0,
        "limits": {"T": (321.0, 327.0)},
        "excite_to": (np.array([294.0]), np.array([303.0])),
    }
    return Task(**{**base.__dict__, **changed})


def four_tank() -> Task:
    """T2: the upper levels to .5 and .2, then .1 and .3, with 5 % noise."""
    wanted = np.zeros((60, 4))
    wanted[:, 2], wanted[:, 3] = np.repeat([0.5, 0.1], 30), np.repeat([0.2, 0.3], 30)
    return Task(
        name="four_tank",
        states=("h1", "h2", "h3", "h4"),
        inputs=("v1", "v2"),
        low=np.array([0.1, 0.1]),
        high=np.array([10.0, 10.0]),
        start=np.array([0.141, 0.112, 0.072, 0.42]),
        wanted=wanted,
        derivative=_tanks,
        interval=1000 / 60,
        scale=np.full(4, 0.5),
        weight=np.array([0.0, 0.0, 1.0, 1.0]),
        effort=0.0,
        noise=0.05,
        span=((0.0, 0.6),) * 4,
    )
