"""A plant that the fleet model serves: what it says there, bent as far as the plant's own minutes warrant.

Own minutes tell four things, each no more than they can: what the plant is like (its embedding), how much of the
fleet's forecast holds here (a gate of each tag and horizon), what is left that a ridge of its own can tell, and how
wide the bands are. Shape letters: T ticks, R rows, S tags, H horizons, P inputs, Q summaries per action.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.plant import Plant
from models.actions import HORIZONS, SUMMARIES
from models.fleet.network import SEEN_ROWS, FleetNetwork
from models.fleet.ridge import FleetRidge, PlantRidge, recorded
from models.fleet.rows import plant_rows, stacked
from models.fleet.view import View, range_scaling, view
from models.linear.regression import Moments, ridge
from models.scaling import Floats, Scaling
from models.ticks import Ticks

Rows = NDArray[np.int64]

WARM_UP_TICKS = 60  # until averages rest on a past
CONTEXT_ROWS = 256
ROWS_AT_ONCE = 512
MOST_ROWS = 4000  # of the own ticks that are used; of more, every other
FEWEST_TICKS = 240
TRUST = 4.0  # independent rows that the fleet's word weighs as much as, when a gate is fitted
PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03)  # of the plant's own ridge on what is left, relative to each variance
HELD_OUT = 1.0 / 3.0  # of the own rows, the last, decide on the own ridge
BETTER = 0.1  # by which share it must lower the held-out error
LEAST_OWN_TICKS = 900  # of which a ridge may be fitted before it is tried on the rest
BAND_HORIZONS = 6  # the first so many tell how wide the bands are here: 32 ticks at most
WORTH_HORIZONS = slice(3, 7)  # 8 to 64 ticks
LEAST_WORTH = 0.2  # below which a plant is of another kind than those of the fleet
NARROWEST, WIDEST = 0.25, 10.0  # times the fleet's own width


@dataclass(frozen=True, slots=True, kw_only=True)
class Usual:
    """Errors on plants that the fleet model was not trained on, at each horizon [H].

    ``middle`` is their median in units of the ridge's usual error, ``wide`` how many times as wide as a plant's own
    minutes say a band must be.
    """

    middle: Floats
    wide: Floats

    @classmethod
    def unknown(cls) -> Usual:
        """Before it has been measured."""
        return cls(middle=np.ones(len(HORIZONS)), wide=np.ones(len(HORIZONS)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Guest:
    """A plant with what is known of it; ``gates`` [H, S] and ``half_width`` [H, S], scaled.

    ``own`` is its ridge on what the gated fleet leaves, None where that is no use; it was fitted on ``own_minutes``.
    ``worth`` is the skill over persistence that the fleet's word had in these, of the median tag; NaN of too few.
    ``model_id`` says whose word it is.
    """

    plant: Plant
    scaling: Scaling
    ridge: PlantRidge
    network: FleetNetwork
    embedding: Tensor
    gates: Floats
    own: PlantRidge | None
    half_width: Floats
    own_minutes: float
    worth: float
    model_id: str = ""

    @property
    def horizon_s(self) -> tuple[float, ...]:
        """Times ahead of the forecasts [s]."""
        return tuple(k * self.plant.step_s for k in HORIZONS)

    @property
    def fits(self) -> bool:
        """Whether the own minutes bear the fleet out; where they are too few to say, it is believed."""
        return not self.worth < LEAST_WORTH

    @torch.no_grad()
    def fleet_change(self, seen: View, at: Rows, summary: Floats | None = None) -> Floats:
        """Scaled change [R, H, S] as the fleet has it; of recorded actions, or ``summary`` [R, H, A * Q] of others."""
        made = []
        for part in np.array_split(np.arange(len(at)), max(1, -(-len(at) // ROWS_AT_ONCE))):
            found = plant_rows(self.plant, seen, self.ridge, at[part], None if summary is None else summary[part])
            rows, described = stacked([found], self.embedding.device)
            residual = self.network(rows, described, self.embedding)[0] + rows.told_GRNH[0]
            made.append(np.moveaxis(residual.double().cpu().numpy(), 1, 2) * self.ridge.scale)
        return np.concatenate(made)

    def change(self, seen: View, at: Rows, summary: Floats | None = None) -> Floats:
        """Scaled change [R, H, S] as it is foretold here; arguments as of ``fleet_change``."""
        told = self.gates * self.fleet_change(seen, at, summary)
        if self.own is None:
            return told
        planned = recorded(seen, at, self.plant.step_s)[0] if summary is None else summary
        return told + self.own.change(seen.at(at), planned)

    def ahead(self, seen: View) -> Floats:
        """Expected tags [H, S] in engineering units from the last tick of a view on, if nothing is moved."""
        still = np.zeros((1, len(HORIZONS), SUMMARIES * len(self.plant.actions)))
        made = self.change(seen, np.array([len(seen) - 1]), still)[0]
        return self.scaling.tags.engineering(seen.tags[-1] + made)

    def band(self) -> Floats:
        """Half width [H, S] of the band in engineering units."""
        return self.half_width * self.scaling.tags.scale


def welcome(
    fleet: FleetRidge, network: FleetNetwork, usual: Usual, plant: Plant, runs: Sequence[Ticks], *, bend: bool = True
) -> Guest:
    """A plant as it is known after its own ``runs``; without ``bend``, or of too few ticks, the fleet's word stands."""
    scaling = range_scaling(fleet.kinds, plant, runs)
    views = own_views(runs, scaling)
    fitted = fleet.of_plant(plant, views)
    guest = Guest(
        plant=plant,
        scaling=scaling,
        ridge=fitted,
        network=network,
        embedding=torch.zeros(1, network.size.embedding, device=next(network.parameters()).device),
        gates=np.ones(fitted.scale.shape),
        own=None,
        half_width=usual.wide[:, None] * fitted.scale,
        own_minutes=sum(map(len, runs)) * plant.step_s / 60.0,
        worth=np.nan,
    )
    if sum(map(len, views)) < FEWEST_TICKS:
        return guest
    guest = replace(guest, embedding=_embedding(guest, views))
    return _bent(guest, views, usual) if bend else guest


