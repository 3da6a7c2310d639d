"""What simpler models forecast at the same moments: the floors that a skill is read against.

Persistence is the reference. ``arx``, ``cva`` and ``pca`` are fitted on the training runs alone: the ARX readout of the
linear core, a ridge from its canonical variates, and a ridge from principal components of the present and the last two
ticks, which knows no actions. Shape letters: N moments, H horizons, S tags, X inputs.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from models.actions import HORIZONS
from models.linear.regression import Moments, ridge
from models.networks.clips import Pool, Starts
from models.plant_model import PlantModel
from models.scaling import Floats
from models.ticks import Ticks
from models.training.validation import arx_errors, spread

MOMENTS, JUDGED = 4096, 1024
PENALTY = 1e-3
LAGS = (0, 1, 2)
COMPONENTS, SHARE = 24, 0.95
CLIP = 8.0


def floor_skills(model: PlantModel, training: Sequence[Ticks], later: Sequence[Ticks]) -> dict[str, Floats]:
    """Skill [H, S] over persistence on later runs by floor; NaN where nothing is known."""
    known, judged = (Pool([r.without_media() for r in runs], model.core, model.plant) for runs in (training, later))
    ticks = model.networks.config.window_ticks
    anchors, moments = spread(judged, ticks, JUDGED), spread(known, ticks, MOMENTS)
    starts, truth = known.starts(moments), judged.starts(anchors)
    components = _components(_lagged(known, moments))
    inputs = {
        "cva": (known.linear_NR[moments], judged.linear_NR[anchors], True),
        "pca": (_lagged(known, moments) @ components, _lagged(judged, anchors) @ components, False),
    }
    errors = {"arx": arx_errors(model.core, judged, anchors)}
    for name, (fit, use, moved) in inputs.items():
        errors[name] = _errors((fit, starts), (use, truth), actions=moved)
    still = (truth.change_NHS * truth.known_NHS).double().square().sum(0).numpy()
    with np.errstate(invalid="ignore", divide="ignore"):
        return {name: np.where(still > 0, 1.0 - error / still, np.nan) for name, error in errors.items()}


def _errors(fit: tuple[Tensor, Starts], use: tuple[Tensor, Starts], *, actions: bool) -> Floats:
    """Squared errors [H, S], summed, of one ridge for each horizon."""
    made = []
    for row in range(len(HORIZONS)):
        x, y = (_design(basis, starts, row, actions=actions) for basis, starts in (fit, use))
        kept = fit[1].known_NHS[:, row].any(1).numpy()
        target = fit[1].change_NHS[:, row].double().numpy()[kept]
        weights = ridge(Moments.of(x[kept], target), (PENALTY,))[0]
        left = use[1].change_NHS[:, row].numpy() - y @ weights[:-1] - weights[-1]
        made.append(((left * use[1].known_NHS[:, row].numpy()) ** 2).sum(0))
    return np.stack(made)


def _design(basis_NX: Tensor, starts: Starts, row: int, *, actions: bool) -> Floats:
    parts = [basis_NX, starts.summary_NHQ[:, row]] if actions else [basis_NX]
    return np.asarray(torch.cat([part.double() for part in parts], 1).numpy())


def _lagged(pool: Pool, moments: Tensor) -> Tensor:
    """Scaled tags of each moment and the ticks before it, side by side."""
    return torch.cat([pool.tags_NS[moments - lag] for lag in LAGS], 1).clamp(-CLIP, CLIP)


def _components(rows: Tensor) -> Tensor:
    """Leading principal directions of the rows."""
    _, strength, directions = torch.linalg.svd(rows - rows.mean(0), full_matrices=False)
    share = torch.cumsum(strength.square(), 0) / strength.square().sum().clamp_min(1e-12)
    return torch.as_tensor(directions[: min(COMPONENTS, int((share < SHARE).sum()) + 1)].T)
