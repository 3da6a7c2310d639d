"""Runs as one pool of scaled tensors, and clips drawn from it: independent windows with their true futures.

Runs with and without media lie in one pool; media are kept in half precision and only where present.
Shape letters: N ticks of the pool, B clips, T ticks of a clip, S tags, A actions, P past features, R linear latent,
H horizons, Q summaries per action.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.errors import ConfigError
from fusion.plant import Plant
from models.actions import HORIZONS, LAGS_S, lag_alphas
from models.averages import ewma
from models.linear.core import LinearCore
from models.networks.view import Medium, View
from models.scaling import Floats, Scaling
from models.ticks import Ticks


@dataclass(frozen=True, slots=True)
class ActionMemory:
    """Running sums from which the summary of any stretch of a recorded action follows, float64 [N, A, ...]."""

    action_NA: Tensor
    total_NA: Tensor
    smooth_NAL: Tensor
    step_s: float

    @classmethod
    def of(cls, action: Floats, step_s: float) -> ActionMemory:
        """From scaled actions [T, A] of one run."""
        smooth = [ewma(action, alpha)[0] for alpha in lag_alphas(step_s)]
        return cls(_tensor(action), _tensor(np.cumsum(action, 0)), _tensor(np.stack(smooth, 2)), step_s)

    def summary(self, now: Tensor, then: Tensor, ticks: Tensor) -> Tensor:
        """Summaries [..., A * Q] between ticks ``now`` and ``then`` [...] of the pool, ``ticks`` [...] apart."""
        k = ticks[..., None].double()
        u, v = self.action_NA[now], self.action_NA[then]
        mean = (self.total_NA[then] - self.total_NA[now]) / k - u
        kept = (1.0 - torch.tensor(lag_alphas(self.step_s), device=u.device).double()) ** k[..., None]
        lagged = self.smooth_NAL[then] - kept * self.smooth_NAL[now] + (kept - 1.0) * u[..., None]
        parts = torch.cat([(v - u)[..., None], mean[..., None], lagged], -1)
        return parts.flatten(-2)


def summary_width(actions: int) -> int:
    """Columns of a summary."""
    return actions * (2 + len(LAGS_S))


@dataclass(frozen=True, slots=True, kw_only=True)
class Clips:
    """B windows of T consecutive ticks as one view of B * T ticks, with what is known at each.

    ``past_BTP`` are past features, ``linear_BTR`` the linear latent, ``change_BTHS`` the true scaled change of the
    tags after each horizon where ``known_BTHS``, ``summary_BTHQ`` of the actions until then, ``last_B`` the pool's
    index of the last tick, ``run_B`` the run. After its B * T ticks the view holds B * J far ones: those that follow
    the last tick of each clip by the horizons of rows ``far_J``, where ``far_known_BJ``.
    """

    view: View
    linear_BTR: Tensor
    past_BTP: Tensor
    action_BTA: Tensor
    summary_BTHQ: Tensor
    change_BTHS: Tensor
    known_BTHS: Tensor
    last_B: Tensor
    run_B: Tensor
    far_J: tuple[int, ...]
    far_known_BJ: Tensor

    def to(self, device: torch.device) -> Clips:
        """Clips on another device."""
        values: dict[str, Any] = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        moved: dict[str, Any] = {k: v if isinstance(v, tuple) else v.to(device) for k, v in values.items()}
        return Clips(**moved)

    @property
    def shape(self) -> tuple[int, int]:
        """Clips and ticks of each."""
        return self.past_BTP.shape[0], self.past_BTP.shape[1]


@dataclass(frozen=True, slots=True)
class Starts:
    """Single ticks and their futures, without sensors: as in ``Clips``, for N ticks."""

    past_NP: Tensor
    summary_NHQ: Tensor
    change_NHS: Tensor
    known_NHS: Tensor

    def to(self, device: torch.device) -> Starts:
        """Starts on another device."""
        return Starts(*(getattr(self, f.name).to(device) for f in dataclasses.fields(self)))


class Pool:
    """All ticks of some runs; knows what a clip needs and nothing of networks."""

    def __init__(self, runs: Sequence[Ticks], core: LinearCore, plant: Plant, *, warm_up_ticks: int = 60) -> None:
        if not runs:
            raise ConfigError("training: at least one run is required")
        encodings = [core.encode(run)[0] for run in runs]
        lengths = torch.tensor([len(run) for run in runs])
        ends = torch.cumsum(lengths, 0)
        self.run_N = torch.repeat_interleave(torch.arange(len(runs)), lengths)
        self.start_N = (ends - lengths)[self.run_N]
        self.end_N = ends[self.run_N]
        self.tags_NS = _tensor(np.concatenate([e.tags for e in encodings])).float()
        self.past_NP = _tensor(np.concatenate([e.past for e in encodings])).float()
        self.linear_NR = _tensor(np.concatenate([e.z for e in encodings])).float()
        memories = [ActionMemory.of(e.action, core.step_s) for e in encodings]
        self.memory = ActionMemory(
            torch.cat([m.action_NA for m in memories]),
            torch.cat([m.total_NA for m in memories]),
            torch.cat([m.smooth_NAL for m in memories]),
            core.step_s,
        )
        self.view = _joined([run_view(run, core.scaling) for run in runs])
        self.warm_up_ticks = warm_up_ticks
        self.has_media_N = torch.zeros(len(self), dtype=torch.bool)
        for medium in self.view.media.values():
            self.has_media_N[medium.rows] = True
        self._place = {name: _places(m.rows, len(self)) for name, m in self.view.media.items()}

    def __len__(self) -> int:
        return len(self.run_N)

    def anchors(self, ticks: int) -> Tensor:
        """Ticks that can end a clip of ``ticks`` and have a future."""
        index = torch.arange(len(self))
        warm = torch.minimum(torch.tensor(self.warm_up_ticks), (self.end_N - self.start_N) // 2)
        early = torch.maximum(warm, torch.tensor(ticks - 1))
        return index[(index - self.start_N >= early) & (index < self.end_N - 1)]

    def starts(self, index: Tensor) -> Starts:
        """The given ticks [N] as starts of forecasts."""
        return Starts(self.past_NP[index], *self._outcome(index, *self.future(index)))

    def _outcome(self, now: Tensor, then: Tensor, inside: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Action summaries, change of the tags and whether it is known, [..., H, ...]."""
        steps = torch.tensor(HORIZONS).expand_as(then)
        summary = self.memory.summary(now[..., None].expand_as(then), then, steps)
        change = self.tags_NS[then] - self.tags_NS[now][..., None, :]
        known = inside[..., None] & self.view.observed_NS[then]
        return torch.where(inside[..., None], summary, 0.0).float(), change, known

    def future(self, now: Tensor) -> tuple[Tensor, Tensor]:
        """Pool indices [..., H] of each horizon after ``now`` [...], and whether within its run; else the same tick."""
        then = now[..., None] + torch.tensor(HORIZONS)
        inside = then < self.end_N[now][..., None]
        return torch.where(inside, then, now[..., None]), inside

    def views(self, index: Tensor) -> View:
        """The given ticks, in any order, as one view."""
        media = {}
        for name, medium in self.view.media.items():
            place = self._place[name][index]
            chosen = place[place >= 0]
            rows = torch.nonzero(place >= 0)[:, 0]
            media[name] = Medium(rows, medium.features[chosen], medium.patches[chosen])
        view = self.view
        return View(
            tags_NS=view.tags_NS[index],
            observed_NS=view.observed_NS[index],
            age_s_NS=view.age_s_NS[index],
            quality_NS=view.quality_NS[index],
            media=media,
        )

    def clips(self, last_B: Tensor, ticks: int, far_J: Sequence[int] = ()) -> Clips:
        """Clips that end at the given anchors; ``far_J`` are rows of ``HORIZONS``."""
        index = last_B[:, None] - torch.arange(ticks - 1, -1, -1)
        then, inside = self.future(index)
        far, far_known = then[:, -1, list(far_J)], inside[:, -1, list(far_J)]
        summary, change, known = self._outcome(index, then, inside)
        return Clips(
            view=self.views(torch.cat([index.flatten(), far.flatten()])),
            linear_BTR=self.linear_NR[index],
            past_BTP=self.past_NP[index],
            action_BTA=self.memory.action_NA[index].float(),
            summary_BTHQ=summary,
            change_BTHS=change,
            known_BTHS=known,
            last_B=last_B,
            run_B=self.run_N[last_B],
            far_J=tuple(far_J),
            far_known_BJ=far_known,
        )