def own_views(runs: Sequence[Ticks], scaling: Scaling) -> list[View]:
    """Views of runs from where their averages rest on a past."""
    return [view(run, scaling)[0][WARM_UP_TICKS:] for run in runs if len(run) > WARM_UP_TICKS + 1]


@torch.no_grad()
def _embedding(guest: Guest, views: Sequence[View]) -> Tensor:
    """What the plant is like, from rows all over its own minutes."""
    longest, made = HORIZONS[max(SEEN_ROWS)], []
    share = sum(map(len, views)) / CONTEXT_ROWS
    for seen in views:
        at = np.unique(np.arange(0.0, len(seen) - longest, max(share, 1.0)).astype(np.int64))
        if len(at):
            rows, described = stacked([plant_rows(guest.plant, seen, guest.ridge, at)], guest.embedding.device)
            made.append((len(at), guest.network.embedding(rows, described)))
    if not made:
        return guest.embedding
    total = sum(count for count, _ in made)
    return torch.stack([count / total * found for count, found in made]).sum(0)


def _bent(guest: Guest, views: Sequence[View], usual: Usual) -> Guest:
    """Gates, a ridge of its own on what is left, and bands."""
    every = max(1, -(-sum(map(len, views)) // MOST_ROWS))
    at = [np.arange(0, len(seen), every) for seen in views]
    told = np.concatenate([guest.fleet_change(seen, rows) for seen, rows in zip(views, at, strict=True)])
    own = OwnRows.of(views, at, guest.plant.step_s)
    gates = _gates(told, own.came, guest.ridge.scale, every)
    weights, held = own_ridge(own, own.came - gates * told, every)
    ratio = _ratio(held, guest.ridge.scale, usual)
    return replace(
        guest,
        gates=gates,
        own=replace(guest.ridge, weights=weights) if weights.any() else None,
        half_width=usual.wide[:, None] * guest.ridge.scale * ratio,
        worth=_worth(told, own.came),
    )


@dataclass(frozen=True, slots=True)
class OwnRows:
    """Rows of a plant's own minutes: past features [R, P], action summaries [R, H, A * Q], what came [R, H, S]."""

    past: Floats
    summary: Floats
    came: Floats

    @classmethod
    def of(cls, views: Sequence[View], at: Sequence[Rows], step_s: float) -> OwnRows:
        """Of some ticks of each view."""
        told = [recorded(seen, rows, step_s) for seen, rows in zip(views, at, strict=True)]
        past = np.concatenate([seen.past[rows] for seen, rows in zip(views, at, strict=True)])
        return cls(past, np.concatenate([s for s, _ in told]), np.concatenate([c for _, c in told]))


def _worth(told: Floats, came: Floats) -> float:
    """Skill over persistence of what was told [R, H, S], of the median tag, where the own minutes can say."""
    there = np.isfinite(came[:, WORTH_HORIZONS])
    still = np.where(there, came[:, WORTH_HORIZONS] ** 2, 0.0).sum(0)
    left = np.where(there, (came - told)[:, WORTH_HORIZONS] ** 2, 0.0).sum(0)
    return float(np.median(1.0 - (left / (still + 1e-12)).mean(0)))


def _gates(told: Floats, came: Floats, scale: Floats, every: int) -> Floats:
    """How much of the fleet's word [H, S] holds here: least squares, drawn to one by what the fleet's word weighs."""
    known = np.isfinite(came)
    rows = np.maximum(known.sum(0), 1)
    free = np.maximum(rows * every / np.array(HORIZONS)[:, None], 1.0)
    agree = np.where(known, told * came, 0.0).sum(0) / rows
    power = np.where(known, told**2, 0.0).sum(0) / rows
    prior = TRUST / free * np.maximum(power, scale**2 * 1e-3)
    return np.asarray(((agree + prior) / (power + prior)).clip(0.0, 1.0))


def own_ridge(own: OwnRows, left: Floats, every: int = 1, least: int = LEAST_OWN_TICKS) -> tuple[Floats, Floats]:
    """A ridge [H, P, S] of the plant's own on what is ``left`` [R, H, S] to tell; zero where it is no use.

    Returned with it is what it leaves [R', H, S] of the last rows, fitted without them. One row is of ``every`` ticks,
    of which there must be at ``least`` so many.
    """
    made, held_out = [], []
    first = len(left) - int(HELD_OUT * len(left))
    for row, horizon in enumerate(HORIZONS):
        x = np.concatenate([own.past, own.summary[:, row]], 1)
        known = np.isfinite(left[:, row, 0])
        earlier = known & (np.arange(len(left)) < first - horizon // every)
        earlier &= earlier.sum() * every >= least
        weights, after = _own_at(x, np.nan_to_num(left[:, row]), known, earlier, first)
        made.append(weights)
        held_out.append(np.where(known[first:, None], after, np.nan))
    return np.stack(made), np.stack(held_out, 1)


def _own_at(
    x: Floats, left: Floats, known: NDArray[np.bool_], earlier: NDArray[np.bool_], first: int
) -> tuple[Floats, Floats]:
    """Weights [P, S] at one horizon, and what those of the earlier rows leave [R', S] of the last."""
    x = np.concatenate([x, np.ones((len(x), 1))], 1)
    nothing = np.zeros((x.shape[1], left.shape[1]))
    last = known & (np.arange(len(left)) >= first)
    if not earlier.any() or not last.any():
        return nothing, left[first:]
    tried = [nothing, *ridge(Moments.of(x[earlier, :-1], left[earlier]), PENALTIES)]
    scale = (left[last] ** 2).mean(0) + 1e-12
    errors = [float(np.mean(((left[last] - x[last] @ w) ** 2).mean(0) / scale)) for w in tried]
    best = int(np.argmin(errors))
    if errors[best] > 1.0 - BETTER:
        return nothing, left[first:]
    final = ridge(Moments.of(x[known, :-1], left[known]), (PENALTIES[best - 1],))[0]
    return final, left[first:] - x[first:] @ tried[best]


def _ratio(held: Floats, scale: Floats, usual: Usual) -> Floats:
    """How wide errors [R, H, S] are here, of each tag [S], against the fleet's: drawn halfway to the middle of all."""
    near = np.abs(held[:, :BAND_HORIZONS]) / (scale * usual.middle[:, None])[:BAND_HORIZONS]
    own = np.nanmedian(near.reshape(-1, near.shape[-1]), axis=0)
    return np.asarray(np.sqrt(own * np.median(own)).clip(NARROWEST, WIDEST))
