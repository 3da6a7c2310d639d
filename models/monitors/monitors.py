"""Raw energies: how far each tick lies from what the linear models expect, and which signals are to blame.

Energies are raw: their calibration to p-values is not done here. All of them stream: one tick at a time with the
carry gives what feeding a run at once gives. Shape letters: T ticks, E energies, G signals, S tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality, Plant
from fusion.records import EnergyInfo
from models.features.stem import FeatureRange, StemFacts
from models.linear.core import Encoding, LinearCore
from models.linear.past import feature_names
from models.monitors.balance import BalanceCarry, BalanceMonitor
from models.monitors.crossmodal import PROCESS, RESIDUAL_ALPHAS, CrossCarry, CrossModal, blocks
from models.monitors.distance import Judged
from models.monitors.innovation import InnovationCarry, Innovations
from models.monitors.joint_variates import NAMES as JOINT_NAMES
from models.monitors.joint_variates import Joint, JointCarry
from models.monitors.relations import NAMES as RELATION_NAMES
from models.monitors.relations import RelationCarry, Relations
from models.monitors.relief import Local, LocalCarry
from models.monitors.steadiness import Steadiness, SteadinessCarry
from models.monitors.two_ticks import NAMES as LAGGED_NAMES
from models.monitors.two_ticks import Lagged, LaggedCarry
from models.scaling import Bools, Floats
from models.ticks import Ticks

WARM_UP_TICKS = 120
QUALITY_SHARE = 0.13  # weight of all that a picture shows beside its quality, where a lens is suspected
RIVAL = 0.9
BROKEN = 4.0  # normal spreads of an imbalance from which a conservation law counts as broken
AT_LIMIT = 1e-3  # of the span between the declared limits
LEVEL_SHARE = 0.25  # of the level-like features that may leave their range before a medium is not calibrated


@dataclass(frozen=True, slots=True, kw_only=True)
class Energies:
    """Energies of T ticks; larger is stranger, NaN is not calibrated here (absent, unknown level, warming up).

    ``shares`` [T, E, G] is the part of an energy that vanishes if a signal of ``signals`` is ignored: near one on a
    single signal points to a sensor, spread over several or seen by several modalities to the process. Energies of
    variates blame nobody. ``residual`` [T, G] is how far a tag lies from its forecast [its unit] and zero for media.
    ``sensor`` [T, E] is how far, from 0 to 1, an energy speaks of an instrument and not of the plant, NaN where it does
    not say. ``leading`` names the column that stands out most in the last row of each energy that is a distance. These
    four come only where asked for.
    ``calibrated`` [T] says by medium whether its level is one seen in training.
    """

    infos: tuple[EnergyInfo, ...]
    values: Floats
    calibrated: Mapping[str, Bools]
    signals: tuple[str, ...]
    shares: Floats | None = None
    residual: Floats | None = None
    sensor: Floats | None = None
    leading: tuple[str, ...] = ()

    @property
    def names(self) -> tuple[str, ...]:
        """Energy names: E columns."""
        return tuple(info.name for info in self.infos)


@dataclass(slots=True)
class MonitorCarry:
    """What a stream of ticks leaves behind for the next piece."""

    ticks: int = 0
    cross: CrossCarry = field(default_factory=CrossCarry)
    innovation: InnovationCarry = field(default_factory=InnovationCarry)
    joint: JointCarry = field(default_factory=JointCarry)
    relations: RelationCarry = field(default_factory=RelationCarry)
    lagged: LaggedCarry = field(default_factory=LaggedCarry)
    local: LocalCarry = field(default_factory=LocalCarry)
    balances: list[BalanceCarry | None] = field(default_factory=list)
    steadiness: SteadinessCarry | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Monitors:
    """All energies of a plant, fitted on normal training runs."""

    plant: Plant
    core: LinearCore
    cross: CrossModal
    innovations: Innovations
    joint: Joint | None
    relations: Relations
    lagged: Lagged
    local: Local
    balances: tuple[BalanceMonitor, ...]
    steadiness: Steadiness
    ranges: Mapping[str, FeatureRange]
    stem: StemFacts
    infos: tuple[EnergyInfo, ...]

    @property
    def signals(self) -> tuple[str, ...]:
        """The signals that can be blamed: tags, then media, then actions: G columns."""
        return signals_of(self.plant)

    @property
    def _names(self) -> tuple[str, ...]:
        return tuple(info.name for info in self.infos)

    @property
    def watched(self) -> tuple[str, ...]:
        """Media whose stem can tell a dead sensor."""
        return tuple(name for name in self.ranges if len(self.stem.health(name)))

    def step(
        self, ticks: Ticks, encoding: Encoding, carry: MonitorCarry | None = None, *, explain: bool = False
    ) -> tuple[Energies, MonitorCarry]:
        """Energies of consecutive ticks as the core encoded them; with ``explain`` also the evidence.

        ``carry`` is updated in place.
        """
        carry = carry or MonitorCarry()
        calibrated = self._calibrated(ticks)
        made = blocks(ticks, encoding.tags, encoding.action, self.core.scaling, carry.cross.held, calibrated)
        compared, single = self.cross.step(made, carry.cross)
        judged = {f"cross.{target}.{speed}": j for (target, speed), j in compared.items()}
        innovations, error = self.innovations.step(self.core, encoding, ticks.observed, carry.innovation)
        judged |= innovations
        if self.joint is not None:
            judged |= self.joint.step(self.cross, encoding, made, carry.joint)
        plain = {f"feature.{target}.{speed}": self._single(target, v) for (target, speed), v in single.items()}
        plain |= self.relations.step(encoding, ticks.observed, len(self.signals), carry.relations, explain=explain)
        plain |= self.lagged.step(encoding, len(self.signals), carry.lagged, explain=explain)
        plain |= self._balance_energies(ticks, carry) | self._health_energies(ticks, carry)
        columns = [j.energy() for j in judged.values()] + [np.abs(v).max(1, initial=0.0) for v, _ in plain.values()]
        values = self.local.step(np.stack(columns, 1), carry.local)
        values[carry.ticks + np.arange(len(ticks)) < WARM_UP_TICKS] = np.nan
        carry.ticks += len(ticks)
        result = Energies(
            infos=self.infos,
            values=values,
            calibrated=calibrated,
            signals=self.signals,
            **(self._evidence(judged, plain, error) if explain else {}),
        )
        return result, carry

    def _evidence(
        self, judged: Mapping[str, Judged], plain: Mapping[str, tuple[Floats, Floats]], error: Floats
    ) -> dict[str, Any]:
        groups = len(self.signals)
        shares = [j.contributions(groups) for j in judged.values()] + [share for _, share in plain.values()]
        residual = np.zeros((len(error), groups))
        residual[:, : error.shape[1]] = error * self.core.scaling.tags.scale
        suspects = self._suspects(plain)
        sensor = [
            self._sensor(name, judged.get(name), share, suspects)
            for name, share in zip(self._names, shares, strict=True)
        ]
        leading = [f"{name}: {self._column(name, j.leading_column())}" for name, j in judged.items()]
        evidence = {"shares": np.stack(shares, 1), "sensor": np.stack(sensor, 1)}
        return evidence | {"residual": residual, "leading": tuple(leading)}

    def _suspects(self, plain: Mapping[str, tuple[Floats, Floats]]) -> Bools:
        """Tags [T, S] that take part in every conservation law that is broken."""
        broken = [
            (np.nan_to_num(np.abs(over[:, 0])) < BROKEN)[:, None] | (share[:, : len(self.plant.tags)] > 0)
            for name, (over, share) in plain.items()
            if name.startswith("balance.")
        ]
        everything = np.ones((1, len(self.plant.tags)), bool)
        return np.asarray(np.logical_and.reduce(np.broadcast_arrays(everything, *broken)))

    def _sensor(self, name: str, judged: Judged | None, share: Floats, suspects: Bools) -> Floats:
        """How far [T] an energy speaks of an instrument: see ``Energies.sensor``."""
        family, _, rest = name.partition(".")
        medium = next((m for m in self.cross.media if rest.startswith(f"{m}.")), None)
        if family == "health":
            return np.ones(len(share))
        if family == "cross" and medium is not None and judged is not None and self.stem.quality(medium).any():
            quality = self.stem.quality(medium)
            own, rest_share = judged.block_share(quality), judged.block_share(~quality)
            return np.asarray(own / (own + QUALITY_SHARE * rest_share + 1e-12))
        if family in ("relation", "redundancy"):
            return self._alone(np.where(suspects, share[:, : suspects.shape[1]], 0.0))
        return np.full(len(share), np.nan)

    def _alone(self, share: Floats) -> Floats:
        """Of shares [T, S] the best single instrument's [T]; zero where a machine explains it nearly as well."""
        machine = np.array([tag.machine for tag in self.plant.tags], bool)
        best = np.where(machine, 0.0, share).max(1, initial=0.0)
        rival = np.where(machine, share, 0.0).max(1, initial=0.0)
        return np.where(rival >= RIVAL * best, 0.0, best)

    def _column(self, energy: str, column: int) -> str:
        """What a column of an energy's vector is called."""
        family, _, rest = energy.partition(".")
        tags = tuple(s.name for s in self.plant.tags)
        names: tuple[str, ...] = tags if family in ("cross", "innovation") else ()
        if family == "unexplained":
            names = feature_names(tags, tuple(s.name for s in self.plant.actions))
        medium = next((m for m in self.cross.media if rest.startswith(f"{m}.")), None)
        if family == "cross" and medium is not None:
            names = self.stem.names(medium)
        return names[column] if column < len(names) else f"variate {column}"

    def _single(self, target: str, over: Floats) -> tuple[Floats, Floats]:
        """Residuals over their limits [T, C] of one modality, and shares [T, G] of its signals."""
        size = np.nan_to_num(over) ** 2
        share = np.zeros((len(over), len(self.signals)))
        if target == PROCESS:
            share[:, : size.shape[1]] = size / np.maximum(size.sum(1, keepdims=True), 1e-12)
        else:
            share[:, self.signals.index(target)] = 1.0
        return over, share

    def _balance_energies(self, ticks: Ticks, carry: MonitorCarry) -> dict[str, tuple[Floats, Floats]]:
        """Imbalances in their normal spread, and equal shares for the signals of the law."""
        if not carry.balances:
            carry.balances = [None] * len(self.balances)
        made = {}
        for i, monitor in enumerate(self.balances):
            imbalance, carry.balances[i] = monitor.step(ticks, self.plant, carry.balances[i])
            share = np.isin(self.signals, monitor.signals) / len(monitor.signals)
            for name, column in zip(monitor.names, imbalance.T, strict=True):
                made[name] = (column[:, None], np.tile(share, (len(ticks), 1)))
        return made

    def _health_energies(self, ticks: Ticks, carry: MonitorCarry) -> dict[str, tuple[Floats, Floats]]:
        """Signs of a dead sensor: the longest rest of a tag, and the health features of each medium."""
        rest, carry.steadiness = self.steadiness.step(ticks, carry.steadiness)
        rest = np.where(self._saturated(ticks), 0.0, rest)
        tags, groups = rest.shape[1], len(self.signals)
        share = np.zeros((len(ticks), groups))
        share[:, :tags] = rest / np.maximum(rest.sum(1, keepdims=True), 1e-12)
        made = {"health.process": (rest, share)}
        for name in self.watched:
            columns = self.stem.health(name)
            sign = ticks.media[name][:, columns] if name in ticks.media else np.zeros((len(ticks), len(columns)))
            absent = ~ticks.present.get(name, np.zeros(len(ticks), bool))
            own = np.tile(np.array(self.signals) == name, (len(ticks), 1)).astype(np.float64)
            made[f"health.{name}"] = (np.where(absent[:, None], np.nan, sign), own)
        return made

    def _saturated(self, ticks: Ticks) -> Bools:
        """Tags [T, S] at a declared limit, where a valve may rest and a drive run flat out."""
        limits = [[np.nan if v is None else v for v in (s.low, s.high)] for s in self.plant.tags]
        low, high = np.array(limits, np.float64).reshape(-1, 2).T
        near = AT_LIMIT * (high - low)
        return np.asarray((ticks.tags <= low + near) | (ticks.tags >= high - near))

    def _calibrated(self, ticks: Ticks) -> dict[str, Bools]:
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

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays to keep, without the core's."""
        parts: dict[str, Mapping[str, NDArray[Any]]] = {
            "cross": self.cross.state(),
            "innovations": self.innovations.state(),
            "relations": self.relations.state(),
            "lagged": self.lagged.state(),
            "local": {"upper": self.local.upper},
            "steadiness": self.steadiness.state(),
        }
        if self.joint is not None:
            parts["joint"] = self.joint.state()
        parts |= {f"balance{i}": b.state() for i, b in enumerate(self.balances)}
        parts |= {f"range{i}": span.state() for i, span in enumerate(self.ranges.values())}
        return {f"{part}/{key}": value for part, arrays in parts.items() for key, value in arrays.items()}

    def meta(self) -> dict[str, Any]:
        """JSON-able names to keep."""
        return {"media": list(self.ranges), "innovations": list(self.innovations.names)}

    @classmethod
    def from_state(
        cls, state: Mapping[str, NDArray[Any]], meta: Mapping[str, Any], core: LinearCore, plant: Plant, stem: StemFacts
    ) -> Monitors:
        """Inverse of ``state`` and ``meta``."""
        parts: dict[str, dict[str, NDArray[Any]]] = {}
        for key, value in state.items():
            part, _, name = key.partition("/")
            parts.setdefault(part, {})[name] = value
        media = list(meta["media"])
        ranges = [parts[f"range{i}"] for i in range(len(media))]
        laws = enumerate(plant.balances)
        return assembled(
            plant=plant,
            core=core,
            cross=CrossModal.from_state(parts["cross"], media),
            innovations=Innovations.from_state(parts["innovations"], meta["innovations"]),
            joint=Joint.from_state(parts["joint"]) if "joint" in parts else None,
            relations=Relations.from_state(parts["relations"], plant),
            lagged=Lagged.from_state(parts["lagged"]),
            local=Local(np.asarray(parts["local"]["upper"], np.float64)),
            balances=tuple(BalanceMonitor.from_state(parts[f"balance{i}"], b, plant.step_s) for i, b in laws),
            steadiness=Steadiness.from_state(parts["steadiness"]),
            ranges={m: FeatureRange.from_state(r) for m, r in zip(media, ranges, strict=True)},
            stem=stem,
        )


