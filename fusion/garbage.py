"""What a process that runs for months does so that its garbage is collected in time.

Python looks through all its objects only when those that have outlived a look at the young are a quarter of all that
there were the last time. Libraries are hundreds of thousands of objects: what connections that ended leave, each a ring
of objects that know each other, would lie about for hours, with pictures and sockets in it, and the look takes
half a second in which nothing else is done.
"""

from __future__ import annotations

import atexit
import gc


def set_apart() -> int:
    """Have the collector leave alone what there is, for good, so that it looks through the rest soon and briefly.

    Called when all is imported, before there is what will be replaced: a model that was set apart would never go.
    Returns how many objects that are.
    """
    gc.collect()
    gc.freeze()
    atexit.register(gc.unfreeze)  # libraries that count what they leave would complain
    gc.collect()  # of none: their number is what the next look at all waits for a quarter of
    return gc.get_freeze_count()
