"""`fusion fleet`: train a model of many plants, and say what it is worth on plants that it never saw."""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from rich.console import Console
from rich.table import Table

from fusion.command import CONFIGS, say
from fusion.config import merged, settings
from fusion.errors import ConfigError
from fusion.files import check_place, whole_file
from fusion.fleet.card import CARD, card_text
from fusion.fleet.evaluation import ARMS, FLEET, Crossing, Judged, Row, coverage, crossing, judge, table
from fusion.fleet.plants import Simulated, flowsheets, recorded, simulated
from fusion.fleet.worn import STATES, Worn, lives
from fusion.plain import decode, plain
from fusion.plant_file import load_plant
from models import distributed
from models.fleet.model import FleetModel, shipped
from models.fleet.states_fit import fit_states
from models.fleet.training import FleetTraining, Member, train_fleet

UNSEEN = 900_000  # the first seed of the plants that are judged on; training takes others
LINE = CONFIGS / "plant" / "lime.yaml"
JUDGED_S = (1950.0, 2640.0)
HOURS = (1 / 6, 0.5, 1.0, 2.0, 4.0)
"""Own data after which both models are compared for the crossing [h]."""
JUDGED_LAST_S = 3600.0


@dataclass(kw_only=True, slots=True)
class FleetConfig:
    """How `fusion fleet train` spends its time; plants are simulated from seed ``first`` on, unlike by ``spread``.

    Hidden states are learned from ``worn_days`` later days of simulated lines; none of flowsheets and recordings.
    """

    training: FleetTraining = field(default_factory=FleetTraining)
    first: int = 1000
    spread: float = 3.0
    worn_days: int = 2
    device: str = "auto"
    threads: int = 1

    def __post_init__(self) -> None:
        """Reject seeds that are kept to judge on."""
        if not 0 <= self.first < UNSEEN // 2:
            raise ConfigError(f"first: {self.first} is not accepted; expected 0 to {UNSEEN // 2 - 1}: others judge")
        if self.worn_days < 0:
            raise ConfigError(f"worn_days: {self.worn_days} is not accepted; expected 0 or more")
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device: {self.device!r} is not accepted; expected auto, cpu, cuda")


def fleet_config(overrides: Sequence[str] = ()) -> FleetConfig:
    """Defaults with ``key=value`` overrides, such as ``seed=1 training.fit.steps=500``.

    Raises:
        ConfigError: naming the key and what would be accepted.
    """
    given = settings(overrides, {"seed": "training.fit.seed", "steps": "training.fit.steps"})
    return decode(merged(plain(FleetConfig()), given), FleetConfig)


def train(arguments: argparse.Namespace) -> None:
    """Plants in, a fleet model with its card out."""
    config, started = fleet_config(arguments.overrides), time.monotonic()
    if arguments.out.exists():
        raise ConfigError(f"{arguments.out}: exists already; choose another folder")
    torch.set_num_threads(max(1, config.threads))
    model = _with_states(arguments, config) if arguments.model else _trained(arguments, config)
    model_id = model.save(arguments.out)
    (arguments.out / CARD).write_text(card_text(replace(model, model_id=model_id)))
    say(f"{arguments.out}: model {model_id} after {time.monotonic() - started:.0f} s")


def _trained(arguments: argparse.Namespace, config: FleetConfig) -> FleetModel:
    """Forecasts, and of simulated lines hidden states."""
    started = time.monotonic()
    members, source = _members(arguments, config)
    model = train_fleet(members, config.training, distributed.device(config.device), say)
    card = {
        "made_of": source,
        "plants": len(members),
        "hours": round(sum(m.ticks * m.plant.step_s for m in members) / 3600, 2),
        "kinds": {"tags": len(model.ridge.kinds.tags), "actions": len(model.ridge.kinds.actions)},
        "parameters": sum(p.numel() for p in model.network.parameters()),
        "settings": plain(config),
        "seconds": round(time.monotonic() - started, 1),
    }
    model = replace(model, card=card)
    lines = not (arguments.recordings or arguments.flowsheets)
    return _told_states(model, arguments.plants, config) if lines and config.worn_days else model


def _with_states(arguments: argparse.Namespace, config: FleetConfig) -> FleetModel:
    """A model that is there, as it forecasts, with hidden states learned anew."""
    if arguments.recordings or arguments.flowsheets:
        raise ConfigError("--model: hidden states are learned from simulated lines alone; expected without others")
    return _told_states(FleetModel.load(arguments.model), arguments.plants, config)


def _told_states(model: FleetModel, plants: int, config: FleetConfig) -> FleetModel:
    plan = Worn(plants=plants, first=config.first, spread=config.spread, days=config.worn_days)
    states = fit_states(model.ridge.kinds, lives(load_plant(LINE), plan, say), STATES, say)
    learned = {"plants": plan.plants, "days": plan.days, "first": plan.first, "spread": plan.spread}
    return replace(model, states=states, card={**model.card, "states": learned})


