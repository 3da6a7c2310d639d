"""How a fleet model is made of the runs of many plants: ridge, network, and what errors are usual on plants not seen.

Some plants are held out whole: they choose the penalty and say how wide bands must be; no plant that is judged on is
among them. Shape letters as in ``models.fleet.guest``.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from fusion.errors import ConfigError
from fusion.plant import Plant
from models.actions import HORIZONS
from models.fleet.fit import FleetFit, fit_network
from models.fleet.guest import WARM_UP_TICKS, Usual, own_views, welcome
from models.fleet.kinds import Kinds
from models.fleet.model import FleetModel
from models.fleet.network import FleetNetwork, FleetSize
from models.fleet.ridge import FleetRidge, fit_ridge, recorded
from models.fleet.rows import PlantRows, plant_rows
from models.fleet.view import View, range_scaling
from models.scaling import Floats
from models.ticks import Ticks

COVERAGE = 0.9
LEAST_PLANTS = 4
LEAST_TICKS = 600
PENALTY_HORIZONS = (5, 6)  # 32 and 64 ticks decide on the penalty
Say = Callable[[str], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Member:
    """A plant of a fleet and its runs."""

    plant: Plant
    runs: tuple[Ticks, ...]

    @property
    def ticks(self) -> int:
        """How long all runs are together."""
        return sum(map(len, self.runs))


@dataclass(kw_only=True, slots=True)
class FleetTraining:
    """How a fleet model is trained.

    ``held_out_share`` of the plants choose and calibrate. Each training plant is also seen with a ``partial_share`` of
    its tags; ``own_s`` is how much of a plant is known before it is judged, ``every`` of its ticks one is a row.
    """

    penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1, 1.0, 10.0)
    held_out_share: float = 0.15
    partial_share: float = 0.6
    own_s: float = 600.0
    every: int = 5
    size: FleetSize = field(default_factory=FleetSize)
    fit: FleetFit = field(default_factory=FleetFit)

    def __post_init__(self) -> None:
        """Reject what trains nothing."""
        if not self.penalties or min(self.penalties) <= 0:
            raise ConfigError("penalties: expected positive numbers, at least one")
        for key in ("held_out_share", "partial_share"):
            if not 0 < getattr(self, key) <= 1:
                raise ConfigError(f"{key}: {getattr(self, key)} is not accepted; expected above 0, at most 1")
        if self.every < 1 or self.own_s <= 0:
            raise ConfigError("every and own_s: expected at least 1 and more than 0")


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What is there before the network: the ridge, rows to train on, and the plants that are held out."""

    ridge: FleetRidge
    rows: Sequence[PlantRows]
    held_out: Sequence[Member]


def train_fleet(members: Sequence[Member], config: FleetTraining, device: torch.device, say: Say) -> FleetModel:
    """Fit all of it; ``say`` is told in a sentence what is being done.

    Raises:
        ConfigError: where there are too few plants, or they do not tick alike.
    """
    return train_network(prepare(members, config, say), config, device, say)


def prepare(members: Sequence[Member], config: FleetTraining, say: Say) -> Prepared:
    """Everything in closed form.

    Raises:
        ConfigError: as ``train_fleet``.
    """
    members = _usable(members)
    training, held_out = _dealt(members, config.held_out_share)
    say(f"ridge of {len(training)} plants, {sum(m.ticks for m in training) * members[0].plant.step_s / 3600:.1f} h")
    kinds = Kinds.of([m.plant for m in training])
    views = [(m.plant, _views(kinds, m)) for m in training]
    ridge = _best_penalty(fit_ridge(kinds, views, config.penalties[0]), held_out, config)
    say(f"{len(ridge.kinds.tags)} kinds of tags and {len(ridge.kinds.actions)} of actions, penalty {ridge.penalty:g}")
    rows = [_rows(plant, seen, ridge, config.every) for plant, runs in views for seen in runs]
    if config.partial_share < 1.0:
        rng = np.random.default_rng(config.fit.seed)
        fewer = [with_fewer_tags(m, config.partial_share, rng) for m in training]
        rows += [_rows(m.plant, seen, ridge, config.every) for m in fewer for seen in _views(kinds, m)]
    return Prepared(ridge=ridge, rows=rows, held_out=held_out)


