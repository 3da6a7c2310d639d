"""What a fleet model is worth on plants it never saw: against persistence, the plant's own models, and the fleet ridge.

Skill is one less the ratio of squared errors to persistence, of the median tag; an error is the root mean square in
half ranges, the mean of all tags. Shape letters: R rows, H horizons, S tags.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from models.actions import HORIZONS
from models.fleet.guest import WARM_UP_TICKS, Guest, OwnRows, own_ridge, own_views
from models.fleet.model import FleetModel, host
from models.fleet.ridge import PlantRidge, recorded
from models.fleet.training import Member
from models.fleet.view import View
from models.linear.fit import fit_core
from models.scaling import Floats
from models.ticks import Ticks

FLEET_RIDGE, FLEET = "fleet ridge", "fleet model"
ARMS = ("persistence", "own core", FLEET_RIDGE, "own ridge shrunk to the fleet's", "fleet net, no own data", FLEET)
SHOWN_S = (8.0, 32.0, 64.0, 128.0, 256.0)
FEW_TICKS = 240  # of which the arm that is shrunk to the fleet's ridge is fitted all the same
EVERY = 2  # one tick in so many is judged


@dataclass(frozen=True, slots=True, kw_only=True)
class Judged:
    """One plant: by arm, skill [H] of the median tag and mean error [H]; share of truths within the bands [H].

    ``fits``: whether its own minutes bear the fleet out; a daemon does not let the fleet speak of one that does not.
    """

    plant: str
    skill: Mapping[str, Floats]
    error: Mapping[str, Floats]
    coverage: Floats
    fits: bool


def judge(models: Sequence[FleetModel], member: Member, own_s: float, judged_s: tuple[float, float]) -> Judged:
    """One plant, known for its first ``own_s`` by the best of some models, judged between two times [s] of a run.

    Raises:
        ConfigError: where the run is too short.
    """
    run, step_s = member.runs[0], member.plant.step_s
    own, first, last = (round(t / step_s) for t in (own_s, *judged_s))
    if not own <= first < min(last, len(run)) - HORIZONS[5]:
        raise ConfigError(
            f"plant {member.plant.name!r}: {len(run)} ticks are too few to judge from {judged_s[0]:g} s on"
        )
    guest = host(models, member.plant, [run[:own]])
    seen = own_views([run[:last]], guest.scaling)[0]
    at = np.arange(first - WARM_UP_TICKS, len(seen), EVERY)
    summary, came = recorded(seen, at, step_s)
    told = _told(guest, run, own, seen, at, summary)
    within = np.abs(came - told[FLEET]) <= guest.half_width
    known = np.isfinite(came)
    return Judged(
        plant=member.plant.name,
        skill={arm: _skill(came, made) for arm, made in told.items()},
        error={arm: _error(came, made) for arm, made in told.items()},
        coverage=np.where(known, within, False).sum((0, 2)) / np.maximum(known.sum((0, 2)), 1),
        fits=guest.fits,
    )


def _told(guest: Guest, run: Ticks, own: int, seen: View, at: NDArray[np.int64], summary: Floats) -> dict[str, Floats]:
    """Scaled changes [R, H, S] by arm."""
    here = seen.at(at)
    by_ridge = guest.ridge.change(here, summary)
    stranger = replace(guest, embedding=guest.embedding * 0.0)
    return {
        "persistence": np.zeros_like(by_ridge),
        "own core": own_core_change(run, own, guest, at),
        FLEET_RIDGE: by_ridge,
        "own ridge shrunk to the fleet's": by_ridge + _shrunk(guest, run[:own]).change(here, summary),
        "fleet net, no own data": stranger.fleet_change(seen, at),
        FLEET: guest.change(seen, at),
    }


def _shrunk(guest: Guest, own: Ticks) -> PlantRidge:
    """The own ridge on what the fleet ridge leaves in the plant's own minutes."""
    views = own_views([own], guest.scaling)
    rows = [np.arange(len(v)) for v in views]
    found = OwnRows.of(views, rows, guest.plant.step_s)
    left = found.came - np.concatenate(
        [guest.ridge.change(v, recorded(v, r, guest.plant.step_s)[0]) for v, r in zip(views, rows, strict=True)]
    )
    return replace(guest.ridge, weights=own_ridge(found, left)[0])


