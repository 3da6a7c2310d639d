"""The figures of the training report: course, skill by tag and horizon, forecast fans, anomalies over time.

Shape letters: T ticks, E energies, H horizons, S tags.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from control.anomaly.calibration import Calibration, SurpriseConfig, sustained
from fusion.records import NS_PER_S
from fusion.training.curves import Curves
from fusion.training.splitting import Split, hours
from models.plant_model import ModelState, PlantModel
from models.ticks import Ticks

mpl.use("Agg")

Floats = NDArray[np.float64]

USES = {"training": "#dfe9f5", "held_out": "#fdf0d5", "calibration": "#e2f2e2"}
COLLAPSE = {"epps_pulley": "Epps-Pulley (1 is Gaussian)", "rank_me": "RankMe", "participation": "participation ratio"}
HISTORY_S, AHEAD_TICKS = 400, 600
MOST_ROWS = 40
CHUNK_TICKS = 3600
FAR_OUT = 4.0  # times the limit, beyond which the scale is logarithmic
SHOWN_H = 6.0  # of training and held-out runs, chosen evenly: judging a run costs as much as replaying it


@dataclass(frozen=True, slots=True)
class JudgedStretch:
    """Consecutive ticks judged: the largest standardised energy [T], and the name of the largest at each."""

    use: str
    t_ns: NDArray[np.int64]
    peak: Floats
    level: Floats
    leading: NDArray[np.str_]


@dataclass(frozen=True, slots=True)
class Raised:
    """A span above the limit."""

    use: str
    t_ns: int
    seconds: float
    factor: float
    leading: str


def course_figure(course: Curves) -> Figure:
    """Losses, learning rate and gauges by step."""
    figure, (left, middle, right) = _figure(1, 3, 3.2)
    for name, curve in course.group("loss").items():
        left.plot(curve.steps, curve.values, label=name, lw=1.4 if name == "total" else 0.7)
    left.set(xlabel="step", title="losses", yscale="log")
    for name in ("score", "skill_over_linear"):
        curve = course.group("gauge")[name]
        middle.plot(curve.steps, curve.values, marker=".", label=name.replace("_", " "))
    middle.set(xlabel="step", title="validation: score (lower is better), skill added")
    for name, label in COLLAPSE.items():
        curve = course.group("gauge")[name]
        right.plot(curve.steps, curve.values, marker=".", label=label)
    right.set(xlabel="step", title="collapse gauges on held-out runs", yscale="log")
    for axes in (left, middle, right):
        if axes.get_legend_handles_labels()[0]:  # nothing was trained: the model is the closed form
            axes.legend(fontsize=7)
    return figure


def skill_figure(card: Mapping[str, Any], rows: Sequence[int]) -> Figure:
    """Skill of some tags at every horizon: over persistence, and what the networks add to the linear core."""
    rows = rows[:MOST_ROWS]
    figure, panels = _figure(1, 2, 1.2 + 0.16 * max(len(rows), 4))
    keys = (("skill", "skill over persistence"), ("skill_over_linear", "over the linear core"))
    for axes, (key, title) in zip(panels, keys, strict=True):
        values = np.array([[np.nan if v is None else v for v in row] for row in card[key]], float).T[list(rows)]
        shown = axes.imshow(values, cmap="RdYlGn", vmin=-1, vmax=1, aspect="auto")
        axes.set_xticks(range(len(card["horizon_s"])), [f"{h:.0f}" for h in card["horizon_s"]], fontsize=7)
        axes.set_yticks(range(len(rows)), [card["tags"][i] for i in rows], fontsize=6)
        axes.set(title=title, xlabel="horizon [s]")
        figure.colorbar(shown, ax=axes)
    return figure


def fan_figure(model: PlantModel, later: Sequence[Ticks], tags: Sequence[int]) -> Figure:
    """Forecast and band of some tags from one moment of the last runs, if nothing is moved, and what came."""
    run = max(later, key=len)
    start = max(min(120, len(run)), len(run) - AHEAD_TICKS - 20)
    state = ModelState()
    model.step(run[:start], state)
    world = model.world(state)
    mean, half = world.rollout(world.hold())[0].numpy(), world.half_band().numpy()
    step_s = model.plant.step_s
    past = np.arange(-min(round(HISTORY_S / step_s), start), min(AHEAD_TICKS, len(run) - start))
    figure, panels = _figure((len(tags) + 1) // 2, 2, 2.3)
    for axes, i in zip(panels, tags, strict=False):
        ahead = np.array([0.0, *world.horizon_s])
        middle, half_width = np.r_[run.tags[start - 1, i], mean[:, i]], np.r_[0.0, half[:, i]]
        axes.fill_between(ahead, middle - half_width, middle + half_width, alpha=0.2, label="90 % band")
        axes.plot(ahead, middle, color="C0", lw=1.5, label="forecast")
        axes.plot((past + 1) * step_s, run.tags[start + past, i], lw=0.8, color="k", label="measured")
        axes.axvline(0.0, color="0.5", lw=0.8)
        axes.set_title(f"{model.tags[i]} [{model.plant.tags[i].unit}]", fontsize=9)
        axes.set_xlabel("s", fontsize=8)
    for axes in panels[len(tags) :]:
        axes.set_axis_off()
    panels[0].legend(fontsize=7)
    return figure


# --- anomalies over the training period


def stretches(
    model: PlantModel, calibration: Calibration, split: Split, energies: Sequence[Floats]
) -> list[JudgedStretch]:
    """The training period judged as it would be live, in order of time; ``energies`` are all those of the last runs.

    Of training and held-out runs at most ``SHOWN_H``, in pieces of an hour chosen evenly.
    """
    judged = [run for run in split.calibration if run.media] or split.calibration
    heard, model = calibration.heard(), model.hearing(calibration.heard().names)
    parts = [("calibration", run, values[:, calibration.raising]) for run, values in zip(judged, energies, strict=True)]
    for use, run in chosen(split, with_media=bool(judged[0].media)):
        parts.append((use, run, model.judge(run)))
    return sorted((_stretch(heard, *part) for part in parts), key=lambda s: int(s.t_ns[0]))


def chosen(split: Split, *, with_media: bool) -> list[tuple[str, Ticks]]:
    """Pieces of training and held-out runs of the kind that limits rest on, evenly over all of them."""
    pieces: list[tuple[str, Ticks]] = []
    for use, runs in (("training", split.training), ("held_out", split.held_out)):
        for run in runs:
            if bool(run.media) is with_media:
                count = -(-len(run) // CHUNK_TICKS)
                edges = np.linspace(0, len(run), count + 1, dtype=int).tolist()
                pieces.extend((use, run[a:b]) for a, b in itertools.pairwise(edges))
    total_h = hours([run for _, run in pieces])
    keep = max(1, int(len(pieces) * min(1.0, SHOWN_H / max(total_h, 1e-9))))
    return [pieces[i] for i in np.unique(np.linspace(0, len(pieces) - 1, keep).round().astype(int))] if pieces else []


def _stretch(calibration: Calibration, use: str, run: Ticks, values: Floats) -> JudgedStretch:
    standard = calibration.standardise(values)
    peak = calibration.peaks(values)
    config = SurpriseConfig(on_delay_s=calibration.on_delay_s)
    leading = np.array(calibration.names)[np.nan_to_num(standard, nan=-np.inf).argmax(1)]
    return JudgedStretch(use, run.t_ns, peak, sustained(peak, config, calibration.step_s), leading)


def raised_spans(parts: Sequence[JudgedStretch], calibration: Calibration) -> list[Raised]:
    """Where the limit was exceeded for as long as a raise takes, the strongest first."""
    found = []
    for part in parts:
        above = np.flatnonzero(part.level >= calibration.threshold)
        for group in np.split(above, np.flatnonzero(np.diff(above) > 1) + 1) if len(above) else ():
            top = int(group[np.nanargmax(part.peak[group])])
            factor = float(part.peak[top] / calibration.threshold)
            seconds = len(group) * calibration.step_s + calibration.on_delay_s
            found.append(Raised(part.use, int(part.t_ns[group[0]]), seconds, factor, str(part.leading[top])))
    return sorted(found, key=lambda r: -r.factor)


def timeline_figure(parts: Sequence[JudgedStretch], calibration: Calibration) -> Figure:
    """Largest energy over its limit, stretch after stretch; gaps between recordings are left out."""
    figure, (axes,) = _figure(1, 1, 3.2)
    start, ticks = 0.0, []
    for part in parts:
        at_h = np.arange(len(part.t_ns)) * calibration.step_s / 3600 + start
        axes.axvspan(at_h[0], at_h[-1], color=USES[part.use], lw=0)
        axes.plot(at_h, part.peak / calibration.threshold, lw=0.6, color="#235")
        above = part.level >= calibration.threshold
        axes.fill_between(at_h, 0, 1, where=above, color="#c00", alpha=0.35, transform=axes.get_xaxis_transform())
        ticks.append((at_h[0], date(int(part.t_ns[0]))))
        start = float(at_h[-1]) + calibration.step_s / 3600
    axes.axhline(1.0, color="#c00", lw=1)
    shown = ticks[:: -(-len(ticks) // 12)]
    axes.set_xticks([h for h, _ in shown], [d for _, d in shown], rotation=30, ha="right", fontsize=7)
    peaks = np.concatenate([part.peak for part in parts]) / calibration.threshold
    top = max(1.2, 1.05 * float(np.nanmax(peaks, initial=0.0)))
    axes.set(ylabel="largest energy / limit", xlim=(0, start), ylim=(0, top))
    if top > FAR_OUT:
        axes.set_yscale("symlog", linthresh=FAR_OUT)
    axes.legend(handles=[mpl.patches.Patch(color=c, label=n.replace("_", " ")) for n, c in USES.items()], fontsize=7)
    return figure


def date(t_ns: int) -> str:
    """UTC, to the minute."""
    return datetime.fromtimestamp(t_ns / NS_PER_S, UTC).strftime("%Y-%m-%d %H:%M")


def _figure(rows: int, columns: int, height: float) -> tuple[Figure, list[Axes]]:
    figure = Figure(figsize=(12, height * rows), layout="constrained")
    return figure, list(np.atleast_1d(figure.subplots(rows, columns)).ravel())
