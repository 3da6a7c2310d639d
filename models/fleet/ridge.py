"""The fleet ridge: second moments of many plants by kind of signal, solved for whatever signals a plant has.

What a plant lacks is left out of the moments before they are solved, which is the best that a linear model can do with
what is there. A tag of no known kind is told from its own past alone, as all tags of all plants are.
Shape letters: T ticks, S tags, A actions, K kinds of tags, P inputs, H horizons, F features of one signal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Plant
from models.actions import HORIZONS, SUMMARIES, recorded_summary
from models.fleet.kinds import Kinds, Places
from models.fleet.view import ACTION_FEATURES, FEATURES, View
from models.linear.regression import Moments, ridge
from models.scaling import Floats

OWN_PENALTY = 1e-3
EVERY = 3  # one row in so many is pooled: neighbours say the same


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetRidge:
    """Mean second moments of the inputs ``xx`` [H, P, P] and of what they tell ``xy`` [H, P, K], ``yy`` [H, K].

    Inputs are the past features of each kind, the action summaries and a one. ``alone`` [H, F + 1] tells a tag from
    its own past, ``left`` [H] is the share of its squared change that this leaves.
    """

    kinds: Kinds
    step_s: float
    xx: NDArray[np.float32]
    xy: NDArray[np.float32]
    yy: Floats
    alone: Floats
    left: Floats
    penalty: float

    def of_plant(self, plant: Plant, own: Sequence[View] = ()) -> PlantRidge:
        """The ridge for the signals of a plant; ``own`` minutes scale the tags of no known kind."""
        tags, actions = self.kinds.places(plant)
        known_t, known_a = np.flatnonzero(tags >= 0), np.flatnonzero(actions >= 0)
        here, pooled = self._columns(tags, actions, known_t, known_a)
        width = FEATURES * len(tags) + (ACTION_FEATURES + SUMMARIES) * len(actions) + 1
        weights = np.zeros((len(HORIZONS), width, len(tags)))
        error = np.zeros((len(HORIZONS), len(tags)))
        solved, left = self._solved(pooled, tags[known_t])
        weights[np.ix_(np.arange(len(HORIZONS)), here, known_t)] = solved
        error[:, known_t] = left
        unknown = np.flatnonzero(tags < 0)
        for i in unknown:
            weights[:, i + len(tags) * np.arange(FEATURES), i] = self.alone[:, :-1]
        error[:, unknown] = self.left[:, None] * squared_changes(own, len(tags))[:, unknown]
        return PlantRidge(weights=weights, scale=np.sqrt(np.maximum(error, 1e-10)), known=tags >= 0, step_s=self.step_s)

    def _columns(self, tags: Places, actions: Places, known_t: Places, known_a: Places) -> tuple[Places, Places]:
        """Columns of the plant's inputs that are of a kind, and where these stand in what is pooled."""
        here = plant_columns(known_t, known_a, len(tags), len(actions))
        pooled = plant_columns(tags[known_t], actions[known_a], len(self.kinds.tags), len(self.kinds.actions))
        return here, pooled

    def _solved(self, columns: Places, kinds: Places) -> tuple[Floats, Floats]:
        """Weights [H, P', S'] of the columns that there are, and the squared error [H, S'] that they leave."""
        made, left = [], []
        for xx, xy, yy in zip(self.xx, self.xy, self.yy, strict=True):
            within, across = (m.astype(np.float64) for m in (xx[np.ix_(columns, columns)], xy[np.ix_(columns, kinds)]))
            moments = Moments(within, across, yy[kinds], 1, yy[kinds])
            made.append(_solve(moments, self.penalty))
            left.append(moments.error(made[-1]))
        return np.stack(made), np.stack(left)


