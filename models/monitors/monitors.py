"""Raw energies: how far each tick lies from what the linear models expect, and which signals are to blame.

Energies are raw: their calibration to p-values is not done here. All of them stream: one tick at a time with the
carry gives what feeding a run at once gives. Shape letters: T ticks, E energies, G signals, S tags.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Plant
from fusion.records import Energy, Origin
from models.features.stem import FeatureRange, StemFacts
from models.linear.core import Encoding, LinearCore
from models.monitors.accumulation import Accumulations
from models.monitors.averaged import FIRST_TICKS
from models.monitors.balance import Laws
from models.monitors.cells import Cells
from models.monitors.conditionals import Conditionals
from models.monitors.crossmodal import CrossModal
from models.monitors.health import SignsOfLife
from models.monitors.innovation import InnovationCarry, Innovations
from models.monitors.joint_variates import Joint
from models.monitors.perception import Perception
from models.monitors.piece import piece
from models.monitors.places import Places
from models.monitors.relations import Relations
from models.monitors.relief import Local, LocalCarry
from models.monitors.residual import WARM_UP_TICKS, Generator, Residual, hearing, signals_of
from models.monitors.two_ticks import Lagged
from models.scaling import Bools, Floats
from models.ticks import Ticks

BROKEN = 4.0  # normal spreads of an imbalance from which a conservation law counts as broken
DEAD = 0.5  # of a sign of life, from which a sense is taken for dead: it says nothing of itself or of others
RETURN_TICKS = 10  # after the last such sign, after which it is believed again
LEVEL_SHARE = 0.25  # of the level-like features that may leave their range before a medium is not calibrated


@dataclass(frozen=True, slots=True, kw_only=True)
class Energies:
    """Energies of T ticks; larger is stranger, NaN is not calibrated here (absent, unknown level, warming up).

    ``shares`` [T, E, G] is the part of an energy that vanishes if a signal of ``signals`` is ignored: near one on a
    single signal points to a sensor, spread over several or seen by several modalities to the process. Energies of
    variates blame nobody. ``residual`` [T, G] is how far a tag lies from its forecast [its unit] and zero for media.
    ``sensor`` [T, E] is how far, from 0 to 1, an energy speaks of an instrument and not of the plant, NaN where it does
    not say. ``where`` names by tick what of each signal stands out. These four come only where asked for.
    ``calibrated`` [T] says by medium whether its level is one seen in training.
    """

    energies: tuple[Energy, ...]
    values: Floats
    calibrated: Mapping[str, Bools]
    signals: tuple[str, ...]
    shares: Floats | None = None
    residual: Floats | None = None
    sensor: Floats | None = None
    where: tuple[tuple[str, ...], ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Energy names: E columns."""
        return tuple(energy.name for energy in self.energies)


