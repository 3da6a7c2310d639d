"""Small views of media for pages: a PNG picture, a thinned point cloud, log-mel columns of sound."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fusion.clock import iso_time
from fusion.plant import Plant, Signal
from fusion.publish.base import number
from fusion.publish.messages import SpectrogramMessage
from fusion.records import NS_PER_S

CLOUD_POINTS = 1500
COLUMN_S = 0.1
BANDS = 48
LOW_HZ = 50.0
FLOOR = 1e-10


def picture_png(picture: NDArray[np.generic]) -> bytes:
    """One grey picture uint8 [H, W], or the last of several [F, H, W], as PNG."""
    plane = np.ascontiguousarray(picture[-1] if picture.ndim == 3 else picture, dtype=np.uint8)
    stream = io.BytesIO()
    Image.fromarray(plane).save(stream, format="png")
    return stream.getvalue()


def cloud_bytes(points: NDArray[np.generic], limit: int = CLOUD_POINTS) -> bytes:
    """At most ``limit`` returns of a cloud [P, 4] as little-endian float32 x, y, z [m] and intensity."""
    cloud = np.asarray(points, dtype="<f4").reshape(-1, 4)
    returns = cloud[np.isfinite(cloud).all(axis=1) & (np.abs(cloud[:, :3]).sum(axis=1) > 0)]
    keep = np.linspace(0, len(returns) - 1, min(limit, len(returns))).astype(int)
    return bytes(returns[keep].tobytes())


def spectrogram(plant: Plant, signal: Signal, sound: NDArray[np.generic], t_ns: int) -> SpectrogramMessage:
    """Log-mel columns of an interval of sound float [N] that ends at ``t_ns``."""
    rate_hz = signal.rate_hz
    hop = max(2, round(COLUMN_S * rate_hz))
    size = 1 << (hop - 1).bit_length()
    centres_hz, weights = _mel(rate_hz, size)
    count = len(sound) // hop
    chunks = np.asarray(sound[: count * hop], np.float64).reshape(count, hop)
    power = np.abs(np.fft.rfft(chunks * np.hanning(hop), size)) ** 2 / (hop / 4) ** 2
    level_db = 10 * np.log10(power @ weights + FLOOR)
    return SpectrogramMessage(
        time=iso_time(t_ns),
        t_ns=t_ns,
        plant=plant.name,
        model_id="",
        message_id=f"{signal.name}:{t_ns // NS_PER_S}",
        signal=signal.name,
        column_s=COLUMN_S,
        frequency_hz=[number(f) for f in centres_hz],
        columns=[[float(round(v)) for v in column] for column in level_db],
    )


@cache
def _mel(rate_hz: float, size: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Band centres [Hz] and triangular weights [bins, bands] on the mel scale."""
    top = 2595 * np.log10(1 + rate_hz / 2 / 700)
    bottom = 2595 * np.log10(1 + LOW_HZ / 700)
    edges_hz = 700 * (10 ** (np.linspace(bottom, top, BANDS + 2) / 2595) - 1)
    bins_hz = np.fft.rfftfreq(size, 1 / rate_hz)[:, None]
    low, centre, high = edges_hz[:-2], edges_hz[1:-1], edges_hz[2:]
    rising, falling = (bins_hz - low) / (centre - low), (high - bins_hz) / (high - centre)
    return centre, np.clip(np.minimum(rising, falling), 0, None)
