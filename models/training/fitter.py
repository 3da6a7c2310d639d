"""The training loop of the networks: clips, losses, optimiser, validation, early stopping, gates.

Knows tensors only: no files, no command line. Everything random follows from the seed and the step, so that training
goes on after a kill exactly where the state was taken. Several processes draw the same batch and take their rows of it;
everything else each does alike, by the first one's clock and scores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from fusion.errors import ConfigError
from fusion.plant import Plant
from models import distributed
from models.actions import HORIZONS
from models.linear.core import LinearCore
from models.networks.clips import Clips, Pool
from models.networks.jepa import Jepa, media_shapes
from models.networks.size import ModelConfig
from models.ticks import Ticks
from models.training.average import Average
from models.training.gauges import Gauges, collapsed
from models.training.parallel import Networks, full, placed
from models.training.settings import FitConfig, closed
from models.training.validation import examine, judge, scaled_gains, spread

FAR_ROWS = tuple(row for row, k in enumerate(HORIZONS) if k >= 8)
TYPICAL_TICKS = 512
GAIN_CLIPS = 64

Callback = Callable[[int, int, Mapping[str, float], Gauges | None], None]
"""Called after each step with step, expected total, losses, and gauges where there was a validation."""


def build(plant: Plant, core: LinearCore, runs: Sequence[Ticks], config: ModelConfig, seed: int = 0) -> Jepa:
    """Networks for the media found in ``runs``, initialised by ``seed``; the global generator is left alone."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return Jepa(plant, core, media_shapes(runs), config)


