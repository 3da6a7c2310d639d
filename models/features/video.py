"""Generic deterministic features of the pictures of one tick: brightness, change, motion, profiles, edges.

Knows nothing about what is in the picture. Shape letters: N pictures, H rows, W columns, K profile bins.
"""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.features.quantiles import quantiles

Array = NDArray[np.float32]

PROFILE_BINS = 12
LARGEST_SIDE = 128  # larger pictures are averaged down to about this many pixels
PATCH_SIDE = 48
DARK, BRIGHT = 32, 224
FROZEN_DIFFERENCE = 0.15  # grey levels; no camera repeats a picture this well
_LARGE = np.array([0.95])

_BRIGHTNESS = ("brightness_mean", "brightness_std", "dark_fraction", "bright_fraction", "sharpness")
_SCALARS = (
    *_BRIGHTNESS,
    *("change_mean", "change_q95", "motion_x", "motion_y", "motion_peak", "frozen"),
)
_AXES = ("row", "column")
_SHAPE = ("rise_position", "rise_strength", "fall_position", "fall_strength", "change_centre", "change_width")


class VideoStem:
    """Features of uint8 pictures [N, H, W]; positions run from -1 to 1, motion is in pixels per picture."""

    def __init__(self) -> None:
        self.names: tuple[str, ...] = (
            *_SCALARS,
            *(f"{axis}_{name}" for axis in _AXES for name in _SHAPE),
            *(f"{axis}_brightness_{i}" for axis in _AXES for i in range(PROFILE_BINS)),
            *(f"{axis}_change_{i}" for axis in _AXES for i in range(PROFILE_BINS)),
        )
        self.level_like: tuple[str, ...] = ()
        self.health: tuple[str, ...] = ("frozen",)
        self.quality: tuple[str, ...] = _BRIGHTNESS
        self.patch_shape: tuple[int, ...] = (2, PATCH_SIDE, PATCH_SIDE)

    def compute(self, value: NDArray[Any]) -> tuple[NDArray[np.float64], NDArray[np.float16]] | None:
        """Features and patches (last picture and mean absolute change, both 0..1); None without a picture."""
        pictures = value if value.ndim == 3 else value[None]
        if pictures.size == 0:
            return None
        factor = max(1, round(max(pictures.shape[1:]) / LARGEST_SIDE))
        small = shrunk(pictures.astype(np.float32), factor)
        change = small[1:] - small[:-1]
        np.abs(change, out=change)  # in place, as fresh memory costs more than the arithmetic
        mean_change = change.mean(0) if len(change) else np.zeros_like(small[0])
        features = self._features(small, change, mean_change, factor)
        planes = (_resized(small[-1], PATCH_SIDE), _resized(mean_change, PATCH_SIDE))
        return features, (np.stack(planes) / 255.0).astype(np.float16)

    def _features(self, small: Array, change: Array, mean_change: Array, factor: int) -> NDArray[np.float64]:
        picture = small.mean(0)
        scalars = [*_brightness(small, picture), *_change(change), *_motion(small, factor), _frozen(change)]
        profiles = [(picture.mean(axis), mean_change.mean(axis)) for axis in (1, 0)]
        shapes = [v for light, moved in profiles for v in (*_edges(light), *_spread(moved))]
        bright = [_binned(light - picture.mean(), PROFILE_BINS) for light, _ in profiles]
        moving = [np.log1p(_binned(moved, PROFILE_BINS)) for _, moved in profiles]
        return np.concatenate([scalars, shapes, *bright, *moving]).astype(np.float64)


