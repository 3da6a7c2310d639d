"""What a signal is by two others, found in data: interlocks, rules of a mode, phases, all that no line tells.

A flap that must stand where exactly one of two trains runs, a guard that may be open in every mode but one, a blade
that passes three times a turn: each value alone, and each pair, is ordinary, so that no ridge and no covariance sees
them broken. A column of which linear relations tell little is looked up in a table over one or two others, cut into
levels; all pairs are tried, and a table is kept where it tells more of runs it has not seen. Where there is none,
nothing speaks. Tags are told by tags and actions alone, so that a camera cannot accuse them; the leading components of
a medium by all but its own.
Sources: pairwise interactions, Lou et al. 2013 (GA2M); levels, Fisher 1958 (exact one-dimensional grouping).
Shape letters: T ticks, C columns, G signals, Q levels, K tables.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Plant
from fusion.records import PROCESS, Energy, Origin, Statistic
from models.monitors.averaged import AverageCarry, Limits, averaged, recover
from models.monitors.piece import ACTION, Piece
from models.monitors.residual import WARM_UP_TICKS, Largest, Residual, Speed, signals_of
from models.scaling import Bools, Floats

Ints = NDArray[np.int64]
SPEED = Speed("0.1", 0.1)
LEVELS = 8  # that a column is cut into
COMPONENTS = 6  # of a medium
FEWEST_TICKS = 3000  # below which tables of chance cannot be told from others
MOST_COLUMNS = 120  # all pairs of which are tried; of a plant of more nothing is looked for
MOST_ROWS = 6000  # in the search
WORTH = 0.8  # of a column on runs not seen: where linear relations leave less, they have their own monitors
GAIN = 0.1  # nats a tick that a table must tell of runs it has not seen, and more than nothing where it was not chosen
FINEST = 0.1  # of a column's spread, below which none is taken for a cell's
DOUBT = 2.0  # visits of a cell that count as much as what is usual everywhere
AWAY = 10  # ticks elsewhere, after which a visit is another: noise at the edge of two cells is none
PENALTY = 1e-2
FOLDS = 3
QUANTILE = 0.995  # of an averaged residual's size when normal: its limit
LARGEST = 10.0  # spreads that one tick may count
DULL = 1e-6


@dataclass(slots=True)
class ConditionalCarry:
    """Averages of the residuals by source."""

    averages: dict[str, AverageCarry] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Table:
    """Column ``target`` by columns ``first`` and ``second``, which may be the same.

    ``edges`` [2, Q - 1] cut the two into levels; ``mean`` and ``spread`` [Q * Q] are those of the target by cell.
    """

    target: int
    first: int
    second: int
    edges: Floats
    mean: Floats
    spread: Floats

    def cell(self, value: Floats) -> Ints:
        """The cell [T] in which columns [T, C] stand."""
        row, column = (
            np.searchsorted(e, value[:, c]) for e, c in zip(self.edges, (self.first, self.second), strict=True)
        )
        return np.asarray(row * LEVELS + column)

    def off(self, value: Floats) -> Floats:
        """How many spreads [T] the target is off, either way: a blade out of step is so by turns."""
        cell = self.cell(value)
        return np.minimum(np.abs(value[:, self.target] - self.mean[cell]) / self.spread[cell], LARGEST)

    def gain(self, value: Floats) -> Floats:
        """Nats [T] that the table tells beyond what the target is usually like."""
        cell, told = self.cell(value), value[:, self.target]
        apart = (told - self.mean[cell]) / self.spread[cell]
        return np.asarray(0.5 * (told**2 - apart**2) - np.log(self.spread[cell]))

    def filled(self, value: Floats) -> Table:
        """By columns [T, C]; a cell is believed by how often it was visited."""
        cell, told = self.cell(value), value[:, self.target]
        visits, count = (np.bincount(cell, w, LEVELS**2) for w in (_entered(cell), np.ones(len(cell))))
        one, two = (np.bincount(cell, told**k, LEVELS**2) / np.maximum(count, 1.0) for k in (1, 2))
        share = visits / (visits + DOUBT)
        return replace(self, mean=share * one, spread=np.sqrt(_variance(one, two, share)))


@dataclass(frozen=True, slots=True)
class Columns:
    """How signals become columns: ``tags`` and ``actions``, then the ``components`` [F, k] of each medium.

    ``centre`` and ``scale`` [C] standardise; ``signal`` [C] are places in the signals.
    """

    tags: int
    actions: int
    components: Mapping[str, Floats]
    centre: Floats
    scale: Floats
    signal: Ints

    @classmethod
    def fit(cls, pieces: Sequence[Piece], media: Sequence[str], plant: Plant) -> Columns:
        """From pieces of normal runs."""
        components = {
            m: _components(np.concatenate([p.blocks.values[m][p.blocks.present[m]] for p in pieces])) for m in media
        }
        tags, actions = len(plant.tags), len(plant.actions)
        places = [*range(tags), *(tags + len(plant.media) + a for a in range(actions))]
        for medium in media:
            places += [signals_of(plant).index(medium)] * components[medium].shape[1]
        signal = np.array(places, np.int64)
        rough = cls(tags, actions, components, np.zeros(len(signal)), np.ones(len(signal)), signal)
        raw = np.concatenate([rough.of(piece) for piece in pieces])
        deviation = raw.std(0)
        return replace(rough, centre=raw.mean(0), scale=np.where(deviation > DULL, deviation, np.inf))

    @property
    def medium(self) -> Bools:
        """Which columns [C] are those of media."""
        return np.arange(len(self.signal)) >= self.tags + self.actions

    @property
    def told(self) -> Bools:
        """Which columns [C] may be told: an action is free."""
        return self.medium | (np.arange(len(self.signal)) < self.tags)

    def of(self, piece: Piece) -> Floats:
        """Standardised columns [T, C]."""
        values = piece.blocks.values
        parts = [values[PROCESS], values[ACTION], *(values[m] @ c for m, c in self.components.items())]
        return np.asarray((np.concatenate(parts, 1) - self.centre) / self.scale)

    def known(self, piece: Piece) -> Bools:
        """Which columns [T, C] are there."""
        observed, present = piece.blocks.observed, piece.blocks.present
        actions = np.ones((len(piece), piece.blocks.values[ACTION].shape[1]), bool)
        media = [np.repeat(present[m][:, None], c.shape[1], 1) for m, c in self.components.items()]
        return np.concatenate([observed, actions, *media], 1)


@dataclass(frozen=True, slots=True)
class Conditionals:
    """All tables that were found, and an energy of each source: the largest averaged residual over its limit.

    ``tables`` and ``limits`` are by source: the process, and each medium.
    """

    energies: tuple[Energy, ...]
    plant: Plant
    columns: Columns
    tables: Mapping[str, tuple[Table, ...]]
    limits: Mapping[str, Limits]

    @classmethod
    def fit(cls, pieces: Sequence[Piece], media: Sequence[str], plant: Plant) -> Conditionals:
        """From pieces of normal runs; each table is chosen on two thirds and kept by the third."""
        settled = _enough([_cut(piece, slice(WARM_UP_TICKS, None)) for piece in pieces])
        columns = Columns.fit(settled, media, plant)
        enough = sum(map(len, settled)) >= FEWEST_TICKS and 0 < len(columns.signal) <= MOST_COLUMNS
        made = _found([(columns.of(p), columns.known(p)) for p in settled], columns) if enough else []
        process = range(len(plant.tags))
        tables, limits = {}, {}
        for source in (PROCESS, *media):
            own = [t for t in made if (t[0].target in process) == (source == PROCESS)]
            if source != PROCESS:
                own = [t for t in own if columns.signal[t[0].target] == signals_of(plant).index(source)]
            tables[source] = tuple(table for table, _ in own)
            limits[source] = _limits([off for _, off in own])
        return cls(_energies(plant, media), plant, columns, tables, limits)

    def widened(self, beyond: Mapping[str, Floats]) -> Conditionals:
        """With limits multiplied [K] by energy name."""
        factor = {e.source: {e.speed: beyond[e.name]} for e in self.energies if e.name in beyond}
        return replace(self, limits={s: limit.widened(factor.get(s, {})) for s, limit in self.limits.items()})

    def begin(self) -> ConditionalCarry:
        """The carry at the start of a stream."""
        return ConditionalCarry()

    def step(self, piece: Piece, carry: ConditionalCarry) -> list[Residual]:
        """Averaged residuals [T, K] over their limits; updates ``carry``.

        A table says which signals belong together, and not which of them is wrong.
        """
        value, known, found = self.columns.of(piece), self.columns.known(piece), []
        for energy in self.energies:
            tables, limits = self.tables[energy.source], self.limits[energy.source]
            off = np.stack([_off(t, value, known) for t in tables], 1) if tables else np.zeros((len(piece), 0))
            kept = carry.averages.setdefault(energy.source, AverageCarry())
            made = averaged(off, np.ones(len(piece), bool), kept, limits, (SPEED,), learns=piece.learns)
            over = made.smooth[SPEED.alpha] / limits.upper[SPEED.alpha]
            found.append(Residual(energy, Largest(over, partial(self._shares, tables, over))))
        return found

    def recover(self, carry: ConditionalCarry) -> None:
        """Forget what a fault has left in the averages of the residuals."""
        for source, left in carry.averages.items():
            recover(left, self.limits[source])

    def _shares(self, tables: Sequence[Table], over: Floats) -> Floats:
        """Shares [T, G]: half of each residual is that of the signal told, the rest that of the two that tell it."""
        share = np.zeros((len(over), len(signals_of(self.plant))))
        strength = over**2 / np.maximum((over**2).sum(1, keepdims=True), 1e-12)
        for table, part in zip(tables, strength.T, strict=True):
            for column, weight in ((table.target, 0.5), (table.first, 0.25), (table.second, 0.25)):
                share[:, self.columns.signal[column]] += weight * part
        return share


def _off(table: Table, value: Floats, known: Bools) -> Floats:
    """How far a table's column is off [T], zero where one of the three is not there."""
    there = known[:, [table.target, table.first, table.second]].all(1)
    return np.where(there, table.off(value), 0.0)


