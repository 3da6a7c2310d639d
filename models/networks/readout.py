"""What of the networks reaches the forecast: their residual, scaled and gated per tag and horizon.

A gate is a shrink factor from 0 to 1, fitted on runs the networks have not seen; it is 0 where they do not beat the
linear core by a margin. Until gates are fitted the forecast is the linear core's.
Shape letters: N anchors, H horizons, S tags, F folds.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

FOLDS = 2
MARGIN = 0.005  # share of the linear core's squared error that a gate must take away
FEWEST = 16


class Readout(nn.Module):
    """Residual change of the tags [scaled units] from the heads' output."""

    scale_HS: Tensor
    gate_HS: Tensor

    def __init__(self, horizons: int, tags: int) -> None:
        super().__init__()
        self.register_buffer("scale_HS", torch.ones(horizons, tags))
        self.register_buffer("gate_HS", torch.zeros(horizons, tags))

    def forward(self, residual_NHS: Tensor) -> Tensor:
        """What is added to the linear core's change."""
        return residual_NHS * (self.scale_HS * self.gate_HS)

    def ungated(self, residual_NHS: Tensor) -> Tensor:
        """What would be added if every gate were open: training and fitting of gates."""
        return residual_NHS * self.scale_HS


@dataclass(slots=True)
class Errors:
    """Sums over held-out anchors, per fold, horizon and tag [F, H, S], in scaled units squared.

    ``rr`` of the linear core's error, ``rn`` of it times the networks' change, ``nn`` of that change, ``pp`` of the
    error of persistence, ``count`` of anchors.
    """

    rr: NDArray[np.float64]
    rn: NDArray[np.float64]
    nn: NDArray[np.float64]
    pp: NDArray[np.float64]
    count: NDArray[np.float64]

    @classmethod
    def zero(cls, horizons: int, tags: int) -> Errors:
        """Nothing seen yet."""
        return cls(*(np.zeros((FOLDS, horizons, tags)) for _ in range(5)))

    def add(self, fold_N: Tensor, linear_NHS: Tensor, net_NHS: Tensor, true_NHS: Tensor, valid_NHS: Tensor) -> None:
        """Anchors with the linear core's change, what the networks would add, and the true change, all scaled."""
        error = (true_NHS - linear_NHS).double() * valid_NHS
        net = net_NHS.double() * valid_NHS
        change = true_NHS.double() * valid_NHS
        terms = (error * error, error * net, net * net, change * change, valid_NHS.double())
        for total, term in zip((self.rr, self.rn, self.nn, self.pp, self.count), terms, strict=True):
            for fold in range(FOLDS):
                total[fold] += term[fold_N == fold].sum(0).cpu().numpy()

    def squared(self, gate_HS: NDArray[np.float64]) -> NDArray[np.float64]:
        """Sum of squared errors [F, H, S] with these gates."""
        return self.rr - 2 * gate_HS * self.rn + gate_HS**2 * self.nn

    def gates(self, margin: float = MARGIN) -> NDArray[np.float64]:
        """The best shrink factor of each tag and horizon; 0 where it does not pay.

        It must take ``margin`` of the squared error away over all, and something in either fold. With everything held
        out in one fold that fold alone decides.
        """
        best = np.clip(self.rn.sum(0) / np.maximum(self.nn.sum(0), 1e-12), 0.0, 1.0)
        linear, gated = self.rr.sum(0), self.squared(best).sum(0)
        pays = (gated < (1.0 - margin) * linear) & (self.count.sum(0) >= FEWEST)
        either = (self.squared(best) < self.rr) | (self.count == 0)
        return np.where(pays & either.all(0), best, 0.0)

    def skill(self, gate_HS: NDArray[np.float64]) -> NDArray[np.float64]:
        """Skill [H, S] over persistence; NaN where no anchor is."""
        return _skill(self.squared(gate_HS).sum(0), self.pp.sum(0), self.count.sum(0))

    def skill_over_linear(self, gate_HS: NDArray[np.float64]) -> NDArray[np.float64]:
        """Skill [H, S] over the linear core; NaN where no anchor is."""
        return _skill(self.squared(gate_HS).sum(0), self.rr.sum(0), self.count.sum(0))


def _skill(
    error: NDArray[np.float64], reference: NDArray[np.float64], count: NDArray[np.float64]
) -> NDArray[np.float64]:
    return np.where(count > 0, 1.0 - error / np.maximum(reference, 1e-12), np.nan)
