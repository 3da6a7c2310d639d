"""Plants of one small family, as a fleet: runs in no time, and a fleet model that is trained in seconds."""

import dataclasses

import numpy as np
import torch
from small_plants import SMALL, small_values

from fusion.fleet.plants import ticks_of
from fusion.plant import Plant
from models.fleet.fit import FleetFit
from models.fleet.network import FleetSize
from models.fleet.training import FleetTraining, Member, train_fleet

NAMES = {"TT1": "TI-{n}", "FT1": "FIT{n}", "PT1": "PI{n}", "FT1.SP": "FIC{n}.SP"}
QUICK = FleetTraining(
    size=FleetSize(slots=6, token=8, trunk=24, reading=24, described=16, embedding=8, paths=8),
    fit=FleetFit(steps=60, plants=4, rows=16, context_rows=8),
)


def small_plant(seed):
    """The small plant as another one calls it, with the range of its flow declared."""
    signals = []
    for s in SMALL.signals:
        low, high = {"TT1": (0.0, 100.0), "FT1": (0.0, 10.0), "PT1": (0.0, 5.0)}.get(s.name, (s.low, s.high))
        signals.append(dataclasses.replace(s, name=NAMES[s.name].format(n=100 + seed), low=low, high=high))
    return Plant(name=f"small-{seed}", signals=tuple(signals))


def small_member(seed, ticks=1500):
    values = small_values(seed, ticks)
    plant = small_plant(seed)
    columns = np.stack([values[s.name] for s in SMALL.signals], 1)
    return Member(plant=plant, runs=(ticks_of(plant, columns),))


def small_fleet():
    made = train_fleet([small_member(seed) for seed in range(8)], QUICK, torch.device("cpu"), lambda text: None)
    return dataclasses.replace(made, model_id="fleet-0")
