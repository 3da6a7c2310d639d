"""Surprise of the linear core: forecast errors, the latent's distance from normal, tags that contradict each other.

Shape letters: T ticks, S tags, V variates, G signals.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from models.averages import ewma
from models.linear.core import Encoding, LinearCore
from models.monitors.distance import SHRINKAGE, Distance, Judged
from models.scaling import Bools, Floats

HORIZONS_WATCHED = (1, 8, 32)
SLOW = 0.02  # faster averages of forecast errors raise on set-point moves
STATE_ALPHAS = (0.1, 0.02)
EXPLAINED_SHARE = 0.95
TIGHT = 1e-3  # shrinkage that leaves the relation of two thermometers as tight as it is


@dataclass(slots=True)
class InnovationCarry:
    """The last encodings, as far back as the longest horizon, and the running averages by name."""

    recent: Encoding | None = None
    means: dict[str, Floats] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Innovations:
    """Distances fitted on normal runs, by energy name; ``basis`` [P, n] spans normal past features.

    ``related`` are the columns of the past that are judged together: each signal, now and over the last minutes.
    """

    basis: Floats
    related: NDArray[np.int64]
    distances: Mapping[str, Distance]

    @classmethod
    def fit(
        cls,
        core: LinearCore,
        runs: Sequence[tuple[Encoding, Bools]],
        past_group: NDArray[np.int64],
        related: NDArray[np.int64],
        warm_up: int,
    ) -> Innovations:
        """From encodings of normal runs and which tags were observed; ``past_group`` [P] is each feature's signal."""
        basis = _basis(np.concatenate([e.past[warm_up:] for e, _ in runs]))
        model = cls(basis, related, {})
        tags = core.offset.shape[1]
        own = np.where(past_group[related] < tags, past_group[related], -1)
        groups = {"innovation": np.arange(tags), "unexplained": past_group, "redundancy": own}
        samples: dict[str, list[Floats]] = {}
        for encoding, observed in runs:
            for name, vectors in model._vectors(core, encoding, observed, InnovationCarry()).items():
                samples.setdefault(name, []).append(vectors[warm_up:])
        return cls(basis, related, {name: _distance(name, np.concatenate(s), groups) for name, s in samples.items()})

    @property
    def names(self) -> tuple[str, ...]:
        """Energy names."""
        return tuple(self.distances)

    def step(
        self, core: LinearCore, encoding: Encoding, observed: Bools, carry: InnovationCarry
    ) -> tuple[dict[str, Judged], Floats]:
        """Each energy's vectors and judge, and the slow forecast error [T, S] at the longest horizon; updates carry."""
        vectors = self._vectors(core, encoding, observed, carry)
        judged = {name: Judged.by(v, self.distances[name]) for name, v in vectors.items()}
        return judged, vectors[f"innovation.{HORIZONS_WATCHED[-1]}"]

    def _vectors(
        self, core: LinearCore, encoding: Encoding, observed: Bools, carry: InnovationCarry
    ) -> dict[str, Floats]:
        joined = encoding if carry.recent is None else _joined(carry.recent, encoding)
        made = {}
        for horizon in HORIZONS_WATCHED:
            name = f"innovation.{horizon}"
            error = np.where(observed, _errors(core, joined, horizon, len(encoding)), 0.0)
            made[name] = _averaged(name, error, SLOW, carry)
        carry.recent = joined[-max(HORIZONS_WATCHED) :]
        discarded = encoding.variates[:, core.rank :]
        unexplained = encoding.past - encoding.past @ self.basis @ self.basis.T
        together = encoding.past[:, self.related]
        vectors = {"state": encoding.z, "discarded": discarded, "unexplained": unexplained, "redundancy": together}
        for label, values in vectors.items():
            for alpha in STATE_ALPHAS:
                name = f"{label}.{alpha}"
                made[name] = _averaged(name, values, alpha, carry)
        return made


def _distance(name: str, samples: Floats, groups: Mapping[str, NDArray[np.int64]]) -> Distance:
    family = name.split(".", maxsplit=1)[0]
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