def shrunk(pictures: Array, factor: int) -> Array:
    """Pictures [N, H, W] averaged over squares of ``factor`` pixels."""
    if factor == 1:
        return pictures
    n, rows, columns = (pictures.shape[0], pictures.shape[1] // factor, pictures.shape[2] // factor)
    blocks = pictures[:, : rows * factor, : columns * factor].reshape(n, rows, factor, columns, factor)
    return np.asarray(blocks.mean((2, 4), dtype=np.float32))


@functools.lru_cache(maxsize=16)
def averaging(length: int, bins: int) -> Array:
    """The matrix [bins, length] that averages a line into bins, splitting the elements a border cuts."""
    edges = np.linspace(0, length, bins + 1)
    element = np.arange(length)
    overlap = np.minimum(edges[1:, None], element + 1) - np.maximum(edges[:-1, None], element)
    return np.asarray(np.maximum(overlap, 0) * bins / length, np.float32)


def _brightness(small: Array, picture: Array) -> tuple[float, ...]:
    last = small[-1]
    curve = np.abs(4 * last[1:-1, 1:-1] - last[:-2, 1:-1] - last[2:, 1:-1] - last[1:-1, :-2] - last[1:-1, 2:])
    sharpness = float(np.log1p(curve.mean())) if curve.size else 0.0
    return (
        float(picture.mean()),
        float(small.std()),
        np.count_nonzero(small < DARK) / small.size,
        np.count_nonzero(small > BRIGHT) / small.size,
        sharpness,
    )


def _change(change: Array) -> tuple[float, float]:
    if not len(change):
        return 0.0, 0.0
    ordered = np.sort(change[:, ::2, ::2], axis=None)
    return float(np.log1p(change.mean())), float(np.log1p(quantiles(ordered, _LARGE)[0]))


def _frozen(change: Array) -> float:
    return float((change.mean((1, 2)) < FROZEN_DIFFERENCE).mean()) if len(change) else 0.0


def _motion(small: Array, factor: int) -> tuple[float, float, float]:
    """Shift between consecutive pictures [pixels] by phase correlation, averaged over the pairs, and its peak 0..1.

    Source: Kuglin and Hines 1975; the sub-pixel part is a parabola through the peak and its neighbours.
    """
    rows, columns = small.shape[1:]
    if len(small) < 2:
        return 0.0, 0.0, 0.0
    taper = _taper(rows, columns)
    # numpy transforms one picture after the other in half the time that a stack of them takes
    spectra = np.stack([np.fft.rfft2((picture - picture.mean()) * taper) for picture in small])
    cross = spectra[1:] * spectra[:-1].conj()
    cross *= 1 / (np.abs(cross) + 1e-9)  # the same as a division, which is slow of complex numbers
    surface = np.fft.irfft2(cross.mean(0), s=(rows, columns))
    peak = int(surface.argmax())
    row, column = divmod(peak, columns)
    dy = _wrapped(row + _parabola(surface[:, column], row), rows)
    dx = _wrapped(column + _parabola(surface[row], column), columns)
    return dx * factor, dy * factor, float(surface.flat[peak])


def _parabola(line: NDArray[Any], peak: int) -> float:
    before, at, after = line[peak - 1], line[peak], line[(peak + 1) % len(line)]
    curvature = before - 2 * at + after
    return float(np.clip(0.5 * (before - after) / curvature, -0.5, 0.5)) if curvature < 0 else 0.0


def _wrapped(shift: float, period: int) -> float:
    return (shift + period / 2) % period - period / 2


def _edges(profile: Array) -> tuple[float, float, float, float]:
    """Where a profile rises and falls most, as centroids of the squared gradient, and how much [grey/bin]."""
    slope = profile[1:] - profile[:-1]
    where = _positions(len(slope))
    parts = [np.maximum(slope, 0) ** 2, np.maximum(-slope, 0) ** 2]
    found = [(float(p @ where / (p.sum() + 1e-6)), float(np.sqrt(p.max(initial=0.0)))) for p in parts]
    return (*found[0], *found[1])


def _spread(energy: Array) -> tuple[float, float]:
    where = _positions(len(energy))
    weight = energy / (energy.sum() + 1e-6)
    centre = float(weight @ where)
    return centre, float(np.sqrt(max(float(weight @ (where - centre) ** 2), 0.0)))


def _binned(profile: Array, bins: int) -> Array:
    return np.asarray(averaging(len(profile), bins) @ profile)


def _resized(picture: Array, side: int) -> Array:
    rows, columns = averaging(picture.shape[0], side), averaging(picture.shape[1], side)
    return np.asarray(rows @ picture @ columns.T)


@functools.lru_cache(maxsize=16)
def _positions(length: int) -> NDArray[np.float64]:
    """Places of the elements of a line, from -1 to 1."""
    return np.linspace(-1, 1, length)


@functools.lru_cache(maxsize=16)
def _taper(rows: int, columns: int) -> Array:
    """A window [H, W] that falls to zero outside of the picture."""
    return np.asarray(np.outer(np.hanning(rows + 2)[1:-1], np.hanning(columns + 2)[1:-1]), np.float32)
