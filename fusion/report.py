"""The training report: one HTML file with plots, readable without anything else."""

from __future__ import annotations

import base64
import html
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from control.surprise import Calibration
from fusion.course import Course
from fusion.plant import Plant, Role
from fusion.plant_model import ModelState, PlantModel
from models.batch import Ticks

mpl.use("Agg")

Floats = NDArray[np.float64]

STYLE = """body{font:15px/1.5 system-ui,sans-serif;max-width:1080px;margin:2em auto;padding:0 1em;color:#111}
h1{font-size:1.5em}h2{font-size:1.15em;margin-top:2em;border-bottom:1px solid #ccc}img{max-width:100%}
table{border-collapse:collapse;font-size:13px}td,th{padding:2px 9px;border:1px solid #ddd;text-align:right}
td:first-child,th:first-child{text-align:left}.bad{color:#a00}.good{color:#060}"""
SHOWN_S = (8.0, 32.0, 64.0, 256.0)
HISTORY_TICKS = 400
COLLAPSE = {"epps_pulley": "Epps-Pulley", "rank_me": "RankMe", "participation": "participation"}
SKILL_ROWS = (
    ("whole", "skill"),
    ("linear core, same runs", "skill_linear"),
    ("ARX, runs the core held out", "skill_arx"),
    ("whole over linear core", "skill_over_linear"),
)


def write_report(
    file: Path,
    plant: Plant,
    model_id: str,
    meta: Mapping[str, Any],
    course: Course,
    model: PlantModel,
    calibration: Calibration,
    energies: Sequence[Floats],
    later: Sequence[Ticks],
) -> None:
    """Write the report of one training."""
    parts = [
        f"<h1>Model {html.escape(model_id)}</h1>",
        _summary(plant, meta, calibration),
        "<h2>Training</h2>",
        _image(_training(course)),
        "<h2>Skill against persistence, and what the networks add to the linear core</h2>",
        _skill_table(plant, meta["card"]),
        _image(_added(plant, meta["card"])),
        "<h2>Forecast of controlled tags under the recorded moves' start, with 90 % bands</h2>",
        _image(_fans(plant, model, later)),
        "<h2>Gains after the longest horizon</h2>",
        _gain_table(meta["licence"]),
        "<h2>Licence</h2>",
        _licence(meta["licence"]),
        "<h2>Surprise over the calibration runs</h2>",
        _image(_timeline(calibration, energies)),
    ]
    title = f"<title>{html.escape(model_id)}</title>"
    file.write_text(f"<!doctype html><meta charset=utf-8>{title}<style>{STYLE}</style>{''.join(parts)}")


def _summary(plant: Plant, meta: Mapping[str, Any], calibration: Calibration) -> str:
    gauges, hours = meta["gauges"], meta["hours"]
    spread = f"{_number(gauges['std_min'])} / {_number(gauges['std_mean'])}"
    bound = f"rate of false raises below {calibration.bound_per_day:.1f} a day (95 %)"
    rows = {
        "plant": f"{plant.name} ({plant.fingerprint[:12]})",
        "hours of normal operation": ", ".join(f"{name} {value:.2f}" for name, value in hours.items()),
        "Epps-Pulley statistic (1 is Gaussian)": _number(gauges["epps_pulley"]),
        "standard deviation of the latent, least / mean": spread,
        "RankMe / participation ratio": f"{_number(gauges['rank_me'])} / {_number(gauges['participation'])}",
        "share of latent variance between runs": _number(gauges["between_runs"]),
        "gates open": f"{gauges['gates_open']:.0%}",
        "limits calibrated on": f"{calibration.hours:.2f} h; {bound}",
        "licence": meta["licence"]["level"],
    }
    body = "".join(f"<tr><td>{html.escape(k)}</td><td>{html.escape(str(v))}</td></tr>" for k, v in rows.items())
    reasons = "".join(f"<li class=bad>{html.escape(reason)}</li>" for reason in meta["withheld"])
    verdict = f"<p class=bad>These networks fail their gauges:</p><ul>{reasons}</ul>" if reasons else ""
    return f"<table>{body}</table>{verdict}"


def _training(course: Course) -> Figure:
    figure, (left, right) = _figure(1, 2, 3.2)
    for name, curve in course.group("loss").items():
        left.plot(curve.steps, curve.values, label=name, lw=0.8)
    left.set(xlabel="step", title="losses", yscale="log")
    left.legend(fontsize=7)
    for name, curve in course.group("gauge").items():
        if name in COLLAPSE:
            right.plot(curve.steps, curve.values, label=COLLAPSE[name])
    right.set(xlabel="step", title="collapse gauges on held-out runs")
    right.legend(fontsize=7)
    return figure


