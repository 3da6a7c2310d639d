"""The training report: one HTML file with tables and plots, readable without anything else."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import Markup
from matplotlib.figure import Figure

from control.anomaly.calibration import Calibration
from fusion.plant import Plant, Role, Signal
from fusion.templates import picture, render
from fusion.training.curves import Curves
from fusion.training.figures import (
    SHOWN_H,
    JudgedStretch,
    course_figure,
    date,
    fan_figure,
    raised_spans,
    skill_figure,
    timeline_figure,
)
from models.plant_model import PlantModel
from models.ticks import Ticks

TEMPLATE = Path(__file__).with_name("report.html")
SHOWN_S = (8.0, 32.0, 64.0, 256.0)
SKILLS = (
    ("model", "skill"),
    ("core", "skill_linear"),
    ("ARX", "skill_arx"),
    ("CVA", "skill_cva"),
    ("PCA", "skill_pca"),
)
MOST_TAGS, MOST_SPANS = 12, 12
UP, DOWN, STILL = "\u2191", "\u2193", "\u00b7"


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingFindings:
    """What a training found out, for its report: ``meta`` is the checkpoint's, ``later`` are the calibration runs."""

    model_id: str
    meta: Mapping[str, Any]
    course: Curves
    calibration: Calibration
    later: Sequence[Ticks]
    stretches: Sequence[JudgedStretch]


def write_report(file: Path, model: PlantModel, found: TrainingFindings) -> None:
    """Write the report of one training."""
    plant, meta, calibration = model.plant, found.meta, found.calibration
    tags = shown_tags(plant, meta["card"])
    page = render(
        TEMPLATE,
        plant=plant,
        model_id=found.model_id,
        told=_verdict(meta, calibration),
        withheld=meta["withheld"],
        skill=_skill(meta["card"], tags),
        skill_image=_image(skill_figure(meta["card"], tags)) if tags else "",
        foretold="controlled tag" if _controlled(plant) else "tag that is forecast best",
        fan_image=_image(fan_figure(model, found.later, tags)) if tags else "",
        controlled=[plant.tags[i] for i in _controlled(plant)],
        gains=_gains(plant, meta),
        doubts=[g["reason"] for g in meta["licence"]["numbers"].get("gains", ()) if not g["passed"]],
        shown_h=f"{SHOWN_H:.0f}",
        timeline_image=_image(timeline_figure(found.stretches, calibration)),
        spans=raised_spans(found.stretches, calibration),
        most_spans=MOST_SPANS,
        date=date,
        licence=meta["licence"],
        course_image=_image(course_figure(found.course)),
        numbers=_numbers(plant, meta, calibration),
    )
    file.write_text(page)


def shown_tags(plant: Plant, card: Mapping[str, Any]) -> list[int]:
    """Columns of the controlled tags; without any, of those that are forecast best."""
    mean = [_mean([row[i] for row in card["skill"]]) for i in range(len(plant.tags))]
    best = sorted(range(len(mean)), key=lambda i: -mean[i])[:MOST_TAGS]
    return _controlled(plant) or best


def _controlled(plant: Plant) -> list[int]:
    return [i for i, s in enumerate(plant.tags) if s.role is Role.CONTROLLED]


def _mean(values: Sequence[float | None]) -> float:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return sum(known) / len(known) if known else -math.inf


def _verdict(meta: Mapping[str, Any], calibration: Calibration) -> list[str]:
    hours = meta["hours"]
    return [
        f"trained on {hours['training']:.1f} h, decided on {hours['held_out']:.1f} h",
        f"limits from {calibration.hours:.1f} h: fewer than {calibration.bound_per_day:.1f} false raises a day (95 %)",
        f"licence: {meta['licence']['level']}",
        f"{meta['seconds'] / 60:.1f} min",
    ]


def _skill(card: Mapping[str, Any], tags: Sequence[int]) -> dict[str, Any] | None:
    """Skills of all models at the shown horizons, by tag, as texts with a mark at the best; None without tags."""
    shown = [card["horizon_s"].index(s) for s in SHOWN_S if s in card["horizon_s"]] or [0]
    rows = [
        (card["tags"][i], [cell for r in shown for cell in _marked([card[key][r][i] for _, key in SKILLS])])
        for i in tags
    ]
    horizons = [f"{card['horizon_s'][r]:.0f}" for r in shown]
    return {"horizons": horizons, "models": [label for label, _ in SKILLS], "rows": rows} if tags else None


def _marked(values: Sequence[float | None]) -> list[tuple[str, bool]]:
    best = max((v for v in values if v is not None), default=None)
    return [(_number(v, 2), v is not None and v == best) for v in values]


def _gains(plant: Plant, meta: Mapping[str, Any]) -> list[tuple[Signal, list[tuple[str, str]]]]:
    """For each action a mark and a text by controlled tag; nothing where there is no pair of them."""
    controlled = _controlled(plant)
    if not controlled:
        return []
    declared = {(g.manipulated, g.controlled): g.sign for g in plant.gains}
    gains = meta["gauges"]["gains"]
    return [
        (action, [_gain(gains[i][a], declared.get((action.name, plant.tags[i].name))) for i in controlled])
        for a, action in enumerate(plant.actions)
    ]


def _gain(value: float | None, sign: int | None) -> tuple[str, str]:
    if value is None:
        return "quiet", "-"
    text = f"{UP if value > 0 else DOWN if value < 0 else STILL} {value:+.3g}"
    if sign is None:
        return "quiet", text
    kind = "" if sign == 0 else "good" if value * sign > 0 else "bad"
    return kind, f"{text} (declared {'+-0'[(1, -1, 0).index(sign)]})"


def _numbers(plant: Plant, meta: Mapping[str, Any], calibration: Calibration) -> dict[str, str]:
    gauges = meta["gauges"]
    spread = f"{_number(gauges['std_min'])} / {_number(gauges['std_mean'])}"
    silent = ", ".join(calibration.uncalibrated) or "none"
    return {
        "plant": f"{plant.name} ({plant.fingerprint[:12]})",
        "hours of normal operation": ", ".join(f"{name} {value:.2f}" for name, value in meta["hours"].items()),
        "Epps-Pulley statistic (1 is Gaussian)": _number(gauges["epps_pulley"]),
        "standard deviation of the latent, least / mean": spread,
        "RankMe / participation ratio": f"{_number(gauges['rank_me'])} / {_number(gauges['participation'])}",
        "share of latent variance between runs": _number(gauges["between_runs"]),
        "gates open": f"{gauges['gates_open']:.0%}",
        "energies seen too little to be calibrated": silent,
    }


def _image(figure: Figure) -> Markup:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return picture(stream.getvalue())


def _number(value: float | None, digits: int = 3) -> str:
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:.{digits}f}" if digits < 3 else f"{value:.3g}"
