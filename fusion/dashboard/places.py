"""What stands out in a picture, a sound or a point cloud: the name on the wire as words and as a place to mark."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from fusion.plant import Modality

Range = tuple[float, float]

PROFILE_BANDS = 12
MEL_BANDS = 64  # two of them to each name
RINGS = 8
CELL_SIDES = 12
CELL = {
    "light": "brightness",
    "edges across": "edges",
    "edges along": "edges",
    "change": "movement",
    "change spread": "unevenness of the movement",
    "peak": "peaks above the loudness",
    "level": "loudness",
    "look": "appearance",
}
VIDEO = {
    "brightness mean": "brightness",
    "brightness std": "contrast",
    "dark fraction": "dark parts",
    "bright fraction": "bright parts",
    "sharpness": "sharpness",
    "change mean": "movement",
    "change q95": "the fastest movement",
    "motion x": "movement sideways",
    "motion y": "movement up and down",
    "motion peak": "steadiness of the movement",
    "frozen": "picture stands still",
}
SHAPES = {
    "rise position": "{} of an edge",
    "fall position": "{} of an edge",
    "rise strength": "contrast of an edge, by {}",
    "fall strength": "contrast of an edge, by {}",
    "change centre": "{} of the movement",
    "change width": "extent of the movement, by {}",
}
AUDIO = {
    "log rms": "loudness",
    "crest": "peaks above the loudness",
    "kurtosis": "knocks",
    "centroid": "pitch",
    "flatness": "hiss",
    "clipped fraction": "overdriven sound",
    "silent": "silence",
}
LIDAR = {
    "level": "height",
    "volume": "volume",
    "slope x": "slope along x",
    "slope y": "slope along y",
    "roughness": "roughness",
    "extent x": "extent along x",
    "extent y": "extent along y",
    "log returns": "number of returns",
    "near fraction": "returns close to the sensor",
    "isolated fraction": "returns in the air, such as dust",
    "intensity mean": "brightness of the returns",
    "intensity std": "unevenness of the returns",
    "intensity q90": "the brightest returns",
}


@dataclass(frozen=True, slots=True)
class Place:
    """Words, and what to mark: ``rows`` (from the top) or ``columns`` as shares of the picture, or a band ``hz``."""

    text: str
    rows: Range | None = None
    columns: Range | None = None
    hz: Range | None = None


def place(modality: Modality | None, where: str, rate_hz: float | None = None) -> Place:
    """Where to look for what stands out; a name that is not known is said as it is.

    ``rate_hz`` is the sampling rate of a microphone, without which its bands are only counted.
    """
    if modality is Modality.VIDEO:
        return _video(where)
    if modality is Modality.AUDIO:
        return _audio(where, rate_hz)
    return _lidar(where) if modality is Modality.LIDAR else Place(where)


def _video(where: str) -> Place:
    if cell := _cell(where):
        rows, columns, what = cell
        high, wide = (round(50 * sum(span)) for span in (rows, columns))
        text = f"{CELL.get(what, what)} at {high} % of the height from the top and {wide} % of the width from the left"
        return Place(text, rows=rows, columns=columns)
    found = re.fullmatch(r"(row|column) (\D+?)(?: (\d+))?", where)
    if not found:
        return Place(VIDEO.get(where, where))
    axis, what, number = found.groups()
    if number is None:
        return Place(SHAPES.get(what, where).format("height" if axis == "row" else "side"))
    band = (int(number) / PROFILE_BANDS, (int(number) + 1) / PROFILE_BANDS)
    middle = round(100 * sum(band) / 2)
    text = {"brightness": "brightness", "change": "movement"}.get(what, what)
    if axis == "row":
        return Place(f"{text} at {middle} % of the height from the top", rows=band)
    return Place(f"{text} at {middle} % of the width from the left", columns=band)


def _audio(where: str, rate_hz: float | None) -> Place:
    if found := re.fullmatch(r"mel (mean|std) (\d+)", where):
        return _band("loudness" if found[1] == "mean" else "unsteadiness", int(found[2]), rate_hz)
    if found := re.fullmatch(r"cell band (\d+) (.+)", where):
        return _band(CELL.get(found[2], found[2]), int(found[1]), rate_hz)
    if found := re.fullmatch(r"envelope (\d+) (\d+)hz at (?:peak|(\d+) (\d+)hz)", where):
        band = (float(found[1]), float(found[2]))
        beat = f"beat of {found[3]} to {found[4]} a second" if found[3] else "beat"
        return Place(f"{beat} at {_span_text(band)}", hz=band)
    return Place(AUDIO.get(where, where))


def _band(text: str, number: int, rate_hz: float | None) -> Place:
    """What stands out in a pair of mel bands."""
    if rate_hz is None:
        return Place(f"{text} in band {number + 1} of {MEL_BANDS // 2}")
    band = _mel_band(number, rate_hz)
    return Place(f"{text} at {_span_text(band)}", hz=band)


def _cell(where: str) -> tuple[Range, Range, str] | None:
    """Rows and columns of a cell, as shares, and what is seen in it."""
    found = re.fullmatch(r"cell row (\d+) column (\d+) (.+)", where)
    if not found:
        return None
    row, column = ((int(n) / CELL_SIDES, (int(n) + 1) / CELL_SIDES) for n in found.groups()[:2])
    return row, column, found[3]


def _mel_band(number: int, rate_hz: float) -> Range:
    """Edges of a pair of triangular mel filters that reach from zero to half the sampling rate."""
    step = 2595 * math.log10(1 + rate_hz / 2 / 700) / (MEL_BANDS + 1)
    low, high = (700 * (10 ** (corner * step / 2595) - 1) for corner in (2 * number, 2 * number + 3))
    return low, high


def _span_text(band: Range) -> str:
    low, high = band
    if high < 1000:
        return f"{low:.0f} to {high:.0f} Hz"
    return f"{low / 1000:.1f} to {high / 1000:.1f} kHz"


def _lidar(where: str) -> Place:
    if cell := _cell(where):
        (y, x), what = (round(50 * sum(span)) for span in cell[:2]), cell[2]
        return Place(f"{CELL.get(what, what)} at {x} % of the extent along x and {y} % along y")
    if found := re.fullmatch(r"(ring|ring spread|sector) (\d+)", where):
        what = "unevenness" if found[1] == "ring spread" else "height"
        part = "sector" if found[1] == "sector" else "ring"
        return Place(f"{what} in {part} {int(found[2]) + 1} of {RINGS}")
    if found := re.fullmatch(r"(level|range) q(\d+)", where):
        what = "height" if found[1] == "level" else "distance"
        return Place(f"{what} that {int(found[2])} % of the returns are below")
    return Place(LIDAR.get(where, where))