def _skill_table(plant: Plant, card: Mapping[str, Any]) -> str:
    rows = [card["horizon_s"].index(s) for s in SHOWN_S if s in card["horizon_s"]]
    head = "".join(f"<th>{card['horizon_s'][r]:.0f} s</th>" for r in rows)
    lines = []
    for i, name in enumerate(card["tags"]):
        if plant.by_name[name].role is Role.CONTROLLED:
            for label, key in SKILL_ROWS:
                cells = "".join(f"<td>{_number(card[key][r][i])}</td>" for r in rows)
                lines.append(f"<tr><td>{name} {label}</td>{cells}</tr>")
    return f"<table><tr><th>skill</th>{head}</tr>{''.join(lines)}</table>"


def _added(plant: Plant, card: Mapping[str, Any]) -> Figure:
    figure, (left, right) = _figure(1, 2, 5.0)
    for axes, key, title in (
        (left, "skill", "skill over persistence"),
        (right, "skill_over_linear", "over the linear core"),
    ):
        values = np.array([[np.nan if v is None else v for v in row] for row in card[key]], float).T
        shown = axes.imshow(values, cmap="RdYlGn", vmin=-1, vmax=1, aspect="auto")
        axes.set_xticks(range(len(card["horizon_s"])), [f"{h:.0f}" for h in card["horizon_s"]], fontsize=7)
        axes.set_yticks(range(len(card["tags"])), card["tags"], fontsize=6)
        axes.set(title=title, xlabel="horizon [s]")
        figure.colorbar(shown, ax=axes)
    return figure


def _fans(plant: Plant, model: PlantModel, later: Sequence[Ticks]) -> Figure:
    run = max(later, key=len)
    start = max(120, len(run) - 620)
    state = ModelState()
    model.step(run[:start], state)
    world = model.world(state)
    mean, half = world.rollout(world.hold())[0].numpy(), world.half_band().numpy()
    controlled = [i for i, s in enumerate(plant.tags) if s.role is Role.CONTROLLED]
    if not controlled:
        return Figure(figsize=(1, 1))
    figure, panels = _figure(1, len(controlled), 2.8)
    for axes, i in zip(panels, controlled, strict=True):
        past = np.arange(-min(HISTORY_TICKS, start), min(600, len(run) - start))
        axes.plot(past * plant.step_s, run.tags[start + past, i], lw=0.8, color="k")
        h = np.array(world.horizon_s)
        axes.plot(h, mean[:, i], color="C0")
        axes.fill_between(h, mean[:, i] - half[:, i], mean[:, i] + half[:, i], alpha=0.25)
        axes.set(title=f"{plant.tags[i].name} [{plant.tags[i].unit}]", xlabel="s")
    return figure


def _gain_table(licence: Mapping[str, Any]) -> str:
    head = "<tr><th>move</th><th>controlled</th><th>declared</th><th>model</th><th></th></tr>"
    lines = []
    for gain in licence["numbers"].get("gains", ()):
        kind = "good" if gain["passed"] else "bad"
        cells = f"<td>{gain['manipulated']}</td><td>{gain['controlled']}</td><td>{gain['sign']:+d}</td>"
        text = "passes" if gain["passed"] else html.escape(str(gain["reason"]))
        lines.append(f"<tr>{cells}<td>{_number(gain['gain'])}</td><td class={kind}>{text}</td></tr>")
    return f"<table>{head}{''.join(lines)}</table>"


def _licence(licence: Mapping[str, Any]) -> str:
    lines = [
        f"<tr><td>{s['signal']}</td><td>{s['level']}</td><td>{html.escape('; '.join(s['reasons']))}</td></tr>"
        for s in licence["signals"]
    ]
    return f"<table><tr><th>signal</th><th>level</th><th>why not higher</th></tr>{''.join(lines)}</table>"


def _timeline(calibration: Calibration, energies: Sequence[Floats]) -> Figure:
    figure, (axes,) = _figure(1, 1, 2.8)
    peaks = np.concatenate([calibration.peaks(values) for values in energies])
    axes.plot(np.arange(len(peaks)) * calibration.step_s / 3600, peaks, lw=0.6)
    axes.axhline(calibration.threshold, color="r", lw=1)
    axes.set(xlabel="hours of calibration", ylabel="largest standardised energy")
    return figure


def _figure(rows: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(11, height * rows), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns)).ravel())


def _image(figure: Figure) -> str:
    stream = io.BytesIO()
    figure.savefig(stream, format="png", dpi=90)
    return f'<img alt="" src="data:image/png;base64,{base64.b64encode(stream.getvalue()).decode()}">'


def _number(value: float | None) -> str:
    return "-" if value is None or not np.isfinite(value) else f"{value:.3g}"
