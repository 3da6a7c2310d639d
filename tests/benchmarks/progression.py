"""What is said of slow drifts: for nothing, how early, and how far the time to the limit is from what comes.

Run: python -m tests.benchmarks.progression [--series 24] [--seed 1] [--plants] [--json OUT]
Series are hours of six weeks in units of their limit: swings, wanders and steps that go nowhere, and ramps on top of
them that begin in the second week and reach the limit after 3 to 20 days. With --plants, three plants of
`tests/state_plants.py` are commissioned on two weeks, as `fusion train` does; four more weeks are then tracked as they
are, and again with an instrument that drifts from the third day on, in twelve days to the size that raises an alarm
in the usual state.
"""

from __future__ import annotations

import argparse
import itertools
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from fusion.daemon.progression import Progress, alarming
from fusion.records import NS_PER_S
from fusion.trends import QuantityKind
from models.plant_model import ModelState
from models.progression.history import Grid, History
from models.progression.quantities import Quantities
from models.progression.watch import DAY_NS, Said, Trend, look
from tests.benchmarks.bench_states import commissioned
from tests.grid_runs import from_process_grid
from tests.state_plants import DAY_S, MONDAY_NS, STATE_PLANTS

HOURS, DAYS = 24, 44
EVERY_H = 6  # a statement is looked for; the daemon looks every hour
RAMP_DAYS = (3, 6, 12, 20)
TRACKED_DAYS, TRAINED_DAYS, DRIFT_DAYS, ONSET_DAY = 28, 14, 12.0, 3.0
QUIET = ("white", "hours", "day", "days", "diurnal", "weekly", "season", "steps", "walk")


def wander(rng: np.random.Generator, hours: int, columns: int, memory_days: float, size: float) -> np.ndarray:
    """A stationary first-order wander."""
    keep = np.exp(-1.0 / (memory_days * HOURS))
    made, noise = np.zeros((hours, columns)), rng.normal(size=(hours, columns)) * size * np.sqrt(1 - keep**2)
    made[0] = rng.normal(size=columns) * size
    for i in range(1, hours):
        made[i] = keep * made[i - 1] + noise[i]
    return made


def quiet(kind: str, rng: np.random.Generator, columns: int) -> tuple[np.ndarray, np.ndarray]:
    """Hours [N, columns] of a quantity that goes nowhere, or where chance leads it, in units of its limit.

    Its course, and the noise and wander about it.
    """
    hours = DAYS * HOURS
    t, noise = np.arange(hours)[:, None] / HOURS, rng.normal(size=(hours, columns)) * 0.05
    phase, still = rng.uniform(size=columns), np.zeros((hours, columns))
    match kind:
        case "white":
            return still, noise * 4
        case "hours":
            return still, wander(rng, hours, columns, 0.15, 0.3) + noise
        case "day":
            return still, wander(rng, hours, columns, 1.0, 0.3) + noise
        case "days":
            return still, wander(rng, hours, columns, 4.0, 0.3) + noise
        case "diurnal":
            size = np.repeat(rng.uniform(0.2, 0.6, (DAYS, columns)), HOURS, axis=0)
            return size * np.sin(2 * np.pi * (t + phase)), wander(rng, hours, columns, 1.0, 0.1) + noise
        case "weekly":
            weekend = (t + 7 * phase) % 7 < 2
            return np.where(weekend, -0.4, 0.0), wander(rng, hours, columns, 0.3, 0.1) + noise
        case "season":
            return 0.6 * np.sin(2 * np.pi * (t / 60 + phase)), wander(rng, hours, columns, 0.3, 0.1) + noise
        case "steps":
            level, made = rng.uniform(-0.6, 0.6, columns), still
            for i in range(hours):
                level = np.where(rng.uniform(size=columns) < 1 / 48, rng.uniform(-0.6, 0.6, columns), level)
                made[i] = level
            return made, wander(rng, hours, columns, 0.1, 0.05) + noise
    return np.cumsum(rng.normal(size=(hours, columns)), axis=0) * 0.1 / np.sqrt(HOURS), noise


