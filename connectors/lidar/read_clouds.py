"""The reader process: point-cloud files by Open3D, one a line of standard input, as arrays to standard output.

Run as ``python -m connectors.lidar.read_clouds``. The library aborts on some files; that ends this process alone.
"""

from __future__ import annotations

import json
import os
import resource
import sys
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from connectors.lidar.headers import check
from connectors.pipe import pack

MEMORY_BYTES = 4 * 1024**3


def read_cloud(file: Path) -> NDArray[np.float32]:
    """Points [P, 4] of a file; intensities are zero where it has none.

    Raises:
        ValueError: it is no readable cloud.
        OSError: it cannot be read.
    """
    import open3d

    check(file)
    with open3d.utility.VerbosityContextManager(open3d.utility.VerbosityLevel.Error):
        try:
            cloud = open3d.t.io.read_point_cloud(file)
        except RuntimeError as error:
            raise ValueError(str(error).splitlines()[-1]) from error
    if "positions" not in cloud.point:
        raise ValueError("it is no point cloud")
    xyz = cloud.point["positions"].numpy().astype(np.float32)
    intensity = np.zeros((len(xyz), 1), np.float32)
    if "intensity" in cloud.point:
        intensity = cloud.point["intensity"].numpy().reshape(-1, 1).astype(np.float32)
    return np.hstack([xyz, intensity])


def answer(file: Path) -> bytes:
    """The message about one file: its points, or why there are none."""
    try:
        points = read_cloud(file)
    except (OSError, ValueError, MemoryError) as error:
        text = error.strerror if isinstance(error, OSError) else str(error)
        return pack({"kind": "unreadable", "text": text or type(error).__name__})
    return pack({"kind": "cloud", "shape": points.shape}, points.tobytes())


def main() -> None:
    """Load the library, bound what more memory may be taken, and read until the input ends."""
    import open3d  # noqa: F401 - takes seconds, before the first file

    out: Any = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # what the library prints is no message
    pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[0])
    limit = pages * resource.getpagesize() + MEMORY_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    out.write(pack({"kind": "ready"}))
    out.flush()
    for line in sys.stdin.buffer:
        out.write(answer(Path(json.loads(line))))
        out.flush()


if __name__ == "__main__":
    main()