@dataclass(frozen=True, slots=True, kw_only=True)
class PlantRidge:
    """The fleet ridge as one plant has it: ``weights`` [H, P, S] of its inputs, the usual error ``scale`` [H, S].

    ``known`` [S] are the tags whose kind the fleet knows. All in units of half a range.
    """

    weights: Floats
    scale: Floats
    known: NDArray[np.bool_]
    step_s: float

    def change(self, view: View, summary: Floats | None = None) -> Floats:
        """Scaled change [T, H, S] with all actions at rest, or with their summaries [T, H, A * Q]."""
        width = view.past.shape[1]
        made = np.einsum("tp,hps->ths", view.past, self.weights[:, :width], optimize=True) + self.weights[:, -1]
        if summary is not None:
            made = made + np.einsum("thq,hqs->ths", summary, self.weights[:, width:-1], optimize=True)
        return np.asarray(made)


def fit_ridge(kinds: Kinds, members: Sequence[tuple[Plant, Sequence[View]]], penalty: float) -> FleetRidge:
    """Pool the second moments of plants, each with the views of its runs."""
    sums = [_Sums(len(kinds.tags), len(kinds.actions)) for _ in HORIZONS]
    for plant, views in members:
        tags, actions = kinds.places(plant)
        for view in views:
            for horizon, total in zip(HORIZONS, sums, strict=True):
                if len(view) > horizon:
                    total.add(view, horizon, tags, actions, plant.step_s)
    alone = [total.alone() for total in sums]
    return FleetRidge(
        kinds=kinds,
        step_s=members[0][0].step_s,
        xx=np.stack([_sound(total.mean("xx")) for total in sums]).astype(np.float32),
        xy=np.stack([total.mean("xy") for total in sums]).astype(np.float32),
        yy=np.stack([total.mean("yy") for total in sums]),
        alone=np.stack([weights for weights, _ in alone]),
        left=np.array([left for _, left in alone]),
        penalty=penalty,
    )


class _Sums:
    """Sums of products at one horizon and how many rows are in each: not every plant has every kind."""

    def __init__(self, tags: int, actions: int) -> None:
        self._tags, self._actions = tags, actions
        width = FEATURES * tags + (ACTION_FEATURES + SUMMARIES) * actions + 1
        shapes = {"xx": (width, width), "xy": (width, tags), "yy": (tags,)}
        self._sums = {name: np.zeros(shape) for name, shape in shapes.items()}
        self._rows = {name: np.zeros(shape) for name, shape in shapes.items()}
        self._alone: Moments | None = None

    def add(self, view: View, horizon: int, tags: Places, actions: Places, step_s: float) -> None:
        """Add a run of a plant whose tags and actions are of these kinds."""
        x, y = (part[::EVERY] for part in rows(view, horizon, step_s))
        known_t, known_a = np.flatnonzero(tags >= 0), np.flatnonzero(actions >= 0)
        x_known = x[:, plant_columns(known_t, known_a, len(tags), len(actions))]
        at = plant_columns(tags[known_t], actions[known_a], self._tags, self._actions)
        found = tags[known_t]
        for name, place, product in (
            ("xx", np.ix_(at, at), x_known.T @ x_known),
            ("xy", np.ix_(at, found), x_known.T @ y[:, known_t]),
            ("yy", (found,), (y[:, known_t] ** 2).sum(0)),
        ):
            self._sums[name][place] += product
            self._rows[name][place] += len(x)
        own = view.tag_features[:-horizon:EVERY].reshape(-1, FEATURES)
        parts = [Moments.of(own, y.reshape(-1, 1))]
        self._alone = Moments.total(parts if self._alone is None else [self._alone, *parts])

    def mean(self, name: str) -> Floats:
        """A mean product; zero where no plant has both."""
        return np.asarray(self._sums[name] / np.maximum(self._rows[name], 1.0))

    def alone(self) -> tuple[Floats, float]:
        """Weights [F + 1] of any tag's own past, and the share of the squared change that they leave."""
        if self._alone is None:
            return np.zeros(FEATURES + 1), 1.0
        weights = ridge(self._alone, (OWN_PENALTY,))[0]
        return weights[:, 0], float(self._alone.error(weights)[0] / (self._alone.persistence_error()[0] + 1e-12))


