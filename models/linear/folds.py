"""What a core would be without a part of its runs: how sure it is of itself.

Shape letters as in ``models.linear.core``; E folds, C tags that plans are judged by.
"""

from __future__ import annotations

from dataclasses import dataclass

from models.scaling import Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Folds:
    """The readouts fitted without each of E folds of the runs.

    ``tags`` [C] are places in the plant's tags. ``past`` [E, H, P, C], ``action`` and ``planned`` [E, H, A * Q, C] and
    ``offset`` [E, H, C] are those of ``LinearCore``.
    """

    tags: tuple[int, ...]
    past: Floats
    action: Floats
    planned: Floats
    offset: Floats
