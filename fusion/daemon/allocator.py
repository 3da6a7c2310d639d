"""How the C library keeps memory that was given back, for a process that runs for months.

Left alone, glibc makes an arena for each of the many threads, and raises the size from which memory is a mapping of its
own as soon as a large block is given back once; from then on what pictures and recordings need for a moment lies
between what stays, and the process holds more than it uses.
"""

from __future__ import annotations

import ctypes
import logging

log = logging.getLogger(__name__)

M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX = -1, -3, -8
KIB = 1024
SETTINGS = {M_ARENA_MAX: 2, M_MMAP_THRESHOLD: 128 * KIB, M_TRIM_THRESHOLD: 256 * KIB}


def keep_memory_low() -> bool:
    """Have few arenas, large blocks apart, and the rest given back soon; False where the C library has no such way."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        log.debug("this C library has no mallopt")
        return False
    return all(mallopt(setting, value) == 1 for setting, value in SETTINGS.items())