def train_network(prepared: Prepared, config: FleetTraining, device: torch.device, say: Say) -> FleetModel:
    """The network on what is prepared, and what errors are usual with it."""

    def follow(step: int, steps: int, loss: float) -> None:
        if step == 1 or step % max(1, steps // 20) == 0:
            say(f"network: step {step} of {steps}, loss {loss:.4f}")

    network = fit_network(prepared.rows, config.size, config.fit, device, follow)
    usual = measure(prepared.ridge, network, prepared.held_out, config.own_s)
    return FleetModel(ridge=prepared.ridge, network=network, usual=usual)


def _dealt(members: Sequence[Member], held_out_share: float) -> tuple[list[Member], list[Member]]:
    """Members to train on, and those held out: one in so many, so that each kind of plant is among both."""
    count = max(1, round(held_out_share * len(members)))
    out = {(2 * i + 1) * len(members) // (2 * count) for i in range(count)}
    return [m for i, m in enumerate(members) if i not in out], [members[i] for i in sorted(out)]


def _usable(members: Sequence[Member]) -> list[Member]:
    """Members with something to learn from, all of one step."""
    usable = [m for m in members if m.plant.tags and m.ticks >= LEAST_TICKS]
    if len(usable) < LEAST_PLANTS:
        raise ConfigError(
            f"a fleet needs at least {LEAST_PLANTS} plants with process tags and {LEAST_TICKS} ticks each; "
            f"of {len(members)}, {len(usable)} are usable"
        )
    steps = sorted({m.plant.step_s for m in usable})
    if len(steps) > 1:
        raise ConfigError(f"plants of a fleet must tick alike; found steps of {', '.join(f'{s:g} s' for s in steps)}")
    return usable


def _best_penalty(ridge: FleetRidge, held_out: Sequence[Member], config: FleetTraining) -> FleetRidge:
    """The penalty whose error on plants that are held out is smallest, in units of persistence."""
    views = [(m.plant, _views(ridge.kinds, m)) for m in held_out]
    tried = [replace(ridge, penalty=penalty) for penalty in config.penalties]
    return min(tried, key=lambda one: float(np.mean([_left(one, plant, seen) for plant, seen in views])))


def _left(ridge: FleetRidge, plant: Plant, views: Sequence[View]) -> float:
    """The share of the squared change of the median tag that a ridge leaves."""
    fitted, left, all_of_it = ridge.of_plant(plant, views), [], []
    for seen in views:
        at = np.arange(0, len(seen), 10)
        summary, came = recorded(seen, at, plant.step_s)
        left.append((came - fitted.change(seen.at(at), summary))[:, PENALTY_HORIZONS] ** 2)
        all_of_it.append(came[:, PENALTY_HORIZONS] ** 2)
    ratio = np.nanmean(np.concatenate(left), 0) / (np.nanmean(np.concatenate(all_of_it), 0) + 1e-12)
    return float(np.median(ratio))


def _rows(plant: Plant, seen: View, ridge: FleetRidge, every: int) -> PlantRows:
    return plant_rows(plant, seen, ridge.of_plant(plant, [seen]), np.arange(0, len(seen), every))


def _views(kinds: Kinds, member: Member) -> list[View]:
    return own_views(member.runs, range_scaling(kinds, member.plant, member.runs))


def with_fewer_tags(member: Member, share: float, rng: np.random.Generator) -> Member:
    """The plant as if it had but a share of its tags, at least one; what can be moved stays."""
    tags = member.plant.tags
    kept = rng.random(len(tags)) < share
    kept[int(rng.integers(len(tags)))] = True
    gone = {s.name for s, here in zip(tags, kept, strict=True) if not here}
    signals = tuple(s for s in member.plant.signals if s.name not in gone)
    plant = Plant(name=member.plant.name, step_s=member.plant.step_s, signals=signals)
    columns = np.flatnonzero(kept)
    return Member(plant=plant, runs=tuple(_columns(run, columns) for run in member.runs))


def _columns(run: Ticks, columns: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Ticks:
    tags = {name: getattr(run, name)[:, columns] for name in ("tags", "observed", "age_s", "quality")}
    return replace(run, **tags)


def measure(ridge: FleetRidge, network: FleetNetwork, held_out: Sequence[Member], own_s: float) -> Usual:
    """What errors are usual on plants that were not trained on, each known for its first ``own_s``."""
    usual = Usual.unknown()
    near = _errors(ridge, network, usual, held_out, own_s, by_band=False)
    usual = Usual(middle=_quantiles(near, 0.5, 1.0), wide=usual.wide)
    far = _errors(ridge, network, usual, held_out, own_s, by_band=True)
    return Usual(middle=usual.middle, wide=_quantiles(far, COVERAGE, 1.0))


def _errors(
    ridge: FleetRidge, network: FleetNetwork, usual: Usual, members: Sequence[Member], own_s: float, *, by_band: bool
) -> list[Floats]:
    """Absolute errors [R, H, S] after the own time, in units of the ridge's usual error or of the band."""
    found = []
    for member in members:
        cut = round(own_s / member.plant.step_s)
        run = member.runs[0]
        guest = welcome(ridge, network, usual, member.plant, [run[:cut]])
        seen = own_views([run], guest.scaling)[0]
        at = np.arange(max(cut - WARM_UP_TICKS, 0), len(seen), 10)
        left = recorded(seen, at, member.plant.step_s)[1] - guest.change(seen, at)
        found.append(np.abs(left) / (guest.half_width if by_band else guest.ridge.scale))
    return found


def _quantiles(errors: Sequence[Floats], level: float, unknown: float) -> Floats:
    """A quantile [H] of all errors at each horizon; of a horizon that no run is long enough for, that before it."""
    made = np.full(len(HORIZONS), unknown)
    for row in range(len(HORIZONS)):
        values = np.concatenate([e[:, row].ravel() for e in errors])
        values = values[np.isfinite(values)]
        made[row] = np.quantile(values, level) if len(values) else made[max(row - 1, 0)]
    return np.asarray(np.maximum(made, 1e-6))
