"""Signs of life: tags that rest, replay their past, read coarsely or became noisy; what features tell of dead media.

Shape letters: T ticks, S tags.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np

from fusion.plant import Modality, Plant
from fusion.records import PROCESS, Energy, Origin, Statistic
from models.features.stem import StemFacts
from models.monitors.noise import Noise, NoiseCarry
from models.monitors.novelty import Novelty, NoveltyCarry
from models.monitors.piece import Piece
from models.monitors.residual import Largest, Residual, alone, signals_of
from models.monitors.steadiness import Steadiness, SteadinessCarry
from models.scaling import Bools, Floats
from models.ticks import Ticks

AT_LIMIT = 1e-3  # of the span between the declared limits
BEYOND = 0.035  # of that span: how far beyond a limit a transmitter saturates (NAMUR NE 43: -1.25 % and 103.125 %)

OF_TAGS = REST, REPLAY, RESOLUTION, NOISE = "health", "replay", "resolution", "noise"


@dataclass(slots=True)
class HealthCarry:
    """How long each tag has rested, what it said before, and how it jerks."""

    novelty: NoveltyCarry
    noise: NoiseCarry
    steadiness: SteadinessCarry | None = None


@dataclass(frozen=True, slots=True)
class SignsOfLife:
    """Four energies for all tags, and one for each medium whose stem can tell a dead sensor."""

    energies: tuple[Energy, ...]
    plant: Plant
    stem: StemFacts
    steadiness: Steadiness
    novelty: Novelty
    noise: Noise

    @classmethod
    def fit(cls, runs: Sequence[Ticks], media: Collection[str], plant: Plant, stem: StemFacts) -> SignsOfLife:
        """From normal runs and the media that are watched."""
        told = [s for s in plant.media if s.name in media and len(stem.health(s.name))]
        records = [_energy(family, PROCESS, Modality.PROCESS) for family in OF_TAGS]
        records += [_energy(REST, s.name, s.modality) for s in told]
        return cls(tuple(records), plant, stem, Steadiness.fit(runs), Novelty.fit(runs), Noise.fit(runs))

    def begin(self) -> HealthCarry:
        """The carry at the start of a stream."""
        tags = len(self.plant.tags)
        return HealthCarry(NoveltyCarry.begin(tags), NoiseCarry.begin(tags))

    def step(self, piece: Piece, carry: HealthCarry) -> list[Residual]:
        """What tags do over its limit, and health features as they are; a dead sensor is one. Updates ``carry``."""
        families = {energy.family for energy in self.energies if energy.source == PROCESS}
        found: dict[str, Floats] = {}
        if REST in families:
            found[REST], carry.steadiness = self.steadiness.step(piece.ticks, carry.steadiness)
        if families & {REPLAY, RESOLUTION}:
            found[REPLAY], found[RESOLUTION] = self.novelty.step(piece.ticks, carry.novelty)
        if NOISE in families:
            found[NOISE], carry.noise = self.noise.step(piece.ticks, carry.noise)
        saturated = self._saturated(piece.ticks)
        charts = [
            self._of_tags(np.where(saturated & (e.family != NOISE), 0.0, found[e.family]))
            if e.source == PROCESS
            else self._signs(e.source, piece.ticks)
            for e in self.energies
        ]
        together = alone(self.plant)  # what shakes many tags is the plant
        return [
            Residual(e, c, together if e.family == NOISE else lambda shares, _: np.ones(len(shares)))
            for e, c in zip(self.energies, charts, strict=True)
        ]

    def recover(self, carry: HealthCarry) -> None:
        """A sign of life remembers no fault."""

    def _of_tags(self, size: Floats) -> Largest:
        share = np.zeros((len(size), len(signals_of(self.plant))))
        share[:, : size.shape[1]] = size / np.maximum(size.sum(1, keepdims=True), 1e-12)
        return Largest(size, lambda: share)

    def _signs(self, medium: str, ticks: Ticks) -> Largest:
        columns = self.stem.health(medium)
        sign = ticks.media[medium][:, columns] if medium in ticks.media else np.zeros((len(ticks), len(columns)))
        absent = ~ticks.present.get(medium, np.zeros(len(ticks), bool))
        own = (np.array(signals_of(self.plant)) == medium).astype(np.float64)
        return Largest(np.where(absent[:, None], np.nan, sign), partial(np.tile, own, (len(ticks), 1)))

    def _saturated(self, ticks: Ticks) -> Bools:
        """Tags [T, S] at a declared limit, where a valve may rest and a drive run flat out; what is far beyond is not.

        A tag that lives outside its limits shows that they are wrong, and excuses nothing.
        """
        limits = [[np.nan if v is None else v for v in (s.low, s.high)] for s in self.plant.tags]
        low, high = np.array(limits, np.float64).reshape(-1, 2).T
        inside, outside = AT_LIMIT * (high - low), BEYOND * (high - low)
        at_low = (ticks.tags <= low + inside) & (ticks.tags >= low - outside)
        at_high = (ticks.tags >= high - inside) & (ticks.tags <= high + outside)
        return np.asarray(at_low | at_high)


def _energy(family: str, source: str, modality: Modality) -> Energy:
    return Energy(
        name=f"{family}.{source}",
        origin=Origin.ALIVE,
        family=family,
        source=source,
        modality=modality,
        statistic=Statistic.LARGEST,
    )
