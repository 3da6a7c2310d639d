"""How much life is left, learned from lives that have ended and from nothing else.

What tells the beginnings of lives from their ends is an index of condition: one weight for each tag, by ridge. The
course of the index lately is then laid beside every stretch of every life that has ended; those that it fits tell how
long they went on. Nobody labels anything, and the interval is that of the lives themselves.
Source: similarity of trajectories, Wang et al. 2008, IEEE PHM, which won the challenge of that year on such data.
Shape letters: N points of a life, S tags, W points of a window, C candidates.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.records import NS_PER_S
from models.averages import ewma
from models.scaling import Bools, Floats

FEWEST = 5  # lives, below which an interval says nothing
ENDS = 0.15  # share of a usual life that counts as its beginning, and as its end
PENALTY = 0.03  # of the ridge, relative to the data
SMOOTHING = 0.15  # weight of the newest point of the index
WINDOWS = (0.1, 0.15, 0.3)  # shares of a usual life that are laid beside others
WIDTHS = (0.1, 0.14, 0.2, 0.28)  # of the weighing, in spreads of the index while lives are young
TAIL = 0.05  # on both sides of the interval that lives tell
COVERAGE = 0.9  # of the interval on lives left out, for which it is widened
TRIALS = 12  # moments at which each life is left out and judged
CAP = 0.6  # share of a usual life, above which nobody can tell
LEAST_POINTS = 10  # of an index before it is laid beside others
STRANGE = 3.0  # times the distance to the nearest stretch that lives left out had at most: like none that is known


@dataclass(frozen=True, slots=True)
class Remaining:
    """Points that are left: low, middle and high of the 90 % interval; ``capped`` where nobody can tell how many."""

    low: float
    middle: float
    high: float
    capped: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeIndex:
    """The index and the lives that it knows.

    ``weights`` [S] are of tags less ``centre`` [S] over ``scale`` [S]; ``lives`` are the smoothed courses of the index,
    joined, ``ends`` where each is over. ``spread`` is that of the index of the young, ``farthest`` how far from all
    others a life left out was at most. Points are ``point_s`` apart; nothing beyond ``cap`` of them is told. Of the
    plant with this ``fingerprint``. Intervals are ``wider`` than lives tell. ``left_out_rmse`` [points] and
    ``left_out_inside``, the share in the interval, are of lives left out, by which window and width were chosen.
    """

    tags: tuple[str, ...]
    point_s: float
    centre: Floats
    scale: Floats
    weights: Floats
    lives: Floats
    ends: NDArray[np.int64]
    spread: float
    cap: int
    window: int
    width: float
    wider: float = 1.0
    farthest: float = np.inf
    fingerprint: str = ""
    left_out_rmse: float = np.nan
    left_out_inside: float = np.nan

    def index(self, points: Floats) -> Floats:
        """The index [N] of points [N, S]; a tag without a value says nothing."""
        return np.asarray(np.nan_to_num((points - self.centre) / self.scale) @ self.weights)

    def remaining(self, course: Floats, but: int = -1) -> Remaining | None:
        """What is left after the smoothed index [N] went so; None where that is too short, or like no life known.

        The life numbered ``but`` is left out.
        """
        if len(course) < LEAST_POINTS:
            return None
        distance, left = self._laid_beside(course[-self.window :], but)
        if not len(distance) or distance.min() > STRANGE * self.farthest:
            return None
        share = np.exp(-(distance - distance.min()) / (2.0 * self.width**2))
        share /= share.sum()
        order = np.argsort(left, kind="stable")
        below = np.cumsum(share[order])
        at = np.minimum(np.searchsorted(below, (TAIL, 1.0 - TAIL)), len(order) - 1)
        middle, (low, high) = float(share @ left), left[order[at]].tolist()
        low = max(middle - self.wider * (middle - low + 1.0), 0.0)
        high = min(middle + self.wider * (high - middle + 1.0), float(self.cap))
        return Remaining(low, middle, high, capped=high >= self.cap)

    def _laid_beside(self, course: Floats, but: int) -> tuple[Floats, Floats]:
        """Mean squared distance [C] from every stretch as long, in squared spreads, and how long each went on [C]."""
        distance, left, start = [], [], 0
        for number, end in enumerate(self.ends):
            life, start = self.lives[start:end], int(end)
            if number == but or len(life) < len(course):
                continue
            stretches = np.lib.stride_tricks.sliding_window_view(life, len(course))
            distance.append(((stretches - course) ** 2).mean(1) / self.spread**2)
            left.append(np.minimum(len(life) - len(course) - np.arange(len(stretches)), self.cap))
        if not distance:
            return np.zeros(0), np.zeros(0)
        return np.concatenate(distance), np.concatenate(left).astype(np.float64)


@dataclass(slots=True)
class LifeCarry:
    """What a life leaves behind: of the point that runs ``total`` [S] and ``count`` [S], and its number since 1970.

    ``smooth`` is the running sum of the index over ``age`` points, ``course`` [<= W] its last averages.
    """

    total: Floats
    count: Floats
    point: int = -1
    smooth: float = 0.0
    age: int = 0
    course: Floats = field(default_factory=lambda: np.zeros(0))

    @classmethod
    def begin(cls, tags: int) -> LifeCarry:
        """Of a life that begins."""
        return cls(np.zeros(tags), np.zeros(tags))

    def take(self, t_ns: int, tags: Floats, observed: Bools, life: LifeIndex) -> None:
        """Take the tags [S] of one tick; with the first of a point, the one before is over."""
        point = int(t_ns / NS_PER_S // life.point_s)
        if self.point >= 0 and point != self.point:
            if self.count.any():
                mean = np.where(self.count > 0, self.total / np.maximum(self.count, 1.0), np.nan)
                self._append(float(life.index(mean[None])[0]), life.window)
            self.total, self.count = np.zeros_like(self.total), np.zeros_like(self.count)
        self.point = point
        self.total[observed] += tags[observed]
        self.count[observed] += 1.0

    def copy(self) -> LifeCarry:
        """The same, which no later tick changes."""
        return replace(self, total=self.total.copy(), count=self.count.copy())

    def _append(self, index: float, window: int) -> None:
        self.age += 1
        self.smooth += SMOOTHING * (index - self.smooth)
        average = self.smooth / (1.0 - (1.0 - SMOOTHING) ** self.age)
        self.course = np.append(self.course, average)[-window:]


def smoothed(index: Floats) -> Floats:
    """The running average [N] of an index [N], in equal parts at first."""
    sums, _ = ewma(index[:, None], SMOOTHING, np.zeros(1))
    return np.asarray(sums[:, 0] / (1.0 - (1.0 - SMOOTHING) ** (1.0 + np.arange(len(index)))))


def fit_life(lives: Sequence[Floats], tags: Sequence[str], point_s: float, cap: int | None = None) -> LifeIndex:
    """From the points [N, S] of lives that have ended, each until its end.

    Window and width are those that tell most of lives left out, the interval is as wide as these want it.

    Raises:
        ConfigError: where there are too few lives, or no tag moves.
    """
    if len(lives) < FEWEST:
        raise ConfigError(f"life: {len(lives)} lives that have ended; expected at least {FEWEST}")
    usual = float(np.median([len(life) for life in lives]))
    end = max(round(ENDS * usual), 2)
    least = max(2 * end, LEAST_POINTS + 1)
    if min(len(life) for life in lives) < least:
        raise ConfigError(f"life: a life of fewer than {least} points; expected lives of about {usual:.0f}")
    everything = np.concatenate(lives)
    centre, scale = _usual(everything)
    moves = scale > 1e-9 * (1.0 + np.abs(centre))
    if not moves.any():
        raise ConfigError("life: no tag moves in these lives")
    centre, scale = np.where(moves, centre, 0.0), np.where(moves, scale, np.inf)
    standard = [np.nan_to_num((life - centre) / scale) for life in lives]
    weights = _weights(standard, end, moves)
    courses = [smoothed(life @ weights) for life in standard]
    young = np.concatenate([(life @ weights)[:end] - (life @ weights)[:end].mean() for life in standard])
    rough = LifeIndex(
        tags=tuple(tags),
        point_s=point_s,
        centre=centre,
        scale=scale,
        weights=weights,
        lives=np.concatenate(courses),
        ends=np.cumsum([len(course) for course in courses]).astype(np.int64),
        spread=max(float(young.std()), 1e-9),
        cap=cap or max(round(CAP * usual), 1),
        window=LEAST_POINTS,
        width=WIDTHS[0],
    )
    return _tuned(rough, courses, usual)


def _usual(points: Floats) -> tuple[Floats, Floats]:
    """Mean and deviation [S] of the values [N, S] that are there; zero of a tag that has none."""
    there = np.isfinite(points)
    count = np.maximum(there.sum(0), 1)
    centre = np.where(there, points, 0.0).sum(0) / count
    return centre, np.sqrt((np.where(there, points - centre, 0.0) ** 2).sum(0) / count)


def _weights(lives: Sequence[Floats], end: int, moves: Bools) -> Floats:
    """Ridge of what is an end (1) and what a beginning (0)."""
    rows = np.concatenate([np.concatenate([life[:end], life[-end:]]) for life in lives])
    ended = np.tile(np.repeat([0.0, 1.0], end), len(lives)) - 0.5
    centred = rows - rows.mean(0)
    gram = centred.T @ centred / len(rows) + PENALTY * np.eye(rows.shape[1])
    return np.asarray(np.where(moves, np.linalg.solve(gram, centred.T @ ended / len(rows)), 0.0))


def _tuned(rough: LifeIndex, courses: Sequence[Floats], usual: float) -> LifeIndex:
    """With the window and width that err least on lives left out, and the interval that covers as many as it should."""
    choices = [
        replace(rough, window=max(round(share * usual), LEAST_POINTS), width=width)
        for share in WINDOWS
        for width in WIDTHS
    ]
    errors = [_left_out(choice, courses) for choice in choices]
    best = choices[int(np.argmin([float(np.sqrt(np.mean((e[0] - e[1]) ** 2))) for e in errors]))]
    told, true, low, high = _left_out(best, courses)
    side = np.where(true < told, told - low, high - told)
    beyond = np.abs(true - told) / np.maximum(side, 1.0)
    sighted = beyond[true < rough.cap]  # where the end is not in sight, an interval up to the cap is no feat
    level = min(np.ceil((len(courses) + 1) * COVERAGE) / len(courses), 1.0)  # moments of one life are no new ones
    tuned = replace(best, wider=max(float(np.quantile(sighted, level)), 1.0) if len(sighted) else 1.0)
    told, true, low, high = _left_out(tuned, courses)
    nearest = [
        tuned._laid_beside(course[:cut][-tuned.window :], number)[0].min(initial=np.inf)  # noqa: SLF001
        for number, course in enumerate(courses)
        for cut in _cuts(course)
    ]
    return replace(
        tuned,
        farthest=float(np.max([d for d in nearest if np.isfinite(d)], initial=0.0)),
        left_out_rmse=float(np.sqrt(np.mean((told - true) ** 2))),
        left_out_inside=float(((low <= true) & (true <= high)).mean()),
    )


def _cuts(course: Floats) -> list[int]:
    """Moments of a life at which it is judged."""
    return [int(cut) for cut in np.linspace(len(course) / 3, len(course) - 1, TRIALS)]


def _left_out(life: LifeIndex, courses: Sequence[Floats]) -> tuple[Floats, Floats, Floats, Floats]:
    """What is told of each life by the others, what is true, and the interval, at some moments of it."""
    rows = []
    for number, course in enumerate(courses):
        for cut in _cuts(course):
            made = life.remaining(course[:cut], but=number)
            if made is not None:
                rows.append((made.middle, min(len(course) - cut, life.cap), made.low, made.high))
    told, true, low, high = np.array(rows, np.float64).reshape(-1, 4).T
    return told, true, low, high
