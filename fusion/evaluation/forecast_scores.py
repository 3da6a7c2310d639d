"""How well a model forecasts the controlled tags of normal runs: skill over persistence and over ARX, and coverage.

Shape letters: N moments, H horizons, S controlled tags, F folds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Role
from models.actions import HORIZONS
from models.networks.clips import Pool
from models.plant_model import PlantModel
from models.ticks import Ticks
from models.training.calibration import errors as errors_of
from models.training.validation import arx_errors, examine, spread

Floats = NDArray[np.float64]

FORECAST_S = (8, 32, 64, 256)
CLIPS_PER_RUN = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class ForecastSums:
    """Of one normal run, by horizon and controlled tag: squared errors, and how many values lay inside the band.

    ``own`` is the model's with the recorded actions, ``linear`` its linear core's, ``arx`` that of the ARX model,
    ``persistence`` that of no change; all in scaled units over ``count`` clips. All are [H, S].
    """

    tags: tuple[str, ...]
    own: Floats
    linear: Floats
    persistence: Floats
    count: Floats
    inside: Floats
    judged: Floats
    arx: Floats


def foresee(model: PlantModel, run: Ticks) -> ForecastSums | None:
    """Forecasts over a normal run with the actions of the record; None where it is too short for a clip."""
    pool = Pool([run], model.core, model.plant)
    anchors = spread(pool, model.networks.config.window_ticks, CLIPS_PER_RUN)
    if not len(anchors):
        return None
    controlled = [i for i, s in enumerate(model.plant.tags) if s.role is Role.CONTROLLED]
    rows = [HORIZONS.index(round(horizon_s / model.plant.step_s)) for horizon_s in horizons(model.plant.step_s)]
    part = np.ix_(rows, controlled)
    errors = examine(model.networks, pool, anchors).errors
    absolute = errors_of(model.world_model, [run], CLIPS_PER_RUN).numpy()
    known = np.isfinite(absolute)
    inside = known & (np.nan_to_num(absolute) <= model.world_model.bands())
    return ForecastSums(
        tags=tuple(model.tags[i] for i in controlled),
        own=errors.squared(model.world_model.gates).sum(0)[part],
        linear=errors.rr.sum(0)[part],
        persistence=errors.pp.sum(0)[part],
        count=errors.count.sum(0)[part],
        inside=inside.sum(0)[part].astype(np.float64),
        judged=known.sum(0)[part].astype(np.float64),
        arx=arx_errors(model.core, pool, anchors)[part],
    )


def horizons(step_s: float) -> tuple[int, ...]:
    """Horizons of the report [s] that the model has."""
    return tuple(h for h in FORECAST_S if round(h / step_s) in HORIZONS)


def skills(parts: Sequence[ForecastSums], step_s: float) -> dict[str, dict[str, dict[str, float | None]]]:
    """Skill and coverage by tag and horizon over all normal runs; null where nothing is known."""
    if not parts:
        return {}
    names = ("own", "linear", "arx", "persistence", "inside", "judged")
    total = {name: np.sum([getattr(part, name) for part in parts], axis=0) for name in names}

    def row(h: int, s: int) -> dict[str, float | None]:
        own = float(total["own"][h, s])
        return {
            "skill_persistence": _skill(own, float(total["persistence"][h, s])),
            "skill_arx": _skill(own, float(total["arx"][h, s])),
            "skill_linear": _skill(own, float(total["linear"][h, s])),
            "coverage_90": _ratio(float(total["inside"][h, s]), float(total["judged"][h, s])),
        }

    return {
        tag: {str(horizon_s): row(h, s) for h, horizon_s in enumerate(horizons(step_s))}
        for s, tag in enumerate(parts[0].tags)
    }


def _skill(error: float, reference: float) -> float | None:
    ratio = _ratio(error, reference)
    return None if ratio is None else round(1.0 - ratio, 4)


def _ratio(part: float, whole: float) -> float | None:
    return round(part / whole, 4) if whole > 0 else None
