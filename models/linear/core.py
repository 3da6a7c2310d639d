"""The linear core: canonical variates of the past as latent, ridge readouts of differences, all in closed form.

``z`` are the directions in the past that best predict y(t+k) - y(t) once the future actions are accounted for. Two
readouts, from ``z`` and from all past features (ARX), are compared on held-out runs; each tag and horizon keeps the
better of them, their mean or persistence. Knows nothing of media.
Shape letters: T ticks, S tags, A actions, P past features, R rank, H horizons, Q summaries per action, N candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from models.actions import HORIZONS, path_summary, path_weights, recorded_summary, step_summary
from models.linear.folds import Folds
from models.linear.past import Past, PastCarry, past
from models.linear.rhythm import Rhythm
from models.scaling import Floats, Scaler, Scaling
from models.ticks import Ticks

__all__ = ["CANDIDATES", "HORIZONS", "Encoding", "LinearConfig", "LinearCore"]

CANDIDATES = ("persistence", "arx", "cva", "mean", "rhythm")
CVA_FUTURE = (1, 2, 4, 8, 16, 32, 64, 128)
CVA_KNOWN = (8, 32, 128)


@dataclass(kw_only=True, slots=True)
class LinearConfig:
    """Settings of the closed-form fit."""

    warm_up_ticks: int = 60
    ranks: tuple[int, ...] = (16, 24, 32)
    variates: int = 96
    penalties: tuple[float, ...] = (1e-4, 1e-3, 1e-2, 1e-1)
    cva_penalty: float = 1e-3
    held_out_share: float = 0.17
    coverage: float = 0.9

    def __post_init__(self) -> None:
        """Reject what no fit can use."""
        if self.warm_up_ticks < 0:
            raise ConfigError(f"linear.warm_up_ticks: {self.warm_up_ticks} must be at least 0")
        if not self.penalties or min(*self.penalties, self.cva_penalty) <= 0:
            raise ConfigError(
                "linear.penalties and linear.cva_penalty: expected positive numbers, at least one penalty"
            )
        if not self.ranks or min(self.ranks) < 1 or max(self.ranks) > self.variates:
            raise ConfigError(f"linear.ranks: {self.ranks} is not accepted; expected ranks of 1 to {self.variates}")
        if not 0 < self.held_out_share < 1 or not 0 < self.coverage < 1:
            raise ConfigError("linear.held_out_share and linear.coverage: expected a number between 0 and 1")


@dataclass(frozen=True, slots=True)
class Encoding:
    """What the core knows at each tick: ``z`` [T, R], ``variates`` [T, V] (the first R are ``z``) and the past.

    ``past`` [T, P] is standardised, ``tags`` [T, S] and ``action`` [T, A] are scaled; an action is in force as it
    arrives, after its dead time, and ``waiting`` [T, D, A] are on their way.
    """

    z: Floats
    variates: Floats
    past: Floats
    tags: Floats
    action: Floats
    waiting: Floats

    def __len__(self) -> int:
        return len(self.z)

    @classmethod
    def joined(cls, parts: Sequence[Encoding]) -> Encoding:
        """Consecutive ticks in one."""
        names = cls.__dataclass_fields__
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))

    def __getitem__(self, part: slice) -> Encoding:
        z, variates, past = self.z[part], self.variates[part], self.past[part]
        return Encoding(z, variates, past, self.tags[part], self.action[part], self.waiting[part])


@dataclass(frozen=True, slots=True, kw_only=True)
class LinearCore:
    """A fitted core.

    ``past_weights`` [H, P, S] of the shared past features (of many tags without the first, which are each tag's own and
    have ``own_weights`` [H, K, S]), ``action_weights`` [H, A * Q, S] and ``offset`` [H, S] give y(t+k) - y(t) in scaled
    units, ``planned_weights`` [H, A * Q, S] what a planned action does while its actuators are off their limits;
    ``arx_weights`` [H, P + A * Q + 1, S] are those of the ARX readout for every tag, the constant last, kept to
    compare with. ``choice`` [H, S] indexes ``CANDIDATES``; ``skill`` [H, S] is one minus the ratio of the held-out
    squared error to that of persistence. ``half_width`` [H, S] is the conformal half band, scaled. ``dead`` [A] are the
    ticks after which an action begins to show in any tag. ``folds`` is what the fit would be without parts of the runs.
    """

    scaling: Scaling
    step_s: float
    past_scaler: Scaler
    directions: Floats
    rank: int
    past_weights: Floats
    action_weights: Floats
    planned_weights: Floats
    offset: Floats
    arx_weights: Floats
    choice: NDArray[np.int64]
    skill: Floats
    skill_arx: Floats
    half_width: Floats
    coverage: float
    dead: tuple[int, ...]
    rhythm: Rhythm | None = None
    own_weights: Floats | None = None
    folds: Folds | None = None

    # --- state and forecast

    def encode(self, ticks: Ticks, carry: PastCarry | None = None) -> tuple[Encoding, PastCarry]:
        """The latent at every tick; chunk-invariant with the carry."""
        made, carry = past(ticks, self.scaling, carry, self.rhythm, self.dead)
        return self.encoding(made), carry

    def encoding(self, made: Past) -> Encoding:
        """The latent of past features already made."""
        standard = self.past_scaler.scaled(made.features)
        variates = standard @ self.directions
        return Encoding(variates[:, : self.rank], variates, standard, made.tags, made.action, made.waiting)

    def forecast(self, encoding: Encoding, paths: Floats | None = None) -> Floats:
        """Mean [N, H, S] in engineering units from the last tick of ``encoding``.

        ``paths`` [N, L, A] are actions in engineering units on the 10 s grid; None holds the present ones (N = 1).
        """
        now = encoding[-1:]
        action = np.zeros((1, len(HORIZONS), self.action_weights.shape[1]))
        waiting = now.waiting[0]
        if paths is not None or len(waiting):
            scaled = waiting[None, -1:] if paths is None else self.scaling.action.scaled(paths)
            whole = np.concatenate([np.broadcast_to(waiting, (len(scaled), *waiting.shape)), scaled], 1)
            weights = path_weights(self.step_s, scaled.shape[1], dead=self.dead)
            action = path_summary(whole, now.action[0], weights)
        return self.scaling.tags.engineering(now.tags[0] + self.base(now)[0] + self.response(action))

    def base(self, encoding: Encoding) -> Floats:
        """Scaled change [T, H, S] if the actions stay."""
        shared = encoding.past[:, self.own :]
        made = np.einsum("tp,hps->ths", shared, self.past_weights, optimize=True) + self.offset
        return np.asarray(made + self.own_change(encoding.past))

    @property
    def own(self) -> int:
        """How many of the past features, the first, serve one tag each."""
        return int(len(self.directions) - self.past_weights.shape[1])

    def own_change(self, past: Floats) -> Floats:
        """Scaled change [T, H, S] that each tag's own features [T, P] tell; zero of few tags."""
        if self.own_weights is None:
            return np.zeros((len(past), 1, 1))
        alone = past[:, : self.own].reshape(len(past), *self.own_weights.shape[1:])
        return np.asarray(np.einsum("tks,hks->ths", alone, self.own_weights, optimize=True))

    def response(self, summary: Floats) -> Floats:
        """Scaled change [N, H, S] due to summaries [N, H, A * Q] of planned actions."""
        return np.asarray(np.einsum("nhq,hqs->nhs", summary, self.planned_weights, optimize=True))

    def hindcast(self, encoding: Encoding, horizon: int, action: Floats | None = None) -> tuple[Floats, Floats]:
        """Predicted and true scaled change [T - horizon, S] with the actions of the record, or the scaled ones given.

        ``horizon`` [ticks] must be one of ``HORIZONS``.
        """
        row = HORIZONS.index(horizon)
        summary = recorded_summary(encoding.action if action is None else action, horizon, self.step_s)
        kept = encoding.past[: len(summary)]
        made = kept[:, self.own :] @ self.past_weights[row] + summary @ self.action_weights[row] + self.offset[row]
        if self.own_weights is not None:
            alone = kept[:, : self.own].reshape(len(kept), *self.own_weights.shape[1:])
            made = made + (alone * self.own_weights[row]).sum(1)
        return made, encoding.tags[horizon:] - encoding.tags[:-horizon]

    def band(self) -> Floats:
        """Half width [H, S] of the band in engineering units."""
        return self.half_width * self.scaling.tags.scale

    def gains(self, horizon: int = HORIZONS[-1]) -> Floats:
        """Effect [S, A] of a lasting unit step of each action ``horizon`` ticks after it arrives, engineering units."""
        weights = self.planned_weights[HORIZONS.index(horizon)]
        step = step_summary(horizon, self.step_s)
        by_action = weights.reshape(len(self.scaling.action.scale), len(step), weights.shape[1])
        scaled = np.einsum("aqs,q->sa", by_action, step)
        return np.asarray(scaled * self.scaling.tags.scale[:, None] / self.scaling.action.scale)

    # --- judgement

    def calibrate(self, runs: Sequence[Ticks]) -> LinearCore:
        """The core with split-conformal bands from later normal runs.

        A horizon that no run is long enough for keeps the band it had. Source: Lei et al. 2018.
        """
        encodings = [self.encode(run)[0] for run in runs]
        width = self.half_width.copy()
        for row, horizon in enumerate(HORIZONS):
            errors = [np.abs(np.subtract(*self.hindcast(e, horizon))) for e in encodings if len(e) > horizon]
            if errors and (rows := sum(map(len, errors))) >= 10:
                level = min(1.0, np.ceil((rows + 1) * self.coverage) / rows)
                width[row] = np.quantile(np.concatenate(errors), level, axis=0)
        return replace(self, half_width=width)

    def skills(self, runs: Sequence[Ticks], warm_up_ticks: int = 60) -> Floats:
        """Skill [H, S] over persistence on runs the fit has not seen; NaN where none is long enough."""
        encodings = [self.encode(run)[0][warm_up_ticks:] for run in runs]
        skill = np.full(self.offset.shape, np.nan)
        for row, horizon in enumerate(HORIZONS):
            pairs = [self.hindcast(e, horizon) for e in encodings if len(e) > horizon]
            if pairs:
                made, true = (np.concatenate(p) for p in zip(*pairs, strict=True))
                skill[row] = 1.0 - ((true - made) ** 2).mean(0) / ((true**2).mean(0) + 1e-12)
        return skill