@dataclass(slots=True)
class MonitorCarry:
    """What a stream of ticks leaves behind for the next piece: a carry for each generator.

    By medium, ``held`` are its last features and ``well`` the ticks since it last showed a sign of being dead;
    ``recovered`` are the ticks since a fault was last forgotten. While one stands, nothing ``learns`` from what is out
    of control, nor shortly after.
    """

    ticks: int = 0
    learns: bool = True
    held: dict[str, Floats] = field(default_factory=dict)
    well: dict[str, int] = field(default_factory=dict)
    recovered: int = WARM_UP_TICKS
    ahead: InnovationCarry = field(default_factory=InnovationCarry)
    others: list[Any] = field(default_factory=list)
    local: LocalCarry = field(default_factory=LocalCarry)


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitors:
    """All residual generators of a plant, fitted on normal training runs.

    ``ahead`` also tells how far each tag lies from its forecast; the ``others`` are heard or left out.
    """

    plant: Plant
    core: LinearCore
    stem: StemFacts
    ahead: Innovations
    others: tuple[
        CrossModal
        | Joint
        | Cells
        | Perception
        | Relations
        | Accumulations
        | Conditionals
        | Lagged
        | Laws
        | SignsOfLife,
        ...,
    ]
    local: Local
    ranges: Mapping[str, FeatureRange]

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that can be blamed: tags, then media, then actions: G columns."""
        return signals_of(self.plant)

    @property
    def perception(self) -> Perception | None:
        """What is judged as a frozen image network sees it, where one was asked for."""
        return next((other for other in self.others if isinstance(other, Perception)), None)

    @property
    def energies(self) -> tuple[Energy, ...]:
        """What is made of each tick: E columns."""
        generators: tuple[Generator, ...] = (self.ahead, *self.others)
        return tuple(energy for generator in generators for energy in generator.energies)

    def hearing(self, names: Collection[str]) -> Monitors:
        """The monitors that make these energies and no other; the same numbers at a lower price.

        A law that is not heard clears no instrument of suspicion either.
        """
        heard = np.array([energy.name in names for energy in self.energies], bool)
        others = [hearing(other, names) for other in self.others]
        kept = tuple(other for other in others if other.energies)
        return replace(self, ahead=hearing(self.ahead, names), others=kept, local=self.local.heard(heard))

    def step(
        self, ticks: Ticks, encoding: Encoding, carry: MonitorCarry | None = None, *, explain: bool = False
    ) -> tuple[Energies, MonitorCarry]:
        """Energies of consecutive ticks as the core encoded them; with ``explain`` also the evidence.

        ``carry`` is updated in place.
        """
        carry = carry or MonitorCarry()
        calibrated = self.calibrated(ticks)
        residuals = self.residuals(ticks, encoding, calibrated, carry)
        raw = [residual.chart.energy() for residual in residuals]
        values = self.local.step(np.stack(raw, 1) if raw else np.zeros((len(ticks), 0)), carry.local)
        values[(carry.ticks + np.arange(len(ticks)))[:, None] < self._warm_up_ticks(carry)] = np.nan
        ahead = np.array([e.origin is Origin.AHEAD for e in self.energies], bool)
        values[np.ix_(carry.recovered + np.arange(len(ticks)) < WARM_UP_TICKS, ahead)] = np.nan
        carry.ticks += len(ticks)
        carry.recovered += len(ticks)
        result = Energies(
            energies=self.energies,
            values=values,
            calibrated=calibrated,
            signals=self.signals,
            **(self._evidence(residuals, carry) if explain else {}),
        )
        return result, carry

    def recover(self, carry: MonitorCarry) -> None:
        """Forget what a fault that is over has left; forecasts are judged again once they know the new past."""
        self.ahead.recover(carry.ahead)
        for generator, left in zip(self.others, carry.others, strict=True):
            generator.recover(left)
        carry.recovered = 0

    def _warm_up_ticks(self, carry: MonitorCarry) -> NDArray[np.int64]:
        """How long each energy [E] says nothing: what is less the usual, or judged by it, must know what is usual."""
        relative = np.array([energy.relative for energy in self.energies], bool)
        learns = relative | (self.local.first & bool(carry.local.begins_well))
        return np.where(learns, FIRST_TICKS, WARM_UP_TICKS)

    def residuals(
        self, ticks: Ticks, encoding: Encoding, calibrated: Mapping[str, Bools], carry: MonitorCarry
    ) -> list[Residual]:
        """What the generators make of consecutive ticks, in the order of the energies; updates ``carry``.

        ``calibrated`` [T] by medium is where its level is one seen in training.
        """
        carry.others = carry.others or [other.begin() for other in self.others]
        there = {medium: good & self._alive(medium, ticks, carry) for medium, good in calibrated.items()}
        read = piece(ticks, encoding, self.core.scaling, there, carry.held)
        read = replace(read, learns=carry.learns and carry.recovered >= WARM_UP_TICKS)
        made = self.ahead.step(read, carry.ahead)
        for generator, left in zip(self.others, carry.others, strict=True):
            made += generator.step(read, left)
        return made

    def _alive(self, medium: str, ticks: Ticks, carry: MonitorCarry) -> Bools:
        """Whether [T] a medium shows no sign of being dead or doubtful, nor did a moment ago; updates ``carry``."""
        columns, well = self.stem.health(medium), carry.well.get(medium, RETURN_TICKS)
        if medium not in ticks.media:
            return np.ones(len(ticks), bool)
        dead = (ticks.media[medium][:, columns] >= DEAD).any(1) & ticks.present[medium]
        dead |= ticks.doubted.get(medium, np.zeros(len(ticks), bool))
        rows = np.arange(len(ticks))
        last = np.maximum.accumulate(np.where(dead, rows, -1))
        since = np.where(last >= 0, rows - last, well + rows + 1)
        carry.well[medium] = int(min(since[-1], RETURN_TICKS)) if len(ticks) else well
        return np.asarray(since >= RETURN_TICKS)

    def _evidence(self, residuals: Sequence[Residual], carry: MonitorCarry) -> dict[str, Any]:
        """Shares and instruments of each energy, and how far each signal is off: tags in their units, media in spreads.

        Of a tag it is the forecast error.
        """
        error = carry.ahead.error
        ticks, groups = len(error), len(self.signals)
        shares = [residual.chart.contributions(groups) for residual in residuals]
        suspects, unknown = self._suspects(residuals, shares, ticks), np.full(ticks, np.nan)
        sensor = [
            unknown if residual.instrument is None else residual.instrument(share, suspects)
            for residual, share in zip(residuals, shares, strict=True)
        ]
        apart = np.zeros((ticks, groups))
        apart[:, : error.shape[1]] = error * self.core.scaling.tags.scale
        where = self._where(apart, carry)
        return {
            "where": where,
            "shares": np.stack(shares, 1) if shares else np.zeros((ticks, 0, groups)),
            "sensor": np.stack(sensor, 1) if sensor else np.zeros((ticks, 0)),
            "residual": apart,
        }

    def _where(self, apart: Floats, carry: MonitorCarry) -> tuple[tuple[str, ...], ...]:
        """By tick, what of each medium stands out, in words; fills in how far [T, G] it is off.

        A place is named where it stands out more than any feature of the whole.
        """
        words = [[""] * len(self.signals) for _ in range(len(apart))]
        for generator, left in zip(self.others, carry.others, strict=True):
            if isinstance(generator, CrossModal):
                for medium in generator.media:
                    place, names = self.signals.index(medium), self.stem.names(medium)
                    apart[:, place], columns = generator.stands_out(medium, left)
                    for row, column in enumerate(columns):
                        words[row][place] = names[column].replace("_", " ")
        for generator, left in zip(self.others, carry.others, strict=True):
            if isinstance(generator, Places):
                for medium in generator.media:
                    place = self.signals.index(medium)
                    for row, (spreads, said) in enumerate(generator.stands_out(medium, left)):
                        if said and abs(spreads) > abs(apart[row, place]):
                            apart[row, place], words[row][place] = spreads, said
        return tuple(tuple(row) for row in words)

    def _suspects(self, residuals: Sequence[Residual], shares: Sequence[Floats], ticks: int) -> Bools:
        """Tags [T, S] that take part in every conservation law that is broken."""
        tags = len(self.plant.tags)
        suspects = np.ones((ticks, tags), bool)
        for residual, share in zip(residuals, shares, strict=True):
            if residual.energy.origin is Origin.LAW:
                holds = np.nan_to_num(residual.chart.energy()) < BROKEN
                suspects &= holds[:, None] | (share[:, :tags] > 0)
        return suspects

    def calibrated(self, ticks: Ticks) -> dict[str, Bools]:
        """Ticks whose level-like features lie where the medium was trained; False where it is absent."""
        made = {}
        for name, span in self.ranges.items():
            level = self.stem.level_like(name)
            there = ticks.present.get(name, np.zeros(len(ticks), bool))
            if there.any() and level.any():
                inside = span.calibrated(ticks.media[name])[:, level]
                there = there & ((~inside).mean(1) <= LEVEL_SHARE)
            made[name] = there
        return made
