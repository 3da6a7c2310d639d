"""Minimal pairs: two runs equal to the bit up to a moment, then different in exactly one law.

A model that knows cause and effect is less surprised by the lawful continuation.
"""

from __future__ import annotations

import json
import multiprocessing
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from fusion.errors import ConfigError
from fusion.files import whole_folder
from fusion.plant import Plant
from fusion.simulator.line.laws import FOLLOWED, LAWS
from fusion.simulator.line.physics import Line, Parameters
from fusion.simulator.noise import keyed
from fusion.simulator.record import record
from fusion.simulator.scenario import LawEvent, OperatorMove, Scenario, Sensors

LIST = "pairs.json"
LAWFUL, IMPOSSIBLE = "lawful", "impossible"
EARLIEST_S, LATEST_S, AFTER_S = 300, 420, 150
STEP_SHARE = 0.2  # of a setpoint's range, for laws about actions
SETPOINTS = ("TIC101.SP", "LIC101.SP", "DIC201.SP")


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A law that holds in one run and not in the other, from ``t_ns`` on."""

    name: str
    kind: str
    seed: int
    t_ns: int
    lawful: Scenario
    impossible: Scenario

    def described(self) -> dict[str, Any]:
        """What stands in the list of a folder of pairs."""
        law = self.impossible.laws[0]
        moves = [{"signal": m.signal, "at_s": m.at_s, "value": m.value} for m in self.impossible.moves]
        return {
            "name": self.name,
            "kind": self.kind,
            "seed": self.seed,
            "t_ns": self.t_ns,
            "broken": LAWS[law.name].description,
            "moves": moves,
        }


def make_pairs(plant: Plant, seed: int, count: int) -> Iterator[Pair]:
    """Pairs spread evenly over the laws; the same seed gives the same pairs."""
    kinds = tuple(LAWS)
    for i in range(count):
        kind, rng = kinds[i % len(kinds)], keyed(seed, "pairs", i)
        own = seed * 10_000 + i
        at_s = int(rng.integers(EARLIEST_S, LATEST_S))
        quiet = Scenario(
            name=f"{i:03d}-{kind}", seed=own, duration_s=float(at_s + AFTER_S), sensors=Sensors(lidar_hz=1.0)
        )
        signal = SETPOINTS[int(rng.integers(len(SETPOINTS)))] if kind in FOLLOWED else None
        lawful = quiet if signal is None else replace(quiet, moves=(_move(plant, signal, at_s, rng),))
        law = LawEvent(name=kind, onset_s=float(at_s), signal=signal)
        t_ns = quiet.start_ns + at_s * 1_000_000_000
        impossible = replace(lawful, laws=(law,))
        yield Pair(name=quiet.name, kind=kind, seed=own, t_ns=t_ns, lawful=lawful, impossible=impossible)


def _move(plant: Plant, signal: str, at_s: int, rng: np.random.Generator) -> OperatorMove:
    """A step up or down from where the plant's setpoints start."""
    known = plant.by_name[signal]
    low, high = float(known.low or 0.0), float(known.high or 0.0)
    start = float(Line([Parameters()]).sp[signal][0])
    step = STEP_SHARE * (high - low) * (1.0 if rng.uniform() < 0.5 else -1.0)
    return OperatorMove(signal=signal, at_s=float(at_s), value=float(np.clip(start + step, low, high)))


def record_pairs(plant: Plant, seed: int, count: int, out: Path, *, workers: int = 0) -> list[Pair]:
    """Write pairs to ``out/<name>/lawful`` and ``.../impossible`` with the list ``out/pairs.json``, on all cores.

    Raises:
        ConfigError: where the folder exists or no pair is asked for.
    """
    if count < 1:
        raise ConfigError(f"--count {count}: expected at least 1")
    pairs = list(make_pairs(plant, seed, count))
    with whole_folder(out) as aside:
        jobs = [
            (scenario, aside / p.name / side)
            for p in pairs
            for scenario, side in ((p.lawful, LAWFUL), (p.impossible, IMPOSSIBLE))
        ]
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(workers or os.cpu_count() or 1, len(jobs)), mp_context=spawn) as pool:
            for done in [pool.submit(record, scenario, plant, path) for scenario, path in jobs]:
                done.result()
        (aside / LIST).write_text(json.dumps([p.described() for p in pairs], indent=1))
    return pairs
