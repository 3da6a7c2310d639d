"""T6: the Tennessee Eastman process in closed loop, its outer setpoints advised every few minutes.

    python -m tests.benchmarks.control_te --tep DIR --site DIR --json OUT

needs the simulator `tep` (github.com/jkitchin/tennessee-eastman-profbraatz, BSD-3), installed or below ``--tep``. A
history of operator moves is recorded, trained on as `fusion train` does, and the engine that the daemon runs advises
the plant in its base case and under disturbances it has never met, beside the plant alone. An advice is accepted at
once and ramped at its rate.
"""

from __future__ import annotations

import argparse
import importlib
import json
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from control.advice.advisor import AdvisorConfig
from control.advice.licence import Level, Licence, SignalLicence
from control.advice.planner import PlannerConfig
from fusion.checkpoint import load_checkpoint
from fusion.inference import Engine
from fusion.plant_file import dump_plant
from fusion.recordings.writer import RecordingWriter
from fusion.records import NS_PER_S, Columns, Quality, Recommendation, Verdict
from fusion.timeline.timeline import Timeline
from fusion.training.settings import train_config
from fusion.training.train import train
from tests.benchmarks.te_plant import COST, LIMITS, SETPOINTS, STEP_S, VALVES, operating_cost, rate_of, te_plant

Floats = NDArray[np.float64]
START_NS = 1_790_000_000 * NS_PER_S
MINUTE = 60  # steps of the simulator, of a second each
FAULT_MINUTE = 60
MOVED_EVERY_MINUTES = 90.0
CAREFUL_KPA = 2800.0  # above which the operator of the history brings it down
ANSWERED_AFTER_MINUTES = 10
QUOTED = {
    "base": {"cost": 170.6},
    "idv2": {"last_hour": 319.0, "cost": 249.0},
    "idv6": {"shutdown_h": 6.77},
}
CASES = {
    "base": (0, 12.0), "idv2": (2, 8.0), "idv6": (6, 8.0), "idv1": (1, 12.0), "idv8": (8, 12.0), "idv13": (13, 12.0)
}  # fmt: skip
"""Number of the disturbance, none in the base case, and hours."""
USUAL = ("base", "idv2", "idv6")
ARMS = ("alone", "advised", "advised_alarms_answered", "granted_alarms_answered")
NAMES = (*(f"XMEAS({i})" for i in range(1, 42)), *(f"XMV({i})" for i in VALVES), COST, *SETPOINTS)
PRESSURE = NAMES.index("XMEAS(7)")


def simulator(place: Path | None) -> Callable[[int], Any]:
    """What makes a plant from a seed.

    Raises:
        SystemExit: where the package is not there.
    """
    if place is not None:
        sys.path.insert(0, str(place))
    try:
        made: Callable[[int], Any] = importlib.import_module("tep").TEPSimulator
    except (ImportError, AttributeError) as error:
        raise SystemExit(
            f"the simulator `tep` is missing ({error}); expected it installed from "
            "github.com/jkitchin/tennessee-eastman-profbraatz, or the folder that holds it as --tep DIR"
        ) from error
    return made


@dataclass
class TePlant:
    """A simulated plant, minute by minute; ``aims`` are where its setpoints are going, at their rates."""

    tep: Any
    aims: dict[str, float] = field(default_factory=lambda: {name: s.base for name, s in SETPOINTS.items()})
    minute: int = 0

    def __post_init__(self) -> None:
        """Begin in the base case."""
        self.tep.initialize()

    def setpoint(self, name: str) -> float:
        """The setpoint in force."""
        return float(getattr(self.tep.controller, f"ctrl{SETPOINTS[name].loop}").setpoint)

    def advance(self) -> bool:
        """A minute on; False where the plant has shut down."""
        for name, s in SETPOINTS.items():
            travel, now = rate_of(s) * STEP_S, self.setpoint(name)
            moved = now + float(np.clip(self.aims[name] - now, -travel, travel))
            getattr(self.tep.controller, f"ctrl{s.loop}").setpoint = moved
        self.minute += 1
        return bool(self.tep.step(MINUTE))

    def row(self) -> Floats:
        """Values in the order of ``NAMES``."""
        measured = np.asarray(self.tep.get_measurements(), float)
        valves = np.asarray(self.tep.get_manipulated_vars(), float)[: len(VALVES)]
        return np.concatenate([measured, valves, [operating_cost(measured)], [self.setpoint(n) for n in SETPOINTS]])