def told(values: np.ndarray) -> list[tuple[int, Trend]]:
    """What is stated after each hour of values [N, Q], limits at one to both sides: hour and trend."""
    hours, columns = values.shape
    grid, history, said = Grid(60.0), History.empty(columns), Said.nothing(columns)
    t_ns = 20_000 * DAY_NS + (np.arange(hours, dtype=np.int64) + 1) * grid.block_ns
    found = []
    for end in range(2 * HOURS, hours, EVERY_H):
        first = max(0, end - 720)
        history.t_ns, history.value = t_ns[first:end], values[first:end]
        history.state = np.zeros(end - first, np.int64)
        one = np.ones(columns)
        found += [(end, trend) for trend in look(history, -one, one, said, grid)]
    return found


def falsely(kind: str, seed: int, columns: int) -> dict[str, Any]:
    """Statements of what goes nowhere; of those, how many came true."""
    values = sum(quiet(kind, np.random.default_rng(seed), columns))
    first: dict[tuple[int, int], tuple[int, Trend]] = {}
    for hour, trend in told(values):
        first.setdefault((trend.which, trend.stated_ns), (hour, trend))
    true = sum(bool((values[hour:, trend.which] * np.sign(trend.limit) >= 1).any()) for hour, trend in first.values())
    months = columns * (DAYS - 2) / 30
    return {"series": kind, "months": round(months, 1), "stated": len(first), "came_true": true}


def drifting(kind: str, seed: int, columns: int) -> dict[str, Any]:
    """How early a ramp on top of half of what goes nowhere is stated, and how good the time is that is said."""
    rng = np.random.default_rng(seed)
    course, noise = (0.5 * part for part in quiet(kind, rng, columns))
    onset, days, side = rng.uniform(7, 14, columns), rng.choice(RAMP_DAYS, columns), rng.choice([-1, 1], columns)
    ramp = np.clip((np.arange(DAYS * HOURS)[:, None] / HOURS - onset) / days, 0, None) * side
    said = told(course + noise + ramp)
    reached = np.argmax((course + ramp) * side >= 1.0, axis=0) / HOURS
    first: dict[int, tuple[int, Trend]] = {}
    inside, all_said, before = 0, 0, 0
    for hour, trend in said:
        left = float(reached[trend.which]) - hour / HOURS
        if hour / HOURS < onset[trend.which]:
            before += 1
        elif left > 0:
            first.setdefault(trend.which, (hour, trend))
            all_said, inside = all_said + 1, inside + (trend.days[0] <= left <= trend.days[2])
    left = {q: float(reached[q]) - hour / HOURS for q, (hour, _) in first.items()}
    return {
        "series": kind,
        "stated": f"{len(first)} of {columns}",
        "before_onset": before,
        "left_of_the_way": round(float(np.median([left[q] / days[q] for q in first])), 2) if first else None,
        "inside_90": round(inside / all_said, 2) if all_said else None,
        "middle_over_true": round(float(np.median([t.days[1] / left[q] for q, (_, t) in first.items()])), 2)
        if first
        else None,
    }


def tracked(name: str, seed: int) -> list[dict[str, Any]]:
    """One plant as it is, and with each tag that its neighbours tell of drifting upwards."""
    made = STATE_PLANTS[name]
    step_s = made.plant.step_s
    rows = round((TRAINED_DAYS + TRACKED_DAYS) * DAY_S / step_s)
    values, _ = made.make(np.random.default_rng(seed), rows)
    t_ns = MONDAY_NS + (np.arange(rows) * step_s * NS_PER_S).astype(np.int64)
    cut = round(TRAINED_DAYS * DAY_S / step_s)
    past = from_process_grid(made.plant, t_ns[:cut], {n: v[:cut] for n, v in values.items()})
    model, limits = commissioned(made, past, by_state=True)
    engine = SimpleNamespace(model_id="m", model=model, calibration=limits, flags=(), state=ModelState())
    quantities = Quantities(made.plant, model.monitors, "m")
    engine.state.operating.state = int(np.bincount(model.operating.states.of(past)).argmax())
    size = dict(zip((q.name for q in quantities.all), quantities.limits(alarming(engine)).high, strict=True))
    found = []
    days = (np.arange(rows) - cut) * step_s / DAY_S
    for tag in (None, *(q.signal for q in quantities.all if q.kind is QuantityKind.BESIDE)):
        drifted = dict(values)
        if tag is not None:
            ramp = np.clip((days - ONSET_DAY) / DRIFT_DAYS, 0, None) * size[f"beside.{tag}"]
            drifted[tag] = values[tag] + ramp
        said, hours = played(engine, made.plant, t_ns[cut:], {n: v[cut:] for n, v in drifted.items()})
        row = {"plant": name, "seed": seed, "drift": tag, "quantities": len(quantities)}
        found.append(row | judged(said, tag, hours))
    return found