class Fitter:
    """One training of networks on a linear core that was fitted on the same training runs.

    Runs with and without media may be mixed. The held-out runs decide when to stop and which gates open, so neither
    the core nor any later judgement may use them. ``clock`` gives seconds; ``rate`` is the learning rate of the last
    step. Bounded by steps alone, the whole course follows from the seed, however often it was interrupted. A bound in
    seconds makes the learning rate and the phases follow the clock wherever it runs ahead of the steps: no two courses
    are then the same, but an interruption costs none of the seconds.
    """

    def __init__(
        self,
        model: Jepa,
        core: LinearCore,
        plant: Plant,
        training: Sequence[Ticks],
        held_out: Sequence[Ticks],
        config: FitConfig,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        distributed.per_rank(config.batch)
        self.model = model
        self.config = config = closed(config, model.config, model.device.type)
        self.step = 0
        self._plant, self._core, self._clock = plant, core, clock
        self._training, self._held_out = Pool(training, core, plant), Pool(held_out, core, plant)
        ticks = model.config.window_ticks
        anchors = self._training.anchors(ticks)
        media = self._training.has_media_N[anchors]
        self._anchors = (anchors[~media], anchors[media])
        self._check = spread(self._held_out, ticks, config.validation_clips)
        if not len(anchors) or not len(self._check):
            raise ConfigError(f"training: training and held-out runs must be longer than {ticks + 1} ticks")
        self._elapsed_s = 0.0
        self._stale = 0
        self._lost = 0
        self._best_score, self._best_sound = float("inf"), False
        self._best: dict[str, Tensor] = {}
        model.half_precision = bool(config.half_precision)
        typical = spread(self._training, ticks, TYPICAL_TICKS)
        self._typical = self._training.views(typical).to(model.device)
        model.fit_scale(self._training.clips(typical, 1).to(model.device))
        self._networks = Networks(model, config.parallel, compiled=bool(config.compile))
        self._optimiser = torch.optim.AdamW(_groups(model, config), lr=config.learning_rate, fused=True)
        self._average = Average(model, config.average_keep)
        self.rate = 0.0

    # --- the loop

    def run(self, callback: Callback | None = None) -> Gauges:
        """Train to the end and keep the best networks; returns their gauges with the gates fitted."""
        started = self._now() - self._elapsed_s
        if not self._best:
            self._validate()
        while not self.finished:
            losses = self.train_step()
            self._elapsed_s = self._now() - started
            due = self.step % self.config.validate_every == 0 and not self.alone
            gauges = self._validate() if due else None
            self._elapsed_s = self._now() - started
            if callback is not None:
                callback(self.step, self.total, losses, gauges)
        return self.finish()

    def _now(self) -> float:
        return distributed.agreed(self._clock())

    @property
    def elapsed_s(self) -> float:
        """Time spent in training, by the clock of the first process [s]."""
        return self._elapsed_s

    @property
    def finished(self) -> bool:
        """Whether steps, time or patience have run out."""
        return self.ending != ""

    @property
    def ending(self) -> str:
        """What ends the training, empty while nothing does."""
        if self._lost >= self.config.collapse_patience:
            return f"the latent has collapsed in {self._lost} validations in a row"
        if self._stale >= self.config.patience:
            return f"{self._stale} validations without progress"
        return "the budget is used" if self.progress >= 1.0 else ""

    @property
    def progress(self) -> float:
        """Share of the budget that is used, 0..1; the learning rate follows it."""
        by_steps = self.step / self.config.steps if self.config.steps else 1.0
        by_time = self._elapsed_s / self.config.seconds
        return min(1.0, max(by_steps, by_time))

    @property
    def alone(self) -> bool:
        """Whether only the short cut learns yet; without tags it has nothing to say."""
        foretold = self.config.short_cut_ticks > 0 and bool(self._plant.tags)
        return foretold and self.progress < self.config.alone_share

    @property
    def total(self) -> int:
        """Steps expected at the speed so far."""
        if not self.step:
            return self.config.steps
        return min(self.config.steps, max(self.step, round(self.step / max(self.progress, 1e-9))))

    def train_step(self) -> dict[str, float]:
        """One optimiser step."""
        alone, rate = self.alone, self._learning_rate()
        self.rate = rate
        self.model.train()
        devices = [self.model.device] if self.model.device.type == "cuda" else []
        with torch.random.fork_rng(devices=devices):
            torch.manual_seed(self._seed())
            generator = torch.Generator().manual_seed(self._seed())
            losses = self._networks.train(lambda model: self._losses(model, generator, alone), partly=alone)
        self._optimiser.zero_grad(set_to_none=True)
        torch.autograd.backward(losses["total"])
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip)
        for group in self._optimiser.param_groups:
            settled = self.config.settled_rate if group["short_cut"] and not alone else 1.0
            group["lr"] = rate * group["share"] * settled
        self._optimiser.step()
        self.model.follow()
        self.step += 1
        self._average.follow(self.step)
        values = torch.stack([loss.detach() for loss in losses.values()]).tolist()
        return dict(zip(losses, values, strict=True))

    def _losses(self, model: Jepa, generator: torch.Generator, alone: bool) -> dict[str, Tensor]:
        """Of everything on clips, or of the short cut alone."""
        clips = None if alone else self.draw(generator).to(model.device)
        wanted = self.config.short_cut_ticks - self.config.short_cut_ticks % distributed.count()
        ticks = distributed.share(_some(torch.cat(self._anchors), wanted, generator))
        starts = self._training.starts(ticks).to(model.device) if len(ticks) else None
        if clips is None and starts is not None:
            loss = model.short_cut_loss(starts)
            return {"total": loss, "short_cut": loss}
        assert clips is not None  # noqa: S101 - without ticks of its own the short cut never learns alone
        return model.losses(clips, generator, starts)

    def draw(self, generator: torch.Generator) -> Clips:
        """Independent clips across runs, and the far horizons their latents are predicted at.

        Those with media are spread evenly, so that processes share the work.
        """
        plain, media = self._anchors
        wanted = round(self.config.batch * self.config.media_share)
        with_media = 0 if not len(media) else self.config.batch if not len(plain) else wanted
        parts = [_some(plain, self.config.batch - with_media, generator), _some(media, with_media, generator)]
        place = torch.cat([(torch.arange(len(part)) + 0.5) / max(len(part), 1) for part in parts])
        chosen = torch.cat(parts)[torch.argsort(place, stable=True)]
        order = torch.randperm(len(FAR_ROWS), generator=generator)[: self.model.config.far_horizons]
        far = [FAR_ROWS[i] for i in sorted(order.tolist())]
        return self._training.clips(distributed.share(chosen), self.model.config.window_ticks, far)

    def _seed(self) -> int:
        return (self.config.seed + 1) * 1_000_003 + self.step

    def _learning_rate(self) -> float:
        """Warm-up, then a cosine in each of the two phases."""
        share, progress = self.config.alone_share, self.progress
        done = progress / share if progress < share else (progress - share) / (1.0 - share)
        warm = min(1.0, (self.step + 1) / max(self.config.warm_up_steps, 1))
        return self.config.learning_rate * warm * (0.02 + 0.98 * 0.5 * (1.0 + float(np.cos(np.pi * done))))

    # --- judgement

    def _validate(self) -> Gauges:
        """Judge the averaged weights, with the statistics of inference settled for them, and keep the best."""
        with self._average.in_place():
            self._networks.rest(lambda model: model.perception.settle(self._typical))
            found = self._networks.rest(lambda model: examine(model, self._held_out, self._check))
            gauges = judge(self.model, found, self.step, found.errors.gates())
            self._keep_best(*distributed.agreed((not collapsed(gauges, self.config.limits), gauges.score)))
        return gauges

    def _keep_best(self, sound: bool, score: float) -> None:
        """Keep what is in place where it is better; a sound latent is better than a collapsed one."""
        self._lost = self._lost + 1 if self._best_sound and not sound else 0
        if (sound, -score) > (self._best_sound, -self._best_score):
            self._best_score, self._best_sound, self._stale = score, sound, 0
            self._best = {k: v.detach().clone() for k, v in self.model.state_dict().items()}
        else:
            self._stale += 1

    def finish(self) -> Gauges:
        """Put the best networks in place, fit their gates on more held-out clips, and judge the whole."""
        if self._best:
            self.model.load_state_dict(self._best)
        ticks = self.model.config.window_ticks
        check = spread(self._held_out, ticks, self.config.gate_clips)
        found = self._networks.rest(lambda model: examine(model, self._held_out, check))
        gates = found.errors.gates()
        self.model.readout.gate_HS.copy_(torch.from_numpy(gates))
        gauges = judge(self.model, found, self.step, gates)
        few = spread(self._held_out, ticks, GAIN_CLIPS)
        gains = self._networks.rest(lambda model: scaled_gains(model, self._held_out, few))
        scaling = self._core.scaling
        values = {n: getattr(gauges, n) for n in gauges.__dataclass_fields__}
        return Gauges(**values | {"gains": gains * scaling.tags.scale[:, None] / scaling.action.scale})

    # --- at rest

    def networks(self) -> Jepa:
        """The networks as they are, whole and on the CPU; all processes must ask."""
        with torch.random.fork_rng(devices=[]):
            made = Jepa(self._plant, self._core, self.model.shapes, self.model.config)
        made.load_state_dict({name: full(value) for name, value in self.model.state_dict().items()})
        return made

    def state_dict(self) -> dict[str, Any]:
        """Everything needed to go on, with any number of processes: ``arrays`` (by name) and ``meta`` (JSON-able).

        All processes must ask.
        """
        arrays = {f"model/{k}": full(v) for k, v in self.model.state_dict().items()}
        arrays |= {f"average/{k}": full(v) for k, v in self._average.state().items()}
        arrays |= {f"best/{k}": full(v) for k, v in self._best.items()}
        for parameter, name in _names(self.model).items():
            slots = self._optimiser.state.get(parameter, {})
            arrays |= {f"optimiser/{name}/{slot}": full(value) for slot, value in slots.items()}
        best = self._best_score if np.isfinite(self._best_score) else None
        counts = {"step": self.step, "elapsed_s": self._elapsed_s, "stale": self._stale, "lost": self._lost}
        meta = counts | {"best_score": best, "best_sound": self._best_sound}
        return {"arrays": arrays, "meta": meta}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what ``state_dict`` gave; model, runs and configuration must be the same.

        Raises:
            ConfigError: where the state does not belong to this model.
        """
        arrays: Mapping[str, Tensor] = state["arrays"]
        meta = state["meta"]
        own = self.model.state_dict()
        try:
            self.model.load_state_dict({k: placed(v, own.get(k, v)) for k, v in _part(arrays, "model/").items()})
            self._average.load({k: placed(v, own[k]) for k, v in _part(arrays, "average/").items()})
            self._best = {k: placed(v, own[k]) for k, v in _part(arrays, "best/").items()}
        except (KeyError, RuntimeError) as error:
            raise ConfigError(f"training state: it belongs to another model ({error})") from error
        slots = _part(arrays, "optimiser/")
        self._optimiser.state.clear()
        for parameter, name in _names(self.model).items():
            found = _part(slots, f"{name}/")
            if found:
                self._optimiser.state[parameter] = {
                    k: v.to(parameter.device, copy=True) if k == "step" else placed(v, parameter)
                    for k, v in found.items()
                }
        self.step, self._elapsed_s = int(meta["step"]), float(meta["elapsed_s"])
        self._stale, self._lost, self._best_sound = int(meta["stale"]), int(meta["lost"]), bool(meta["best_sound"])
        self._best_score = float("inf") if meta["best_score"] is None else float(meta["best_score"])


def _part(arrays: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}


def _names(model: Jepa) -> dict[torch.nn.Parameter, str]:
    return {parameter: name for name, parameter in model.named_parameters() if parameter.requires_grad}


def _groups(model: Jepa, config: FitConfig) -> list[dict[str, Any]]:
    """Weights of maps are decayed; biases, norms, positions and starting points are not."""
    groups: dict[tuple[bool, bool, bool], list[Tensor]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            a_map = parameter.ndim >= 2 and name.endswith(("weight", ".out"))
            part = (name.startswith("perception."), name.startswith("heads.short_cut."), a_map)
            groups.setdefault(part, []).append(parameter)
    return [
        {
            "params": parameters,
            "weight_decay": config.weight_decay if a_map else 0.0,
            "share": config.perception_rate if perceives else 1.0,
            "short_cut": short_cut,
        }
        for (perceives, short_cut, a_map), parameters in groups.items()
    ]


def _some(anchors: Tensor, count: int, generator: torch.Generator) -> Tensor:
    if not count:
        return anchors[:0]
    return anchors[torch.randint(len(anchors), (count,), generator=generator)]
