"""Chart options: stacked strip charts on one time axis, as plain dictionaries for ECharts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from fusion.dashboard.board import Board, Points, exceeds
from fusion.publish.messages import Course, ForecastMessage, RecommendationMessage

Option = dict[str, Any]

INK, MUTED, FAINT = "#1b2126", "#5d6770", "#d9dde0"
ACTUAL, PREDICTED, APPLIED, IDLE, ALARM = "#0b3d78", "#2f7fc1", "#1c7c3c", "#8a6d1a", "#c3121b"
BAND = "rgba(47,127,193,0.24)"
FONT = "system-ui, Roboto, sans-serif"
LEFT, RIGHT = 54, 14
POINTS_SHOWN = 450
TREND_PX, SURPRISE_PX = 590, 380
TITLE_PX, GAP_PX, AXIS_PX = 18, 6, 20


def trend_options(board: Board, names: Sequence[str], future_s: float) -> Option:
    """One row per signal: what was, its setpoint, what is predicted, and what the advice would change."""
    now_ms = board.now_ns // 1_000_000
    rows = [_trend_row(board, name, i, now_ms) for i, name in enumerate(names)]
    titles = [_trend_title(board, name) for name in names]
    return _strips(titles, rows, now_ms - board.window_s * 1000, now_ms + future_s * 1000, TREND_PX)


def surprise_options(board: Board) -> Option:
    """One row per modality: its standardised surprise and the alarm limit."""
    now_ms = board.now_ns // 1_000_000
    readings = board.modalities()
    rows, titles = [], []
    for i, reading in enumerate(readings):
        name = reading.modality or reading.name
        points = _thin(board.surprise.get(name, ()), board.window_s)
        raised = exceeds(reading)
        colour = ALARM if raised else ACTUAL
        row = [_line(f"{name}.value", i, points, colour, 1.4)]
        if reading.limit is not None:
            limit = [[now_ms - board.window_s * 1000, reading.limit], [now_ms, reading.limit]]
            row.append(_line(f"{name}.limit", i, limit, ALARM if raised else MUTED, 1.2, "dashed"))
        rows.append(row)
        text = f"{_short(reading.value, 3)}   limit {_short(reading.limit, 3)}   p {_short(reading.p_value, 2)}"
        titles.append((name, text, ALARM if raised else INK))
    return _strips(titles, rows, now_ms - board.window_s * 1000, now_ms, SURPRISE_PX, zero=True)


def _trend_title(board: Board, name: str) -> tuple[str, str, str]:
    unit = board.unit(name)
    text = f"{_short(board.value(name))} {unit}".rstrip()
    setpoint = board.setpoint_of(name)
    if setpoint and board.value(setpoint) is not None:
        text += f"   SP {_short(board.value(setpoint))}"
    return f"{name}  {board.description(name)}".rstrip(), text, INK


def _trend_row(board: Board, name: str, row: int, now_ms: int) -> list[Option]:
    series = [_line(f"{name}.actual", row, _thin(board.tags.get(name, ()), board.window_s), ACTUAL, 1.6)]
    setpoint = board.setpoint_of(name)
    points = board.tags.get(setpoint) if setpoint else None
    if points:
        course = [*_thin(points, board.window_s), [now_ms, points[-1][1]]]
        series.append(_line(f"{name}.setpoint", row, course, INK, 1.1, "dashed") | {"step": "end"})
    series[0]["markLine"] = _marks(board, name, now_ms)
    if board.forecast:
        series += _predicted(board.forecast, name, row)
    if board.advice:
        series += _advised(board.advice, name, row)
    return series


def _marks(board: Board, name: str, now_ms: int) -> Option:
    """Now, and the operating limits of the plant's targets where they are in sight."""
    targets = [t for t in board.plant.targets if t.signal == name] if board.plant else []
    limits = [value for t in targets for value in (t.low, t.high) if value is not None]
    now = {"xAxis": now_ms, "lineStyle": {"color": MUTED, "width": 1, "type": "solid"}}
    line = {"color": ALARM, "width": 1, "type": "dotted"}
    return {
        "symbol": "none",
        "silent": True,
        "animation": False,
        "label": {"show": False},
        "data": [now, *({"yAxis": value, "lineStyle": line} for value in limits)],
    }


def _predicted(forecast: ForecastMessage, name: str, row: int) -> list[Option]:
    """Mean and 90 % band: the band is the low line with the width stacked on it."""
    course = next((c for c in forecast.signals if c.signal == name), None)
    if course is None:
        return []
    start_ms = forecast.t_ns / 1e6
    low = _future(start_ms, forecast.horizon_s, course.low)
    width = [[p[0], h - p[1]] for p, h in zip(low, _values(course.low, course.high), strict=False)]
    base: Option = {"stack": f"{name}.band", "stackStrategy": "all", "lineStyle": {"opacity": 0}}
    return [
        _line(f"{name}.low", row, low, PREDICTED, 0) | base,
        _line(f"{name}.band", row, width, PREDICTED, 0) | base | {"areaStyle": {"color": BAND, "origin": "start"}},
        _line(f"{name}.mean", row, _future(start_ms, forecast.horizon_s, course.mean), PREDICTED, 1.6),
    ]


