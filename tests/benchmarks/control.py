"""Advice in closed loop on plants that others publish numbers for, beside what is quoted and a PI tuned in hindsight.

    python -m tests.benchmarks.control --task T1 --json OUT

T1 reactor, T2 four tanks, T3 reactor within limits, T4 dead time, T5 the licence, T7 advice that comes late or is not
taken, T8 time to plan; WHATIF sets effects of setpoints of the lime line against the simulator's counterfactual, LIME
closes the loop on it; SAFETY runs the property tests of `tests/test_safety.py`, with `--long` on ten thousand cases.
T6, the Tennessee Eastman process, is ``tests.benchmarks.control_te``.
``quoted`` are numbers of pc-gym and NeoRL-2 set-ups measured elsewhere with the exact model (NMPC) or the same data.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from control.advice.planner import Planner, PlannerConfig
from tests.benchmarks import control_pipeline as pipeline
from tests.benchmarks.control_licence import licence
from tests.benchmarks.control_lime import closed_line
from tests.benchmarks.control_loop import PLANNER, Course, Delivery, Pi, Planned, closed_loop, fitted, tuned
from tests.benchmarks.control_plants import Task, constrained_reactor, four_tank, reactor
from tests.benchmarks.control_whatif import whatif

PAIRS = {
    "reactor": [(0, 0, -1.0)],
    "constrained_reactor": [(0, 0, -1.0)],
    "four_tank": [(2, 1, 1.0), (3, 0, 1.0)],
}
QUOTED = {
    "T1": {"nmpc": -42.4, "pi": -58.5, "arx_cem_500": -54.3, "mlp_cem_500": -51.4, "do_nothing": -513.0, "sac": -101.4},
    "T2": {"nmpc": -2.10, "pi": -2.31, "arx_cem_2000": -2.56, "mlp_cem_2000": -2.21, "do_nothing": -19.7},
    "T3": {"nmpc_violating_steps": 27, "pi_violating_steps": 33, "nmpc": -0.279},
    "T4": {"p_loop": 760.0, "smith": 798.0, "best_offline_rl": 562.0},
    "T7": {
        "nmpc_every_step": -39.0,
        "nmpc_half_taken": -152.0,
        "nmpc_one_late": -103.0,
        "nmpc_one_late_told_schedule": -45.0,
        "nmpc_three_late": -385.0,
        "nmpc_three_late_told": -164.0,
        "nmpc_three_late_told_schedule": -56.0,
        "nmpc_slow": -135.0,
        "nmpc_slow_told_schedule": -34.0,
    },
}


def told(courses: list[Course]) -> dict[str, object]:
    """The row of a controller: median and worst return, moves, violations, time to decide."""
    values = [course.value for course in courses]
    times_s = [t for course in courses for t in course.times_s]
    return {
        "median": round(float(np.median(values)), 3),
        "worst": round(float(np.min(values)), 3),
        "runs": len(values),
        "variation": round(float(np.median([course.moves for course in courses])), 2),
        "violating_steps": max(course.broken for course in courses),
        "excess": round(max(course.excess for course in courses), 3),
        "p99_ms": round(1000 * float(np.percentile(times_s, 99)), 2),
        "lost": sum(course.lost for course in courses),
    }


def tracking(task: Task, quick: bool, network_s: float) -> dict[str, object]:
    """T1 to T3: several fits, each on the same noise, beside a PI."""
    fits, seeds = (1, 3) if quick else (3, 8)
    models = [fitted(task, 2000, seed, network_s) for seed in range(1, fits + 1)]
    ours = [closed_loop(task, Planned(task, model), seed) for model in models for seed in range(seeds)]
    pairs = PAIRS[task.name]
    gain, reset = tuned(task, pairs)
    classical = [closed_loop(task, Pi(task, gain, reset, pairs), seed) for seed in range(seeds)]
    rest = [closed_loop(task, lambda *_: (task.low + task.high) / 2, seed) for seed in range(seeds)]
    gates = [float((m.whole.gates > 0).mean()) for m in models if m.whole is not None]
    rows = {"planned": told(ours), "pi": told(classical), "do_nothing": told(rest)}
    return rows | {"fits": fits, "samples": 2000, "networks_s": network_s, "gates_open": gates}


def dead_time(quick: bool) -> dict[str, object]:
    """T4, on paired seeds: with the configuration of the other tasks, and with one move as the daemon plans."""
    seeds = range(1 if quick else 3)
    model = pipeline.fitted(4000, 1)
    one = replace(PLANNER, knots=1)
    rows = {
        "planned": lambda: pipeline.planned(model),
        "planned_one_move": lambda: pipeline.planned(model, one),
        "p_loop": lambda: pipeline.proportional(0.02),
        "smith": pipeline.compensating,
    }
    scores = {name: [pipeline.score(made(), seed) for seed in seeds] for name, made in rows.items()}
    return {name: {"mean": round(float(np.mean(s)), 1), "each": np.round(s, 1).tolist()} for name, s in scores.items()}


def honesty(quick: bool) -> dict[str, object]:
    """T5: quiet history must be refused, the same with an operator's moves granted."""
    samples = 5000 if quick else 20_000
    rows: dict[str, object] = {"samples": samples}
    for name, operator in (("quiet", False), ("operator_moves", True)):
        found, numbers = licence(samples, operator, 1)
        rows[name] = {"level": found.level.value, "reasons": found.signals["Tc"].reasons, **numbers}
    return rows