def arrivals(hours: np.ndarray, stated: list[tuple[float, Any]]) -> np.ndarray:
    """For each statement the first day by which the quantity is beyond its limit in the median of a day; else infinite.

    The limit is that which was stated: it is another in each operating state.
    """
    day = np.nanmedian(np.lib.stride_tricks.sliding_window_view(hours, HOURS), axis=1)
    beyond = [day * np.sign(trend.limit) >= abs(trend.limit) for _, trend in stated]
    return np.array([(int(np.argmax(b)) + HOURS) / HOURS if b.any() else np.inf for b in beyond])


def played(
    engine: Any, plant: Any, t_ns: np.ndarray, values: dict[str, np.ndarray]
) -> tuple[list[tuple[float, Any]], dict[str, np.ndarray]]:
    """Day and statements once an hour, and the hours of each quantity."""
    engine.state, step = ModelState(), max(round(300 / plant.step_s), 1)
    progress = Progress(plant)
    progress._grid = Grid(300.0)
    run, said = from_process_grid(plant, t_ns, values), []
    for first in range(0, len(run), step):
        piece = run[first : first + step]
        encoding, engine.state.past = engine.model.core.encode(piece, engine.state.past)
        _, engine.state.carry = engine.model.monitors.step(piece, encoding, engine.state.carry)
        operating = engine.model.operating
        engine.flags = operating.flags(int(operating.states.step(piece, engine.state.operating)[-1]))
        if (made := progress.step(piece, engine)) is not None:
            said.append(((int(made.t_ns) - int(t_ns[0])) / DAY_NS, made))
    progress.close()
    known = progress._history
    return said, {q.name: known.value[:, i] for i, q in enumerate(progress._quantities.all)}


def judged(said: list[tuple[float, Any]], tag: str | None, hours: dict[str, np.ndarray]) -> dict[str, Any]:
    """Statements of an hour: those of something else than what drifts, and how good the time to the limit is."""
    stated = [(day, trend) for day, made in said for trend in made.trends]
    names = {(trend.quantity.name, trend.since_ns) for _, trend in stated}
    if tag is None:
        return {"stated": sorted({name for name, _ in names}), "times": len(names), "days": TRACKED_DAYS}
    own = [(day, t) for day, t in stated if t.quantity.name == f"beside.{tag}" and day > ONSET_DAY]
    left = arrivals(hours[f"beside.{tag}"], own) - np.array([day for day, _ in own])
    right = [(day, t, rest) for (day, t), rest in zip(own, left, strict=True) if rest > 0]
    of_it = {t.quantity.name for _, t in stated if tag == t.quantity.signal or tag in t.with_it}
    first = right[0] if right else None
    return {
        "stated_after_days": round(first[0] - ONSET_DAY, 1) if first else None,
        "days_left_then": round(float(first[2]), 1) if first else None,
        "inside_90": round(float(np.mean([t.days[0] <= rest <= t.days[2] for _, t, rest in right])), 2)
        if right
        else None,
        "middle_over_true": round(float(np.median([t.days[1] / rest for _, t, rest in right])), 2) if right else None,
        "others": sorted({name for name, _ in names if name not in of_it}),
        "as": sorted(of_it),
    }


def main() -> None:
    """Print a row for each kind of series, or each plant and drift."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--series", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--plants", action="store_true")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    seed, count = arguments.seed, arguments.series
    if arguments.plants:
        made = (row for name in STATE_PLANTS for row in tracked(name, seed))
    else:
        nowhere = (falsely(kind, seed, count) for kind in QUIET)
        made = itertools.chain(nowhere, (drifting(kind, seed, count) for kind in ("white", "hours", "day", "diurnal")))
    rows = []
    for row in made:
        rows.append(row)
        print(json.dumps(row), flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