def _members(arguments: argparse.Namespace, config: FleetConfig) -> tuple[list[Member], str]:
    if arguments.recordings and arguments.flowsheets:
        raise ConfigError("--flowsheets: simulated plants; expected without --recordings")
    if arguments.recordings:
        return recorded(arguments.recordings), f"{len(arguments.recordings)} recordings"
    plan = Simulated(plants=arguments.plants, minutes=arguments.minutes, first=config.first, spread=config.spread)
    lines = simulated(load_plant(LINE), plan, say)
    if not arguments.flowsheets:
        return lines, "simulated lines, each with instruments of its own"
    others = flowsheets(replace(plan, plants=arguments.flowsheets), say)
    return (
        lines + others,
        f"{len(lines)} simulated lines and {len(others)} random flowsheets, each with its own instruments",
    )


def evaluate(arguments: argparse.Namespace) -> None:
    """Plants never seen in, two tables out: with a few own minutes, and when the own core catches up."""
    if arguments.json is not None:
        check_place("--json", arguments.json)
    torch.set_num_threads(1)
    models = [FleetModel.load(folder) for folder in arguments.model or shipped()]
    plan = Simulated(
        plants=arguments.plants, first=UNSEEN, spread=arguments.spread, share=arguments.share, alike=arguments.alike
    )
    members = recorded(arguments.recordings) if arguments.recordings else _unseen(arguments, plan)
    judged = judged_plants(models, members, arguments.minutes * 60)
    rows = table(judged, models[0].ridge.step_s)
    show(judged, rows)
    found = _crossing(models, arguments) if arguments.crossing else []
    if arguments.json is not None:
        told = {
            "models": [model.model_id for model in models],
            "rows": plain(rows),
            "coverage": plain(coverage(judged)),
            "crossing": plain(found),
        }
        with whole_file(arguments.json) as aside:
            aside.write_text(json.dumps(plain(told), indent=1))


def _unseen(arguments: argparse.Namespace, plan: Simulated) -> list[Member]:
    if arguments.flowsheets and (arguments.alike or arguments.spread != Simulated().spread):
        raise ConfigError("--flowsheets: no two are alike; expected without --alike and --spread")
    return flowsheets(plan, say) if arguments.flowsheets else simulated(load_plant(LINE), plan, say)


def judged_plants(models: Sequence[FleetModel], members: Sequence[Member], own_s: float) -> list[Judged]:
    """Each plant after its own first seconds, on what comes later."""
    ends = [min(JUDGED_S[1], len(m.runs[0]) * m.plant.step_s) for m in members]
    starts = [
        min(JUDGED_S[0], own_s + (end - own_s) / 4) if end < JUDGED_S[1] else max(JUDGED_S[0], own_s) for end in ends
    ]
    return [judge(models, m, own_s, (a, b)) for m, a, b in zip(members, starts, ends, strict=True)]


def _crossing(models: Sequence[FleetModel], arguments: argparse.Namespace) -> list[Crossing]:
    """When the own core of a plant is better: on fewer plants, for it takes hours of each."""
    hours = [h for h in (*HOURS, arguments.crossing) if h <= arguments.crossing]
    plan = Simulated(
        plants=max(3, arguments.plants // 4), first=UNSEEN + 500, spread=arguments.spread, share=arguments.share,
        alike=arguments.alike, minutes=60 * max(hours) + JUDGED_LAST_S / 60,
    )  # fmt: skip
    found = crossing(models, _unseen(arguments, plan), sorted(set(hours)), JUDGED_LAST_S)
    for one in found:
        told = ", ".join(f"{h:.2g} h {r:.2f}" for h, r in one.ratio.items())
        met = "not yet" if one.hours is None else f"after {one.hours:.2g} h"
        say(f"at {one.horizon_s:.0f} s: the own core is better {met} (its error over the fleet model's: {told})")
    return found


def show(judged: Sequence[Judged], rows: Sequence[Row]) -> None:
    """The table of arms, on standard output."""
    shown = Table(
        title=f"{len(judged)} plants never seen: skill over persistence, error over the fleet ridge's, better on"
    )
    seconds = sorted({row.horizon_s for row in rows})
    shown.add_column("")
    for horizon in seconds:
        shown.add_column(f"{horizon:.0f} s", justify="right")
    for arm in ARMS:
        cells = [row for row in rows if row.arm == arm]
        shown.add_row(arm, *(f"{c.skill:.3f} / {c.error:.3f} / {c.better}" for c in cells))
    Console(width=140).print(shown)
    said = ", ".join(f"{c:.0%}" for c in coverage(judged))
    say(f"truths within the bands of the {FLEET}, by horizon: {said}")
    fit = sum(j.fits for j in judged)
    say(f"own minutes bear the fleet out on {fit} of {len(judged)} plants; of others it is silent in a daemon")
