"""The Tennessee Eastman process as an engineer would describe it to this system, and what an hour of it costs.

Names, ranges and shutdown limits are those of Downs and Vogel (1993); setpoints are those of the outer loops of the
decentralised control of the simulator, on whose inner loops nobody advises. One tick is a minute.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusion.plant import Gain, Plant, Role, Signal
from fusion.targets import Target

STEP_S = 60.0
COST = "COST"
PURGE = "XMEAS(10)"
PURGE_B = "XMEAS(30)"
"""Inert in the purge: it follows its setpoint within half a day, the flow of the purge at once and the other way."""


@dataclass(frozen=True)
class Setpoint:
    """An outer loop: its number in the simulator, what it controls, its base value, and how far it may be moved."""

    loop: int
    controls: str
    base: float
    low: float
    high: float
    unit: str


SETPOINTS = {
    "PURGE_B.SP": Setpoint(19, PURGE_B, 13.823, 12.5, 18.0, "%"),
    "REACTOR_A.SP": Setpoint(13, "XMEAS(23)", 32.188, 31.0, 34.0, "%"),
    "REACTOR_LEVEL.SP": Setpoint(17, "XMEAS(8)", 75.0, 65.0, 76.0, "%"),
    "REACTOR_TEMP.SP": Setpoint(18, "XMEAS(9)", 120.4, 120.0, 122.0, "Cel"),
    "RECYCLE.SP": Setpoint(5, "XMEAS(5)", 26.902, 26.0, 28.0, "km3/h"),
}
"""What advice may move."""
CONTINUOUS: tuple[tuple[str, float, float], ...] = (
    ("km3/h", 0.0, 1.0),
    ("kg/h", 0.0, 5800.0),
    ("kg/h", 0.0, 8350.0),
    ("km3/h", 0.0, 15.25),
    ("km3/h", 0.0, 53.0),
    ("km3/h", 0.0, 60.0),
    ("kPa", 2000.0, 3000.0),
    ("%", 0.0, 120.0),
    ("Cel", 100.0, 175.0),
    ("km3/h", 0.0, 1.0),
    ("Cel", 40.0, 120.0),
    ("%", 0.0, 120.0),
    ("kPa", 2000.0, 3000.0),
    ("m3/h", 0.0, 60.0),
    ("%", 0.0, 120.0),
    ("kPa", 2400.0, 3500.0),
    ("m3/h", 0.0, 46.0),
    ("Cel", 30.0, 130.0),
    ("kg/h", 0.0, 460.0),
    ("kW", 0.0, 600.0),
    ("Cel", 30.0, 150.0),
    ("Cel", 30.0, 150.0),
)
"""Unit and range of XMEAS(1) to XMEAS(22)."""
ANALYSED = tuple(range(23, 42))
VALVES = tuple(range(1, 12))
LIMITS: dict[str, tuple[float | None, float | None, float, float]] = {
    "XMEAS(7)": (None, 2895.0, 25.0, 50.0),
    "XMEAS(8)": (50.0, 100.0, 3.0, 5.0),
    "XMEAS(9)": (None, 150.0, 1.0, 1.0),
    "XMEAS(12)": (30.0, 100.0, 5.0, 5.0),
    "XMEAS(15)": (30.0, 100.0, 5.0, 5.0),
    "XMEAS(17)": (21.8, 24.1, 0.2, 0.5),
}
"""Operating limits, low and high, the back-off and what counts as one; those of product are 5 % of its rate."""


def te_plant() -> Plant:
    """Measured tags, valves, the calculated cost of operation, and the outer setpoints."""
    controlled = {PURGE, *(s.controls for s in SETPOINTS.values())}
    signals = [
        _tag(f"XMEAS({i})", unit, low, high, controlled) for i, (unit, low, high) in enumerate(CONTINUOUS, start=1)
    ]
    signals += [_tag(f"XMEAS({i})", "%", 0.0, 100.0, controlled) for i in ANALYSED]
    signals += [
        Signal(name=f"XMV({i})", unit="%", low=0.0, high=100.0, period_s=STEP_S, stale_after_s=3 * STEP_S, machine=True)
        for i in VALVES
    ]
    signals.append(_tag(COST, "1/h", 0.0, 1000.0, {COST}))
    signals += [
        Signal(
            name=name,
            unit=s.unit,
            role=Role.MANIPULATED,
            low=s.low,
            high=s.high,
            max_rate=rate_of(s),
            period_s=STEP_S,
            stale_after_s=3 * STEP_S,
        )
        for name, s in SETPOINTS.items()
    ]
    limits = [
        Target(signal=name, low=low, high=high, backoff=backoff, scale=scale)
        for name, (low, high, backoff, scale) in LIMITS.items()
    ]
    followed = {name: s for name, s in SETPOINTS.items() if s.controls != PURGE_B}
    gains = [Gain(manipulated=name, controlled=s.controls, sign=1, low=0.7, high=1.3) for name, s in followed.items()]
    gains.append(Gain(manipulated="PURGE_B.SP", controlled=PURGE, sign=-1))
    return Plant(
        name="tennessee-eastman",
        step_s=STEP_S,
        signals=tuple(signals),
        gains=tuple(gains),
        targets=(Target(signal=COST, price=1.0, scale=10.0), *limits),
    )


def rate_of(setpoint: Setpoint) -> float:
    """How fast a setpoint may be moved [unit/s]: a quarter of its range in half an hour."""
    return 0.25 * (setpoint.high - setpoint.low) / 1800.0


def _tag(name: str, unit: str, low: float, high: float, controlled: set[str]) -> Signal:
    role = Role.CONTROLLED if name in controlled else Role.MEASURED
    return Signal(name=name, unit=unit, role=role, low=low, high=high, period_s=STEP_S, stale_after_s=3 * STEP_S)


def operating_cost(measured: Sequence[float]) -> float:
    """Cost [$/h] of XMEAS(1) to XMEAS(41): lost in the purge, lost with the product, compression and steam.

    Source: Downs and Vogel (1993), "A plant-wide industrial process control problem", the appendix on operating costs.
    """
    a, _, c, d, e, f, g, h = measured[28:36]
    purge = 2.206 * a + 6.177 * c + 22.06 * d + 14.56 * e + 17.89 * f + 30.44 * g + 22.94 * h
    product = 22.06 * measured[36] + 14.56 * measured[37] + 17.89 * measured[38]
    lost = (measured[9] * 44.791 * purge + measured[16] * 9.21 * product) / 100.0
    return lost + 0.0536 * measured[19] + 0.0318 * measured[18]