def run_view(run: Ticks, scaling: Scaling) -> View:
    """One run as a sparse view, scaled; patches stay in half precision."""
    media = {}
    for name, scaler in scaling.media.items():
        if name in run.media and name in run.patches:
            rows = np.flatnonzero(run.present[name])
            features = scaler.scaled(run.media[name][rows]).astype(np.float32)
            media[name] = Medium(torch.from_numpy(rows), _tensor(features), _tensor(run.patches[name][rows]))
    return View(
        tags_NS=_tensor(np.where(run.observed, scaling.tags.scaled(run.tags), 0.0).astype(np.float32)),
        observed_NS=torch.from_numpy(run.observed),
        age_s_NS=_tensor(np.where(run.observed, run.age_s, 0.0).astype(np.float32)),
        quality_NS=torch.from_numpy(run.quality).long(),
        media=media,
    )


def _joined(views: Sequence[View]) -> View:
    offsets = np.cumsum([0, *(len(v) for v in views)])
    media = {}
    for name in dict.fromkeys(n for v in views for n in v.media):
        parts = [(v.media[name], int(offset)) for v, offset in zip(views, offsets, strict=False) if name in v.media]
        media[name] = Medium(
            torch.cat([m.rows + offset for m, offset in parts]),
            torch.cat([m.features for m, _ in parts]),
            torch.cat([m.patches for m, _ in parts]),
        )
    return View(
        tags_NS=torch.cat([v.tags_NS for v in views]),
        observed_NS=torch.cat([v.observed_NS for v in views]),
        age_s_NS=torch.cat([v.age_s_NS for v in views]),
        quality_NS=torch.cat([v.quality_NS for v in views]),
        media=media,
    )


def _places(rows: Tensor, size: int) -> Tensor:
    place = torch.full((size,), -1, dtype=torch.long)
    place[rows] = torch.arange(len(rows))
    return place


def _tensor(values: NDArray[Any]) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values))