def own_core_change(run: Ticks, own: int, guest: Guest, at: NDArray[np.int64]) -> Floats:
    """What the linear core of the plant's own data [R, H, S] foretells; persistence where these are too few for one."""
    made = np.zeros((len(at), len(HORIZONS), len(guest.plant.tags)))
    try:
        core = fit_core([run[:own]], guest.plant)
    except ConfigError:
        return made
    encoding = core.encode(run)[0][WARM_UP_TICKS:]
    unit = core.scaling.tags.scale / guest.scaling.tags.scale
    for row, horizon in enumerate(HORIZONS):
        if len(encoding) > horizon:
            change = core.hindcast(encoding, horizon)[0] * unit
            inside = at < len(change)
            made[inside, row] = change[at[inside]]
    return made


def _skill(came: Floats, made: Floats) -> Floats:
    """Of the median tag that moves [H]; NaN of a horizon that nothing is long enough for."""
    left, still = _mean(came - made), _mean(came)
    return np.asarray(np.median(1.0 - left / (still + 1e-12), axis=1))


def _error(came: Floats, made: Floats) -> Floats:
    return np.asarray(np.sqrt(_mean(came - made)).mean(1))


def _mean(values: Floats) -> Floats:
    """Mean square [H, S] of what is known; NaN where nothing is."""
    known = np.isfinite(values)
    count = known.sum(0)
    total = np.where(known, values**2, 0.0).sum(0)
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


# --- many plants


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the table: an arm at a horizon, over all plants; error relative to the fleet ridge's."""

    arm: str
    horizon_s: float
    skill: float
    error: float
    better: int
    plants: int


def table(judged: Sequence[Judged], step_s: float) -> list[Row]:
    """Medians over plants, by horizon and arm, and on how many the arm errs less than the fleet ridge."""
    made = []
    for row, horizon in enumerate(HORIZONS):
        if horizon * step_s not in SHOWN_S:
            continue
        for arm in ARMS:
            ratio = np.array([j.error[arm][row] / j.error[FLEET_RIDGE][row] for j in judged])
            skill = float(np.nanmedian([j.skill[arm][row] for j in judged]))
            better, seconds = int((ratio < 1.0).sum()), horizon * step_s
            error = float(np.nanmedian(ratio))
            made.append(Row(arm=arm, horizon_s=seconds, skill=skill, error=error, better=better, plants=len(judged)))
    return made


def coverage(judged: Sequence[Judged]) -> Floats:
    """Share of truths [H] within the bands, over all plants."""
    return np.asarray(np.mean([j.coverage for j in judged], axis=0))


# --- when the plant's own core is better


@dataclass(frozen=True, slots=True, kw_only=True)
class Crossing:
    """Hours of own data at which the own core's error falls below that of the bent fleet model, at one horizon.

    ``ratio`` is the own core's error over the fleet model's by hours of own data, the median plant; ``hours`` the first
    at which it is below one, None where it never is.
    """

    horizon_s: float
    ratio: Mapping[float, float]
    hours: float | None


def crossing(
    models: Sequence[FleetModel], members: Sequence[Member], hours: Sequence[float], judged_s: float
) -> list[Crossing]:
    """Both models on ever more own data, judged on the last ``judged_s`` of each run."""
    found: dict[float, list[Judged]] = {}
    for own_h in hours:
        for member in members:
            end_s = len(member.runs[0]) * member.plant.step_s
            if own_h * 3600 <= end_s - judged_s:
                found.setdefault(own_h, []).append(judge(models, member, own_h * 3600, (end_s - judged_s, end_s)))
    made = []
    for row, horizon in enumerate(HORIZONS):
        seconds = horizon * models[0].ridge.step_s
        if seconds in SHOWN_S:
            ratio = {
                h: float(np.median([j.error["own core"][row] / j.error[FLEET][row] for j in js]))
                for h, js in found.items()
            }
            first = next((h for h, r in sorted(ratio.items()) if r < 1.0), None)
            made.append(Crossing(horizon_s=seconds, ratio=ratio, hours=first))
    return made


def _between(judged: Sequence[Judged], one: str, other: str, row: int) -> float:
    """The error of one arm over another's at a horizon, of the median plant."""
    return float(np.median([j.error[one][row] / j.error[other][row] for j in judged]))
