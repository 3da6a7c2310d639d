"""The learned part as one module: sensors to ``z_net``, past and actions to what comes, and the losses of both.

Knows nothing of files, clocks or schedules. Shape letters: N ticks, B clips, T ticks of a clip, J far horizons,
S tags, A actions, R linear latent, L learned latent, P past features, D context, H horizons, Q action summaries.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.functional import huber_loss

from fusion.plant import Modality, Plant, Signal
from models import distributed
from models.actions import HORIZONS
from models.distributed import masked_mean
from models.linear.core import LinearCore
from models.networks.blocks import linear
from models.networks.clips import Clips, Starts, summary_width
from models.networks.encoders import AudioEncoder, LidarEncoder, PatchEncoder, VideoEncoder
from models.networks.linear_head import LinearHead
from models.networks.mixer import Mixer, Standardise
from models.networks.predictor import HorizonHeads, Predictor
from models.networks.process import ProcessEncoder
from models.networks.readout import Readout
from models.networks.regularizer import AntiCollapseLoss
from models.networks.size import AntiCollapse, ModelConfig
from models.networks.view import Tokens, View, symlog
from models.ticks import Ticks

ENCODERS: dict[Modality, Callable[[Signal, tuple[int, ...], int, int], PatchEncoder]] = {
    Modality.VIDEO: VideoEncoder,
    Modality.AUDIO: AudioEncoder,
    Modality.LIDAR: LidarEncoder,
}
NEAR = tuple((row, k) for row, k in enumerate(HORIZONS) if k <= 4)  # latent targets inside a clip
TEACHER_KEEP = 0.99
HUBER = 1.0


@dataclass(frozen=True, slots=True)
class MediaShape:
    """Columns of a signal's features and the shape of its patches."""

    features: int
    patches: tuple[int, ...]


def media_shapes(runs: Sequence[Ticks]) -> dict[str, MediaShape]:
    """Shapes of the media that have patches in any of the runs."""
    return {
        name: MediaShape(run.media[name].shape[1], tuple(run.patches[name].shape[1:]))
        for run in runs
        for name in run.patches
    }


class Perception(nn.Module):
    """Encoders and mixer: a view to standardised latents."""

    def __init__(self, plant: Plant, shapes: Mapping[str, MediaShape], config: ModelConfig) -> None:
        super().__init__()
        process = ProcessEncoder(plant, config.width, config.heads, config.graph_layers)
        self.media = tuple(s for s in plant.media if s.name in shapes)
        pictures = [
            ENCODERS[s.modality](s, shapes[s.name].patches, shapes[s.name].features, config.width) for s in self.media
        ]
        self.encoders = nn.ModuleList([process, *pictures])
        self.mixer = Mixer(config.width, config.heads, config.states, config.mixer_layers, config.latent)
        self.standardise = Standardise(config.latent)

    def tokens(self, view: View) -> list[Tokens]:
        """Tokens of each encoder, process first."""
        return [encoder(view) for encoder in self.encoders]

    def raw(self, view: View) -> Tensor:
        """Latents [N, L] before standardisation."""
        return torch.as_tensor(self.mixer(self.tokens(view), len(view))).float()

    @torch.no_grad()
    def settle(self, view: View) -> None:
        """Fix the standardisation of inference to these ticks."""
        self.standardise.settle(self.raw(view))

    def forward(self, view: View) -> Tensor:
        """Latents [N, L]."""
        return torch.as_tensor(self.standardise(self.raw(view)))


@dataclass(frozen=True, slots=True)
class Prediction:
    """Latents of clips ``z_NL``, split into ``z_BTL`` and ``far_BJL``, and what the heads say at every tick.

    ``linear_BTHS`` is the linear core's change of the tags in scaled units, ``residual_BTHS`` what the networks would
    add in units of the residual scale, ``latent_BTHL`` the latent forecast. ``raw_NL`` is before standardisation.
    """

    raw_NL: Tensor
    z_NL: Tensor
    z_BTL: Tensor
    far_BJL: Tensor
    linear_BTHS: Tensor
    residual_BTHS: Tensor
    latent_BTHL: Tensor


