"""Normal runs by use: the latest calibrate, the ones before decide on the networks, the rest train.

Runs with media and runs of tags alone are split each by themselves. Five runs of a kind or more are dealt out whole;
fewer, or such as are too short for it, are cut by time. Between the parts lies a gap of the longest horizon, so that
nothing a part is asked to foresee happened in the part before; of less than five hours it is a thirtieth, of which a
gap would take too much. The slow averages of the past start anew with every part: no part remembers the one before, and
none is so short that they could not settle. Where a plant has several operating states, what calibrates reaches back
until it holds its share of each: a standstill at the end sets no limits for a plant that runs.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from fusion.errors import ConfigError
from fusion.training.settings import TrainConfig
from models.actions import HORIZONS
from models.operating.states import OperatingStates
from models.ticks import Ticks

GAP_TICKS = max(HORIZONS)
GAP_SHARE = 1 / 30  # of all ticks of a kind, where that is less: of a first hour a third would be gap
FEW = 5  # recordings of a kind, below which they are cut
LEAST_TRAINING, LEAST_HELD_OUT = 900, 300  # ticks
LEAST_CALIBRATION_TICKS, LEAST_CALIBRATION_S = 180, 900.0  # to warm up, and to see each energy long enough
SHORTEST = 120  # ticks of a part of a recording worth keeping
PIECES, PIECE_TICKS = 6, 1800  # a long training run is cut, so that the closed forms have runs to hold out
MOST_CALIBRATION = 0.5  # of a kind, however unevenly its operating states are spread
ONE_STATE = OperatingStates()
TAGS_ONLY = 0.4  # of the calibration share is enough for bands of runs without media


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Normal runs by use, each in order of time; runs without media serve forecasts only."""

    training: list[Ticks] = field(default_factory=list)
    held_out: list[Ticks] = field(default_factory=list)
    calibration: list[Ticks] = field(default_factory=list)

    @property
    def fitted(self) -> list[Ticks]:
        """Everything before the calibration runs."""
        return [*self.training, *self.held_out]

    @property
    def whole(self) -> bool:
        """Whether there is something for every use."""
        return bool(self.training and self.held_out and self.calibration)

    def __add__(self, other: Split) -> Split:
        return Split(
            training=self.training + other.training,
            held_out=self.held_out + other.held_out,
            calibration=self.calibration + other.calibration,
        )


def split_runs(runs: Sequence[Ticks], config: TrainConfig, states: OperatingStates = ONE_STATE) -> Split:
    """Runs of a plant in order of time, by use.

    Raises:
        ConfigError: where there is too little, saying how much is needed.
    """
    kinds = [[r for r in runs if len(r) > 1 and bool(r.media) is media] for media in (True, False)]
    there = [kind for kind in kinds if kind]
    parts = [_split(kind, config, states, limiting=i == 0) for i, kind in enumerate(there)]
    split = sum(parts, start=Split())
    if not split.whole:
        raise ConfigError(_too_little(runs))
    return split


def calibration_hours(total_h: float, config: TrainConfig, *, media: bool, limiting: bool) -> float:
    """How much of runs with media, or of those without, calibrates [h].

    Limits rest on runs with media alone, where there are any: of those, all that training can spare, until a rate of
    one a day is more than a hope. Tags alone are told by each other the better the more of them was seen in training.
    """
    share_h = total_h * config.calibration_share
    if not limiting:
        return share_h * TAGS_ONLY
    return max(share_h, min(config.calibration_hours, total_h - config.training_hours)) if media else share_h


def hours(runs: Sequence[Ticks]) -> float:
    """Duration of runs [h]."""
    return round(sum(float(r.t_ns[-1] - r.t_ns[0]) for r in runs if len(r)) / 3.6e12, 3)


def _split(kind: Sequence[Ticks], config: TrainConfig, states: OperatingStates, *, limiting: bool) -> Split:
    """Runs of one kind, by use; ``limiting`` are those that limits rest on."""
    wanted_h = calibration_hours(hours(kind), config, media=bool(kind[0].media), limiting=limiting)
    reach_h = _reach_h(kind, wanted_h, states)
    dealt = _by_run(kind, reach_h, config)
    if len(kind) >= FEW and _enough(dealt, _step_ns(kind[0]) / 1e9):
        return dealt
    return _by_time(kind, reach_h, config) or dealt


def _enough(split: Split, step_s: float) -> bool:
    """Whether each use has the ticks it needs, which runs between marks may be too short for."""
    least = LEAST_TRAINING, LEAST_HELD_OUT, _least_calibration(step_s)
    parts = split.training, split.held_out, split.calibration
    return all(sum(map(len, part)) >= ticks for part, ticks in zip(parts, least, strict=True))