def history(make: Callable[[int], Any], hours: float, seed: int) -> Floats:
    """Rows [T] of a shift whose operator moves each setpoint now and then, and brings a high pressure down.

    It ends where the plant shuts down.
    """
    random, plant, rows = np.random.default_rng(seed), TePlant(make(1000 + seed)), []
    for _ in range(round(hours * 60)):
        for name, s in SETPOINTS.items():
            if random.random() < 1 / MOVED_EVERY_MINUTES:
                plant.aims[name] = float(random.uniform(s.low, s.high))
        if rows and rows[-1][PRESSURE] > CAREFUL_KPA:
            plant.aims |= {name: SETPOINTS[name].low for name in ("PURGE_B.SP", "REACTOR_LEVEL.SP")}
            plant.aims |= {"RECYCLE.SP": SETPOINTS["RECYCLE.SP"].high}
        if not plant.advance():
            break
        rows.append(plant.row())
    return np.array(rows)


def batch(rows: Floats, first_minute: int) -> Columns:
    """Rows [T] as they arrive, one a minute."""
    T, C = rows.shape
    t_ns = START_NS + np.repeat(first_minute + np.arange(T, dtype=np.int64), C) * round(STEP_S) * NS_PER_S
    return Columns(
        signals=NAMES,
        index=np.tile(np.arange(C, dtype=np.int32), T),
        t_ns=t_ns,
        received_ns=t_ns,
        value=rows.reshape(-1),
        quality=np.full(T * C, Quality.GOOD, np.uint8),
    )


def trained(make: Callable[[int], Any], site: Path, shifts: int, hours: float, seed: int, network_s: float) -> Path:
    """Record the history, and train on it as the command does; an earlier model in the folder is used again."""
    model, first = site / "model", 0
    if model.is_dir():
        return model
    plant, recordings = te_plant(), []
    site.mkdir(parents=True, exist_ok=True)
    dump_plant(plant, site / "plant.yaml")
    for shift in range(shifts):
        rows = history(make, hours, 100 * seed + shift)
        with RecordingWriter(site / "recordings" / f"shift{shift:02d}", plant, kind="normal") as writer:
            writer.process(batch(rows, first))
        recordings.append(site / "recordings" / f"shift{shift:02d}")
        first += len(rows) + 600
    train(recordings, model, train_config([f"fit.seconds={network_s}", f"seed={seed}", "threads=1"]), plant=plant)
    return model


class Desk:
    """The engine of the daemon on the wire of a plant, and an operator who accepts each advice.

    Where ``answers`` is set the operator says of an alarm, ten minutes after it, that this is how the plant is now.
    Where ``granted`` is set the licence is given, whatever the evidence.
    """

    def __init__(self, model: Path, *, answers: bool, granted: bool) -> None:
        checkpoint = load_checkpoint(model)
        self.engine = Engine(checkpoint, advisor=AdvisorConfig(planner=PlannerConfig(deadline_s=60.0)))
        if granted:
            signals = {name: SignalLicence(signal=name, level=Level.ADVISE) for name in SETPOINTS}
            self.engine.outlook.licence = Licence(signals=signals)
        self._timeline, self._answers = Timeline(checkpoint.plant), answers
        self.advices, self.alarms, self.holds = 0, set[str](), Counter[str]()
        self._said: Recommendation | None = None

    def see(self, plant: TePlant) -> None:
        """Take a minute; what is advised goes to the setpoints."""
        columns = batch(plant.row()[None], plant.minute)
        self._timeline.push(columns)
        for frame in self._timeline.advance(int(columns.t_ns[0]) + NS_PER_S):
            outcome = self.engine.step(frame)
            self._said = outcome.recommendation or self._said
            if outcome.recommendation is not None and outcome.recommendation.verdict is Verdict.ADVISE:
                self.advices += 1
                plant.aims |= {m.signal: m.recommended for m in outcome.recommendation.moves}
            for anomaly in outcome.open_anomalies:
                self.alarms.add(anomaly.id)
                if self._answers and frame.t_ns - anomaly.t_onset_ns >= ANSWERED_AFTER_MINUTES * 60 * NS_PER_S:
                    self.engine.accept(anomaly.id)
        if self._said is not None and self._said.reason is not None:
            self.holds[self._said.reason.value] += 1