def _advised(advice: RecommendationMessage, name: str, row: int) -> list[Option]:
    start_ms = advice.t_ns / 1e6
    series = []
    for key, courses, colour in (("applied", advice.if_applied, APPLIED), ("nothing", advice.if_nothing, IDLE)):
        course: Course | None = next((c for c in courses if c.signal == name), None)
        if course:
            points = _future(start_ms, advice.horizon_s, course.mean)
            series.append(_line(f"{name}.{key}", row, points, colour, 1.4, "dashed"))
    return series


def _future(start_ms: float, horizon_s: Iterable[float | None], values: Iterable[float | None]) -> list[list[float]]:
    pairs = zip(horizon_s, values, strict=False)
    return [[start_ms + h * 1000, v] for h, v in pairs if h is not None and v is not None]


def _values(low: Iterable[float | None], high: Iterable[float | None]) -> list[float]:
    """The high values where both ends are known; an open end has no width."""
    return [lo if hi is None else hi for lo, hi in zip(low, high, strict=False) if lo is not None]


def _thin(points: Points | Sequence[tuple[int, float]], window_s: float) -> list[list[float]]:
    """Every k-th point, aligned to time so that a point once shown stays, and always the newest."""
    stride_ms = max(1000, int(window_s * 1000 / POINTS_SHOWN) // 1000 * 1000)
    shown, last = [], -1
    for t_ms, value in points:
        if t_ms // stride_ms != last:
            shown.append([t_ms, value])
            last = t_ms // stride_ms
    if points and shown[-1][0] != points[-1][0]:
        shown.append(list(points[-1]))
    return shown


def _line(name: str, row: int, data: list[list[float]], colour: str, width: float, kind: str = "solid") -> Option:
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
    from_ms: float,
    to_ms: float,
    height_px: int,
    *,
    zero: bool = False,
) -> Option:
    """Rows of equal height under each other; only the lowest carries the time axis."""
    row_px = (height_px - AXIS_PX) / max(1, len(rows))
    return {
        "animation": False,
        "useUTC": True,
        "textStyle": {"fontFamily": FONT, "color": INK},
        "title": [t for i, title in enumerate(titles) for t in _titles(title, i, row_px)],
        "grid": [_grid(i, row_px) for i in range(len(rows))],
        "xAxis": [_time_axis(i, from_ms, to_ms, last=i == len(rows) - 1) for i in range(len(rows))],
        "yAxis": [_value_axis(i, zero=zero) for i in range(len(rows))],
        "series": [series for row in rows for series in row],
        "tooltip": {"show": False},
    }


def _titles(title: tuple[str, str, str], row: int, row_px: float) -> list[Option]:
    left, right, colour = title
    style = {"fontSize": 12, "color": INK}
    place: Option = {"top": row * row_px, "padding": [2, 0]}
    return [
        place | {"text": left, "left": LEFT, "textStyle": style | {"fontWeight": 600}},
        place | {"text": right, "right": RIGHT, "textStyle": style | {"fontWeight": 400, "color": colour}},
    ]


def _grid(row: int, row_px: float) -> Option:
    return {
        "left": LEFT,
        "right": RIGHT,
        "top": row * row_px + TITLE_PX,
        "height": row_px - TITLE_PX - GAP_PX,
        "show": True,
        "borderColor": FAINT,
        "backgroundColor": "#ffffff",
    }


def _time_axis(row: int, from_ms: float, to_ms: float, *, last: bool) -> Option:
    return {
        "type": "time",
        "gridIndex": row,
        "min": from_ms,
        "max": to_ms,
        "splitNumber": 6,
        "axisLabel": {"show": last, "formatter": "{HH}:{mm}", "color": MUTED, "fontSize": 11, "hideOverlap": True},
        "axisTick": {"show": last},
        "axisLine": {"onZero": False, "lineStyle": {"color": MUTED}},
        "splitLine": {"show": True, "lineStyle": {"color": FAINT}},
    }


def _value_axis(row: int, *, zero: bool) -> Option:
    return {
        "type": "value",
        "gridIndex": row,
        "scale": not zero,
        "splitNumber": 3,
        "axisLabel": {"color": MUTED, "fontSize": 11, "showMinLabel": True, "hideOverlap": True},
        "splitLine": {"lineStyle": {"color": FAINT}},
    }


def _short(value: float | None, digits: int = 4) -> str:
    return "-" if value is None else f"{value:.{digits}g}"
