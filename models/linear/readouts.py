"""Readouts of one horizon: moments of runs, the candidates fitted on them, and which of these each tag keeps.

Shape letters as in ``models.linear.core``; V variates.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.actions import SUMMARIES, recorded_summary
from models.linear.core import CANDIDATES, CVA_FUTURE, CVA_KNOWN, LinearConfig
from models.linear.past import RHYTHM_COLUMNS, Past
from models.linear.regression import Moments, canonical_directions, ridge
from models.linear.rhythm import Rhythm
from models.linear.saturation import Window
from models.scaling import FACTORS, Floats, Scaler, Scaling

CVA_READOUT_PENALTY = 1e-3  # few and well-conditioned inputs: not worth a choice
MARGIN = 0.01  # skill by which a readout must beat a simpler one
RHYTHM_MARGIN = 0.1  # its weights are shared by all tags and know no levels, which drift over months


@dataclass(frozen=True, slots=True)
class HorizonSplit:
    """Moments at one horizon of the runs to fit and of those held out."""

    fit: Moments
    held: Moments


@dataclass(frozen=True, slots=True)
class Choice:
    """What held-out runs say at one horizon, per tag [S]: penalty index, candidate index, skills, error."""

    penalty: NDArray[np.int64]
    candidate: NDArray[np.int64]
    skill: Floats
    skill_arx: Floats
    deviation: Floats


def run_moments(made: Past, horizon: int, own: Floats, step_s: float, window: Window | None) -> Moments | None:
    """Of what own features leave of the changes; neighbouring rows of long horizons say the same and are thinned."""
    if len(made.tags) <= horizon:
        return None
    thin = max(1, min(4 if window is None else 16, horizon // 8))
    summary = recorded_summary(made.action, horizon, step_s)[::thin]
    counts = np.ones(len(summary), bool)
    if window is not None:
        counts = window.counts[::thin]
        summary = summary * np.repeat(window.share[::thin], SUMMARIES, 1)
    change = (made.tags[horizon:] - made.tags[:-horizon])[::thin]
    known = np.einsum("tks,ks->ts", made.alone[:-horizon:thin], own) if made.own else np.zeros_like(change)
    inputs = np.concatenate([made.shared[:-horizon:thin], summary], 1)
    return Moments.of(inputs[counts], change[counts], known[counts])


def no_moments(made: Past, horizon: int, step_s: float) -> Moments:
    """Moments of no rows: what a horizon longer than every run leaves; its readout is persistence."""
    summary = recorded_summary(np.zeros((horizon + 1, made.action.shape[1])), horizon, step_s)
    width = made.shared.shape[1] + summary.shape[1]
    return Moments.of(np.zeros((0, width)), np.zeros((0, made.tags.shape[1])))


def past_directions(pasts: Sequence[Past], step_s: float, config: LinearConfig) -> Floats:
    """Canonical directions towards differences of the tags, or of many tags' factors, future actions partialled out."""
    span = max(CVA_FUTURE)
    features, future, known = [], [], []
    for made in pasts:
        rows = max(len(made.tags) - span, 0)
        features.append(made.shared[:rows])
        told = made.shared[:, :FACTORS] if made.own else made.tags
        future.append(np.concatenate([told[k : k + rows] - told[:rows] for k in CVA_FUTURE], 1))
        known.append(np.concatenate([recorded_summary(made.action, k, step_s)[:rows] for k in CVA_KNOWN], 1))
    found, _ = canonical_directions(
        np.concatenate(features), np.concatenate(future), np.concatenate(known), config.cva_penalty
    )
    return found[:, : config.variates]


def held_out_skill(split: HorizonSplit, weights: Floats) -> Floats:
    """Skill [S] over persistence on the runs held out."""
    return 1.0 - split.held.error(weights) / (split.held.persistence_error() + 1e-12)


def cva_weights(moments: Moments, directions: Floats) -> Floats:
    """Ridge readout from the variates, written as weights of the past features [P + A * Q + 1, S]."""
    p, r = directions.shape
    rest = len(moments.xx) - p
    matrix = np.zeros((p + rest, r + rest))
    matrix[:p, :r] = directions
    matrix[p:, r:] = np.eye(rest)
    return np.asarray(matrix @ ridge(moments.mapped(matrix), (CVA_READOUT_PENALTY,))[0])


def rhythm_weights(scaler: Scaler, scaling: Scaling, split: HorizonSplit, row: int, rhythm: Rhythm | None) -> Floats:
    """The rhythm as it is [P + A * Q + 1, S]: each tag's column of the horizon; persistence where there is none."""
    weights = np.zeros_like(split.fit.xy)
    tags = len(scaling.tags.centre)
    if rhythm is not None and row < len(RHYTHM_COLUMNS):
        columns = len(scaler.centre) - (len(RHYTHM_COLUMNS) - row) * tags + np.arange(tags)
        weights[columns, np.arange(tags)] = scaler.scale[columns]
        weights[-1] = scaler.centre[columns]
    return weights


def candidates(
    moments: Moments, penalty: NDArray[np.int64], directions: Floats, rhythm: Floats, config: LinearConfig
) -> list[Floats]:
    """Weights of each of ``CANDIDATES``; ``penalty`` [S] picks the ARX penalty of each tag."""
    arx = np.stack(ridge(moments, config.penalties))
    arx = np.take_along_axis(arx, penalty[None, None], 0)[0]
    cva = cva_weights(moments, directions)
    return [np.zeros_like(arx), arx, cva, 0.5 * (arx + cva), rhythm]


def choose(split: HorizonSplit, directions: Floats, rhythm: Floats, config: LinearConfig) -> Choice:
    """Penalty and candidate that tell each tag of the held-out runs best, with what they are worth there."""
    errors = np.stack([split.held.error(w) for w in ridge(split.fit, config.penalties)])
    penalty = errors.argmin(0)
    skills = np.stack([held_out_skill(split, w) for w in candidates(split.fit, penalty, directions, rhythm, config)])
    bonus = np.zeros((len(CANDIDATES), 1))
    bonus[[CANDIDATES.index(name) for name in ("persistence", "mean")]] = MARGIN
    bonus[CANDIDATES.index("rhythm")] = RHYTHM_MARGIN if rhythm.any() else -np.inf
    candidate = (skills + bonus).argmax(0)
    skill = np.take_along_axis(skills, candidate[None], 0)[0]
    deviation = np.sqrt((1.0 - skill) * split.held.persistence_error())
    return Choice(penalty, candidate, skill, skills[CANDIDATES.index("arx")], deviation)


def refitted(
    split: HorizonSplit, choice: Choice, directions: Floats, rhythm: Floats, config: LinearConfig
) -> list[Floats]:
    """Weights of each of ``CANDIDATES``, fitted again on all runs."""
    return candidates(Moments.total((split.fit, split.held)), choice.penalty, directions, rhythm, config)


def chosen(made: Sequence[Floats], choice: Choice) -> Floats:
    """The readout that each tag keeps."""
    return np.asarray(np.take_along_axis(np.stack(made), choice.candidate[None, None], 0)[0])


def freed_weights(weights: Floats, by_action: Mapping[int, Floats], past: int) -> Floats:
    """``weights`` [P + A * Q + 1, S], ``past`` P, in which each action's are those of a fit of its own."""
    made = weights.copy()
    for action, own in by_action.items():
        rows = slice(past + action * SUMMARIES, past + (action + 1) * SUMMARIES)
        made[rows] = own[rows]
    return made
