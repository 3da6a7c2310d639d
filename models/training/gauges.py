"""Whether the latent is healthy and whether the networks earn their place: numbers, and reasons not to publish.

Shape letters: N ticks, D latent, H horizons, S tags, A actions, R runs, X hidden states.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from fusion.plant import Plant
from models.actions import HORIZONS
from models.networks.regularizer import directions, epps_pulley
from models.scaling import Floats

DIRECTIONS = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class Gauges:
    """One validation.

    ``epps_pulley`` on ``ticks`` independent ticks of several runs: 1 says Gaussian, a collapsed batch 0.4 per tick.
    ``rank_me`` and ``participation`` count effective dimensions of ``latent``. ``between_runs`` is the share of the
    latent's variance that lies between runs. ``latent_skill`` [H] is over persistence of the latent, ``action_gap``
    [H] the error with other clips' actions over the error with the true ones, minus one. ``skill`` [H, S] is over
    persistence and ``skill_over_linear`` [H, S] over the linear core, both gated; NaN where nothing is known.
    ``gains`` [S, A] are of the whole model after the longest horizon.
    """

    step: int
    ticks: int
    latent: int
    epps_pulley: float
    std_min: float
    std_mean: float
    rank_me: float
    participation: float
    between_runs: float
    latent_skill: tuple[float, ...]
    action_gap: tuple[float, ...]
    skill: Floats
    skill_over_linear: Floats
    gates_open: float
    score: float
    gains: Floats | None = None

    @property
    def numbers(self) -> dict[str, float]:
        """What can be followed as a curve, by name."""
        names = (
            "score",
            "epps_pulley",
            "std_min",
            "std_mean",
            "rank_me",
            "participation",
            "between_runs",
            "gates_open",
        )
        means = {"skill": _finite_mean(self.skill), "skill_over_linear": _finite_mean(self.skill_over_linear)}
        return {name: float(getattr(self, name)) for name in names} | means


@dataclass(kw_only=True, slots=True)
class GaugeLimits:
    """What a latent must satisfy to be published."""

    collapsed_share: float = 0.1
    std_min: float = 0.05
    participation: float = 2.0
    between_runs: float = 0.9
    action_horizon: int = 32
    worse_than_linear: float = 0.02


def passed(gauges: Gauges, plant: Plant, limits: GaugeLimits | None = None) -> list[str]:
    """Reasons why these networks must not be published; empty where there is none."""
    limits = limits or GaugeLimits()
    row = HORIZONS.index(limits.action_horizon)
    foretold = bool(gauges.action_gap and plant.actions and plant.tags)
    worst = _finite_mean(gauges.skill_over_linear)
    checks = [
        (gauges.between_runs < limits.between_runs, f"memorises runs: {gauges.between_runs:.0%} of variance between"),
        (not foretold or gauges.action_gap[row] > 0.0, "actions are not used: shuffling them costs nothing"),
        (worst > -limits.worse_than_linear, f"worse than the linear core by {-worst:.1%}"),
    ]
    reasons = [reason for fine, reason in checks if not fine]
    return collapsed(gauges, limits) + reasons + wrong_gains(gauges.gains, plant)


def collapsed(gauges: Gauges, limits: GaugeLimits | None = None) -> list[str]:
    """Reasons to say that the latent has collapsed, whatever the forecast; empty where there is none."""
    limits = limits or GaugeLimits()
    checks = [
        (math.isfinite(gauges.score), "validation error is not finite"),
        (
            gauges.epps_pulley < limits.collapsed_share * max(gauges.ticks, 1),
            f"collapsed: Epps-Pulley statistic {gauges.epps_pulley:.1f} on {gauges.ticks} ticks, 1 is Gaussian",
        ),
        (gauges.std_min > limits.std_min, f"dead dimension: smallest standard deviation {gauges.std_min:.3f}"),
        (gauges.participation > limits.participation, f"rank: participation ratio {gauges.participation:.1f}"),
    ]
    return [reason for fine, reason in checks if not fine]


def wrong_gains(gains: Floats | None, plant: Plant) -> list[str]:
    """Declared gains whose sign the model has wrong."""
    if gains is None:
        return []
    tags = {s.name: i for i, s in enumerate(plant.tags)}
    actions = {s.name: i for i, s in enumerate(plant.actions)}
    known = [g for g in plant.gains if g.controlled in tags and g.manipulated in actions and g.sign]
    made = [(g, float(gains[tags[g.controlled], actions[g.manipulated]])) for g in known]
    return [
        f"gain {g.manipulated}->{g.controlled} is {value:+.3g}, declared {'positive' if g.sign > 0 else 'negative'}"
        for g, value in made
        if value * g.sign <= 0
    ]


def spectrum(z_ND: Tensor) -> tuple[float, float]:
    """RankMe and participation ratio of centred latents. Source: Garrido et al. 2023; Gao & Ganguli 2017."""
    centred = (z_ND - z_ND.mean(0)).double()
    singular = torch.linalg.svdvals(centred)
    share = singular / singular.sum().clamp_min(1e-12) + 1e-12
    variance = singular.square()
    rank_me = float(torch.exp(-(share * share.log()).sum()))
    return rank_me, float(variance.sum().square() / variance.square().sum().clamp_min(1e-24))


def between_runs(z_ND: Tensor, run_N: Tensor) -> float:
    """Share of the variance that lies between runs."""
    total = (z_ND - z_ND.mean(0)).square().sum()
    within = torch.zeros(())
    for run in torch.unique(run_N):
        part = z_ND[run_N == run]
        within = within + (part - part.mean(0)).square().sum().cpu()
    return float(1.0 - within / total.cpu().clamp_min(1e-12))


def gaussian(z_ND: Tensor) -> float:
    """The Epps-Pulley statistic of standardised latents on fixed directions."""
    drawn = directions(z_ND.shape[1], DIRECTIONS, torch.Generator().manual_seed(1))
    return float(epps_pulley(z_ND, drawn.to(z_ND.device)))


def _finite_mean(values: Floats) -> float:
    known = [v for v in values.flatten().tolist() if math.isfinite(v)]
    return sum(known) / len(known) if known else 0.0
