"""How the monitors are fitted on normal training runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from fusion.errors import ConfigError
from fusion.plant import Plant
from fusion.records import PROCESS, Origin
from models.features.stem import FeatureRange, StemFacts
from models.linear.core import LinearCore
from models.monitors.accumulation import Accumulations
from models.monitors.balance import Laws
from models.monitors.cells import fit_cells
from models.monitors.conditionals import Conditionals
from models.monitors.crossmodal import CrossModal
from models.monitors.distance import T2, Distance, beyond_limit
from models.monitors.health import SignsOfLife
from models.monitors.innovation import Innovations
from models.monitors.joint_variates import Joint
from models.monitors.monitors import MonitorCarry, Monitors
from models.monitors.perception import fit_perception
from models.monitors.piece import piece
from models.monitors.relations import Relations
from models.monitors.relief import Local
from models.monitors.residual import WARM_UP_TICKS, Largest
from models.monitors.two_ticks import Lagged
from models.scaling import Bools, Floats
from models.ticks import Ticks

LIMITED = ("feature", "relation", "accumulation", "conditional")  # families whose every column has a limit of its own
NEVER_USUAL = (Origin.ALIVE, Origin.LAW)  # dead sensors and broken balances
FEWEST_PRESENT = 300  # ticks before a medium is worth a monitor


def fit_monitors(
    runs: Sequence[Ticks], core: LinearCore, plant: Plant, stem: StemFacts, tag_runs: Sequence[Ticks] = ()
) -> Monitors:
    """From normal training runs with all the media there are; ``tag_runs`` add to what is judged by tags alone.

    Raises:
        ConfigError: where no run is longer than the warm-up.
    """
    runs = [run for run in runs if len(run) > 2 * WARM_UP_TICKS]
    if not runs:
        raise ConfigError(f"monitors: no normal run has more than {2 * WARM_UP_TICKS} ticks")
    everything = [*runs, *tag_runs]
    media = tuple(m for m in core.scaling.media if sum(int(_there(r, m).sum()) for r in runs) >= FEWEST_PRESENT)
    encodings = [core.encode(run)[0] for run in everything]
    known = [(encoding, run.observed) for encoding, run in zip(encodings, everything, strict=True)]
    there = [{m: _there(run, m) for m in media} for run in runs]
    read = [piece(r, e, core.scaling, t, {}) for r, e, t in zip(runs, encodings, there, strict=False)]
    cross = CrossModal.fit([p.blocks for p in read], media, plant, stem)
    joint = Joint.fit(cross, read, plant.step_s)
    cells, perception = fit_cells(read, media, plant), fit_perception(read, media, plant)
    lagged, laws = Lagged.fit(encodings, plant), Laws.fit(everything, plant)
    found = Accumulations.fit(known, plant)
    relations = Relations.fit(known, plant, core.past_scaler.scale)
    conditionals = Conditionals.fit(read, media, plant)
    health = SignsOfLife.fit(everything, media, plant, stem)
    rough = Monitors(
        plant=plant,
        core=core,
        stem=stem,
        ahead=Innovations.fit(core, known, plant),
        others=(
            cross,
            *(p for p in (joint, cells, perception) if p is not None),
            relations,
            found,
            conditionals,
            lagged,
            laws,
            health,
        ),
        local=Local(np.zeros(0), np.zeros(0, bool)),
        ranges={m: _range(runs, m) for m in media},
    )
    return replace(rough, local=_usual(rough, everything))


def beginning_well(monitors: Monitors) -> Monitors:
    """The monitors of a plant whose runs begin well: of each, what the first ticks are like is usual."""
    return replace(monitors, local=replace(monitors.local, begins_well=True))


def widened(monitors: Monitors, runs: Sequence[Ticks]) -> Monitors:
    """The monitors in which neither distance nor limit rests on a column that later normal runs do not keep to."""
    vectors: dict[int, list[tuple[Distance, Floats]]] = {}
    sizes: dict[str, list[Floats]] = {}
    for run in runs:
        carry, encoding = MonitorCarry(), monitors.core.encode(run)[0]
        for residual in monitors.residuals(run, encoding, monitors.calibrated(run), carry):
            if isinstance(residual.chart, T2):
                for rows, distance in residual.chart.judges:
                    settled = residual.chart.values[rows[rows >= WARM_UP_TICKS]]
                    vectors.setdefault(id(distance), []).append((distance, settled))
            elif isinstance(residual.chart, Largest) and residual.energy.family in LIMITED:
                sizes.setdefault(residual.energy.name, []).append(residual.chart.values[WARM_UP_TICKS:])
    wider = {key: found[0][0].widened(np.concatenate([v for _, v in found])) for key, found in vectors.items()}
    beyond = {name: beyond_limit(np.concatenate(found)) for name, found in sizes.items()}
    others = tuple(_wider(other, wider, beyond) for other in monitors.others)
    return replace(monitors, ahead=monitors.ahead.widened(wider), others=others)


def _wider(other: Any, wider: Mapping[int, Distance], beyond: Mapping[str, Floats]) -> Any:
    if isinstance(other, CrossModal):
        return other.widened(wider, beyond)
    if isinstance(other, Joint):
        return other.widened(wider)
    return other.widened(beyond) if isinstance(other, Relations | Accumulations | Conditionals) else other


def _usual(monitors: Monitors, runs: Sequence[Ticks]) -> Local:
    """What each energy rises to on normal runs.

    An operator may accept all but a dead sensor; the first ticks of a stream relieve neither that, nor a medium, nor a
    broken balance.
    """
    accepted = np.array([e.origin is not Origin.ALIVE for e in monitors.energies], bool)
    first = np.array([e.source == PROCESS and e.origin not in NEVER_USUAL for e in monitors.energies], bool)
    bare = replace(monitors, local=Local(np.full(len(first), np.inf), first))
    values = [bare.step(run, monitors.core.encode(run)[0])[0].values for run in runs]
    return Local.fit(np.concatenate(values), accepted, first)


def _range(runs: Sequence[Ticks], medium: str) -> FeatureRange:
    seen = [run.media[medium][_there(run, medium)] for run in runs if medium in run.media]
    return FeatureRange.fit(np.concatenate(seen))


def _there(run: Ticks, medium: str) -> Bools:
    nowhere = np.zeros(len(run), bool)
    return run.present.get(medium, nowhere) & ~run.doubted.get(medium, nowhere)
