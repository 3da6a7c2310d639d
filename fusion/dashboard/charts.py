"""Chart options: stacked strip charts on one time axis, as plain dictionaries for ECharts."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice, pairwise
from textwrap import shorten
from typing import Any

from fusion.dashboard.alarms import Accused
from fusion.dashboard.board import Board, Points, exceeds
from fusion.dashboard.look import PLAIN, Look, Palette
from fusion.dashboard.words import figure, reading, sense_text, with_unit
from fusion.publish.messages import Course, ForecastMessage, RecommendationMessage, SurpriseOut

Option = dict[str, Any]
Data = list[list[float | None]]

FONT = "system-ui, Roboto, sans-serif"
LEFT, RIGHT = 54, 14
POINTS_SHOWN = 450
ROW_PX, SENSE_PX = 88, 74
TITLE_PX, GAP_PX, AXIS_PX = 18, 6, 20
TITLE_WIDE, TITLE_NARROW = 62, 38
BEFORE_ONSET_MS = 300_000
GAP_STEPS = 3.5
STEPS_LOOKED_AT = 60
CAP = 10.0
"""Surprise is drawn as a multiple of its limit from 1/CAP to CAP, so that the limit is always in the middle."""


def trend_options(
    board: Board,
    names: Sequence[str],
    future_s: float,
    accused: Mapping[str, Accused] | None = None,
    look: Look = PLAIN,
) -> Option:
    """One row per signal: what was, its setpoint, what is predicted, and what the advice would change.

    Rows of ``accused`` have what was expected beside it; while there are some, the axis begins shortly before them.
    """
    accused = accused or {}
    now_ms = board.now_ns // 1_000_000
    from_ms = now_ms - board.window_s * 1000
    if accused:
        onset_ms = min(said.since_ns for said in accused.values()) // 1_000_000
        from_ms = max(from_ms, min(onset_ms, now_ms) - BEFORE_ONSET_MS)
        future_s = min(future_s, (now_ms - from_ms) / 1000)
    rows = [_trend_row(board, name, i, now_ms, accused, look.palette) for i, name in enumerate(names)]
    titles = [_trend_title(board, name, accused.get(name), look) for name in names]
    return _strips(titles, rows, (from_ms, now_ms + future_s * 1000), ROW_PX, look.palette)


def surprise_options(board: Board, look: Look = PLAIN) -> Option:
    """One row per sense: its surprise as a multiple of the alarm limit, on a scale of powers of ten."""
    now_ms, palette = board.now_ns // 1_000_000, look.palette
    from_ms = now_ms - board.window_s * 1000
    rows, titles = [], []
    for i, said in enumerate(board.modalities()):
        name = said.modality or said.name
        colour = palette.alarm if exceeds(said) else palette.ink
        limit = said.limit or 0.0
        past = _thin(board.surprise.get(name, ()), board.window_s) if limit > 0 else []
        points: Data = [[t, None if v is None else min(CAP, max(1 / CAP, v / limit))] for t, v in past]
        line = _line(f"{name}.value", i, points, colour, 1.6)
        line["markLine"] = _still([{"yAxis": 1.0, "lineStyle": {"color": colour, "width": 1, "type": "dashed"}}])
        rows.append([line])
        titles.append((sense_text(name), _surprise_text(said), colour))
    option = _strips(titles, rows, (from_ms, now_ms), SENSE_PX, palette)
    scale = {"type": "log", "min": 1 / CAP, "max": CAP, "scale": False}
    return option | {"yAxis": [axis | scale for axis in option["yAxis"]]}


def _surprise_text(said: SurpriseOut) -> str:
    if said.value is None or not said.limit or said.limit <= 0:
        return "not judged"
    share = said.value / said.limit
    beyond = "\N{BLACK UP-POINTING TRIANGLE} " if share > CAP else ""
    return (
        f"{beyond}{figure(max(0.0, share))} of its limit" if share < 1 else f"{beyond}{figure(share)} times its limit"
    )


def _trend_title(board: Board, name: str, said: Accused | None, look: Look) -> tuple[str, str, str]:
    text = with_unit(reading(board.value(name)), board.unit(name))
    setpoint = board.setpoint_of(name)
    if setpoint and board.value(setpoint) is not None:
        text += f"   SP {reading(board.value(setpoint))}"
    if said and said.expected:
        text += f"   expected {reading(said.expected[-1][1])}"
    room = (TITLE_NARROW if look.narrow else TITLE_WIDE) - len(text)
    title = shorten(board.named(name), max(room, len(name) + 2), placeholder=" \N{HORIZONTAL ELLIPSIS}")
    return title, text, look.palette.alarm if said else look.palette.ink


def _trend_row(
    board: Board, name: str, row: int, now_ms: int, accused: Mapping[str, Accused], palette: Palette
) -> list[Option]:
    series = [_line(f"{name}.actual", row, _thin(board.tags.get(name, ()), board.window_s), palette.actual, 1.6)]
    setpoint = board.setpoint_of(name)
    if setpoint and setpoint in board.tags:
        course = _thin(board.tags[setpoint], board.window_s)
        series.append(_line(f"{name}.setpoint", row, course, palette.muted, 1.1, "dashed") | {"step": "end"})
    series[0]["markLine"] = _marks(board, name, now_ms, accused, palette)
    if said := accused.get(name):
        since_ms, until_ms = said.since_ns // 1_000_000, now_ms if said.until_ns is None else said.until_ns // 1_000_000
        series[0]["markArea"] = {
            "silent": True,
            "animation": False,
            "itemStyle": {"color": palette.event},
            "data": [[{"xAxis": since_ms}, {"xAxis": until_ms}]],
        }
        if said.expected:
            ends = ((since_ms, said.expected[0][1]), (until_ms, said.expected[-1][1]))
            course = [list(point) for point in (ends[0], *said.expected, ends[1])]
            expected = _line(f"{name}.expected", row, course, palette.predicted, 2.0, "dashed")
            series.append(expected | {"step": "end"})  # what was said stands until something else is said
    if board.forecast:
        series += _predicted(board.forecast, name, row, palette)
    if board.advice:
        series += _advised(board.advice, name, row, palette)
    return series


def _marks(board: Board, name: str, now_ms: int, accused: Mapping[str, Accused], palette: Palette) -> Option:
    """Now, the onsets, and the operating limits of the plant's targets: in alarm colour where the value is beyond."""
    now = {"xAxis": now_ms, "lineStyle": {"color": palette.muted, "width": 1, "type": "solid"}}
    onsets = sorted({said.since_ns // 1_000_000 for said in accused.values()})
    marks = [now, *({"xAxis": t, "lineStyle": {"color": palette.alarm, "width": 1, "type": "solid"}} for t in onsets)]
    value = board.value(name)
    for target in board.plant.targets if board.plant else ():
        for limit, side in ((target.low, -1), (target.high, 1)):
            if target.signal == name and limit is not None:
                beyond = value is not None and (value - limit) * side > 0
                colour = palette.alarm if beyond else palette.muted
                marks.append({"yAxis": limit, "lineStyle": {"color": colour, "width": 1, "type": "dotted"}})
    return _still(marks)


def _still(marks: list[Option]) -> Option:
    return {"symbol": "none", "silent": True, "animation": False, "label": {"show": False}, "data": marks}


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
        _line(f"{name}.low", row, low, palette.predicted, 0) | base,
        _line(f"{name}.band", row, width, palette.predicted, 0)
        | base
        | {"areaStyle": {"color": palette.band, "origin": "start"}},
        _line(f"{name}.mean", row, mean, palette.predicted, 1.6),
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
            series.append(_line(f"{name}.{key}", row, points, colour, 1.6, kind))
    return series


def _future(start_ms: float, horizon_s: Iterable[float | None], values: Iterable[float | None]) -> list[list[float]]:
    pairs = zip(horizon_s, values, strict=False)
    return [[start_ms + h * 1000, v] for h, v in pairs if h is not None and v is not None]


def _values(low: Iterable[float | None], high: Iterable[float | None]) -> list[float]:
    """The high values where both ends are known; an open end has no width."""
    return [lo if hi is None else hi for lo, hi in zip(low, high, strict=False) if lo is not None]


def _thin(points: Points | Sequence[tuple[int, float | None]], window_s: float) -> Data:
    """Every k-th point, aligned to time so that a point once shown stays, and always the newest.

    Where a tick had no value, or where none came, a point without a value breaks the line.
    """
    stride_ms = max(1000, int(window_s * 1000 / POINTS_SHOWN) // 1000 * 1000)
    longest_ms = GAP_STEPS * _step_ms(points)
    shown: Data = []
    newest: list[float | None] = []
    last, before_ms, broken = -1, 0, False
    for t_ms, value in points:
        broken = broken or value is None or (bool(shown) and t_ms - before_ms > longest_ms)
        before_ms = t_ms
        if value is None:
            continue
        newest = [t_ms, value]
        if broken or t_ms // stride_ms != last:
            if broken and shown:
                shown.append([shown[-1][0], None])
            shown.append(newest)
            last, broken = t_ms // stride_ms, False
    if newest and shown[-1] != newest:
        shown.append(newest)
    return shown


def _step_ms(points: Points | Sequence[tuple[int, float | None]]) -> float:
    """The usual distance of points, from the newest of them."""
    newest = [t_ms for t_ms, _ in islice(reversed(points), STEPS_LOOKED_AT)]
    return statistics.median(later - sooner for later, sooner in pairwise(newest)) if len(newest) > 1 else 0.0


def _line(
    name: str, row: int, data: Sequence[Sequence[float | None]], colour: str, width: float, kind: str = "solid"
) -> Option:
    return {
        "id": name,
        "name": name,
        "type": "line",
        "xAxisIndex": row,
        "yAxisIndex": row,
        "showSymbol": False,
        "silent": True,
        "animation": False,
        "data": data,
        "lineStyle": {"width": width, "color": colour, "type": kind},
        "itemStyle": {"color": colour},
    }


def _strips(
    titles: list[tuple[str, str, str]],
    rows: list[list[Option]],
    span_ms: tuple[float, float],
    row_px: int,
    palette: Palette,
) -> Option:
    """Rows of equal height under each other; only the lowest carries the time axis."""
    return {
        "animation": False,
        "textStyle": {"fontFamily": FONT, "color": palette.ink},
        "title": [t for i, title in enumerate(titles) for t in _titles(title, i, row_px, palette)],
        "grid": [_grid(i, row_px, palette) for i in range(len(rows))],
        "xAxis": [_time_axis(i, span_ms, palette, last=i == len(rows) - 1) for i in range(len(rows))],
        "yAxis": [_value_axis(i, palette) for i in range(len(rows))],
        "series": [series for row in rows for series in row],
        "tooltip": {"show": False},
    }


def height_px(option: Option) -> int:
    """How high a chart of strips is."""
    rows = option["grid"]
    return rows[-1]["top"] + rows[-1]["height"] + GAP_PX + AXIS_PX if rows else 0


def _titles(title: tuple[str, str, str], row: int, row_px: int, palette: Palette) -> list[Option]:
    left, right, colour = title
    style = {"fontSize": 12, "color": palette.ink}
    place: Option = {"top": row * row_px, "padding": [2, 0]}
    return [
        place | {"text": left, "left": LEFT, "textStyle": style | {"fontWeight": 600}},
        place | {"text": right, "right": RIGHT, "textStyle": style | {"fontWeight": 400, "color": colour}},
    ]


def _grid(row: int, row_px: int, palette: Palette) -> Option:
    return {
        "left": LEFT,
        "right": RIGHT,
        "top": row * row_px + TITLE_PX,
        "height": row_px - TITLE_PX - GAP_PX,
        "show": True,
        "borderColor": palette.faint,
        "backgroundColor": palette.ground,
    }


def _time_axis(row: int, span_ms: tuple[float, float], palette: Palette, *, last: bool) -> Option:
    label = {"show": last, "formatter": "{HH}:{mm}", "color": palette.muted, "fontSize": 11, "hideOverlap": True}
    return {
        "type": "time",
        "gridIndex": row,
        "min": span_ms[0],
        "max": span_ms[1],
        "splitNumber": 6,
        "axisLabel": label,
        "axisTick": {"show": last},
        "axisLine": {"onZero": False, "lineStyle": {"color": palette.muted}},
        "splitLine": {"show": True, "lineStyle": {"color": palette.faint}},
    }


def _value_axis(row: int, palette: Palette) -> Option:
    return {
        "type": "value",
        "gridIndex": row,
        "scale": True,
        "splitNumber": 3,
        "axisLabel": {"color": palette.muted, "fontSize": 11, "showMinLabel": True, "hideOverlap": True},
        "splitLine": {"lineStyle": {"color": palette.faint}},
    }