def _energies(plant: Plant, media: Sequence[str]) -> tuple[Energy, ...]:
    energy = partial(Energy, family="conditional", statistic=Statistic.LARGEST, speed=SPEED.alpha)
    seen = [plant.by_name[medium] for medium in media]
    return (
        energy(name="conditional.process", origin=Origin.BESIDE),
        *(energy(name=f"conditional.{s.name}", origin=Origin.ACROSS, source=s.name, modality=s.modality) for s in seen),
    )


def _limits(residuals: Sequence[Sequence[Floats]]) -> Limits:
    """Of each table's residuals on runs that it has not seen, [T] by run."""
    if not residuals:
        return Limits(np.zeros(0), 1.0, {SPEED.alpha: np.zeros(0)})
    runs = [np.stack(part, 1) for part in zip(*residuals, strict=True)]
    made = [averaged(run, np.ones(len(run), bool), AverageCarry(), speeds=(SPEED,)) for run in runs]
    smooth = {SPEED.alpha: np.concatenate([m.smooth[SPEED.alpha] for m in made])}
    return Limits.fit(np.concatenate([m.fresh for m in made]), smooth, QUANTILE)


# --- columns


def _components(values: Floats) -> Floats:
    """Leading principal components [F, k] of a medium's features [T, F]; none where it was never there."""
    if not len(values):
        return np.zeros((values.shape[1], 0))
    centred = values - values.mean(0)
    _, vectors = np.linalg.eigh(centred.T @ centred)
    return np.asarray(vectors[:, ::-1][:, :COMPONENTS])


