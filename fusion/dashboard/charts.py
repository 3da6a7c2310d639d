"""Chart options: stacked strip charts on one time axis, as plain dictionaries for ECharts."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from textwrap import shorten

from msgspec.structs import replace

from fusion.alarms import MarkKind
from fusion.dashboard.alarms import Accused
from fusion.dashboard.axes import Option, line, still, stretches, strips
from fusion.dashboard.board import Board, exceeds
from fusion.dashboard.courses import Data, Points, thin
from fusion.dashboard.look import PLAIN, Look, Palette
from fusion.dashboard.words import figure, reading, sense_text, with_unit
from fusion.publish.messages import Course, ForecastMessage, RecommendationMessage, SurpriseOut, WhatifMessage
from fusion.recordings.marks import Mark

ROW_PX, SENSE_PX = 88, 74
LEAST_ROWS = 3
TITLE_WIDE, TITLE_NARROW = 62, 38
BEFORE_ONSET_MS = 300_000
LEGEND = {
    "actual": ("actual", "measured"),
    "expected": ("expected", "expected"),
    "setpoint": ("setpoint", "setpoint"),
    "mean": ("predicted", "forecast"),
    "band": ("band", "90 % band"),
    "applied": ("applied", "if applied"),
    "nothing": ("nothing", "if nothing"),
    "limit": ("limit", "limit"),
}
"""By the last part of the name of a line: how its key looks, and what it says."""
CAP = 10.0
"""Surprise is drawn as a multiple of its limit from 1/CAP to CAP, so that the limit is always in the middle."""


@dataclass(frozen=True, slots=True)
class Past:
    """What is known of the time before the page's memory, and which stretch [ms] is looked at where it is chosen.

    ``at_ms`` is the moment whose pictures are shown; None is now. ``surprise`` by sense is in multiples of the limit.
    """

    span_ms: tuple[float, float] | None = None
    at_ms: float | None = None
    courses: Mapping[str, Data] = field(default_factory=dict)
    surprise: Mapping[str, Data] = field(default_factory=dict)
    marks: Sequence[Mark] = ()


NOTHING = Past()


def trend_options(
    board: Board,
    names: Sequence[str],
    future_s: float,
    accused: Mapping[str, Accused] | None = None,
    look: Look = PLAIN,
    past: Past = NOTHING,
) -> Option:
    """One row per signal: what was, its setpoint, what is predicted, and what the advice would change.

    Rows of ``accused`` have what was expected beside it; while there are some, the axis begins shortly before them.
    """
    accused = accused or {}
    span_ms = past.span_ms or live_span_ms(board, future_s, accused)
    rows = [_Row(board, name, i, span_ms, accused, look.palette, past) for i, name in enumerate(names)]
    titles = [_trend_title(row, accused.get(row.name), look) for row in rows]
    return strips(titles, [row.series() for row in rows], span_ms, ROW_PX, look.palette) | {"movable": not look.narrow}


def trend_names(board: Board, accused: Iterable[str], selected: Iterable[str]) -> list[str]:
    """What is accused, controlled or chosen; where that is little, others as well."""
    names = list(dict.fromkeys([*accused, *board.controlled(), *selected]))
    return names + [name for name in board.others() if name not in names][: max(0, LEAST_ROWS - len(names))]


def legend(option: Option) -> str:
    """Keys of the lines that a chart has."""
    drawn = {series["id"].rpartition(".")[2] for series in option["series"]}
    drawn |= {
        "limit" for series in option["series"] for mark in series.get("markLine", still([]))["data"] if "yAxis" in mark
    }
    keys = (LEGEND[kind] for kind in LEGEND if kind in drawn)
    return "".join(f'<span><i class="{look}"></i>{text}</span>' for look, text in keys)


def live_span_ms(board: Board, future_s: float, accused: Mapping[str, Accused]) -> tuple[float, float]:
    """From the beginning of the page's memory, or shortly before what is accused, to the end of the forecast."""
    now_ms = board.now_ns // 1_000_000
    from_ms = now_ms - board.window_s * 1000
    if accused:
        onset_ms = min(said.since_ns for said in accused.values()) // 1_000_000
        from_ms = max(from_ms, min(onset_ms, now_ms) - BEFORE_ONSET_MS)
        future_s = min(future_s, (now_ms - from_ms) / 1000)
    return from_ms, now_ms + future_s * 1000


