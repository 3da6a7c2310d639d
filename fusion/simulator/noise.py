"""Noise that depends only on (seed, stream, tick), so that any stretch can be rendered without the ones before it."""

from __future__ import annotations

import zlib

import numpy as np


def keyed(seed: int, stream: str, tick: int) -> np.random.Generator:
    """The generator of one stream at one tick."""
    return np.random.Generator(
        np.random.Philox(key=(zlib.crc32(stream.encode()) << 32) ^ (seed & 0xFFFFFFFF), counter=tick << 64)
    )
