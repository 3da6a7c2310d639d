"""Hidden states that the fleet model tells, on lines that it never saw: how well, how soon, and how often for nothing.

Run: python -m tests.benchmarks.fleet_states --json OUT [--model DIR] [--plants 24] [--controls 200]
Three tables: each state on later days against the truth; each fault alone, from minute 25 of a day on, looked at every
minute by the last twenty; and, with controls, what a ridge on plain averages and a network on the same gains tell.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from fusion.files import whole_file
from fusion.fleet.command import LINE, UNSEEN
from fusion.fleet.plants import ticks_of
from fusion.fleet.worn import DAY, STATES, Worn, first_day, lives, played
from fusion.plain import plain
from fusion.plant import Plant
from fusion.plant_file import load_plant
from fusion.simulator.instruments import other_instruments
from fusion.simulator.line.condition import WEAR
from fusion.simulator.scenario import ExcitationSettings, FaultEvent, Scenario
from models.fleet.kinds import Kinds
from models.fleet.model import FleetModel, shipped
from models.fleet.states import WINDOW_S, StateHead, Window, deviations, window
from models.fleet.states_fit import Life
from models.fleet.view import range_scaling, view
from models.linear.regression import Moments, ridge
from models.scaling import Floats
from models.ticks import Ticks

FIRST = UNSEEN + 2000
ONSET_S, AFTER_S, LOOK_S = 1500, 1500, 60
SEVERITIES = (0.5, 1.0)
PENALTIES = (0.01, 0.03, 0.1, 0.3, 1.0)
WINDOW = round(WINDOW_S)
ENDS = (1300, 1850, 2400)


def say(text: str) -> None:
    sys.stderr.write(f"{time.strftime('%H:%M:%S')} {text}\n")


# --- against the truth


def judged(head: StateHead, kinds: Kinds, seen: Sequence[Life]) -> list[dict[str, Any]]:
    """Each state of each window against what was true: share of the variance, of intervals that hold, of silence."""
    columns = {state.name: x for x, state in enumerate(STATES)}
    rows = []
    pairs = [pair for life in seen for pair in _pairs(kinds, life)]
    for place, reading in enumerate(head.readings):
        x, state = columns[reading.state.name], reading.state
        told = [head.tell(first, now)[place] for first, now, _ in pairs]
        truth = np.array([float(state.shown(state.change(t[1][x], t[0][x]))) for _, _, t in pairs])
        spoken = [(one, true) for one, true in zip(told, truth, strict=True) if one is not None]
        value, true = np.array([one.value for one, _ in spoken]), np.array([true for _, true in spoken])
        calm = [one for one, t in spoken if abs(t) < 1e-6]
        rows.append(
            {
                "state": state.words,
                "unit": state.unit,
                "windows": len(pairs),
                "silent": 1.0 - len(spoken) / len(pairs),
                "r2": 1.0 - float(((value - true) ** 2).mean() / true.var()),
                "within": float(np.mean([one.low <= t <= one.high for one, t in spoken])),
                "within_changed": float(np.mean([one.low <= t <= one.high for one, t in spoken if abs(t) > 1e-6])),
                "half_width_unchanged": float(np.median([(one.high - one.low) / 2 for one in calm])),
                "changed_for_nothing": float(np.mean([one.changed for one in calm])),
            }
        )
    return rows


def _pairs(kinds: Kinds, life: Life) -> list[tuple[Window, Window, tuple[Floats, Floats]]]:
    """The first minutes and a window of a later day, with the true states of both."""
    first = window(kinds, life.plant, life.first.ticks)
    found = []
    for day in life.later:
        for end in (e for e in ENDS if e <= len(day.ticks)):
            part = slice(end - WINDOW, end)
            truth = (life.first.truth.mean(0), day.truth[part].mean(0))
            found.append((first, window(kinds, life.plant, day.ticks[part]), truth))
    return found


# --- faults


def faults(head: StateHead, kinds: Kinds, line: Plant, plants: int) -> list[dict[str, Any]]:
    """Each fault alone, from a time of a day on: after how many minutes its own state has changed beyond doubt."""
    plan = Worn(plants=plants, first=FIRST + 500)
    seeds = range(plan.first, plan.first + plants)
    say(f"simulating {plants} plants at first")
    begun, _ = played(line, [first_day(seed, plan) for seed in seeds], plan.commissioning_s)
    cases = [(wear, severity) for wear in WEAR.values() for severity in SEVERITIES]
    say(f"simulating {len(cases)} faults on {plants} plants each")
    scenarios = [_faulty(first_day(seed, plan), wear.fault, severity) for wear, severity in cases for seed in seeds]
    values, _ = played(line, scenarios, ONSET_S + AFTER_S)
    rows = []
    for number, (wear, severity) in enumerate(cases):
        own = values[:, :, number * plants : (number + 1) * plants]
        looks = [_looks(head, kinds, line, seed, begun[:, :, i], own[:, :, i]) for i, seed in enumerate(seeds)]
        rows.append(_fault_row(head, wear.fault, wear.words, severity, looks))
    return rows


def _faulty(usual: Scenario, fault: str, severity: float) -> Scenario:
    """Another day on which nothing is moved and one thing goes wrong."""
    event = FaultEvent(name=fault, onset_s=float(ONSET_S), severity=severity)
    return replace(
        usual, seed=usual.seed + DAY, faults=(event,), excitation=ExcitationSettings(),
        duration_s=float(ONSET_S + AFTER_S),
    )  # fmt: skip


def _looks(head: StateHead, kinds: Kinds, line: Plant, seed: int, begun: Floats, day: Floats) -> list[tuple[int, Any]]:
    """What is told at each look, by its second."""
    instruments = other_instruments(line, seed)
    plant = instruments.plant
    first, run = (ticks_of(plant, instruments.read(values)) for values in (begun, day))
    before = window(kinds, plant, first)
    return [
        (end, head.tell(before, window(kinds, plant, run[end - WINDOW : end])))
        for end in range(WINDOW, len(run) + 1, LOOK_S)
    ]


def _fault_row(
    head: StateHead, fault: str, words: str, severity: float, looks: Sequence[Sequence[tuple[int, Any]]]
) -> dict[str, Any]:
    own = next((i for i, r in enumerate(head.readings) if r.state.words == words), None)
    delays, calm, beside = [], [], []
    for one in looks:
        said = [(end, [t is not None and t.changed for t in told]) for end, told in one]
        after = [end for end, changed in said if own is not None and end > ONSET_S and changed[own]]
        delays.append((min(after) - ONSET_S) / 60.0 if after else np.inf)
        calm += [any(changed) for end, changed in said if end <= ONSET_S]
        last = said[-1][1]
        beside.append(sum(c for i, c in enumerate(last) if i != own))
    soon = np.array(delays)
    return {
        "fault": fault,
        "severity": severity,
        "plants": len(looks),
        "stated": int(np.isfinite(soon).sum()),
        "within_20_min": int((soon <= 20.0).sum()),
        "median_min": float(np.median(soon)),
        "other_states_stated": float(np.mean(beside)),
        "looks_before": len(calm),
        "stated_before": float(np.mean(calm)),
    }


# --- controls


def controls(kinds: Kinds, head: StateHead, training: Sequence[Life], judging: Sequence[Life]) -> list[dict[str, Any]]:
    """Share of the variance by a ridge on averages of both windows, and by a network on the gains the head reads."""
    (x, gains, y), (x_new, gains_new, y_new) = (_plain(kinds, head, part) for part in (training, judging))
    rows = []
    for place, state in enumerate(STATES):
        true = y_new[:, place]
        weights = ridge(Moments.of(x, y[:, place : place + 1]), PENALTIES)
        by_ridge = [_told_share(np.c_[x_new, np.ones(len(x_new))] @ w[:, 0], true) for w in weights]
        by_network = _told_share(_network(gains, y[:, place], gains_new), true)
        rows.append({"state": state.words, "ridge_by_penalty": by_ridge, "network": by_network})
    return rows


def _told_share(told: Floats, true: Floats) -> float:
    return 1.0 - float(((told - true) ** 2).mean() / true.var())


def _plain(kinds: Kinds, head: StateHead, seen: Sequence[Life]) -> tuple[Floats, Floats, Floats]:
    """Averages, slopes and spreads of each kind at first and now, the gains of all readings, and what is true."""
    relations = np.concatenate([reading.relations for reading in head.readings])
    x, gains, y = [], [], []
    for life in seen:
        at_first = _averages(kinds, life.plant, life.first.ticks)
        later = [_averages(kinds, life.plant, day.ticks[end - WINDOW : end]) for day in life.later for end in ENDS]
        for (first, now, truth), present in zip(_pairs(kinds, life), later, strict=True):
            if not (first.known & now.known).all():
                continue
            x.append(np.concatenate([at_first, present - at_first]))
            gains.append(deviations(first, now, relations))
            y.append([float(s.change(truth[1][i], truth[0][i])) for i, s in enumerate(STATES)])
    return np.array(x), np.array(gains), np.array(y)


def _averages(kinds: Kinds, plant: Plant, run: Ticks) -> Floats:
    seen, _ = view(run, range_scaling(kinds, plant))
    places = kinds.tags.places(plant.tags)
    made = np.zeros((4, len(kinds.tags)))
    used, third = places >= 0, len(run) // 3
    share = np.maximum((seen.tags[:, used] + 1.0) / 2.0, 0.02)
    made[:, places[used]] = (
        share.mean(0),
        np.log(share).mean(0),
        share[-third:].mean(0) - share[:third].mean(0),
        np.log(share.std(0) + 1e-3),
    )
    return made.ravel()


def _network(x: Floats, y: Floats, x_new: Floats, steps: int = 800, width: int = 48) -> Floats:
    """The mean of four small networks."""
    centre, spread, unit = x.mean(0), x.std(0) + 1e-6, float(y.std())
    given, asked = (torch.tensor(((v - centre) / spread).clip(-5, 5), dtype=torch.float32) for v in (x, x_new))
    wanted = torch.tensor(y / unit, dtype=torch.float32)
    made = np.zeros(len(x_new))
    for seed in range(4):
        torch.manual_seed(seed)
        layers = (nn.Linear(x.shape[1], width), nn.GELU(), nn.Dropout(0.1), nn.Linear(width, width), nn.GELU())
        net = nn.Sequential(*layers, nn.Linear(width, 1))
        optimiser = torch.optim.AdamW(net.parameters(), 3e-3, weight_decay=0.05)
        for step in range(steps):
            optimiser.param_groups[0]["lr"] = 3e-3 * (1 - step / steps)
            rows = torch.randint(len(given), (128,))
            noisy = given[rows] + 0.1 * torch.randn(128, x.shape[1])
            loss = nn.functional.smooth_l1_loss(net(noisy)[:, 0], wanted[rows], beta=0.3)
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        with torch.no_grad():
            made += net.eval()(asked)[:, 0].numpy() / 4 * unit
    return made


def main() -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, required=True)
    parser.add_argument("--model", type=Path, default=next(f for f in shipped() if f.name == "lines"))
    parser.add_argument("--plants", type=int, default=24)
    parser.add_argument("--controls", type=int, default=0, help="plants that the controls are trained on")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    line, model = load_plant(LINE), FleetModel.load(asked.model)
    if model.states is None:
        raise SystemExit(f"{asked.model}: tells no hidden states")
    head, kinds = model.states, model.ridge.kinds
    unseen = lives(line, Worn(plants=asked.plants, first=FIRST, days=2), say)
    found = {"model": model.model_id, "states": shown(judged(head, kinds, unseen))}
    found["faults"] = shown(faults(head, kinds, line, max(asked.plants // 3, 1)))
    if asked.controls:
        training = lives(line, Worn(plants=asked.controls, days=2), say)
        found["controls"] = shown(controls(kinds, head, training, unseen))
    with whole_file(asked.json) as aside:
        aside.write_text(json.dumps(plain(found), indent=1))


def shown(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Print rows as soon as they are there."""
    for row in rows:
        print(json.dumps(plain(row)), flush=True)
    return rows


if __name__ == "__main__":
    main()
