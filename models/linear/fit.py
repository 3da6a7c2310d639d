"""How the linear core is fitted: moments per run, choices on held-out runs, a last fit on everything.

Shape letters as in ``models.linear.core``; V variates.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.plant import Plant
from models.actions import HORIZONS, SUMMARIES, recorded_summary
from models.linear.core import CANDIDATES, CVA_FUTURE, CVA_KNOWN, LinearConfig, LinearCore
from models.linear.dead_time import dead_times
from models.linear.past import RHYTHM_COLUMNS, TAG_ALPHAS, Past, held_tags, past
from models.linear.regression import Moments, canonical_directions, ridge
from models.linear.rhythm import Rhythm
from models.linear.saturation import AT_ONCE_TICKS, Saturation, saturation, shares
from models.scaling import FACTORS, Bools, Floats, Scaler, Scaling
from models.ticks import Ticks

CVA_READOUT_PENALTY = 1e-3  # few and well-conditioned inputs: not worth a choice
RANK_HORIZONS = HORIZONS[:7]  # longer ones are left to few rows of the held-out runs
MARGIN = 0.01  # skill by which a readout must beat a simpler one
RHYTHM_MARGIN = 0.1  # its weights are shared by all tags and know no levels, which drift over months
NORMAL_90 = 1.645  # half width of a 90 % band of a standard normal, until conformal bands replace it
FEWEST_ROWS = 20
OWN_PENALTY = 1e-2


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


def fit_core(runs: Sequence[Ticks], plant: Plant, config: LinearConfig | None = None) -> LinearCore:
    """The core of the tags of all runs; every few runs are held out to choose rank, penalties and readouts.

    A dead time is believed where it tells more of the held-out runs.

    Raises:
        ConfigError: where the runs are too short for the shortest horizon.
    """
    config = config or LinearConfig()
    usable = _usable(runs, config)
    scaling = Scaling.fit(usable, plant)
    still = (0,) * len(plant.actions)
    core = _fitted(runs, usable, scaling, plant, config, still)
    dead, moved = _proposed(usable, scaling, still)
    if not any(dead):
        return core
    delayed = _fitted(runs, usable, scaling, plant, config, dead)
    better = float((delayed.skill - core.skill)[:, moved].mean()) > MARGIN
    return delayed if better else core


def _proposed(runs: Sequence[Ticks], scaling: Scaling, still: tuple[int, ...]) -> tuple[tuple[int, ...], Bools]:
    """Dead times that the response of few tags shows; none of many, whose past is not theirs alone."""
    if scaling.factors is not None or not still:
        return still, np.zeros(len(scaling.tags.centre), bool)
    tag_features = len(scaling.tags.centre) * (1 + len(TAG_ALPHAS))
    return dead_times([past(run, scaling)[0] for run in runs], tag_features)


def _fitted(
    whole: Sequence[Ticks],
    runs: Sequence[Ticks],
    scaling: Scaling,
    plant: Plant,
    config: LinearConfig,
    dead: tuple[int, ...],
) -> LinearCore:
    """The core with given dead times."""
    rhythm = None if scaling.factors is not None else Rhythm.fit([held_tags(r, scaling) for r in whole], plant.step_s)
    pasts = _parts([past(run, scaling, None, rhythm, dead)[0][config.warm_up_ticks :] for run in runs])
    scaler = _standard(pasts)
    pasts = [replace(p, features=scaler.scaled(p.features)) for p in pasts]
    held = _held_out(len(pasts), config.held_out_share)
    own = [_own_weights(pasts, horizon) for horizon in HORIZONS]
    splits = _splits(pasts, held, own, plant.step_s)
    trial = _directions([p for p, h in zip(pasts, held, strict=True) if not h] or pasts, plant.step_s, config)
    rank = _best_rank(splits, trial, config)
    usual = [_rhythm_weights(scaler, scaling, splits[row], row, rhythm) for row in range(len(HORIZONS))]
    choices = [_choose(s, trial[:, :rank], r, config) for s, r in zip(splits, usual, strict=True)]
    directions = _directions(pasts, plant.step_s, config)
    refitted = [
        _refitted(s, c, directions[:, :rank], r, config) for s, c, r in zip(splits, choices, usual, strict=True)
    ]
    weights = [_chosen(made, c) for made, c in zip(refitted, choices, strict=True)]
    width = pasts[0].shared.shape[1]
    core = LinearCore(
        scaling=scaling,
        step_s=plant.step_s,
        past_scaler=scaler,
        directions=np.concatenate([np.zeros((pasts[0].own, directions.shape[1])), directions]),
        own_weights=np.stack(own) if pasts[0].own else None,
        rank=rank,
        past_weights=np.stack([w[:width] for w in weights]),
        action_weights=np.stack([w[width:-1] for w in weights]),
        planned_weights=np.stack([w[width:-1] for w in weights]),
        offset=np.stack([w[-1] for w in weights]),
        arx_weights=np.stack([made[CANDIDATES.index("arx")] for made in refitted]),
        choice=np.stack([c.candidate for c in choices]),
        skill=np.stack([c.skill for c in choices]),
        skill_arx=np.stack([c.skill_arx for c in choices]),
        half_width=NORMAL_90 * np.stack([c.deviation for c in choices]),
        coverage=config.coverage,
        dead=dead,
        rhythm=rhythm,
    )
    if not (limits := _actuators(core, runs, plant)):
        return core
    freed = [limits.free(scaling.tags.engineering(made.tags)) for made in pasts]
    free = _splits(pasts, held, own, plant.step_s, freed)
    refitted = [_refitted(s, c, directions[:, :rank], r, config) for s, c, r in zip(free, choices, usual, strict=True)]
    planned = [_chosen(made, c)[width:-1] for made, c in zip(refitted, choices, strict=True)]
    return replace(core, planned_weights=np.stack(planned))


def _actuators(core: LinearCore, runs: Sequence[Ticks], plant: Plant) -> Saturation:
    """Limits of tags, and which of those act for which action."""
    tenth = 0.1 * np.array([float(s.high or 0.0) - float(s.low or 0.0) for s in plant.actions])
    effect = core.gains(AT_ONCE_TICKS) * tenth / core.scaling.tags.scale[:, None]
    return saturation(runs, plant, effect)


def _splits(
    pasts: Sequence[Past], held: Bools, own: Sequence[Floats], step_s: float, freed: Sequence[Floats] | None = None
) -> list[HorizonSplit]:
    """Moments at each horizon; with ``freed`` [T, A] an action counts by the share of ticks at which it is free."""
    return [_split(pasts, held, horizon, w, step_s, freed) for horizon, w in zip(HORIZONS, own, strict=True)]


def _usable(runs: Sequence[Ticks], config: LinearConfig) -> list[Ticks]:
    """Runs long enough to say something."""
    shortest = config.warm_up_ticks + max(CVA_FUTURE) + FEWEST_ROWS
    usable = [run for run in runs if len(run) >= shortest]
    if not usable:
        longest = max((len(run) for run in runs), default=0)
        raise ConfigError(
            f"linear core: the longest of {len(runs)} runs has {longest} ticks; at least {shortest} needed"
        )
    return usable


def _parts(pasts: list[Past]) -> list[Past]:
    """A single run cut in three, or two where thirds are short, so that its end is held out; several as they are."""
    if len(pasts) > 1:
        return pasts
    rows, shortest = len(pasts[0].tags), max(CVA_FUTURE) + FEWEST_ROWS
    third = rows // 3
    cuts = [0, third, 2 * third, rows] if third > shortest else [0, max(2 * third, shortest), rows]
    return [pasts[0][start:end] for start, end in itertools.pairwise(cuts) if end > start]


def _standard(pasts: Sequence[Past]) -> Scaler:
    features = np.concatenate([p.features for p in pasts])
    deviation = features.std(0)
    return Scaler(features.mean(0), np.where(deviation > 1e-6, deviation, 1.0))


def _held_out(runs: int, share: float) -> Bools:
    """Every so many runs, spread over the list; with one run it serves both ends (and the skills are optimistic)."""
    every = max(2, round(1 / share))
    return np.asarray(np.arange(runs) % every == every - 1 if runs >= every else np.arange(runs) == runs - 1)


def _own_weights(pasts: Sequence[Past], horizon: int) -> Floats:
    """Ridge weights [K, S] of each tag's change from its own features alone; nothing where it has none."""
    tags, count = pasts[0].tags.shape[1], pasts[0].alone.shape[1]
    square, cross, rows = np.zeros((tags, count, count)), np.zeros((tags, count)), 1
    for made in pasts:
        if pasts[0].own and len(made.tags) > horizon:
            alone, change = made.alone[:-horizon], made.tags[horizon:] - made.tags[:-horizon]
            square += np.einsum("tks,tls->skl", alone, alone, optimize=True)
            cross += np.einsum("tks,ts->sk", alone, change, optimize=True)
            rows += len(change)
    return np.asarray(np.linalg.solve(square + OWN_PENALTY * rows * np.eye(count), cross[..., None])[..., 0].T)