def surprise_options(board: Board, look: Look = PLAIN, past: Past = NOTHING) -> Option:
    """One row per sense: its surprise as a multiple of the alarm limit, on a scale of powers of ten."""
    now_ms, palette = board.now_ns // 1_000_000, look.palette
    span_ms = past.span_ms or (now_ms - board.window_s * 1000, now_ms)
    rows, titles = [], []
    for i, said in enumerate(board.modalities()):
        name = said.modality or said.name
        colour = palette.alarm if exceeds(said) else palette.ink
        limit = said.limit or 0.0
        known = _unusual(board, name, limit, past, span_ms) if limit > 0 else []
        points: Data = [[t, None if v is None else min(CAP, max(1 / CAP, v))] for t, v in known]
        level = [{"yAxis": 1.0, "lineStyle": {"color": colour, "width": 1, "type": "dashed"}}]
        at = [] if past.at_ms is None else [_upright(past.at_ms, palette.ink)]
        rows.append([line(f"{name}.value", i, points, colour, 1.6) | {"markLine": still([*level, *at])}])
        then = None if past.at_ms is None else value_at(known, past.at_ms)
        shown = said if past.at_ms is None else replace(said, value=None if then is None else then * limit)
        titles.append((sense_text(name), _surprise_text(shown), colour))
    option = strips(titles, rows, span_ms, SENSE_PX, palette)
    scale = {"type": "log", "min": 1 / CAP, "max": CAP, "scale": False}
    return option | {"yAxis": [axis | scale for axis in option["yAxis"]], "movable": not look.narrow}


def _unusual(board: Board, name: str, limit: float, past: Past, span_ms: tuple[float, float]) -> Data:
    """The surprise of a sense over its limit: what the page remembers, and before that what was recorded."""
    peaks = board.peaks.get(name, ())
    recorded = past.surprise.get(name, [])
    older = [point for point in recorded if not peaks or (point[0] or 0) < peaks[0][0]]
    remembered = course(board.surprise.get(name, ()), peaks, span_ms)
    return [*older, *([t, None if v is None else v / limit] for t, v in remembered)]


def course(
    memory: Points | Sequence[tuple[int, float | None]],
    older: Iterable[Sequence[float | None]],
    span_ms: tuple[float, float],
) -> Data:
    """What the page remembers of a stretch, and before its memory what else is known."""
    from_ms, to_ms = span_ms
    mine = [point for point in memory if from_ms <= point[0] <= to_ms]
    begun_ms = memory[0][0] if memory else to_ms
    before: Data = [[t, v] for t, v in older if t is not None and from_ms <= t < begun_ms and t <= to_ms]
    return before + thin(mine, (to_ms - from_ms) / 1000)


def _surprise_text(said: SurpriseOut) -> str:
    if said.value is None or not said.limit or said.limit <= 0:
        return "not judged"
    share = said.value / said.limit
    beyond = "\N{BLACK UP-POINTING TRIANGLE} " if share > CAP else ""
    return (
        f"{beyond}{figure(max(0.0, share))} of its limit" if share < 1 else f"{beyond}{figure(share)} times its limit"
    )


def _trend_title(row: _Row, said: Accused | None, look: Look) -> tuple[str, str, str]:
    board, name = row.board, row.name
    text = with_unit(reading(row.value(name)), board.unit(name))
    setpoint = board.setpoint_of(name)
    if setpoint and (wanted := row.value(setpoint)) is not None:
        text += f"   SP {reading(wanted)}"
    if said and said.expected and row.past.at_ms is None:
        text += f"   expected {reading(said.expected[-1][1])}"
    room = (TITLE_NARROW if look.narrow else TITLE_WIDE) - len(text)
    title = shorten(board.named(name), max(room, len(name) + 2), placeholder=" \N{HORIZONTAL ELLIPSIS}")
    return title, text, look.palette.alarm if said else look.palette.ink