def _edges(value: Floats) -> Floats:
    """Where a column [T] is cut [Q - 1] so that levels are as narrow as can be: exact on 256 quantiles."""
    grain = np.quantile(value, (np.arange(256) + 0.5) / 256)
    one, two = (np.concatenate([[0.0], np.cumsum(grain**k)]) for k in (1, 2))
    begin, end = np.meshgrid(np.arange(257), np.arange(257), indexing="ij")
    inside = two[end] - two[begin] - (one[end] - one[begin]) ** 2 / np.maximum(end - begin, 1)
    inside = np.where(begin < end, inside, np.inf)
    best, back = np.where(np.arange(257) == 0, 0.0, np.inf), []
    for _ in range(LEVELS):
        total = best[:, None] + inside
        back.append(total.argmin(0))
        best = total.min(0)
    cuts, place = [], 256
    for step in back[:0:-1]:
        place = int(step[place])
        cuts.append((grain[place - 1] + grain[place]) / 2)
    return np.array(cuts[::-1])


# --- search


def _found(read: Sequence[tuple[Floats, Bools]], columns: Columns) -> list[tuple[Table, list[Floats]]]:
    """Tables that tell more of runs not seen, and their residuals there, [T] by run.

    ``read`` are columns [T, C] of runs in order of time, and which are there. What is not seen is another part of the
    time: two levels that wander tell each other in the half hours between those that were seen, and in no others.
    """
    fold = np.arange(len(read)) * FOLDS // max(len(read), 1)
    best = dict.fromkeys(range(len(columns.signal)), GAIN)
    made: dict[int, tuple[Table, list[Floats]]] = {}
    targets = np.flatnonzero(columns.told & (_unexplained(read, fold, columns) > WORTH))
    for rough in _candidates(read, fold > 0, targets, columns):
        own = [rough.target, rough.first, rough.second]
        folded = [rough.filled(_rows(read, fold != out, own)) for out in range(FOLDS)]
        gains = [folded[out].gain(_rows(read, fold == out, own)) for out in range(FOLDS)]
        gain = float(np.concatenate(gains).mean())
        if len(gains[0]) and gains[0].mean() > 0.0 and gain > best[rough.target]:
            best[rough.target] = gain
            off = [_off(folded[f], *run) for f, run in zip(fold, read, strict=True)]
            made[rough.target] = rough.filled(_rows(read, fold >= 0, own)), off
    return list(made.values())


