"""The core's forecast as plans need it: corrected by what it missed lately, and as fits on a part of the data tell it.

Shape letters as in ``models.networks.linear_head``; E folds, C tags that the folds tell of.
"""
# shape-suffixed names of tensors

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models.actions import between, course_ticks
from models.linear.core import Encoding, LinearCore
from models.linear.standing import fold_cores, standing_error
from models.networks.linear_head import LinearHead


class PlanHead:
    """Made once for a core; each question comes with the ``trail`` of ticks up to now.

    ``still_HS`` says where nothing else corrects the core's forecast.
    """

    def __init__(self, core: LinearCore, still_HS: NDArray[np.bool_]) -> None:
        self._core, self._still_HS = core, still_HS
        self._tags = [] if core.folds is None else list(core.folds.tags)
        self._folds = fold_cores(core)
        self._heads = [LinearHead(one, torch.float64, still_HS[:, self._tags]) for one in self._folds]
        self._between_GH = torch.from_numpy(between(course_ticks(core.step_s)))

    def standing(self, trail: Encoding) -> Tensor:
        """What is to be added to the forecast [H, S], engineering units."""
        made = standing_error(self._core, trail) * self._still_HS * self._core.scaling.tags.scale
        return torch.from_numpy(made)

    def along(self, values_HS: Tensor) -> Tensor:
        """Values [G, S] at the steps of a course, of those that are known at the horizons and zero now."""
        return self._between_GH @ values_HS

    def fits(self, trail: Encoding, paths_NLA: Tensor) -> Tensor:
        """Corrected courses [E, N, G, S] of the fits, engineering units; NaN of tags that they do not tell of."""
        shape = (len(self._folds), len(paths_NLA), len(self._between_GH), len(self._core.scaling.tags.scale))
        made = torch.full(shape, torch.nan, dtype=torch.float64)
        seen = replace(trail, tags=trail.tags[:, self._tags])
        past, tags, action, waiting = (
            torch.from_numpy(x[-1].copy()) for x in (seen.past, seen.tags, seen.action, seen.waiting)
        )
        for e, (core, head) in enumerate(zip(self._folds, self._heads, strict=True)):
            missed = standing_error(core, seen) * self._still_HS[:, self._tags] * core.scaling.tags.scale
            course = head.course(past, tags, paths_NLA.double(), action, waiting)
            made[e][..., self._tags] = course + self.along(torch.from_numpy(missed))
        return made
