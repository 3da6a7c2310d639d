"""Each place of a picture as a frozen image network sees it, against what that place looked like while normal.

The network has seen millions of pictures that are not of this plant, and is not trained here: of its features the
leading principal components are kept, and each place has a mean and a spread of them. Nothing is told from anything
else, so that a fault that stands stays seen. Source: Defard et al. 2021, PaDiM, arXiv 2011.08785, with principal in
place of random components. Shape letters: T ticks, N places, F channels of the network, K components, C = N K.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Plant
from models.features.cells import SIDES
from models.monitors.piece import Piece
from models.monitors.places import DULL, Normal, Places, PlacesCarry, energies_of, in_spreads
from models.monitors.residual import WARM_UP_TICKS, Residual
from models.scaling import Bools, Floats

COMPONENTS = 16
SHARE = 0.1  # of a run, at its start, which gives the components: the rest says what is normal of them
FEWEST_TICKS = 1200  # of a camera, below which a spread of sixteen components is a guess
MOST_TICKS = 10_000  # beyond which more of the same costs memory: thousands of columns, several times
FAMILY = "perception"


@dataclass(frozen=True, slots=True, kw_only=True)
class Sight(Normal):
    """One camera: ``components`` [F, K] of the features, ``centre`` [C] and ``scale`` [C] of these by place."""

    components: Floats
    centre: Floats
    scale: Floats

    def residual(self, features: NDArray[np.float16]) -> Floats:
        """How many normal spreads [T, C] each component of each place is off, of features [T, N, F]; clipped."""
        return in_spreads(projected(features, self.components), self.centre, self.scale)


@dataclass(frozen=True, slots=True, kw_only=True)
class Perception(Places):
    """The fitted sight of each camera, by the backbone of a name and with weights of this ``sha256``."""

    backbone: str
    sha256: str
    fields: Mapping[str, Sight]

    def begin(self) -> PlacesCarry:
        """The carry at the start of a stream."""
        return PlacesCarry()

    def step(self, piece: Piece, carry: PlacesCarry) -> list[Residual]:
        """The largest place of each camera at each speed; updates ``carry``."""
        return self.judged({camera: self._residual(camera, piece) for camera in self.media}, len(piece), carry)

    def words(self, medium: str, column: int) -> str:
        """The words on the wire for a component of a place, which has no name but that of all."""
        row, across = divmod(column // self.fields[medium].components.shape[1], SIDES)
        return f"cell row {row} column {across} look"

    def _residual(self, camera: str, piece: Piece) -> tuple[Floats, Bools]:
        """Residuals [T, C], zero where the camera takes no part or nothing was perceived, and where they are known."""
        sight, seen = self.fields[camera], piece.ticks.perceived.get(f"{camera}@{self.backbone}#{self.sha256}")
        made, known = np.zeros((len(piece), len(sight.centre))), np.zeros(len(piece), bool)
        if seen is not None:
            known = piece.blocks.present.get(camera, known)
            made[known] = sight.residual(seen[known])
        return made, known


def projected(features: NDArray[np.float16], components: Floats) -> Floats:
    """Components [T, C] of features [T, N, F]."""
    made = features.astype(np.float32) @ components.astype(np.float32)
    return np.asarray(made.reshape(len(made), made.shape[1] * made.shape[2]), np.float64)


def fit_perception(runs: Sequence[Piece], media: Sequence[str], plant: Plant) -> Perception | None:
    """From normal runs in which one backbone saw the pictures; None where none did for long enough."""
    keys = {m: key for m in media for run in runs for key in run.ticks.perceived if key.startswith(f"{m}@")}
    sights = {m: sight for m in keys if (sight := _fit_sight(runs, m, keys[m])) is not None}
    if not sights:
        return None
    camera = next(iter(sights))
    name, _, sha256 = keys[camera].removeprefix(f"{camera}@").rpartition("#")
    energies = energies_of(dict.fromkeys(sights, FAMILY), plant)
    return Perception(energies=energies, plant=plant, fields=sights, backbone=name, sha256=sha256)


def _fit_sight(runs: Sequence[Piece], camera: str, key: str) -> Sight | None:
    there = [run for run in runs if key in run.ticks.perceived]
    share = MOST_TICKS / max(sum(len(run) for run in there), MOST_TICKS)
    first, later = [], []
    for run in there:
        rows = np.flatnonzero(run.blocks.present[camera][: round(share * len(run))])
        cut = max(WARM_UP_TICKS, round(SHARE * len(rows)))
        first.append(run.ticks.perceived[key][rows[:cut]])
        later.append(run.ticks.perceived[key][rows[cut:]])
    later = [part for part in later if len(part)]
    if sum(len(part) for part in later) < FEWEST_TICKS:
        return None
    components = principal(np.concatenate(first))
    told = [projected(part, components) for part in later]
    every = np.concatenate(told)
    spread = every.std(0)
    centre, scale = every.mean(0), np.where(spread > DULL, spread, np.inf)
    normal = Normal.of([in_spreads(part, centre, scale) for part in told], SIDES * SIDES)
    return Sight(
        components=components,
        centre=centre,
        scale=scale,
        limits=normal.limits,
        judges=normal.judges,
        loud=normal.loud,
    )


def principal(features: NDArray[np.float16]) -> Floats:
    """The leading principal components [F, K] of features [T, N, F], of all places alike."""
    flat = features.reshape(-1, features.shape[-1]).astype(float)
    return np.asarray(np.linalg.eigh(np.cov(flat, rowvar=False))[1][:, ::-1][:, :COMPONENTS])