def delivered(quick: bool) -> dict[str, object]:
    """T7: the same planner where advice is late, slow or not taken, and told of it, of the schedule, or of neither.

    Acceptance is drawn anew for each run and is the same for every controller.
    """
    task, slow = reactor(), replace(reactor(), rate=0.1)
    fits, seeds = (1, 2) if quick else (2, 4)
    models = [fitted(task, 2000, seed) for seed in range(1, fits + 1)]
    half, three = Delivery(late=1, accepted=0.5), Delivery(late=3)
    cases: dict[str, tuple[Task, Delivery, dict[str, Any]]] = {
        "every_step": (task, Delivery(), {}),
        "every_step_schedule": (task, Delivery(), {"ahead": True}),
        "half_taken": (task, Delivery(accepted=0.5), {}),
        "half_taken_schedule": (task, Delivery(accepted=0.5), {"ahead": True}),
        "half_taken_one_late": (task, half, {}),
        "half_taken_one_late_told": (task, half, {"late": 1, "heard": False}),
        "half_taken_one_late_heard": (task, half, {"late": 1}),
        "half_taken_one_late_told_schedule": (task, half, {"late": 1, "heard": False, "ahead": True}),
        "half_taken_one_late_heard_schedule": (task, half, {"late": 1, "ahead": True}),
        "one_late_heard_schedule": (task, Delivery(late=1), {"late": 1, "ahead": True}),
        "three_late": (task, three, {}),
        "three_late_heard": (task, three, {"late": 3}),
        "three_late_heard_schedule": (task, three, {"late": 3, "ahead": True}),
        "slow": (slow, Delivery(), {}),
        "slow_schedule": (slow, Delivery(), {"ahead": True}),
        "three_late_slow_heard": (slow, three, {"late": 3}),
        "three_late_slow_heard_schedule": (slow, three, {"late": 3, "ahead": True}),
    }
    rows: dict[str, object] = {"fits": fits}
    for name, (plant, how, told_of) in cases.items():
        runs = [(model, seed) for model in models for seed in range(seeds)]
        rows[name] = told([closed_loop(plant, Planned(plant, model, **told_of), seed, how) for model, seed in runs])
    return rows


def latency(quick: bool) -> dict[str, object]:
    """T8: CPU time of a plan on one core; the line's model with its networks open, whatever they have learned."""
    from tests.benchmarks.control_line import line_world

    torch.set_num_threads(1)
    task = four_tank()
    small = [closed_loop(task, Planned(task, fitted(task, 2000, 1)), seed) for seed in range(1 if quick else 5)]
    world, plant = line_world()
    planner, times_s = Planner(PlannerConfig(), plant, world), []
    for _ in range(20 if quick else 200):
        began = time.process_time()
        planner.plan(world, None, 30.0)
        times_s.append(time.process_time() - began)
    line = {name: round(1000 * float(np.percentile(times_s, q)), 1) for name, q in (("p50_ms", 50), ("p99_ms", 99))}
    return {"two_by_two": {"p99_ms": told(small)["p99_ms"]}, "line": line | {"moves": len(world.manipulated)}}


def safety(long: bool) -> dict[str, object]:
    """The property tests, on as many cases as asked for."""
    cases = 10_000 if long else 200
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "tests/test_safety.py"]
    done = subprocess.run(command, env=os.environ | {"SAFETY_CASES": str(cases)}, capture_output=True, text=True)
    return {"cases_each": cases, "passed": done.returncode == 0, "said": done.stdout.strip().splitlines()[-1]}


def run(task: str, *, quick: bool, long: bool, network_s: float) -> dict[str, object]:
    """One task's rows."""
    made = {
        "T1": lambda: tracking(reactor(), quick, network_s),
        "T2": lambda: tracking(four_tank(), quick, network_s),
        "T3": lambda: tracking(constrained_reactor(), quick, network_s),
        "T4": lambda: dead_time(quick),
        "T5": lambda: honesty(quick),
        "T7": lambda: delivered(quick),
        "T8": lambda: latency(quick),
        "WHATIF": lambda: whatif(quick),
        "LIME": lambda: closed_line(quick),
        "SAFETY": lambda: safety(long),
    }
    return {"task": task, "quoted": QUOTED.get(task, {}), **made[task]()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--task",
        nargs="+",
        required=True,
        choices=("T1", "T2", "T3", "T4", "T5", "T7", "T8", "WHATIF", "LIME", "SAFETY"),
    )
    parser.add_argument("--json", type=Path, help="write the rows here")
    parser.add_argument("--quick", action="store_true", help="few seeds: whether it runs")
    parser.add_argument("--long", action="store_true", help="ten thousand cases of each property")
    parser.add_argument("--networks", type=float, default=0.0, metavar="S", help="train the networks, so long each")
    given = parser.parse_args()
    rows = []
    for task in given.task:
        rows.append(run(task, quick=given.quick, long=given.long, network_s=given.networks))
        print(json.dumps(rows[-1], indent=1), flush=True)
        if given.json:
            given.json.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