def signals_of(plant: Plant) -> tuple[str, ...]:
    """The signals that can be blamed: tags, then media, then actions."""
    return tuple(s.name for s in (*plant.tags, *plant.media, *plant.actions))


def assembled(**parts: Any) -> Monitors:
    """Monitors with the description of their energies, in the order in which ``step`` makes them."""
    rough = Monitors(**parts, infos=())
    plant = rough.plant
    names = [f"cross.{target}.{speed}" for target in rough.cross.targets for speed in RESIDUAL_ALPHAS]
    names += [*rough.innovations.names, *(JOINT_NAMES if rough.joint is not None else ())]
    names += [f"feature.{target}.{speed}" for target in rough.cross.targets for speed in RESIDUAL_ALPHAS]
    names += [*RELATION_NAMES, *LAGGED_NAMES, *(n for b in rough.balances for n in b.names), "health.process"]
    names += [f"health.{name}" for name in rough.watched]
    return Monitors(**parts, infos=tuple(_info(name, plant, rough.cross.media) for name in names))


def _info(name: str, plant: Plant, media: Sequence[str]) -> EnergyInfo:
    family = name.split(".", maxsplit=1)[0]
    source = next(
        (m for m in media if name.removeprefix(f"{family}.") in (m, *(f"{m}.{a}" for a in RESIDUAL_ALPHAS))), "process"
    )
    modality = plant.by_name[source].modality if source in media else Modality.PROCESS
    kinds = {
        "cross": "unknown",
        "feature": "unknown",
        "relation": "unknown",
        "lagged": "unknown",
        "health": "sensor",
        "balance": "unknown",
    }
    return EnergyInfo(name=name, modality=modality, source=source, kind=kinds.get(family, "process"))
