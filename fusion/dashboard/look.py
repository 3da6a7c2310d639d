"""How one browser looks at the page: its time zone, its colours, its width, and the alarm it has picked out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, tzinfo
from typing import Any
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

DARK_WANTED = "matchMedia('(prefers-color-scheme: dark)')"
ZONE = "Intl.DateTimeFormat().resolvedOptions().timeZone"
VIEW = "location.hash.slice(1)"
ASK = f"({{zone: {ZONE}, dark: {DARK_WANTED}.matches, width: innerWidth, hidden: document.hidden, view: {VIEW}}})"
TELL = f"() => emitEvent('look', {ASK})"
WATCH = (
    f"{DARK_WANTED}.addEventListener('change', {TELL}); document.addEventListener('visibilitychange', {TELL}); "
    f"addEventListener('popstate', {TELL})"
)
"""JavaScript: how a browser looks at the page, and to say so again whenever that changes."""


NARROW_PX = 820


@dataclass(frozen=True, slots=True)
class Palette:
    """Colours of the charts; lines that lie together also differ by their dashes. Source: Okabe and Ito 2008."""

    ink: str
    muted: str
    faint: str
    ground: str
    actual: str
    predicted: str
    applied: str
    alarm: str
    band: str
    event: str
    mark: str


LIGHT = Palette(
    ink="#1b2126",
    muted="#5d6770",
    faint="#d9dde0",
    ground="#ffffff",
    actual="#1b2126",
    predicted="#0072b2",
    applied="#007a5a",
    alarm="#c3121b",
    band="rgba(0,114,178,0.18)",
    event="rgba(195,18,27,0.07)",
    mark="rgba(93,103,112,0.16)",
)
DARK = Palette(
    ink="#e3e7ea",
    muted="#a2acb4",
    faint="#3a4248",
    ground="#1d2226",
    actual="#e3e7ea",
    predicted="#56b4e9",
    applied="#2fc79b",
    alarm="#ff6b64",
    band="rgba(86,180,233,0.22)",
    event="rgba(255,107,100,0.11)",
    mark="rgba(162,172,180,0.22)",
)


@dataclass(frozen=True, slots=True)
class Look:
    """``picked`` is the id of the alarm whose tags the trends show, "" for all that stand; ``hidden`` is unseen."""

    zone: tzinfo = UTC
    dark: bool = False
    narrow: bool = False
    picked: str = ""
    hidden: bool = False

    @property
    def palette(self) -> Palette:
        """The colours of the charts."""
        return DARK if self.dark else LIGHT


PLAIN = Look()
"""What is shown while the browser has not said how it looks."""


def look_of(said: Mapping[str, Any], before: Look = PLAIN) -> Look:
    """How a browser says it looks at the page; UTC where its time zone is not known here."""
    width = said.get("width")
    try:
        zone: tzinfo = ZoneInfo(str(said.get("zone") or "UTC"))
    except (ZoneInfoNotFoundError, ValueError, OSError):
        zone = UTC
    narrow = isinstance(width, int | float) and width < NARROW_PX
    return replace(before, zone=zone, dark=bool(said.get("dark")), narrow=narrow, hidden=bool(said.get("hidden")))