def _unexplained(read: Sequence[tuple[Floats, Bools]], fold: Ints, columns: Columns) -> Floats:
    """Share of each column [C] that linear relations to those of other signals leave of runs not seen.

    With P the inverse of the regularised second moments, what is left of a block N is inv(P_NN) (P x)_N.
    """
    some, other = (np.concatenate([v for (v, _), f in zip(read, fold, strict=True) if (f > 0) == w]) for w in (1, 0))
    precision = np.linalg.inv(some.T @ some / max(len(some), 1) + PENALTY * np.eye(some.shape[1]))
    left = np.zeros_like(precision)
    for one in np.unique(columns.signal):
        block = np.flatnonzero(columns.signal == one)
        left[:, block] = precision[:, block] @ np.linalg.inv(precision[np.ix_(block, block)])
    return np.asarray(((other @ left) ** 2).mean(0) / np.maximum((other**2).mean(0), DULL))


def _rows(read: Sequence[tuple[Floats, Bools]], which: Bools, columns: Sequence[int] | Ints) -> Floats:
    """The columns [T, C] of some runs, at the ticks at which these are there."""
    kept = [value[known[:, columns].all(1)] for (value, known), wanted in zip(read, which, strict=True) if wanted]
    return np.concatenate(kept)


def _candidates(read: Sequence[tuple[Floats, Bools]], which: Bools, targets: Ints, columns: Columns) -> Iterator[Table]:
    """Tables of tags by tags and actions, also where a medium is absent, then those of media by all there is."""
    medium, moves = columns.medium, np.isfinite(columns.scale)
    for of_media in (False, True):
        own, others = targets[medium[targets] == of_media], moves & (of_media | ~medium)
        if len(own):
            value = _rows(read, which, np.flatnonzero(medium & of_media))
            yield from _search(value, own, np.flatnonzero(others), columns)