def _reach_h(kind: Sequence[Ticks], wanted_h: float, states: OperatingStates) -> float:
    """How far what calibrates reaches back [h]: at least as wanted, and to its share of each operating state."""
    if len(states) < 2:
        return wanted_h
    state = np.concatenate([states.of(run) for run in kind])
    share = wanted_h / max(hours(kind), 1e-9)
    rows = [np.flatnonzero(state == k) for k in range(len(states))]
    begins = min(int(there[-max(1, round(share * len(there)))]) for there in rows if len(there))
    reach = min(len(state) - begins, int(MOST_CALIBRATION * len(state)))
    return max(wanted_h, reach * _step_ns(kind[0]) / 3.6e12)


def _by_run(kind: Sequence[Ticks], wanted_h: float, config: TrainConfig) -> Split:
    """Whole recordings; what follows the part before too closely loses its beginning."""
    earlier = len(kind)
    while earlier and hours(kind[earlier:]) + 0.5 * hours(kind[earlier - 1 : earlier]) <= wanted_h:
        earlier -= 1
    decide = max(1, round(earlier * config.validation_share)) if earlier > 2 else 0
    training, held_out = list(kind[: earlier - decide]), kind[earlier - decide : earlier]
    held_out = _apart(training, held_out)
    return Split(training=training, held_out=held_out, calibration=_apart([*training, *held_out], kind[earlier:]))


def _apart(earlier: Sequence[Ticks], later: Sequence[Ticks]) -> list[Ticks]:
    """Later runs without what lies less than the gap after an earlier one has ended."""
    kept = []
    for run in later:
        ends = [int(r.t_ns[-1]) for r in earlier if r.t_ns[-1] < run.t_ns[0]]
        free_ns = max(ends, default=-(2**62)) + (GAP_TICKS + 1) * _step_ns(run)
        kept.append(run[int(np.searchsorted(run.t_ns, free_ns)) :])
    return [run for run in kept if len(run) >= SHORTEST]


def _by_time(kind: Sequence[Ticks], wanted_h: float, config: TrainConfig) -> Split | None:
    """The kind's ticks one after the other, cut in three with gaps; None where there are too few."""
    step_s = _step_ns(kind[0]) / 1e9
    least = _least_calibration(step_s)
    total = sum(map(len, kind))
    if total - 2 * GAP_TICKS < least + LEAST_HELD_OUT + LEAST_TRAINING:
        return None
    gap = int(np.clip(GAP_SHARE * total, SHORTEST, GAP_TICKS))
    free = total - 2 * gap
    calibrate = int(np.clip(wanted_h * 3600 / step_s, least, free - LEAST_HELD_OUT - LEAST_TRAINING))
    decide = max(LEAST_HELD_OUT, int((free - calibrate) * config.validation_share))
    decide = min(decide, free - calibrate - LEAST_TRAINING)
    train = free - calibrate - decide
    second = train + gap
    third = second + decide + gap
    return Split(
        training=_pieces(_between(kind, 0, train)),
        held_out=_between(kind, second, second + decide),
        calibration=_between(kind, third, third + calibrate),
    )


def _between(runs: Sequence[Ticks], start: int, stop: int) -> list[Ticks]:
    """Ticks ``start`` to ``stop`` of the runs one after the other."""
    offsets = np.cumsum([0, *map(len, runs)])[:-1].tolist()
    parts = [run[max(0, start - o) : max(0, stop - o)] for run, o in zip(runs, offsets, strict=True)]
    return [part for part in parts if len(part) >= SHORTEST]


def _pieces(runs: Sequence[Ticks]) -> list[Ticks]:
    """Few long runs as several that follow each other."""
    if len(runs) >= PIECES:
        return list(runs)
    made: list[Ticks] = []
    for run in runs:
        count = max(1, min(PIECES, len(run) // PIECE_TICKS))
        edges = np.linspace(0, len(run), count + 1, dtype=int)
        made.extend(run[a:b] for a, b in itertools.pairwise(edges.tolist()))
    return made


def _step_ns(run: Ticks) -> int:
    return int(run.t_ns[1] - run.t_ns[0])


def _least_calibration(step_s: float) -> int:
    return LEAST_CALIBRATION_TICKS + int(np.ceil(LEAST_CALIBRATION_S / step_s))


def _too_little(runs: Sequence[Ticks]) -> str:
    if not runs:
        return "training needs normal recordings; all that were given hold faults"
    step_s = _step_ns(runs[0]) / 1e9 if len(runs[0]) > 1 else 1.0
    ticks = LEAST_TRAINING + LEAST_HELD_OUT + _least_calibration(step_s) + 2 * GAP_TICKS
    return (
        f"{hours(runs):.2f} h of normal operation in {len(runs)} recordings are too little; needed are "
        f"{ticks * step_s / 3600:.2f} h in fewer than {FEW} recordings of a kind (with media, or tags alone), which "
        f"are cut by time, or at least {FEW} recordings of a kind: to train on, to decide and to calibrate"
    )
