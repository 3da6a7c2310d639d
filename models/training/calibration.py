"""What surrounds frozen networks: bands from later normal runs, the scale of the latent energies, errors and paths.

Shape letters: N moments, T ticks, H horizons, S tags, L latent.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.actions import HORIZONS
from models.linear.past import held_tags
from models.linear.rhythm import AHEAD
from models.networks.clips import Clips, Pool
from models.networks.latent_energies import Ellipsoids
from models.scaling import Floats
from models.ticks import Ticks
from models.training.validation import BATCH, spread
from models.world_model import WorldModel

ENERGY_WARM_UP_TICKS = 120
CALIBRATION_CLIPS = 1500


def calibrate(world: WorldModel, runs: Sequence[Ticks], clips: int = CALIBRATION_CLIPS) -> WorldModel:
    """The model with split-conformal bands from later normal runs. Source: Lei et al. 2018.

    A horizon that no run is long enough for keeps the band it had.
    """
    seen = errors(world, runs, clips)
    width = world.bands().copy()
    for row in range(len(HORIZONS)):
        for tag in range(width.shape[1]):
            known = seen[:, row, tag][seen[:, row, tag].isfinite()]
            if len(known) >= 20:
                level = min(1.0, np.ceil((len(known) + 1) * world.core.coverage) / len(known))
                width[row, tag] = float(torch.quantile(known, level))
    return world.with_bands(width)


def errors(world: WorldModel, runs: Sequence[Ticks], clips: int = CALIBRATION_CLIPS) -> Tensor:
    """Absolute errors [N, H, S] of the forecast under the recorded actions, engineering units; NaN: not known."""
    pool = Pool(runs, world.core, world.plant)
    anchors = spread(pool, world.networks.config.window_ticks, clips)
    scaled = torch.cat([_errors(world, pool, part) for part in torch.split(anchors, BATCH)])
    return scaled * torch.from_numpy(world.core.scaling.tags.scale)


@torch.no_grad()
def paths(world: WorldModel, run: Ticks, rows: NDArray[np.int64], ticks: int) -> Floats:
    """Every tick ahead [N, ticks, S], engineering units, from each of ``rows`` [N] of a run under its actions.

    Between the horizons what is expected beyond the rhythm of the tags goes over evenly on a scale of octaves. A
    row must have a whole window of the networks before it.
    """
    pool = Pool([run], world.core, world.plant)
    changes = [_change(world, pool, part)[0] for part in torch.split(torch.from_numpy(rows), BATCH)]
    tags = pool.tags_NS.double().numpy()
    expected = _rhythm(world, run, rows, ticks)
    at = [k for k in HORIZONS if k <= AHEAD]
    beyond = (
        torch.cat(changes).double().cpu().numpy()[:, : len(at)]
        - _rhythm(world, run, rows, AHEAD)[:, [k - 1 for k in at]]
    )
    place = np.interp(np.log2(np.arange(1, ticks + 1)), np.log2(at), np.arange(len(at)))
    low = np.minimum(place.astype(int), len(at) - 2)
    share = (place - low)[None, :, None]
    change = expected + (1.0 - share) * beyond[:, low] + share * beyond[:, low + 1]
    return world.core.scaling.tags.engineering(tags[rows][:, None] + change)


def _rhythm(world: WorldModel, run: Ticks, rows: NDArray[np.int64], ticks: int) -> Floats:
    """Scaled change [N, ticks, S] that the rhythm of the tags lets expect; zero where there is none."""
    tags = held_tags(run, world.core.scaling)
    if world.core.rhythm is None:
        return np.zeros((len(rows), ticks, tags.shape[1]))
    nothing, columns = tags[:0], range(ticks)
    parts = [world.core.rhythm.ahead(tags[r : r + 1], tags[:r], columns) for r in rows]
    return np.concatenate(parts) if parts else nothing[:, None].repeat(ticks, 1)


@torch.no_grad()
def _change(world: WorldModel, pool: Pool, anchors: Tensor) -> tuple[Tensor, Clips]:
    """Scaled change [N, H, S] of the gated forecast, and the clips it starts from."""
    clips = pool.clips(anchors, world.networks.config.window_ticks).to(world.device)
    made = world.networks.predict(clips)
    return made.linear_BTHS[:, -1] + world.networks.readout(made.residual_BTHS[:, -1]), clips


@torch.no_grad()
def _errors(world: WorldModel, pool: Pool, anchors: Tensor) -> Tensor:
    """Absolute scaled errors [N, H, S] of the gated forecast; NaN where the truth is not known."""
    change, clips = _change(world, pool, anchors)
    error = (clips.change_BTHS[:, -1] - change).abs().double()
    return torch.where(clips.known_BTHS[:, -1], error, torch.nan).cpu()


def fit_energies(world: WorldModel, runs: Sequence[Ticks]) -> WorldModel:
    """The model with energies scaled to normal runs, best ones the networks were not trained on."""
    vectors, hidden = [], []
    for run in runs:
        made, told = world.raw_energies(run)
        start = min(ENERGY_WARM_UP_TICKS, len(made) // 2)
        vectors.append(made[start:])
        hidden.append(told[start:])
    return world.with_energies(Ellipsoids.fit(torch.cat(vectors)), Ellipsoids.fit(torch.cat(hidden)))
