"""Several trainings on the same recordings that differ in their settings, and one table of how they came out.

The settings are expanded by hydra's own grammar. A sweep that was killed goes on: what is trained stays trained.
"""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table

from fusion.checkpoint import DESCRIPTION, load_checkpoint
from fusion.config import sweep_overrides
from fusion.files import whole_file
from fusion.plain import plain
from fusion.training.settings import TrainConfig, train_config
from fusion.training.train import train

log = logging.getLogger(__name__)

SUMMARY, OVERRIDES = "sweep.json", "overrides.json"
GAUGES = ("epps_pulley", "std_min", "rank_me", "participation", "gates_open")


def sweep(recordings: Sequence[Path], out: Path, overrides: Sequence[str]) -> list[dict[str, Any]]:
    """Train every combination of ``overrides`` into ``out/0``, ``out/1`` and so on; rows of ``out/sweep.json``.

    Raises:
        ConfigError: where a combination is not accepted, before any is trained.
    """
    jobs = sweep_overrides(overrides)
    configs = [train_config(job) for job in jobs]
    ticks = out / "ticks.work"
    rows: list[dict[str, Any]] = []
    for number, (job, config) in enumerate(zip(jobs, configs, strict=True)):
        place = out / str(number)
        log.info("training %d of %d: %s", number + 1, len(jobs), " ".join(job))
        if not _trained(place, config):
            train(recordings, place, config, ticks)
            with whole_file(place / OVERRIDES) as aside:
                aside.write_text(json.dumps(job))
        rows.append(_row(place, job))
        with whole_file(out / SUMMARY) as aside:
            aside.write_text(json.dumps(rows, indent=1))
    shutil.rmtree(ticks, ignore_errors=True)
    return rows


def table(rows: Sequence[Mapping[str, Any]]) -> Table:
    """The rows of a sweep for a terminal, the best score first, with the settings in which they differ."""
    made = Table("model", "score", "skill", "over linear", "EP", "rank", "gates", "fails")
    made.add_column("settings", no_wrap=True)
    same = set.intersection(*(set(row["overrides"]) for row in rows)) if len(rows) > 1 else set()
    for row in sorted(rows, key=lambda r: math.inf if r["score"] is None else r["score"]):
        numbers = [row[n] for n in ("score", "skill", "skill_over_linear")]
        numbers += [row["gauges"][n] for n in ("epps_pulley", "rank_me", "gates_open")]
        cells = ["-" if value is None else f"{value:.3g}" for value in numbers]
        settings = " ".join(o for o in row["overrides"] if o not in same)
        made.add_row(row["model"], *cells, str(len(row["withheld"])), settings)
    return made


def _trained(place: Path, config: TrainConfig) -> bool:
    """Whether a folder holds the model of exactly these settings."""
    if not (place / DESCRIPTION).is_file():
        return False
    return bool(load_checkpoint(place).meta["train"] == plain(config))


def _row(place: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """One training: ``score`` is the validation's, lower is better; skills are means over tags and horizons."""
    checkpoint = load_checkpoint(place)
    gauges = checkpoint.meta["gauges"]
    return {
        "model": place.name,
        "model_id": checkpoint.model_id,
        "overrides": list(overrides),
        "score": gauges["score"],
        "skill": _mean(gauges["skill"]),
        "skill_over_linear": _mean(gauges["skill_over_linear"]),
        "gauges": {name: gauges[name] for name in GAUGES},
        "withheld": checkpoint.meta["withheld"],
        "seconds": checkpoint.meta["seconds"],
    }


def _mean(values: Sequence[Sequence[float | None]]) -> float | None:
    known = [v for row in values for v in row if v is not None]
    return sum(known) / len(known) if known else None
