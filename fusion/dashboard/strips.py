"""Charts of one open page: all of one once, and from then on what has changed."""

from __future__ import annotations

from typing import Any

from nicegui.element import Element
from nicegui.elements import echart  # noqa: F401  # brings ECharts to the browser

from fusion.dashboard.axes import Option, height_px

BY_ID = ("title", "grid", "xAxis", "yAxis", "series")


class Strips(Element, component="strips.js"):
    """Strip charts; the browser says ``zoom`` and ``at`` of where it is moved and pointed to."""

    def __init__(self) -> None:
        super().__init__()
        self._wanted: Option | None = None
        self._sent: Option | None = None
        self._number = 0
        self._ready = False
        self.on("ready", self._begin)
        self.on("lost", self._begin)

    def show(self, option: Option) -> None:
        """Draw it, or what of it is new."""
        self._wanted = option
        if not self._ready:
            return
        before, self._sent = self._sent, option
        self._number += 1
        if before is None or shape(before) != shape(option):
            self.style(f"height:{height_px(option)}px")
            self.run_method("draw", option, self._number)
        else:
            self.run_method("patch", difference(before, option), self._number)

    def _begin(self) -> None:
        self._ready, self._sent = True, None
        if self._wanted is not None:
            self.show(self._wanted)


def shape(option: Option) -> Any:
    """What cannot be changed in a chart that is drawn: its lines with their kinds of properties, and what has no id."""
    rest = {key: value for key, value in option.items() if key not in BY_ID}
    return rest, [(part["id"], sorted(part)) for key in BY_ID for part in option[key]]


def difference(before: Option, option: Option) -> Option:
    """What of a chart of the same shape is new, part by part."""
    found = {key: _changed(before[key], option[key]) for key in BY_ID}
    return {key: parts for key, parts in found.items() if parts}


def _changed(before: list[Option], parts: list[Option]) -> list[Option]:
    found = []
    for old, new in zip(before, parts, strict=True):
        change = {key: value for key, value in new.items() if old[key] != value}
        if change:
            if "data" in change and "data" in old:
                change["data"] = moved_on(old["data"], new["data"])
            found.append({"id": new["id"], **change})
    return found


def moved_on(old: list[Any], new: list[Any]) -> Option:
    """How many points of a course go at its beginning, how many stay, and which come at its end."""
    cut = next((i for i, point in enumerate(old) if new and point == new[0]), len(old))
    keep = next((i for i, (a, b) in enumerate(zip(old[cut:], new, strict=False)) if a != b), None)
    keep = min(len(old) - cut, len(new)) if keep is None else keep
    return {"cut": cut, "keep": keep, "add": new[keep:]}
