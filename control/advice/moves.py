"""Moves as they are sent: of signals within their range, each worth an operator's hand, clamped last.

Shape letters: A manipulated signals.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping

from control.advice.constraints import ConstraintConfig, clamp_move
from fusion.plant import Plant
from fusion.records import Move


def outside(plant: Plant, now: Mapping[str, float], free: Collection[str], deadband: float) -> dict[str, str]:
    """Free signals that stand outside their range, in words: nobody has said where they may go from there."""
    found = {}
    for name in now.keys() & set(free):
        signal, value = plant.by_name[name], now[name]
        if signal.low is not None and signal.high is not None:
            near = deadband * (signal.high - signal.low)
            if not signal.low - near <= value <= signal.high + near:
                found[name] = f"{name} stands at {value:.4g}, outside its range {signal.low:g} to {signal.high:g}"
    return {name: found[name] for name in now if name in found}


def worth_sending(
    plant: Plant,
    now: Mapping[str, float],
    aims: Mapping[str, float],
    deadband: float,
    constraints: ConstraintConfig,
) -> tuple[Move, ...]:
    """Moves from present values to ``aims``; each is rounded to a thousandth of its range and clamped last.

    Those smaller than ``deadband``, a share of the range, are left out.
    """
    found = []
    for name, aim in aims.items():
        signal, current = plant.by_name[name], now[name]
        if signal.low is None or signal.high is None or signal.max_rate is None:
            continue
        span = signal.high - signal.low
        digits = max(0, math.ceil(-math.log10(span / 1000)))
        value = clamp_move(signal, current, round(aim, digits), constraints)
        if abs(value - current) >= deadband * span:
            found.append(
                Move(
                    signal=name,
                    current=current,
                    recommended=value,
                    unit=signal.unit,
                    low=signal.low,
                    high=signal.high,
                    rate=signal.max_rate,
                )
            )
    return tuple(found)
