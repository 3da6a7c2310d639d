"""How the linear core is fitted: moments per run, choices on held-out runs, a last fit on everything.

Shape letters as in ``models.linear.core``; V variates.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.plant import Plant
from models.actions import HORIZONS
from models.linear.core import CANDIDATES, CVA_FUTURE, LinearConfig, LinearCore
from models.linear.dead_time import dead_times
from models.linear.fold_fit import Ground, fit_folds
from models.linear.past import TAG_ALPHAS, Past, held_tags, past
from models.linear.readouts import (
    MARGIN,
    HorizonSplit,
    choose,
    chosen,
    cva_weights,
    freed_weights,
    held_out_skill,
    no_moments,
    past_directions,
    refitted,
    rhythm_weights,
    run_moments,
)
from models.linear.regression import Moments
from models.linear.rhythm import Rhythm
from models.linear.saturation import AT_ONCE_TICKS, Saturation, Window, saturation
from models.scaling import Bools, Floats, Scaler, Scaling
from models.ticks import Ticks

RANK_HORIZONS = HORIZONS[:7]  # longer ones are left to few rows of the held-out runs
NORMAL_90 = 1.645  # half width of a 90 % band of a standard normal, until conformal bands replace it
FEWEST_ROWS = 20
OWN_PENALTY = 1e-2


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
    core, ground = _fitted(runs, usable, scaling, plant, config, still)
    dead, moved = _proposed(usable, scaling, still)
    if any(dead):
        delayed, other = _fitted(runs, usable, scaling, plant, config, dead)
        if float((delayed.skill - core.skill)[:, moved].mean()) > MARGIN:
            core, ground = delayed, other
    return replace(core, folds=fit_folds(core, ground, plant, config))


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
) -> tuple[LinearCore, Ground]:
    """The core with given dead times, and what it was fitted on."""
    rhythm = None if scaling.factors is not None else Rhythm.fit([held_tags(r, scaling) for r in whole], plant.step_s)
    pasts = _parts([past(run, scaling, None, rhythm, dead)[0][config.warm_up_ticks :] for run in runs])
    scaler = _standard(pasts)
    pasts = [replace(p, features=scaler.scaled(p.features)) for p in pasts]
    fold = _folds(len(pasts), config.held_out_share)
    held = fold == fold.max()
    own = [_own_weights(pasts, horizon) for horizon in HORIZONS]
    splits = _splits(pasts, held, own, plant.step_s)
    trial = past_directions([p for p, h in zip(pasts, held, strict=True) if not h] or pasts, plant.step_s, config)
    rank = _best_rank(splits, trial, config)
    usual = [rhythm_weights(scaler, scaling, splits[row], row, rhythm) for row in range(len(HORIZONS))]
    choices = [choose(s, trial[:, :rank], r, config) for s, r in zip(splits, usual, strict=True)]
    directions = past_directions(pasts, plant.step_s, config)
    made = [refitted(s, c, directions[:, :rank], r, config) for s, c, r in zip(splits, choices, usual, strict=True)]
    weights = [chosen(m, c) for m, c in zip(made, choices, strict=True)]
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
        arx_weights=np.stack([m[CANDIDATES.index("arx")] for m in made]),
        choice=np.stack([c.candidate for c in choices]),
        skill=np.stack([c.skill for c in choices]),
        skill_arx=np.stack([c.skill_arx for c in choices]),
        half_width=NORMAL_90 * np.stack([c.deviation for c in choices]),
        coverage=config.coverage,
        dead=dead,
        rhythm=rhythm,
    )
    ground = Ground(pasts=pasts, fold=fold, own=own, rank=rank, usual=usual)
    if not (limits := _actuators(core, runs, plant)):
        return core, ground
    freed = limits.freed([scaling.tags.engineering(p.tags) for p in pasts])
    planned = []
    for row, horizon in enumerate(HORIZONS):
        by_action = {}
        for action in freed.actions:
            split = _split(pasts, held, horizon, own[row], plant.step_s, freed.windows(action, horizon))
            again = refitted(split, choices[row], directions[:, :rank], usual[row], config)
            by_action[action] = chosen(again, choices[row])
        planned.append(freed_weights(weights[row], by_action, width)[width:-1])
    return replace(core, planned_weights=np.stack(planned)), replace(ground, freed=freed)


def _actuators(core: LinearCore, runs: Sequence[Ticks], plant: Plant) -> Saturation:
    """Limits of tags, and which of those act for which action."""
    tenth = 0.1 * np.array([float(s.high or 0.0) - float(s.low or 0.0) for s in plant.actions])
    effect = core.gains(AT_ONCE_TICKS) * tenth / core.scaling.tags.scale[:, None]
    return saturation(runs, plant, effect)


def _splits(pasts: Sequence[Past], held: Bools, own: Sequence[Floats], step_s: float) -> list[HorizonSplit]:
    """Moments at each horizon."""
    every = [None] * len(pasts)
    return [_split(pasts, held, horizon, w, step_s, every) for horizon, w in zip(HORIZONS, own, strict=True)]


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


def _folds(runs: int, share: float) -> NDArray[np.int64]:
    """The fold of each run, spread over the list; the last is held out of the choices (one run serves both ends)."""
    every = max(2, round(1 / share))
    return np.arange(runs, dtype=np.int64) % min(every, runs)


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
    windows: Sequence[Window | None],
) -> HorizonSplit:
    parts = [run_moments(p, horizon, own, step_s, w) for p, w in zip(pasts, windows, strict=True)]
    fit = [m for m, h in zip(parts, held, strict=True) if m is not None and not h]
    out = [m for m, h in zip(parts, held, strict=True) if m is not None and h]
    empty = no_moments(pasts[0], horizon, step_s)
    return HorizonSplit(Moments.total(fit or out or [empty]), Moments.total(out or fit or [empty]))


def _best_rank(splits: Sequence[HorizonSplit], directions: Floats, config: LinearConfig) -> int:
    """The rank whose median held-out skill, averaged over the horizons, is best; none without tags."""
    if not directions.size:
        return 0
    used = [s for s, h in zip(splits, HORIZONS, strict=True) if h in RANK_HORIZONS]
    scores = [
        np.mean([np.median(held_out_skill(s, cva_weights(s.fit, directions[:, :r]))) for s in used])
        for r in config.ranks
    ]
    return min(int(config.ranks[int(np.argmax(scores))]), int(directions.shape[1]))