def _search(value: Floats, targets: Ints, others: Ints, columns: Columns) -> list[Table]:
    """For each target the one and the two of the ``others`` whose cells tell most of it, without values."""
    thin = max(1, -(-len(value) // MOST_ROWS))
    thinned, signal = value[::thin], columns.signal
    used = others if len(value) else others[:0]
    edges = {c: _edges(value[:, c]) for c in used.tolist()}
    level = {c: np.searchsorted(edge, thinned[:, c]) for c, edge in edges.items()}
    best, pair = np.full((2, len(targets)), GAIN), np.zeros((2, len(targets), 2), np.int64)
    for first, second in itertools.combinations_with_replacement(used.tolist(), 2):
        fits = (signal[targets] != signal[first]) & (signal[targets] != signal[second])
        cell = level[first] * LEVELS + level[second]
        told = np.where(fits, _told(thinned[:, targets], cell, thin), -np.inf)
        two = int(first != second)
        pair[two, told > best[two]] = first, second
        best[two] = np.maximum(best[two], told)
    nothing = np.zeros(0)
    return [
        Table(int(targets[i]), a, b, np.stack([edges[a], edges[b]]), nothing, nothing)
        for two in range(2)
        for i, (a, b) in enumerate(pair[two].tolist())
        if best[two, i] > GAIN
    ]


def _entered(cell: Ints, thin: int = 1) -> Floats:
    """One [T] where a cell is entered after ``AWAY`` ticks elsewhere, else zero; rows are ``thin`` ticks apart."""
    order = np.argsort(cell, kind="stable")
    anew = (np.diff(cell[order], prepend=-1) != 0) | (np.diff(order, prepend=0) * thin > AWAY)
    made = np.zeros(len(cell))
    made[order] = anew
    return made


def _told(value: Floats, cell: Ints, thin: int) -> Floats:
    """Nats a row that the cells [T] tell of each column [T, C], each cell believed by how often it was visited."""
    order = np.argsort(cell, kind="stable")
    starts = np.flatnonzero(np.diff(cell[order], prepend=-1))
    count = np.diff(np.append(starts, len(cell)))[:, None]
    visits, rows = np.add.reduceat(_entered(cell, thin)[order], starts)[:, None], value[order]
    one, two = (np.add.reduceat(rows**k, starts) / count for k in (1, 2))
    within = _variance(one, two, visits / (visits + DOUBT))
    return np.asarray(-0.5 * (count * np.log(within)).sum(0) / len(rows))


def _variance(one: Floats, two: Floats, share: Floats) -> Floats:
    """About a cell's mean, of its first and second moments, so far as it is believed; columns are standardised."""
    mean = share * one
    return np.maximum(share * (two - 2 * mean * one + mean**2) + (1 - share), FINEST**2)


def _cut(piece: Piece, part: slice) -> Piece:
    blocks = piece.blocks
    values = {name: value[part] for name, value in blocks.values.items()}
    present = {name: there[part] for name, there in blocks.present.items()}
    cut = replace(blocks, values=values, present=present, observed=blocks.observed[part])
    return replace(piece, ticks=piece.ticks[part], encoding=piece.encoding[part], blocks=cut)


def _enough(pieces: Sequence[Piece]) -> list[Piece]:
    """Pieces for all folds: the longest is cut in two until there are."""
    made = list(pieces)
    while len(made) < FOLDS:
        longest = max(range(len(made)), key=lambda i: len(made[i]))
        half = len(made[longest]) // 2
        made[longest : longest + 1] = [_cut(made[longest], slice(half)), _cut(made[longest], slice(half, None))]
    return made
