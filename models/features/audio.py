"""Generic deterministic features of one tick of sound: log-mel, level, impulsiveness, envelope spectrum.

Knows nothing about what is heard. Shape letters: N samples, K bands, L short-time frames.
"""

from __future__ import annotations

import functools
import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models.features.quantiles import median

Array = NDArray[np.float64]

PATCH_BANDS, PATCH_FRAMES = 64, 20
BANDS = 32
WINDOW = 1024
FLOOR = 1e-10  # power below any microphone's noise; keeps the logarithm finite
SILENT_RMS = 1e-5
CARRIERS_HZ = ((300, 1000), (1000, 2000), (2000, 4000), (4000, 7500))
MODULATION_HZ = (1, 3, 6, 12, 25, 50, 100, 200)

_SCALARS = ("log_rms", "crest", "kurtosis", "centroid", "flatness", "clipped_fraction", "silent")


class AudioStem:
    """Features of float sound [N] in -1..1, sampled at ``rate_hz``; all powers are log10."""

    def __init__(self, rate_hz: float) -> None:
        self._rate_hz = rate_hz
        self._mel = _mel_matrix(rate_hz, PATCH_BANDS)
        self._window = np.hanning(WINDOW + 1)[:-1]
        self._mel /= (self._window**2).sum() * WINDOW  # of power and not of squared bins
        modulation = [f"{a}_{b}hz" for a, b in itertools.pairwise(MODULATION_HZ)]
        self.names: tuple[str, ...] = (
            *_SCALARS,
            *(f"mel_mean_{i}" for i in range(BANDS)),
            *(f"mel_std_{i}" for i in range(BANDS)),
            *(f"envelope_{a}_{b}hz_at_{m}" for a, b in CARRIERS_HZ for m in (*modulation, "peak")),
        )
        self.level_like: tuple[str, ...] = ()
        self.health: tuple[str, ...] = ("silent", "clipped_fraction")
        self.quality: tuple[str, ...] = self.health
        self.patch_shape: tuple[int, ...] = (1, PATCH_BANDS, PATCH_FRAMES)

    def compute(self, value: NDArray[Any]) -> tuple[Array, NDArray[np.float16]] | None:
        """Features and the log-mel patch (0 at the noise floor, about 1 at full scale); None without samples."""
        if value.size == 0:
            return None
        sound = np.asarray(value, np.float64).reshape(-1)
        power = self._mel_power(sound)
        patch = (np.log10(power + FLOOR) + 10.0) / 10.0
        pairs = np.log10(power.reshape(BANDS, -1, PATCH_FRAMES).sum(1) + FLOOR)
        features = [_scalars(sound, power), pairs.mean(1), pairs.std(1), self._envelopes(sound)]
        return np.concatenate(features), patch[None].astype(np.float16)

    def _mel_power(self, sound: Array) -> Array:
        """Power in each mel band and short-time frame [K, L]."""
        padded = np.zeros(len(sound) + WINDOW)
        padded[WINDOW // 2 : WINDOW // 2 + len(sound)] = sound
        pieces = padded[_places(len(padded))] * self._window
        return np.asarray(self._mel @ _squared(np.fft.rfft(pieces)).T)

    def _envelopes(self, sound: Array) -> Array:
        """Log energy of the envelope's modulation bands, relative to the mean envelope, per carrier band.

        The complex envelope of a carrier band is the inverse transform of its bins alone.
        Source: Randall and Antoni 2011, envelope analysis.
        """
        spectrum = np.fft.rfft(sound)
        return np.concatenate(
            [_envelope(spectrum[band], edges) for band, edges in _carriers(len(sound), self._rate_hz)]
        )


@functools.lru_cache(maxsize=16)
def _places(samples: int) -> NDArray[np.intp]:
    """Places of the samples of each short-time frame [L, WINDOW], spread evenly over a sound."""
    starts = np.linspace(0, samples - WINDOW, PATCH_FRAMES).astype(np.intp)
    return starts[:, None] + np.arange(WINDOW)


@functools.lru_cache(maxsize=16)
def _carriers(samples: int, rate_hz: float) -> list[tuple[slice, NDArray[np.intp]]]:
    """The bins of each carrier band, and where the modulation bands lie in the spectrum of its envelope."""
    hz = np.fft.rfftfreq(samples, 1 / rate_hz)
    bands = [slice(*np.searchsorted(hz, band)) for band in CARRIERS_HZ]
    edges = [np.searchsorted(hz[: len(hz[band]) // 2 + 1], MODULATION_HZ) for band in bands]
    return list(zip(bands, edges, strict=True))


def _envelope(band: NDArray[np.complex128], edges: NDArray[np.intp]) -> Array:
    if len(band) < 2:
        return np.zeros(len(MODULATION_HZ))
    envelope = np.sqrt(_squared(np.fft.ifft(band)))
    spectrum = np.fft.rfft(envelope / (envelope.mean() + 1e-12) - 1.0)[: edges[-1]]
    energy = _squared(spectrum) / len(envelope)
    sums = np.diff(np.concatenate([[0.0], np.cumsum(energy)])[edges]) / np.maximum(np.diff(edges), 1)
    inside = energy[edges[0] :]
    peak = inside.max(initial=0.0) / (median(inside) + 1e-12) if len(inside) else 1.0
    return np.asarray(np.log10(np.append(sums + 1e-6, peak + 1e-3)))


def _squared(spectrum: NDArray[np.complex128]) -> Array:
    """Squared magnitudes, without the square root that ``abs`` takes."""
    return np.asarray(spectrum.real**2 + spectrum.imag**2)


def _scalars(sound: Array, power: Array) -> Array:
    loudness = np.abs(sound)
    peak, rms = float(loudness.max()), float(np.sqrt(sound @ sound / len(sound)))
    centred = sound - sound.mean()
    squares = centred**2
    kurtosis = squares @ squares / len(sound) / (np.sqrt(squares.mean()) + 1e-9) ** 4
    total = power.mean(1) + FLOOR
    return np.array(
        [
            np.log10(rms + 1e-6),
            np.log10(peak / (rms + 1e-9) + 1e-3),
            np.log10(kurtosis + 1e-3),
            float(total @ np.arange(len(total)) / total.sum()),
            float(np.log10(total).mean() - np.log10(total.mean())),
            np.count_nonzero(loudness > 0.999) / len(sound),
            float(rms < SILENT_RMS),
        ]
    )


def _mel_matrix(rate_hz: float, bands: int) -> Array:
    """Triangular filters on the mel scale [K, WINDOW/2 + 1], each normalised to the mean of its bins."""
    top = 2595 * np.log10(1 + rate_hz / 2 / 700)
    corners = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    hz = np.fft.rfftfreq(WINDOW, 1 / rate_hz)
    width = rate_hz / WINDOW
    low, mid, high = corners[:-2, None], corners[1:-1, None], corners[2:, None]
    rising = (hz - low) / np.maximum(mid - low, width)
    falling = (high - hz) / np.maximum(high - mid, width)
    weights = np.maximum(0.0, np.minimum(rising, falling))
    nearest = np.abs(hz - mid).argmin(1)
    weights[np.arange(bands), nearest] = np.maximum(weights[np.arange(bands), nearest], 0.1)
    return np.asarray(weights / weights.sum(1, keepdims=True))
