"""Rows of strip charts under each other, as plain dictionaries for ECharts; what may change has an ``id``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from fusion.dashboard.look import Palette

Option = dict[str, Any]

FONT = "system-ui, Roboto, sans-serif"
LEFT, RIGHT = 54, 14
SECONDS_BELOW_MS = 300_000
TITLE_PX, GAP_PX, AXIS_PX = 18, 6, 20


def line(
    name: str, row: int, data: Sequence[Sequence[float | None]], colour: str, width: float, kind: str = "solid"
) -> Option:
    """One course in a row, named by what may be read off it."""
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


def strips(
    titles: list[tuple[str, str, str]],
    rows: list[list[Option]],
    span_ms: tuple[float, float],
    row_px: int,
    palette: Palette,
) -> Option:
    """Rows of equal height under each other; only the lowest carries the time axis."""
    return {
        "animation": False,
        "ground": palette.ground,
        "textStyle": {"fontFamily": FONT, "color": palette.ink},
        "title": [t for i, title in enumerate(titles) for t in _titles(title, i, row_px, palette)],
        "grid": [_grid(i, row_px, palette) for i in range(len(rows))],
        "xAxis": [_time_axis(i, span_ms, palette, last=i == len(rows) - 1) for i in range(len(rows))],
        "yAxis": [_value_axis(i, palette) for i in range(len(rows))],
        "series": [series for row in rows for series in row],
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
        place | {"id": f"{row}.left", "text": left, "left": LEFT, "textStyle": style | {"fontWeight": 600}},
        place
        | {
            "id": f"{row}.right",
            "text": right,
            "right": RIGHT,
            "textStyle": style | {"fontWeight": 400, "color": colour},
        },
    ]


def _grid(row: int, row_px: int, palette: Palette) -> Option:
    return {
        "id": f"{row}.grid",
        "left": LEFT,
        "right": RIGHT,
        "top": row * row_px + TITLE_PX,
        "height": row_px - TITLE_PX - GAP_PX,
        "show": True,
        "borderColor": palette.faint,
        "backgroundColor": palette.ground,
    }


def _time_axis(row: int, span_ms: tuple[float, float], palette: Palette, *, last: bool) -> Option:
    near = span_ms[1] - span_ms[0] < SECONDS_BELOW_MS
    label = {
        "show": last,
        "formatter": "{HH}:{mm}:{ss}" if near else "{HH}:{mm}",
        "color": palette.muted,
        "fontSize": 11,
        "hideOverlap": True,
    }
    return {
        "id": f"{row}.time",
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
        "id": f"{row}.value",
        "type": "value",
        "gridIndex": row,
        "scale": True,
        "splitNumber": 3,
        "axisLabel": {"color": palette.muted, "fontSize": 11, "showMinLabel": True, "hideOverlap": True},
        "splitLine": {"lineStyle": {"color": palette.faint}},
    }


def still(marks: list[Option]) -> Option:
    """Lines that stand in a row and say nothing."""
    return {"symbol": "none", "silent": True, "animation": False, "label": {"show": False}, "data": marks}


def stretches(areas: list[list[Option]]) -> Option:
    """Stretches of time behind a row."""
    return {"silent": True, "animation": False, "data": areas}
