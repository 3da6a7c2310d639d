"""Point clouds into the signal's form: region of interest, voxels, at most so many points."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Cloud = NDArray[np.float32]


class Crop:
    """Cuts clouds [P, 4] of x, y, z [m], intensity to at most ``points`` points.

    ``region`` is x, y, z of the lower and of the upper corner [m]; ``voxel_m`` keeps one mean point per cube of that
    edge. Points that are not finite are dropped. A cloud that is still too large is thinned evenly.
    """

    def __init__(self, points: int, region: Sequence[float], voxel_m: float) -> None:
        self._points = points
        self._region = np.array(region, np.float32).reshape(2, 3) if region else None
        self._voxel_m = voxel_m

    def cloud(self, cloud: NDArray[np.floating]) -> Cloud:
        """The cloud to deliver."""
        kept = np.asarray(cloud, np.float32)
        kept = kept[np.isfinite(kept).all(axis=1)]
        if self._region is not None:
            low, high = self._region
            kept = kept[((kept[:, :3] >= low) & (kept[:, :3] <= high)).all(axis=1)]
        if self._voxel_m > 0 and len(kept):
            kept = voxel_means(kept, self._voxel_m)
        if len(kept) > self._points:
            kept = kept[np.linspace(0, len(kept) - 1, self._points).astype(int)]
        return np.ascontiguousarray(kept)


def voxel_means(cloud: Cloud, edge_m: float) -> Cloud:
    """The mean point and intensity of each occupied cube."""
    cells = np.floor(cloud[:, :3] / edge_m).astype(np.int64)
    _, which, counts = np.unique(cells, axis=0, return_inverse=True, return_counts=True)
    sums = np.zeros((len(counts), cloud.shape[1]))
    np.add.at(sums, which.reshape(-1), cloud)
    return (sums / counts[:, None]).astype(np.float32)
