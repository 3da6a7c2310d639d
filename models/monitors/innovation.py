"""Surprise of the linear core: forecast errors, the latent's distance from normal, tags that contradict each other.

Shape letters: T ticks, S tags, V variates, G signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Plant
from fusion.records import Energy, Origin
from models.averages import ewma
from models.linear.core import Encoding, LinearCore
from models.linear.past import feature_names
from models.monitors.averaged import AverageCarry, Limits, averaged
from models.monitors.distance import SHRINKAGE, T2, Distance
from models.monitors.piece import Piece
from models.monitors.residual import WARM_UP_TICKS, Residual, Speed, alone, signals_of
from models.scaling import Bools, Floats

HORIZON = {f"innovation.{k}": k for k in (1, 8, 32)}  # ticks ahead
FARTHEST = "innovation.32"
RELATED_AVERAGES = (".ewma0.05", ".ewma0.01", ".ewma0.03")  # the last minutes of a tag, and of an action
SLOW = 0.02  # faster averages of forecast errors raise on set-point moves
SPEED = (Speed(str(SLOW), SLOW),)
QUANTILE = 0.995  # of an averaged error's size when normal: what it is bounded by once the plant is well again
STATE_ALPHAS = (0.1, 0.02)  # fast and slow, as residuals elsewhere
EXPLAINED_SHARE = 0.95  # of the variance of the past, beyond which it is unexplained
TIGHT = 1e-3  # shrinkage that leaves the relation of two thermometers as tight as it is


@dataclass(slots=True)
class InnovationCarry:
    """The last encodings, as far back as the longest horizon, and the running averages of states and of errors by name.

    ``error`` [T, S] is the slow forecast error at the longest horizon, of the last piece, scaled.
    """

    recent: Encoding | None = None
    means: dict[str, Floats] = field(default_factory=dict)
    errors: dict[str, AverageCarry] = field(default_factory=dict)
    error: Floats = field(default_factory=lambda: np.zeros((0, 0)))


@dataclass(frozen=True, slots=True)
class Innovations:
    """Distances and limits of forecast errors by energy name; ``basis`` [P, n] spans normal past features.

    ``related`` are the columns of the past that are judged together: each signal, now and over the last minutes.
    """

    energies: tuple[Energy, ...]
    plant: Plant
    core: LinearCore
    basis: Floats
    related: NDArray[np.int64]
    distances: Mapping[str, Distance]
    limits: Mapping[str, Limits]

    @classmethod
    def fit(cls, core: LinearCore, runs: Sequence[tuple[Encoding, Bools]], plant: Plant) -> Innovations:
        """From encodings of normal runs and which tags were observed."""
        basis = _basis(np.concatenate([e.past[WARM_UP_TICKS:] for e, _ in runs]))
        model = cls(_energies(), plant, core, basis, _related(plant), {}, {})
        groups = _groups(plant, core, model.related)
        samples: dict[str, list[Floats]] = {energy.name: [] for energy in model.energies}
        for encoding, observed in runs:
            for name, vectors in model._vectors(encoding, observed, InnovationCarry()).items():
                samples[name].append(vectors[WARM_UP_TICKS:])
        distances = {e.name: _distance(e.family, np.concatenate(samples[e.name]), groups) for e in model.energies}
        limits = {name: _limits(core, runs, horizon) for name, horizon in HORIZON.items()}
        return replace(model, distances=distances, limits=limits)

    def widened(self, wider: Mapping[int, Distance]) -> Innovations:
        """With other distances in the place of those with these identities."""
        return replace(self, distances={key: wider.get(id(d), d) for key, d in self.distances.items()})

    def begin(self) -> InnovationCarry:
        """The carry at the start of a stream."""
        return InnovationCarry()

    def step(self, piece: Piece, carry: InnovationCarry) -> list[Residual]:
        """Each energy's vectors and their distance; updates ``carry``, also by forecast errors that are not heard."""
        vectors = self._vectors(piece.encoding, piece.ticks.observed, carry)
        instrument = {"redundancy": alone(self.plant)}
        return [
            Residual(e, T2.by(vectors[e.name], self.distances[e.name]), instrument.get(e.family)) for e in self.energies
        ]

    def recover(self, carry: InnovationCarry) -> None:
        """Compare no forecast that was made of a past with the fault in it."""
        carry.recent, carry.means, carry.errors = None, {}, {}

    def _vectors(self, encoding: Encoding, observed: Bools, carry: InnovationCarry) -> dict[str, Floats]:
        """The averaged vectors of what is heard, by energy name."""
        joined = encoding if carry.recent is None else _joined(carry.recent, encoding)
        carry.recent = joined[-max(HORIZON.values()) :]
        heard = {energy.name for energy in self.energies} | {FARTHEST}
        made = {}
        for name, horizon in HORIZON.items():
            if name in heard:
                error = np.where(observed, _errors(self.core, joined, horizon, len(encoding)), 0.0)
                known, left = np.ones(len(error), bool), carry.errors.setdefault(name, AverageCarry())
                made[name] = averaged(error, known, left, self.limits.get(name), SPEED).smooth[SLOW]
        carry.error = made[FARTHEST]
        present = [energy for energy in self.energies if energy.name not in HORIZON]
        values = {family: self._state(family, encoding) for family in {energy.family for energy in present}}
        return made | {e.name: _averaged(e.name, values[e.family], e.speed, carry) for e in present}

    def _state(self, family: str, encoding: Encoding) -> Floats:
        """What the core knows of the present, or leaves out of it [T, V]."""
        if family == "state":
            return encoding.z
        if family == "discarded":
            return encoding.variates[:, self.core.rank :]
        if family == "unexplained":
            return encoding.past - encoding.past @ self.basis @ self.basis.T
        return encoding.past[:, self.related]


