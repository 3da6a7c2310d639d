"""The training report: one HTML file with tables and plots, readable without anything else."""

from __future__ import annotations

import base64
import html
import io
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from control.anomaly.calibration import Calibration
from fusion.plant import Plant, Role
from fusion.training.curves import Curves
from fusion.training.figures import (
    SHOWN_H,
    JudgedStretch,
    Raised,
    course_figure,
    date,
    fan_figure,
    raised_spans,
    skill_figure,
    timeline_figure,
)
from models.plant_model import PlantModel
from models.ticks import Ticks

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1120px;margin:2em auto;padding:0 1em;color:#1a1a1a}
h1{font-size:1.5em;margin-bottom:.2em}h2{font-size:1.15em;margin:2.2em 0 .4em;border-bottom:1px solid #ccc}
p{margin:.4em 0;color:#444;max-width:60em}img{max-width:100%}
table{border-collapse:collapse;font-size:13px;margin:.6em 0}td,th{padding:3px 10px;border:1px solid #ddd}
td,th{text-align:right}
th{background:#f5f6f8;font-weight:600}td:first-child,th:first-child{text-align:left}
table.dense{font-size:12px}.dense td,.dense th{padding:2px 5px}td.text{text-align:left}
.good{background:#e4f4e4;color:#060}.bad{background:#fbe5e5;color:#900}.quiet{color:#888}
.chip{display:inline-block;padding:2px 12px;margin:0 6px 6px 0;border-radius:12px;background:#eef1f5;font-size:13px}"""
SHOWN_S = (8.0, 32.0, 64.0, 256.0)
SKILLS = (
    ("model", "skill"),
    ("core", "skill_linear"),
    ("ARX", "skill_arx"),
    ("CVA", "skill_cva"),
    ("PCA", "skill_pca"),
)
MOST_TAGS, MOST_SPANS = 12, 12
NOTHING = "<p>This plant has no process tags: there is nothing to forecast in engineering units.</p>"


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
    plant, meta = model.plant, found.meta
    tags = shown_tags(plant, meta["card"])
    parts = [
        f"<h1>{html.escape(plant.name)}: model {html.escape(found.model_id)}</h1>",
        _verdict(meta, found.calibration),
        "<h2>Skill against simpler models</h2>",
        _skill_table(meta["card"], tags) + _image(skill_figure(meta["card"], tags)) if tags else NOTHING,
        "<h2>Forecasts</h2>" + _fans(model, found.later, tags) if tags else "",
        "<h2>Gains</h2>" + _gain_matrix(plant, meta),
        "<h2>Anomalies over the training period</h2>" + _timeline(found.stretches, found.calibration),
        "<h2>Licence</h2>" + _licence(meta["licence"]),
        "<h2>Training</h2>" + _image(course_figure(found.course)) + _numbers(plant, meta, found.calibration),
    ]
    title = f"<title>{html.escape(found.model_id)}</title>"
    head = f"<!doctype html><html lang=en><meta charset=utf-8>{title}<style>{STYLE}</style>"
    file.write_text(head + "".join(parts))


def shown_tags(plant: Plant, card: Mapping[str, Any]) -> list[int]:
    """Columns of the controlled tags; without any, of those that are forecast best."""
    controlled = [i for i, s in enumerate(plant.tags) if s.role is Role.CONTROLLED]
    mean = [_mean([row[i] for row in card["skill"]]) for i in range(len(plant.tags))]
    best = sorted(range(len(mean)), key=lambda i: -mean[i])[:MOST_TAGS]
    return controlled or best


def _mean(values: Sequence[float | None]) -> float:
    known = [v for v in values if v is not None and math.isfinite(v)]
    return sum(known) / len(known) if known else -math.inf


def _verdict(meta: Mapping[str, Any], calibration: Calibration) -> str:
    hours = meta["hours"]
    told = [
        f"trained on {hours['training']:.1f} h, decided on {hours['held_out']:.1f} h",
        f"limits from {calibration.hours:.1f} h: fewer than {calibration.bound_per_day:.1f} false raises a day (95 %)",
        f"licence: {meta['licence']['level']}",
        f"{meta['seconds'] / 60:.1f} min",
    ]
    chips = "".join(f"<span class=chip>{html.escape(text)}</span>" for text in told)
    reasons = "".join(f"<li>{html.escape(reason)}</li>" for reason in meta["withheld"])
    if not reasons:
        return f"{chips}<p><span class='chip good'>the networks pass their gauges</span></p>"
    return f"{chips}<p><span class='chip bad'>the networks fail their gauges</span></p><ul>{reasons}</ul>"


def _skill_table(card: Mapping[str, Any], tags: Sequence[int]) -> str:
    rows = [card["horizon_s"].index(s) for s in SHOWN_S if s in card["horizon_s"]] or [0]
    span = f"<th colspan={len(SKILLS)}>"
    head = "".join(f"{span}{card['horizon_s'][r]:.0f} s</th>" for r in rows)
    names = "".join(f"<th>{label}</th>" for _ in rows for label, _ in SKILLS)
    lines = [
        f"<tr><td>{html.escape(card['tags'][i])}</td>"
        + "".join(_skill_cells([card[key][r][i] for _, key in SKILLS]) for r in rows)
        + "</tr>"
        for i in tags
    ]
    text = (
        "<p>Share of the squared error of <i>no change</i> (persistence) that a forecast takes away, on the "
        "calibration runs: 1 is perfect, 0 is persistence, below 0 is worse. Model, linear core, ARX and CVA know the "
        "moves that were made; PCA, from the components of the last three ticks, does not. The best is marked.</p>"
    )
    heads = f"<tr><th></th>{head}</tr><tr><th>tag</th>{names}</tr>"
    return f"{text}<table class=dense>{heads}{''.join(lines)}</table>"


def _skill_cells(values: Sequence[float | None]) -> str:
    known = [v for v in values if v is not None]
    best = max(known, default=None)
    return "".join(f"<td{' class=good' if v is not None and v == best else ''}>{_number(v, 2)}</td>" for v in values)


def _fans(model: PlantModel, later: Sequence[Ticks], tags: Sequence[int]) -> str:
    which = (
        "controlled tag" if any(s.role is Role.CONTROLLED for s in model.plant.tags) else "tag that is forecast best"
    )
    text = (
        f"<p>Each {which}, if nothing is moved from the moment 0 on, beside what was measured under the real moves.</p>"
    )
    return text + _image(fan_figure(model, later, tags))


def _gain_matrix(plant: Plant, meta: Mapping[str, Any]) -> str:
    controlled = [i for i, s in enumerate(plant.tags) if s.role is Role.CONTROLLED]
    if not plant.actions or not controlled:
        return "<p>This plant has no pair of a manipulated and a controlled signal.</p>"
    declared = {(g.manipulated, g.controlled): g.sign for g in plant.gains}
    head = "".join(
        f"<th>{html.escape(plant.tags[i].name)} [{html.escape(plant.tags[i].unit)}]</th>" for i in controlled
    )
    lines = []
    for a, action in enumerate(plant.actions):
        cells = [
            _gain_cell(meta["gauges"]["gains"][i][a], declared.get((action.name, plant.tags[i].name)))
            for i in controlled
        ]
        name = f"{html.escape(action.name)} [{html.escape(action.unit)}]"
        lines.append(f"<tr><td>{name}</td>{''.join(cells)}</tr>")
    text = (
        "<p>What a lasting step of one unit moves after the longest horizon: the model's sign and size, and the sign "
        "that the plant description declares. Green agrees, red contradicts, grey was not declared.</p>"
    )
    refused = [g for g in meta["licence"]["numbers"].get("gains", ()) if not g["passed"]]
    doubts = "".join(f"<li>{html.escape(str(g['reason']))}</li>" for g in refused)
    return f"{text}<table><tr><th></th>{head}</tr>{''.join(lines)}</table><ul>{doubts}</ul>"


def _gain_cell(value: float | None, sign: int | None) -> str:
    if value is None:
        return "<td class=quiet>-</td>"
    arrow = "&uarr;" if value > 0 else "&darr;" if value < 0 else "&middot;"
    if sign is None:
        return f"<td class=quiet>{arrow} {value:+.3g}</td>"
    kind = "" if sign == 0 else " class=good" if value * sign > 0 else " class=bad"
    return f"<td{kind}>{arrow} {value:+.3g} (declared {'+-0'[(1, -1, 0).index(sign)]})</td>"


def _timeline(parts: Sequence[JudgedStretch], calibration: Calibration) -> str:
    spans = raised_spans(parts, calibration)
    text = (
        "<p>Every tick judged as it would be live: the largest energy over the limit that was set on the calibration "
        f"runs, in order of time, UTC. Of training and held-out runs at most {SHOWN_H:.0f} h are shown, in pieces of "
        "an hour chosen evenly. Red spans would have raised an anomaly; look at them before you trust the limit.</p>"
    )
    return text + _image(timeline_figure(parts, calibration)) + _span_table(spans)


def _span_table(spans: Sequence[Raised]) -> str:
    if not spans:
        return "<p><span class='chip good'>nothing exceeded the limit</span></p>"
    lines = [
        f"<tr><td>{date(s.t_ns)}</td><td>{s.use.replace('_', ' ')}</td><td>{s.seconds:.0f} s</td>"
        f"<td>{s.factor:.2f}</td><td>{html.escape(s.leading)}</td></tr>"
        for s in spans[:MOST_SPANS]
    ]
    more = f"<p>and {len(spans) - MOST_SPANS} more</p>" if len(spans) > MOST_SPANS else ""
    head = "<tr><th>from (UTC)</th><th>run</th><th>for</th><th>times the limit</th><th>led by</th></tr>"
    return f"<table>{head}{''.join(lines)}</table>{more}"


def _licence(licence: Mapping[str, Any]) -> str:
    if not licence["signals"]:
        return "<p>Nothing of this plant may be moved: the model observes.</p>"
    rows = [(s["signal"], s["level"], "; ".join(s["reasons"])) for s in licence["signals"]]
    lines = [f"<tr>{''.join(f'<td class=text>{html.escape(str(cell))}</td>' for cell in row)}</tr>" for row in rows]
    return f"<table><tr><th>signal</th><th>level</th><th>why not higher</th></tr>{''.join(lines)}</table>"


def _numbers(plant: Plant, meta: Mapping[str, Any], calibration: Calibration) -> str:
    gauges = meta["gauges"]
    spread = f"{_number(gauges['std_min'])} / {_number(gauges['std_mean'])}"
    silent = ", ".join(calibration.uncalibrated) or "none"
    rows = {
        "plant": f"{plant.name} ({plant.fingerprint[:12]})",
        "hours of normal operation": ", ".join(f"{name} {value:.2f}" for name, value in meta["hours"].items()),
        "Epps-Pulley statistic (1 is Gaussian)": _number(gauges["epps_pulley"]),
        "standard deviation of the latent, least / mean": spread,
        "RankMe / participation ratio": f"{_number(gauges['rank_me'])} / {_number(gauges['participation'])}",
        "share of latent variance between runs": _number(gauges["between_runs"]),
        "gates open": f"{gauges['gates_open']:.0%}",
        "energies seen too little to be calibrated": silent,
    }
    body = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(v)}</td></tr>" for k, v in rows.items())
    return f"<table>{body}</table>"


def _image(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=110)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'


def _number(value: float | None, digits: int = 3) -> str:
    if value is None or not np.isfinite(value):
        return "-"
    return f"{value:.{digits}f}" if digits < 3 else f"{value:.3g}"
