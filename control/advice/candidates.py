"""Candidates of a search for moves: which of them is better, and the noise that samples are made of.

Feasible first, then cheap. Shape letters: N candidates, J knots, A manipulated signals.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FEASIBLE = 1e-6
NEARLY = 1.1


@dataclass(slots=True)
class Candidates:
    """Candidates with their cost and violation [N]; an unusable one has infinite violation."""

    knots: Tensor
    cost: Tensor
    violation: Tensor

    def order(self) -> Tensor:
        """Indices from best to worst: violation decides, cost among those that keep the limits.

        Where none keeps them, cost decides among those whose violation is nearly the smallest.
        """
        by_cost = torch.argsort(self.cost, stable=True)
        good = self.violation <= max(NEARLY * float(self.violation.min()), FEASIBLE)
        excess = torch.where(good, torch.zeros_like(self.violation), self.violation)
        return by_cost[torch.argsort(excess[by_cost], stable=True)]

    def take(self, index: Tensor) -> Candidates:
        """Those at an index."""
        return Candidates(self.knots[index], self.cost[index], self.violation[index])

    def join(self, other: Candidates) -> Candidates:
        """Both in one."""
        pairs = ((self.knots, other.knots), (self.cost, other.cost), (self.violation, other.violation))
        return Candidates(*(torch.cat(pair) for pair in pairs))


def better(old: Candidates, new: Candidates) -> Candidates:
    """The better of each pair."""
    kept = new.violation <= old.violation.clamp(min=FEASIBLE)
    better = torch.where(kept & (old.violation <= FEASIBLE), new.cost < old.cost, new.violation < old.violation)
    pairs = ((new.cost, old.cost), (new.violation, old.violation))
    return Candidates(
        torch.where(better[:, None, None], new.knots, old.knots), *(torch.where(better, n, o) for n, o in pairs)
    )


def coloured(shape: tuple[int, int, int], beta: float, random: torch.Generator) -> Tensor:
    """Coloured noise [N, J, A] of unit variance with power spectrum 1 / f^beta along the knots."""
    N, J, A = shape
    white = torch.randn(N, A, J, generator=random)
    if J == 1:
        return white.transpose(1, 2)
    frequency = torch.fft.rfftfreq(J).clamp(min=1 / J)
    made: Tensor = torch.fft.irfft(torch.fft.rfft(white) * frequency.pow(-beta / 2), n=J)
    scaled: Tensor = made / _colour_power(frequency, beta, J)
    return scaled.transpose(1, 2)


def _colour_power(frequency: Tensor, beta: float, count: int) -> float:
    """Standard deviation of coloured noise made of white noise of unit variance."""
    power = frequency.pow(-beta)
    twice = torch.full_like(power, 2.0)
    twice[0] = 1.0
    if count % 2 == 0:
        twice[-1] = 1.0
    return float(((power * twice).sum() / count).sqrt())