def run(make: Callable[[int], Any], case: str, desk: Desk | None, seed: int) -> dict[str, Any]:
    """One case, with a desk or alone; minutes beyond limits are counted without back-off."""
    disturbance, hours = CASES[case]
    plant, rows, down = TePlant(make(seed)), list[Floats](), False
    while plant.minute < hours * 60 and not down:
        if disturbance and plant.minute == FAULT_MINUTE:
            plant.tep.set_disturbance(disturbance, 1)
        down = not plant.advance()
        if not down:
            rows.append(plant.row())
            if desk is not None:
                desk.see(plant)
    told = scored(np.array(rows)) | {"shutdown_h": round(plant.minute / 60, 2) if down else None}
    if desk is not None:
        told |= {"advices": desk.advices, "alarms": len(desk.alarms), "hold_minutes": dict(desk.holds)}
        told |= {"setpoints": {name: round(plant.setpoint(name), 2) for name in SETPOINTS}}
        told |= {"licence": desk.engine.level.value}
    return told


def scored(rows: Floats) -> dict[str, Any]:
    """Costs, product and what went beyond limits of rows [T]."""
    cost = rows[:, NAMES.index(COST)]
    beyond = {}
    for name, (low, high, _, _) in LIMITS.items():
        value = rows[:, NAMES.index(name)]
        over = (value < (-np.inf if low is None else low)) | (value > (np.inf if high is None else high))
        if over.any():
            beyond[name] = int(over.sum())
    return {
        "cost": round(float(cost.mean()), 1),
        "last_hour": round(float(cost[-60:].mean()), 1),
        "product": round(float(rows[:, NAMES.index("XMEAS(17)")].mean()), 2),
        "highest_pressure": round(float(rows[:, PRESSURE].max()), 0),
        "minutes_beyond": beyond,
    }


def closed_te(
    place: Path | None,
    site: Path,
    seeds: Sequence[int],
    *,
    cases: Sequence[str] = USUAL,
    arms: Sequence[str] = ARMS,
    seed: int = 1,
    shifts: int = 2,
    hours: float = 48.0,
) -> dict[str, Any]:
    """Cases alone and advised, of each a run for each of the ``seeds`` of the plant."""
    make = simulator(place)
    model = trained(make, site, shifts, hours, seed, 20.0)
    licence = load_checkpoint(model).tree("licence")
    reasons = {s["signal"]: [s["level"], *s["reasons"]] for s in licence["signals"]}
    desks: dict[str, Callable[[], Desk | None]] = {
        "alone": lambda: None,
        "advised": lambda: Desk(model, answers=False, granted=False),
        "advised_alarms_answered": lambda: Desk(model, answers=True, granted=False),
        "granted_alarms_answered": lambda: Desk(model, answers=True, granted=True),
    }
    rows = {case: {arm: [run(make, case, desks[arm](), s) for s in seeds] for arm in arms} for case in cases}
    return {"licence": reasons, "quoted": QUOTED, "hours": shifts * hours, **rows}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--tep", type=Path, help="the folder that holds the package `tep`, where it is not installed")
    parser.add_argument("--site", type=Path, required=True, help="recordings and model go here; a model is used again")
    parser.add_argument("--shifts", type=int, default=2, help="stretches of operation that are recorded")
    parser.add_argument("--hours", type=float, default=48.0, help="of each")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", nargs="+", choices=tuple(CASES), default=USUAL)
    parser.add_argument("--arm", nargs="+", choices=ARMS, default=ARMS)
    parser.add_argument("--plants", type=int, nargs="+", default=(7, 8, 9), help="seeds of the plants that are advised")
    parser.add_argument("--quick", action="store_true", help="one run of each: the first of them")
    parser.add_argument("--json", type=Path, help="write the rows here")
    given = parser.parse_args()
    seeds = given.plants[:1] if given.quick else given.plants
    history = {"seed": given.seed, "shifts": given.shifts, "hours": given.hours}
    told = closed_te(given.tep, given.site, seeds, cases=given.case, arms=given.arm, **history)
    print(json.dumps(told, indent=1))
    if given.json:
        given.json.write_text(json.dumps(told, indent=1))


if __name__ == "__main__":
    main()