class Jepa(nn.Module):
    """The networks around a linear core."""

    def __init__(self, plant: Plant, core: LinearCore, shapes: Mapping[str, MediaShape], config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.shapes = dict(shapes)
        self.half_precision = False
        actions, tags = len(plant.actions), len(plant.tags)
        past = len(core.directions)
        self.linear = LinearHead(core)
        self.perception = Perception(plant, shapes, config)
        self.predictor = Predictor(core.rank + config.latent + past, actions, config)
        self.heads = HorizonHeads(past, summary_width(actions), tags, config)
        self.readout = Readout(len(HORIZONS), tags)
        self.observe_tags = linear(config.latent, tags)
        self.observe_media = nn.ModuleList(
            nn.Linear(config.latent, shapes[s.name].features) for s in self.perception.media
        )
        self.inverse = nn.Linear(2 * config.latent, actions) if config.inverse else None
        self.anti_collapse = AntiCollapseLoss(config.anti_collapse, config.latent)
        teacher = copy.deepcopy(self.perception) if config.anti_collapse is AntiCollapse.EMA else None
        self.teacher: Perception | None = teacher.requires_grad_(False) if teacher is not None else None

    @property
    def device(self) -> torch.device:
        """Where the parameters are."""
        return self.readout.gate_HS.device

    def _cast(self) -> torch.autocast:
        """Networks in bfloat16 where asked for; losses and statistics are always float32."""
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.half_precision)

    def inputs(self, linear_R: Tensor, z_L: Tensor, past_P: Tensor) -> Tensor:
        """What the predictor reads at a tick, along the last axis."""
        return torch.cat([linear_R, z_L, past_P], -1)

    def predict(self, clips: Clips) -> Prediction:
        """Everything the losses and gauges need of some clips."""
        with self._cast():
            raw = self.perception.raw(clips.view)
        return self.foresee(clips, raw, self.perception.standardise(raw))

    def foresee(self, clips: Clips, raw_NL: Tensor, z_NL: Tensor) -> Prediction:
        """Predictions from latents already made."""
        b, t = clips.shape
        z = z_NL[: b * t].reshape(b, t, -1)
        far = z_NL[b * t :].reshape(b, len(clips.far_J), z.shape[-1])
        summary = clips.summary_BTHQ.flatten(0, 1)
        with self._cast():
            context = self.predictor(self.inputs(clips.linear_BTR, z, clips.past_BTP), clips.action_BTA)
            residual, latent = self.heads(context.flatten(0, 1), z.flatten(0, 1), summary)
            residual = residual + self.heads.direct(clips.past_BTP.flatten(0, 1), summary)
        with torch.no_grad():
            linear = self.linear.base(clips.past_BTP.flatten(0, 1)) + self.linear.response(summary)
        parts = (part.unflatten(0, (b, t)) for part in (linear, residual, latent))
        return Prediction(raw_NL, z_NL, z, far, *parts)

    # --- losses

    def losses(self, clips: Clips, generator: torch.Generator, starts: Starts | None = None) -> dict[str, Tensor]:
        """The weighted sum as ``total`` and its terms unweighted; ``generator`` is on the CPU."""
        config = self.config
        made = self.predict(clips)
        independent = torch.cat([made.z_BTL[:, -1], made.far_BJL[clips.far_known_BJ]])
        terms = {
            "forecast": (config.forecast_weight, self.forecast_loss(clips, made)),
            "latent": (config.latent_weight, self.latent_loss(clips, made)),
            "partial": (config.partial_weight, self.partial_loss(clips, made, generator)),
            "observable": (config.observable_weight, self.observable_loss(clips, made)),
            "anti_collapse": (config.anti_collapse_weight, self.anti_collapse(independent, generator)),
        }
        if starts is not None:
            terms["short_cut"] = (config.forecast_weight, self.short_cut_loss(starts))
        if self.inverse is not None:
            terms["inverse"] = (config.inverse, self.inverse_loss(clips, made))
        total = torch.stack([weight * term for weight, term in terms.values()]).sum()
        return {"total": total} | {name: term for name, (_, term) in terms.items()}

    def forecast_loss(self, clips: Clips, made: Prediction) -> Tensor:
        """Huber loss of what the linear core leaves, in units of its usual size."""
        target = (clips.change_BTHS - made.linear_BTHS) / self.readout.scale_HS
        loss = huber_loss(made.residual_BTHS, target, reduction="none", delta=HUBER)
        return masked_mean(loss, clips.known_BTHS)

    def short_cut_loss(self, starts: Starts) -> Tensor:
        """The forecast loss of the short cut alone, on ticks whose sensors are not encoded."""
        with torch.no_grad():
            linear = self.linear.base(starts.past_NP) + self.linear.response(starts.summary_NHQ)
        with self._cast():
            made = self.heads.direct(starts.past_NP, starts.summary_NHQ)
        target = (starts.change_NHS - linear) / self.readout.scale_HS
        return masked_mean(huber_loss(made, target, reduction="none", delta=HUBER), starts.known_NHS)

    def latent_loss(self, clips: Clips, made: Prediction) -> Tensor:
        """Squared error of predicted latents: near ones at every tick, far ones from the last."""
        z, far = self._targets(clips, made)
        near = [made.latent_BTHL[:, :-k, row] - z[:, k:] for row, k in NEAR if k < z.shape[1]]
        distant = (made.latent_BTHL[:, -1, list(clips.far_J)] - far).square()
        parts = [distributed.mean(error.square()).mean() for error in near]
        parts.append(masked_mean(distant, clips.far_known_BJ[..., None].expand_as(distant)))
        return torch.stack(parts).mean()

    def _targets(self, clips: Clips, made: Prediction) -> tuple[Tensor, Tensor]:
        if self.teacher is not None:
            b, t = clips.shape
            with torch.no_grad():
                z = self.teacher(clips.view)
            return z[: b * t].unflatten(0, (b, t)), z[b * t :].unflatten(0, made.far_BJL.shape[:2])
        if self.config.detach_target:
            return made.z_BTL.detach(), made.far_BJL.detach()
        return made.z_BTL, made.far_BJL

    def partial_loss(self, clips: Clips, made: Prediction, generator: torch.Generator) -> Tensor:
        """On some independent ticks, how far the latent of a partial view is from the full one and from all tags.

        So each tag is also read from the others: what ``net.masked`` judges. A process that has none of these ticks
        takes one along that does not count: all must use the networks equally often.
        """
        b, t = clips.shape
        far = b * t + torch.arange(clips.far_known_BJ.numel()).reshape(b, -1)
        ticks = torch.cat([torch.arange(b)[:, None] * t + t - 1, far], 1).flatten()
        counts = distributed.rows(lambda n: torch.rand(n, generator=generator), len(ticks)) < self.config.drop_share
        whole = clips.view.at(ticks.to(self.device))
        part = dropped_view(whole, self.config, generator)
        taken = (torch.nonzero(counts)[:, 0] if counts.any() else torch.zeros(1, dtype=torch.long)).to(self.device)
        with self._cast():
            raw = self.perception.raw(part.at(taken))
        z = self.perception.standardise(raw, made.raw_NL.detach())
        error = (z - made.z_NL[ticks.to(self.device)[taken]].detach()).square()
        counted = counts.to(self.device)[taken][:, None]
        told = huber_loss(self.observe_tags(z), symlog(whole.tags_NS[taken]), reduction="none", delta=HUBER)
        same = masked_mean(error, counted.expand_as(error))
        return same + masked_mean(told, whole.observed_NS[taken] & counted)

    def observable_loss(self, clips: Clips, made: Prediction) -> Tensor:
        """Huber loss of tags and features read from the latent: the latent must not forget what is measured."""
        view = clips.view
        z = made.z_NL
        tags = huber_loss(self.observe_tags(z), symlog(view.tags_NS), reduction="none", delta=HUBER)
        parts, seen = [masked_mean(tags, view.observed_NS)], [torch.ones((), device=z.device)]
        for head, signal in zip(self.observe_media, self.perception.media, strict=True):
            medium = view.media.get(signal.name)
            if medium is not None:
                error = huber_loss(head(z[medium.rows]), symlog(medium.features), reduction="none", delta=HUBER)
                parts.append(masked_mean(error, torch.ones_like(error)))
                seen.append(distributed.length(medium.rows).clamp_max(1.0))
        return (torch.stack(parts) * torch.stack(seen)).sum() / torch.stack(seen).sum()

    def inverse_loss(self, clips: Clips, made: Prediction) -> Tensor:
        """Squared error of the action read from two latents that follow each other."""
        assert self.inverse is not None  # noqa: S101 - the caller checked
        pairs = torch.cat([made.z_BTL[:, :-1], made.z_BTL[:, 1:]], -1)
        return distributed.mean((self.inverse(pairs) - clips.action_BTA[:, 1:]).square()).mean()

    @torch.no_grad()
    def follow(self) -> None:
        """Move the slow teacher, where there is one, a little towards what was learned."""
        if self.teacher is None:
            return
        pairs = zip(self.teacher.state_dict().values(), self.perception.state_dict().values(), strict=True)
        for slow, fast in pairs:
            slow.lerp_(fast, 1.0 - TEACHER_KEEP)

    @torch.no_grad()
    def fit_scale(self, clips: Clips) -> None:
        """Set the residual scale to the size of what the linear core leaves on these clips."""
        linear = self.linear.base(clips.past_BTP.flatten(0, 1))
        linear = (linear + self.linear.response(clips.summary_BTHQ.flatten(0, 1))).reshape(clips.change_BTHS.shape)
        left = (clips.change_BTHS - linear).square() * clips.known_BTHS
        count = clips.known_BTHS.sum((0, 1))
        scale = (left.sum((0, 1)) / count.clamp_min(1)).sqrt()
        self.readout.scale_HS.copy_(torch.where(count > 0, scale.clamp_min(1e-3), 1.0))


def dropped_view(view: View, config: ModelConfig, generator: torch.Generator) -> View:
    """A view without some modalities and tags, never without all: the process goes only where a medium stays.

    Its ticks are rows of the global batch.
    """
    n, s = view.observed_NS.shape
    device = view.tags_NS.device
    stays = torch.zeros(n, dtype=torch.bool)
    keep = {}
    for name, medium in view.media.items():
        kept = distributed.rows(lambda rows: torch.rand(rows, generator=generator), n) >= config.drop_modality
        keep[name] = kept.to(device)
        rows = medium.rows.cpu()
        stays[rows] |= kept[rows]
    gone = (distributed.rows(lambda rows: torch.rand(rows, generator=generator), n) < config.drop_modality) & stays
    tags = distributed.rows(lambda rows: torch.rand(rows, s, generator=generator), n) >= config.drop_tag
    tags &= ~gone[:, None]
    return view.dropped(tags.to(device), keep)