def _solve(moments: Moments, penalty: float) -> Floats:
    """Weights [P, S] of one ridge, as ``models.linear.regression.ridge`` makes them of many, in a fifth of the time."""
    mean, offset = moments.xx[-1, :-1], moments.xy[-1]
    covariance = moments.xx[:-1, :-1] - np.outer(mean, mean)
    deviation = np.sqrt(np.maximum(np.diag(covariance), 0.0))
    deviation = np.where(deviation > 1e-9, deviation, np.inf)
    square = covariance / np.outer(deviation, deviation) + penalty * np.eye(len(mean))
    slope = np.linalg.solve(square, (moments.xy[:-1] - np.outer(mean, offset)) / deviation[:, None])
    slope = slope / deviation[:, None]
    return np.concatenate([slope, (offset - mean @ slope)[None]])


def _sound(xx: Floats) -> Floats:
    """Mean products [P, P] that are those of some data: not all are, where each pair is of other plants.

    Source: Higham 2002, the nearest such matrix, by one clipping of eigenvalues.
    """
    values, vectors = np.linalg.eigh(xx)
    if values[0] >= -1e-9 * values[-1]:
        return xx
    return np.asarray((vectors * np.maximum(values, 0.0)) @ vectors.T)


def rows(view: View, horizon: int, step_s: float) -> tuple[Floats, Floats]:
    """Inputs [T - horizon, P] with the actions really taken and a one, and scaled changes [T - horizon, S]."""
    summary = recorded_summary(view.action, horizon, step_s)
    x = np.concatenate([view.past[: len(summary)], summary, np.ones((len(summary), 1))], 1)
    return x, view.tags[horizon:] - view.tags[:-horizon]


def recorded(view: View, at: Places, step_s: float) -> tuple[Floats, Floats]:
    """Summaries [R, H, A * Q] of the actions taken after ticks ``at``, and the scaled changes [R, H, S] that came.

    Beyond the end the change is NaN, and the summary that of actions at rest.
    """
    summaries = np.zeros((len(at), len(HORIZONS), SUMMARIES * view.action.shape[1]))
    changes = np.full((len(at), len(HORIZONS), view.tags.shape[1]), np.nan)
    for row, horizon in enumerate(HORIZONS):
        inside = at + horizon < len(view)
        if inside.any():
            now = at[inside]
            summaries[inside, row] = recorded_summary(view.action, horizon, step_s)[now]
            changes[inside, row] = view.tags[now + horizon] - view.tags[now]
    return summaries, changes


def plant_columns(tags: Places, actions: Places, all_tags: int, all_actions: int) -> Places:
    """Columns of some tags and some actions among the inputs that all make; the constant last."""
    start = FEATURES * all_tags
    told = [tags + i * all_tags for i in range(FEATURES)]
    told += [start + actions + i * all_actions for i in range(ACTION_FEATURES)]
    start += ACTION_FEATURES * all_actions
    told += [(start + actions[:, None] * SUMMARIES + np.arange(SUMMARIES)).ravel()]
    return np.concatenate([*told, [start + SUMMARIES * all_actions]]).astype(np.int64)


def squared_changes(views: Sequence[View], tags: int) -> Floats:
    """Mean squared scaled change [H, S] in views; beyond what they span it grows with the horizon."""
    made = np.full((len(HORIZONS), tags), 1e-4)
    for row, horizon in enumerate(HORIZONS):
        changes = [v.tags[horizon:] - v.tags[:-horizon] for v in views if len(v) > 2 * horizon]
        if changes:
            made[row] = (np.concatenate(changes) ** 2).mean(0)
        elif row:
            made[row] = made[row - 1] * horizon / HORIZONS[row - 1]
    return np.asarray(np.maximum(made, 1e-8))