@dataclass(frozen=True, slots=True)
class _Row:
    """One signal's row; ``place`` from the top."""

    board: Board
    name: str
    place: int
    span_ms: tuple[float, float]
    accused: Mapping[str, Accused]
    palette: Palette
    past: Past

    def series(self) -> list[Option]:
        """All of its lines."""
        unit = {"unit": self.board.unit(self.name)}
        actual = line(f"{self.name}.actual", self.place, self._course(self.name), self.palette.actual, 1.6)
        found = [actual | {"markLine": still(self._lines()), "markArea": stretches(self._areas())}]
        setpoint = self.board.setpoint_of(self.name)
        if setpoint and (setpoint in self.board.tags or setpoint in self.past.courses):
            points = self._course(setpoint)
            found.append(
                line(f"{self.name}.setpoint", self.place, points, self.palette.muted, 1.1, "dashed") | {"step": "end"}
            )
        found += self._expected()
        if self.board.forecast and self.past.at_ms is None:
            found += _predicted(self.board.forecast, self.name, self.place, self.palette)
        if self.board.advice and self.past.at_ms is None:
            found += _advised(self.board.advice, self.name, self.place, self.palette)
        return [series | unit for series in found]

    def value(self, name: str) -> float | None:
        """What a signal of this row is now, or was at the moment that is looked at."""
        if self.past.at_ms is None:
            return self.board.value(name)
        return value_at(self._course(name), self.past.at_ms)

    def _course(self, name: str) -> Data:
        return course(self.board.tags.get(name, ()), self.past.courses.get(name, ()), self.span_ms)

    @property
    def _now_ms(self) -> int:
        return self.board.now_ns // 1_000_000

    def _expected(self) -> list[Option]:
        said = self.accused.get(self.name)
        if not said or not said.expected:
            return []
        since_ms, until_ms = said.since_ns // 1_000_000, _until_ms(said.until_ns, self._now_ms)
        ends = ((since_ms, said.expected[0][1]), (until_ms, said.expected[-1][1]))
        points = [list(point) for point in (ends[0], *said.expected, ends[1])]
        expected = line(f"{self.name}.expected", self.place, points, self.palette.predicted, 2.0, "dashed")
        return [expected | {"step": "end"}]  # what was said stands until something else is said

    def _areas(self) -> list[list[Option]]:
        """When an alarm accused it, and what people said of which stretch."""
        found = []
        if said := self.accused.get(self.name):
            found.append(self._area(said.since_ns, said.until_ns, self.palette.event))
        for mark in self.past.marks:
            if mark.kind is not MarkKind.ALARM:
                text = f"{mark.kind}: {mark.name}" if self.place == 0 else ""
                found.append(self._area(mark.onset_ns, mark.end_ns, self.palette.mark, text))
            elif self.name in mark.signals and self.name not in self.accused:
                found.append(self._area(mark.onset_ns, mark.end_ns, self.palette.event))
        return found

    def _area(self, since_ns: int, until_ns: int | None, colour: str, text: str = "") -> list[Option]:
        label = {"show": bool(text), "position": "insideTopLeft", "fontSize": 11, "color": self.palette.ink}
        begin = {"xAxis": since_ns // 1_000_000, "itemStyle": {"color": colour}, "name": text, "label": label}
        return [begin, {"xAxis": _until_ms(until_ns, self._now_ms)}]

    def _lines(self) -> list[Option]:
        """Now, or the moment that is looked at, the onsets, and the limits of the plant's targets."""
        at_ms = self._now_ms if self.past.at_ms is None else self.past.at_ms
        moments = [_upright(at_ms, self.palette.muted if self.past.at_ms is None else self.palette.ink)]
        onsets = sorted({said.since_ns // 1_000_000 for said in self.accused.values()})
        return [*moments, *(_upright(t_ms, self.palette.alarm) for t_ms in onsets), *self._limits()]

    def _limits(self) -> list[Option]:
        """Operating limits, in alarm colour where the value is beyond."""
        value, marks = self.value(self.name), []
        for target in self.board.plant.targets if self.board.plant else ():
            for limit, side in ((target.low, -1), (target.high, 1)):
                if target.signal == self.name and limit is not None:
                    beyond = value is not None and (value - limit) * side > 0
                    colour = self.palette.alarm if beyond else self.palette.muted
                    marks.append({"yAxis": limit, "lineStyle": {"color": colour, "width": 1, "type": "dotted"}})
        return marks


def value_at(points: Data, t_ms: float) -> float | None:
    """The last value up to a time; None where the course is broken there, or begins later."""
    return next((value for t, value in reversed(points) if t is not None and t <= t_ms), None)


def _upright(t_ms: float, colour: str) -> Option:
    return {"xAxis": t_ms, "lineStyle": {"color": colour, "width": 1, "type": "solid"}}


def _until_ms(t_ns: int | None, now_ms: int) -> int:
    return now_ms if t_ns is None else t_ns // 1_000_000


def _predicted(forecast: ForecastMessage, name: str, row: int, palette: Palette) -> list[Option]:
    """Mean and 90 % band: the band is the low line with the width stacked on it."""
    course = next((c for c in forecast.signals if c.signal == name), None)
    if course is None:
        return []
    start_ms = forecast.t_ns / 1e6
    low = _future(start_ms, forecast.horizon_s, course.low)
    width: Data = [[p[0], h - p[1]] for p, h in zip(low, _values(course.low, course.high), strict=False)]
    base: Option = {"stack": f"{name}.band", "stackStrategy": "all", "lineStyle": {"opacity": 0}}
    mean = _future(start_ms, forecast.horizon_s, course.mean)
    return [
        line(f"{name}.low", row, low, palette.predicted, 0) | base,
        line(f"{name}.band", row, width, palette.predicted, 0)
        | base
        | {"areaStyle": {"color": palette.band, "origin": "start"}},
        line(f"{name}.mean", row, mean, palette.predicted, 1.6),
    ]


def _advised(advice: RecommendationMessage, name: str, row: int, palette: Palette) -> list[Option]:
    start_ms = advice.t_ns / 1e6
    series = []
    for key, courses, colour, kind in (
        ("applied", advice.if_applied, palette.applied, "dashed"),
        ("nothing", advice.if_nothing, palette.muted, "dotted"),
    ):
        course: Course | None = next((c for c in courses if c.signal == name), None)
        if course:
            points = _future(start_ms, advice.horizon_s, course.mean)
            series.append(line(f"{name}.{key}", row, points, colour, 1.6, kind))
    return series


def _future(start_ms: float, horizon_s: Iterable[float | None], values: Iterable[float | None]) -> list[list[float]]:
    pairs = zip(horizon_s, values, strict=False)
    return [[start_ms + h * 1000, v] for h, v in pairs if h is not None and v is not None]


def _values(low: Iterable[float | None], high: Iterable[float | None]) -> list[float]:
    """The high values where both ends are known; an open end has no width."""
    return [lo if hi is None else hi for lo, hi in zip(low, high, strict=False) if lo is not None]


def prospect_options(board: Board, answer: WhatifMessage | None, look: Look = PLAIN) -> Option:
    """One row per controlled signal: its last minutes, and both courses of an answer to what if."""
    now_ms = board.now_ns // 1_000_000
    horizon_s = (answer.horizon_s[-1] or 0.0) if answer and answer.horizon_s else 0.0
    span_ms = now_ms - BEFORE_ONSET_MS, now_ms + max(60.0, horizon_s) * 1000
    names, rows = board.controlled(), []
    for i, name in enumerate(names):
        past = course(board.tags.get(name, ()), (), span_ms)
        actual = line(f"{name}.actual", i, past, look.palette.actual, 1.6)
        row = [actual | {"markLine": still([_upright(now_ms, look.palette.muted)])}]
        if answer is not None:
            row += _both(answer, name, i, look.palette)
        rows.append([series | {"unit": board.unit(name)} for series in row])
    heads = [_Row(board, name, i, span_ms, {}, look.palette, NOTHING) for i, name in enumerate(names)]
    titles = [_trend_title(head, None, look) for head in heads]
    return strips(titles, rows, span_ms, ROW_PX, look.palette) | {"movable": False}


def _both(answer: WhatifMessage, name: str, row: int, palette: Palette) -> list[Option]:
    found = []
    kinds = (
        ("applied", answer.if_moved, palette.applied, "dashed"),
        ("nothing", answer.if_nothing, palette.muted, "dotted"),
    )
    for key, courses, colour, kind in kinds:
        mine = next((c for c in courses if c.signal == name), None)
        points = _future(answer.t_ns / 1e6, answer.horizon_s, mine.mean) if mine else []
        found.append(line(f"{name}.{key}", row, points, colour, 1.6, kind))
    return found