def _energies() -> tuple[Energy, ...]:
    ahead = [Energy(name=name, origin=Origin.AHEAD, family="innovation", speed=SLOW) for name in HORIZON]
    now = [
        Energy(name=f"{family}.{alpha}", origin=Origin.AHEAD, family=family, speed=alpha)
        for family in ("state", "discarded", "unexplained", "redundancy")
        for alpha in STATE_ALPHAS
    ]
    return (*ahead, *now)


def _related(plant: Plant) -> NDArray[np.int64]:
    """Past features that say how a signal is now and how it has moved over the last minutes."""
    names = feature_names(tuple(s.name for s in plant.tags), tuple(s.name for s in plant.actions))
    kept = [i for i, name in enumerate(names) if ".ewma" not in name or name.endswith(RELATED_AVERAGES)]
    return np.array(kept, np.int64)


def _groups(plant: Plant, core: LinearCore, related: NDArray[np.int64]) -> dict[str, NDArray[np.int64]]:
    """The blamed signal of each column, by family; of the past none for what many tags share."""
    number = {name: i for i, name in enumerate(signals_of(plant))}
    tags, actions = (tuple(s.name for s in part) for part in (plant.tags, plant.actions))
    past = [number.get(n.rsplit(".ewma", 1)[0], -1) for n in feature_names(tags, actions)]
    rhythm = len(core.past_scaler.centre) - len(past)
    group = np.concatenate([np.array(past, np.int64), np.resize(np.arange(len(tags)), rhythm)])
    own = np.where(group[related] < len(tags), group[related], -1)
    return {"innovation": np.arange(len(tags)), "unexplained": group, "redundancy": own}


def _distance(family: str, samples: Floats, groups: Mapping[str, NDArray[np.int64]]) -> Distance:
    none = np.full(samples.shape[1], -1, np.int64)
    shrinkage = TIGHT if family == "redundancy" else SHRINKAGE
    return Distance.fit(samples, groups.get(family, none), shrinkage)


def _errors(core: LinearCore, joined: Encoding, horizon: int, ticks: int) -> Floats:
    """Scaled forecast error [T, S] of the last ticks; zero where there was no forecast yet."""
    error = np.zeros((ticks, joined.tags.shape[1]))
    if len(joined) > horizon:
        made, true = core.hindcast(joined[-(ticks + horizon) :], horizon)
        error[-len(made) :] = true - made
    return error


def _limits(core: LinearCore, runs: Sequence[tuple[Encoding, Bools]], horizon: int) -> Limits:
    """What averaged errors at a horizon normally reach."""
    made = []
    for encoding, observed in runs:
        error = np.where(observed, _errors(core, encoding, horizon, len(encoding)), 0.0)
        made.append(averaged(error, np.ones(len(error), bool), AverageCarry(), speeds=SPEED))
    fresh, smooth = (np.concatenate(v) for v in zip(*((m.fresh, m.smooth[SLOW]) for m in made), strict=True))
    return Limits.fit(fresh[WARM_UP_TICKS:], {SLOW: smooth[WARM_UP_TICKS:]}, QUANTILE)


def _averaged(name: str, values: Floats, alpha: float, carry: InnovationCarry) -> Floats:
    smooth, carry.means[name] = ewma(values, alpha, carry.means.get(name, np.zeros(values.shape[1])))
    return smooth


def _joined(first: Encoding, second: Encoding) -> Encoding:
    names = Encoding.__dataclass_fields__
    return Encoding(**{n: np.concatenate([getattr(first, n), getattr(second, n)]) for n in names})


def _basis(features: Floats) -> Floats:
    """Leading principal directions [P, n] of standardised past features."""
    values, vectors = np.linalg.eigh(features.T @ features / max(len(features), 1))
    values, vectors = np.maximum(values[::-1], 0.0), vectors[:, ::-1]
    kept = int(np.searchsorted(np.cumsum(values) / max(values.sum(), 1e-12), EXPLAINED_SHARE)) + 1
    return np.ascontiguousarray(vectors[:, :kept])
