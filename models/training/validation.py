"""One pass over held-out clips: errors for gates and skill, latents for the gauges.

Shape letters: B clips, H horizons, S tags, L latent, A actions, Q action summaries.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from models.actions import HORIZONS, SUMMARIES, step_summary
from models.linear.core import LinearCore
from models.networks.clips import Clips, Pool
from models.networks.jepa import Jepa, Prediction
from models.networks.readout import Errors
from models.scaling import Floats
from models.training.gauges import Gauges, between_runs, gaussian, spectrum

BATCH = 64
TOKENS, FEWEST = 250_000, 128  # tags times clips, and the least clips of an examination
FAR = (3, 5)  # rows of HORIZONS (8 and 32 ticks) whose latents are checked
ACTION_STEP = 0.25  # of half the engineering range, to read gains off the whole model


@dataclass(slots=True)
class Examination:
    """Sums over held-out clips; ``latent_error`` holds, by ``FAR``, those of the latent forecast and of persistence."""

    errors: Errors
    shuffled: Errors
    z: list[Tensor]
    run: list[Tensor]
    latent_error: Floats
    observable: float = 0.0
    clips: int = 0


def spread(pool: Pool, ticks: int, count: int) -> Tensor:
    """At most ``count`` anchors spread evenly over a pool; fewer of many tags, for a clip costs a token for each."""
    anchors = pool.anchors(ticks)
    count = min(count, max(FEWEST, TOKENS // max(pool.tags_NS.shape[1], 1)))
    if len(anchors) <= count:
        return anchors
    return anchors[torch.linspace(0, len(anchors) - 1, count).round().long()]


@torch.no_grad()
def examine(model: Jepa, pool: Pool, anchors: Tensor) -> Examination:
    """Run the networks, gates open, on the given anchors; leaves the model in the mode it was in."""
    was_training = model.training
    model.eval()
    tags = model.readout.gate_HS.shape[1]
    found = Examination(
        Errors.zero(len(HORIZONS), tags), Errors.zero(len(HORIZONS), tags), [], [], np.zeros((len(FAR), 2))
    )
    folds = _folds(pool, anchors)
    for part in torch.split(torch.arange(len(anchors)), BATCH):
        clips = pool.clips(anchors[part], model.config.window_ticks, FAR).to(model.device)
        _add(found, model, clips, folds[part])
    model.train(was_training)
    return found


def _folds(pool: Pool, anchors: Tensor) -> Tensor:
    """Every other run to each fold, or the two halves of the only run."""
    runs = pool.run_N[anchors]
    if len(torch.unique(runs)) > 1:
        return torch.as_tensor(torch.unique(runs, return_inverse=True)[1] % 2)
    return (torch.arange(len(anchors)) * 2 >= len(anchors)).long()


def _add(found: Examination, model: Jepa, clips: Clips, folds: Tensor) -> None:
    made = model.predict(clips)
    known, true = clips.known_BTHS[:, -1], clips.change_BTHS[:, -1]
    _count(found.errors, model, made, folds, true, known)
    other = dataclasses.replace(
        clips, action_BTA=clips.action_BTA.roll(1, 0), summary_BTHQ=clips.summary_BTHQ.roll(1, 0)
    )
    _count(found.shuffled, model, model.foresee(other, made.raw_NL, made.z_NL), folds, true, known)
    now = made.z_BTL[:, -1]
    for row, far in enumerate(FAR):
        keep = clips.far_known_BJ[:, row]
        then = made.far_BJL[keep, row]
        found.latent_error[row] += [
            float((made.latent_BTHL[:, -1, far][keep] - then).square().sum()),
            float((now[keep] - then).square().sum()),
        ]
    found.z.append(now.cpu())
    found.run.append(clips.run_B.cpu())
    size = len(now)
    found.observable += size * float(model.observable_loss(clips, made))
    found.clips += size


def _count(errors: Errors, model: Jepa, made: Prediction, folds: Tensor, true: Tensor, known: Tensor) -> None:
    net = model.readout.ungated(made.residual_BTHS[:, -1])
    errors.add(folds.to(net.device), made.linear_BTHS[:, -1], net, true, known)


def judge(model: Jepa, found: Examination, step: int, gates: Floats) -> Gauges:
    """Findings as gauges with these gates [H, S]."""
    z, run = torch.cat(found.z), torch.cat(found.run)
    deviation = z.std(0)
    rank_me, participation = spectrum(z)
    error, reference = found.latent_error.T
    true, shuffled = (e.squared(gates).sum((0, 2)) / np.maximum(e.pp.sum((0, 2)), 1e-12) for e in _both(found))
    return Gauges(
        step=step,
        ticks=len(z),
        latent=z.shape[1],
        epps_pulley=gaussian(z),
        std_min=float(deviation.min()),
        std_mean=float(deviation.mean()),
        rank_me=rank_me,
        participation=participation,
        between_runs=between_runs(z, run),
        latent_skill=tuple((1.0 - error / np.maximum(reference, 1e-12)).tolist()),
        action_gap=tuple((shuffled / np.maximum(true, 1e-12) - 1.0).tolist()),
        skill=found.errors.skill(gates),
        skill_over_linear=found.errors.skill_over_linear(gates),
        gates_open=float((gates > 0).mean()) if gates.size else 0.0,
        score=score(found, gates),
    )


def _both(found: Examination) -> tuple[Errors, Errors]:
    return found.errors, found.shuffled


def score(found: Examination, gates: Floats) -> float:
    """What early stopping watches: the forecast as gated, and a little of what keeps the latent informative.

    The error is that of each tag and horizon over the linear core's, so that a horizon on which nothing can be learned
    does not hide what is learned on the others.
    """
    error = 1.0 - found.errors.skill_over_linear(gates)
    known = np.isfinite(error)
    forecast = float(error[known].mean()) if known.any() else 1.0
    return forecast + 0.1 * found.observable / max(found.clips, 1)


@torch.no_grad()
def scaled_gains(model: Jepa, pool: Pool, anchors: Tensor) -> Floats:
    """Mean effect [S, A] of a lasting unit step of each scaled action at the longest horizon, gated networks in."""
    was_training = model.training
    model.eval()
    clips = pool.clips(anchors, model.config.window_ticks).to(model.device)
    made = model.predict(clips)
    context = model.predictor(model.inputs(clips.linear_BTR, made.z_BTL, clips.past_BTP), clips.action_BTA)[:, -1]
    actions = clips.action_BTA.shape[-1]
    step = torch.from_numpy(step_summary(HORIZONS[-1], pool.memory.step_s)).float().to(model.device)
    gains = []
    for action in range(actions):
        change = torch.zeros(1, actions, SUMMARIES, device=model.device)
        change[0, action] = ACTION_STEP * step
        gains.append(_effect(model, context, clips.past_BTP[:, -1], change.flatten(1)) / ACTION_STEP)
    model.train(was_training)
    if not gains:
        return np.zeros((clips.change_BTHS.shape[-1], 0))
    return np.asarray(torch.stack(gains, 1).double().cpu().numpy())


def _effect(model: Jepa, context_ND: Tensor, past_NP: Tensor, summary_1Q: Tensor) -> Tensor:
    """Mean change [S] by a summary against none, at the longest horizon."""
    last = slice(len(HORIZONS) - 1, len(HORIZONS))
    nothing = context_ND.new_zeros(len(context_ND), model.config.latent)

    def residual(summary: Tensor) -> Tensor:
        given = summary[None].expand(len(context_ND), 1, -1)
        return torch.as_tensor(
            model.heads(context_ND, nothing, given, last)[0] + model.heads.direct(past_NP, given, last)
        )

    change = (residual(summary_1Q) - residual(torch.zeros_like(summary_1Q)))[:, 0]
    linear = summary_1Q @ model.linear.action_HQS[-1]
    return torch.as_tensor((linear + model.readout.scale_HS[-1] * model.readout.gate_HS[-1] * change).mean(0))


def arx_errors(core: LinearCore, pool: Pool, anchors: Tensor) -> Floats:
    """Squared errors [H, S] of the ARX model at some moments, summed, in scaled units."""
    starts = pool.starts(anchors)
    past = starts.past_NP.numpy().astype(np.float64)
    shared = past[:, core.own :]
    inputs = np.concatenate(
        [
            np.broadcast_to(shared[:, None], (*starts.summary_NHQ.shape[:2], shared.shape[1])),
            starts.summary_NHQ.numpy(),
        ],
        axis=2,
    )
    weights = core.arx_weights
    made = np.einsum("nhx,hxs->nhs", inputs, weights[:, :-1], optimize=True) + weights[:, -1] + core.own_change(past)
    error = (starts.change_NHS.numpy() - made) * starts.known_NHS.numpy()
    return np.asarray((error**2).sum(0))
