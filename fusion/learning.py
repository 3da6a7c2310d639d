"""`fusion learn`: a model from what was recorded, and whether it takes the place of the one in use.

It trains on normal recordings but the last that is not mostly marked, which neither it nor its predecessor is to have
seen: there both are tried.
What has no predecessor is taken as it is, with the hours behind its limits said.
"""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import polars as pl

from control.anomaly.calibration import STRANGE, Calibration
from fusion.checkpoint import load_checkpoint
from fusion.errors import ConfigError, RecordingError
from fusion.evaluation.evaluate import false_raises, normal_hours, play_all
from fusion.files import whole_file
from fusion.inference import calibration_of
from fusion.model_store import VERDICT, ModelStore
from fusion.plain import plain
from fusion.plant import Plant
from fusion.plant_difference import clause, difference, unrecorded
from fusion.recordings import normal
from fusion.recordings.recording import Recording
from fusion.records import Quality
from fusion.training.settings import TrainConfig
from fusion.training.train import train

log = logging.getLogger(__name__)

BY = "backtest"
FEWEST_RISES = 20  # from which on a tag that never fell is taken for a counter
LEAST_KEPT_BACK = 4  # recordings from which on one is kept back
LEAST_NORMAL = 0.5  # of a recording that is kept back


@dataclass(frozen=True, slots=True, kw_only=True)
class Verdict:
    """Whether a new model was taken, and why: false raises of it and of the one in use in ``hours`` kept back."""

    model: str
    taken: bool
    reason: str
    hours: float = 0.0
    raises: int | None = None
    raises_in_use: int | None = None


def normal_recordings(folder: Path, plant: Plant) -> tuple[list[Path], str]:
    """What may be learned from: whole, with all of this plant and normal but for what is labelled, oldest first.

    With it goes what is left out for what it lacks of the plant, in words; "" where nothing is.
    """
    found, lacking = list[Path](), dict[str, list[Recording]]()
    for path in sorted(p for p in folder.iterdir() if (p / "manifest.json").is_file()):
        try:
            recording = Recording.verified(path)
        except (RecordingError, ConfigError) as error:
            log.warning("left out: %s", error)
            continue
        if why := clause(unrecorded(plant, recording.plant)):
            lacking.setdefault(why, []).append(recording)
        elif normal.of(recording):
            found.append(path)
    left_out = [
        f"{normal.hours(some):.2f} h are left out: {why} in {len(some)} of the recordings"
        for why, some in lacking.items()
    ]
    return found, "; ".join(left_out)


def learn(records: Path, store: ModelStore, plant: Plant, config: TrainConfig) -> Verdict:
    """Train on what is recorded, try the model, and put it to use where it is no worse.

    Raises:
        ConfigError: where there is too little normal data; the message says how much is needed.
    """
    found, left_out = normal_recordings(records, plant)
    if not found:
        said = f"{records}: no normal recording of plant {plant.name!r}; record first, or take marks back"
        raise ConfigError("; ".join(filter(None, (said, left_out))))
    if left_out:
        log.warning("%s", left_out)
    kept_back, place = held_back(found), store.next_place()
    train([path for path in found if path not in kept_back], place, config, plant=plant)
    verdict = _tried(place, store, plant, kept_back)
    for more in (left_out, _misled(only_growing(found, plant))):
        verdict = replace(verdict, reason="; ".join(filter(None, (verdict.reason, more))))
    with whole_file(place / VERDICT) as aside:
        aside.write_text(json.dumps(plain(verdict), indent=1))
    if verdict.taken:
        store.choose(place.name, BY, verdict.reason)
    log.info("model %s %s: %s", place.name, "is taken" if verdict.taken else "is not taken", verdict.reason)
    return verdict


def held_back(found: Sequence[Path]) -> list[Path]:
    """The recording to try a model on: the last that is normal for long enough, or else the last; none of a few."""
    if len(found) < LEAST_KEPT_BACK:
        return []
    return [next((path for path in reversed(found) if _normal_share(Recording(path)) >= LEAST_NORMAL), found[-1])]


def _normal_share(recording: Recording) -> float:
    return 3600 * normal.hours([recording]) / recording.span_s if recording.span_s > 0 else 0.0


def only_growing(recordings: Sequence[Path], plant: Plant) -> list[str]:
    """Tags that rose often and never fell in all that was recorded."""
    value = pl.col("value")
    steps = [value.first().alias("first"), value.last().alias("last")]
    steps += [(value.diff() > 0).sum().alias("rises"), (value.diff() < 0).sum().alias("falls")]
    parts = []
    for path in recordings:  # one at a time: weeks of a thousand tags do not fit into memory
        good = Recording(path).of(plant).table().filter(pl.col("quality") == Quality.GOOD)
        parts.append(good.group_by("signal").agg(steps))
    between = pl.col("first") - pl.col("last").shift()
    found = (
        pl.concat(parts)
        .group_by("signal", maintain_order=True)
        .agg(rises=pl.col("rises").sum() + (between > 0).sum(), falls=pl.col("falls").sum() + (between < 0).sum())
    )
    return sorted(found.filter((pl.col("falls") == 0) & (pl.col("rises") >= FEWEST_RISES))["signal"].to_list())


def _misled(counters: Sequence[str]) -> str:
    if not counters:
        return ""
    return (
        f"{', '.join(counters)} only grew in all that was recorded: a model is misled by a counter, whose next value "
        "nothing has shown; take it out of the plant's description and of the daemon's"
    )


def _strange(limits: Calibration) -> str:
    """Whether what limits were set on was like what was trained on."""
    if limits.typical < STRANGE:
        return ""
    return (
        f"; its limits were set on times unlike those it was trained on (distances of {limits.typical:.0f}, about 1 is "
        "usual), so it finds little: record longer, until setpoints have moved, and leave out tags that only grow"
    )


def _unfit(present: Path, plant: Plant) -> str:
    """Why the model in use cannot serve a plant, in words; "" where it can."""
    try:
        return difference(load_checkpoint(present).plant, plant)
    except ConfigError as error:
        return str(error)


def _tried(place: Path, store: ModelStore, plant: Plant, kept_back: Sequence[Path]) -> Verdict:
    """The new model beside the one in use, on what was kept back."""
    limits = calibration_of(load_checkpoint(place))
    proven = f"{limits.hours:.1f} h behind its limits, at most {limits.bound_per_day:.0f} false raises a day excluded"
    proven += _strange(limits)
    present = store.current
    if present is not None and (unfit := _unfit(present, plant)):
        reason = f"the first one that fits the plant as it is ({unfit}): {proven}"
        return Verdict(model=place.name, taken=True, reason=reason)
    if present is None or not kept_back:
        return Verdict(model=place.name, taken=True, reason=f"the first one: {proven}")
    new, old = play_all(place, kept_back), play_all(present, kept_back)
    hours = sum(map(normal_hours, new))
    raises, before = (sum(len(false_raises(played)) for played in runs) for runs in (new, old))
    allowed = max(before, math.ceil(limits.false_raises_per_day * hours / 24))
    reason = f"{raises} false raises in {hours:.1f} h kept back, {before} of the one in use; {proven}"
    return Verdict(
        model=place.name, taken=raises <= allowed, reason=reason, hours=hours, raises=raises, raises_in_use=before
    )