def _split(
    pasts: Sequence[Past],
    held: Bools,
    horizon: int,
    own: Floats,
    step_s: float,
    freed: Sequence[Floats] | None,
) -> HorizonSplit:
    known = [None] * len(pasts) if freed is None else freed
    parts = [_moments(p, horizon, own, step_s, free) for p, free in zip(pasts, known, strict=True)]
    fit = [m for m, h in zip(parts, held, strict=True) if m is not None and not h]
    out = [m for m, h in zip(parts, held, strict=True) if m is not None and h]
    empty = _empty(pasts[0], horizon, step_s)
    return HorizonSplit(Moments.total(fit or out or [empty]), Moments.total(out or fit or [empty]))


def _moments(made: Past, horizon: int, own: Floats, step_s: float, free: Floats | None) -> Moments | None:
    """Of what own features leave of the changes; neighbouring rows of long horizons say the same and are thinned."""
    if len(made.tags) <= horizon:
        return None
    thin = max(1, min(4, horizon // 8))
    summary = recorded_summary(made.action, horizon, step_s)[::thin]
    if free is not None:
        summary = summary * np.repeat(shares(free, horizon)[::thin], SUMMARIES, 1)
    change = (made.tags[horizon:] - made.tags[:-horizon])[::thin]
    known = np.einsum("tks,ks->ts", made.alone[:-horizon:thin], own) if made.own else 0.0
    return Moments.of(np.concatenate([made.shared[:-horizon:thin], summary], 1), change, known)


def _empty(made: Past, horizon: int, step_s: float) -> Moments:
    """Moments of no rows: what a horizon longer than every run leaves; its readout is persistence."""
    summary = recorded_summary(np.zeros((horizon + 1, made.action.shape[1])), horizon, step_s)
    width = made.shared.shape[1] + summary.shape[1]
    return Moments.of(np.zeros((0, width)), np.zeros((0, made.tags.shape[1])))


def _directions(pasts: Sequence[Past], step_s: float, config: LinearConfig) -> Floats:
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


def _best_rank(splits: Sequence[HorizonSplit], directions: Floats, config: LinearConfig) -> int:
    """The rank whose median held-out skill, averaged over the horizons, is best; none without tags."""
    if not directions.size:
        return 0
    used = [s for s, h in zip(splits, HORIZONS, strict=True) if h in RANK_HORIZONS]
    scores = [
        np.mean([np.median(_skill(s, _cva_weights(s.fit, directions[:, :r]))) for s in used]) for r in config.ranks
    ]
    return min(int(config.ranks[int(np.argmax(scores))]), int(directions.shape[1]))


def _skill(split: HorizonSplit, weights: Floats) -> Floats:
    return 1.0 - split.held.error(weights) / (split.held.persistence_error() + 1e-12)


def _cva_weights(moments: Moments, directions: Floats) -> Floats:
    """Ridge readout from the variates, written as weights of the past features [P + A * Q + 1, S]."""
    p, r = directions.shape
    rest = len(moments.xx) - p
    matrix = np.zeros((p + rest, r + rest))
    matrix[:p, :r] = directions
    matrix[p:, r:] = np.eye(rest)
    return np.asarray(matrix @ ridge(moments.mapped(matrix), (CVA_READOUT_PENALTY,))[0])


def _rhythm_weights(scaler: Scaler, scaling: Scaling, split: HorizonSplit, row: int, rhythm: Rhythm | None) -> Floats:
    """The rhythm as it is [P + A * Q + 1, S]: each tag's column of the horizon; persistence where there is none."""
    weights = np.zeros_like(split.fit.xy)
    tags = len(scaling.tags.centre)
    if rhythm is not None and row < len(RHYTHM_COLUMNS):
        columns = len(scaler.centre) - (len(RHYTHM_COLUMNS) - row) * tags + np.arange(tags)
        weights[columns, np.arange(tags)] = scaler.scale[columns]
        weights[-1] = scaler.centre[columns]
    return weights


def _candidates(
    moments: Moments, penalty: NDArray[np.int64], directions: Floats, rhythm: Floats, config: LinearConfig
) -> list[Floats]:
    """Weights of each of ``CANDIDATES``; ``penalty`` [S] picks the ARX penalty of each tag."""
    arx = np.stack(ridge(moments, config.penalties))
    arx = np.take_along_axis(arx, penalty[None, None], 0)[0]
    cva = _cva_weights(moments, directions)
    return [np.zeros_like(arx), arx, cva, 0.5 * (arx + cva), rhythm]


def _choose(split: HorizonSplit, directions: Floats, rhythm: Floats, config: LinearConfig) -> Choice:
    errors = np.stack([split.held.error(w) for w in ridge(split.fit, config.penalties)])
    penalty = errors.argmin(0)
    skills = np.stack([_skill(split, w) for w in _candidates(split.fit, penalty, directions, rhythm, config)])
    bonus = np.zeros((len(CANDIDATES), 1))
    bonus[[CANDIDATES.index(name) for name in ("persistence", "mean")]] = MARGIN
    bonus[CANDIDATES.index("rhythm")] = RHYTHM_MARGIN if rhythm.any() else -np.inf
    candidate = (skills + bonus).argmax(0)
    skill = np.take_along_axis(skills, candidate[None], 0)[0]
    deviation = np.sqrt((1.0 - skill) * split.held.persistence_error())
    return Choice(penalty, candidate, skill, skills[CANDIDATES.index("arx")], deviation)


def _refitted(
    split: HorizonSplit, choice: Choice, directions: Floats, rhythm: Floats, config: LinearConfig
) -> list[Floats]:
    """Weights of each of ``CANDIDATES``, fitted again on all runs."""
    return _candidates(Moments.total((split.fit, split.held)), choice.penalty, directions, rhythm, config)


def _chosen(made: Sequence[Floats], choice: Choice) -> Floats:
    """The readout that each tag keeps."""
    return np.asarray(np.take_along_axis(np.stack(made), choice.candidate[None, None], 0)[0])
