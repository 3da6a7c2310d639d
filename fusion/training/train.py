"""Offline training, top to bottom: recordings to ticks, linear core, networks, calibration, licence, report.

What trains, what decides and what calibrates is settled in ``fusion.training.splitting``. A killed run goes on where
it stopped: ticks are cached per recording and the networks' state is written as it goes. Of several processes
(`torchrun -m fusion.training`) the first reads, fits in closed form, calibrates and writes; all train the networks.
They need the same folders.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import shutil
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from control.anomaly.calibration import Calibration, calibrate
from fusion.checkpoint import flatten, save_checkpoint
from fusion.command import carry_out, start_logging, training_arguments
from fusion.errors import ConfigError
from fusion.files import whole_file
from fusion.plain import plain
from fusion.plant import Plant
from fusion.progress import Bars
from fusion.recordings.recording import LABELLED, LAST_NS, Recording, recordings_in
from fusion.records import NS_PER_S
from fusion.state import dump_state
from fusion.training.baselines import floor_skills
from fusion.training.crossing import crossed
from fusion.training.curves import Curves, Log
from fusion.training.examination import examine_model
from fusion.training.figures import stretches
from fusion.training.report import TrainingFindings, write_report
from fusion.training.settings import TrainConfig, train_config
from fusion.training.splitting import Split, hours, split_runs
from fusion.training.ticks import cache_ticks, digest, one_plant
from models import distributed
from models.features.stem import FeatureStem
from models.linear.core import LinearConfig, LinearCore
from models.linear.fit import fit_core
from models.monitors.fit import beginning_well, fit_monitors, widened
from models.monitors.monitors import Monitors
from models.monitors.perception import FEWEST_TICKS
from models.monitors.relief import FIRST_TICKS
from models.networks.jepa import Jepa
from models.operating.fit import fit_states
from models.operating.states import OperatingStates
from models.plant_model import PlantModel
from models.ticks import Ticks
from models.training.fitter import Fitter, build
from models.training.gauges import Gauges, passed

log = logging.getLogger(__name__)

LOGS, STATE = "logs", "state.safetensors"
NO_OTHER = {
    "fit": ("seconds", "steps", "parallel", "compile"),
    "": ("checkpoint_every_s", "threads", "device", "timeout_s"),
}
"""Settings of how long a training may take and on what it runs, which make no other training of it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What the networks are trained on: a plant, its ticks in ``files`` by recording, states, and the linear core."""

    plant: Plant
    files: list[Path]
    core: LinearCore
    states: OperatingStates


@dataclass(frozen=True, slots=True, kw_only=True)
class Trained:
    """Networks, how they came about, and what they are worth."""

    networks: Jepa
    course: Curves
    gauges: Gauges


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m fusion.training`, for torchrun: `fusion train` by one process of several."""
    parser = argparse.ArgumentParser(prog="fusion.training", description="Train a model on recordings.")
    training_arguments(parser)
    arguments = parser.parse_args(argv)
    start_logging(logging.INFO if distributed.is_first() else logging.WARNING)
    return carry_out(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """One training as the command line asks for it, by as many processes as were started."""
    with distributed.one_voice():
        config = train_config(arguments.overrides)
        with distributed.joined(distributed.device(config.device), config.timeout_s):
            train(recordings_in(arguments.recording), arguments.out, config)


def train(
    recordings: Sequence[Path], out: Path, config: TrainConfig, ticks: Path | None = None, plant: Plant | None = None
) -> None:
    """Train on recordings of one plant and write the model folder ``out`` with its report and logs.

    ``plant`` is as it is described now; default: as the latest recording describes it.

    What is not finished lies in ``OUT.work``. With ``seconds=inf`` the loss curve follows from recordings, seed and
    settings alone, whether or not a kill came between; see ``models.training.fitter.Fitter`` for what a bound in
    seconds leaves of that. State of other settings or recordings is not used. ``ticks`` is where several trainings
    share what they read.

    Raises:
        ConfigError: where there is too little normal data, or recordings of different plants.
    """
    started = time.monotonic()
    distributed.per_rank(config.fit.batch)
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // distributed.local("WORLD_SIZE", 1)))
    work = out.with_name(out.name + ".work")
    with _bar() as bar:
        basis, own = distributed.led(lambda: prepare(recordings, config, work, ticks or work, bar, plant))
        split = own[0] if own else split_runs([Ticks.load(file) for file in basis.files], config, basis.states)
        trained = fit(basis, split, config, work, bar)

        def complete() -> tuple[None, None]:
            assert own is not None  # noqa: S101 - only the first process is asked
            later, before, held = split.calibration, split.fitted, split.held_out
            monitors = widened(own[1], later)
            model = PlantModel.assemble(
                basis.plant, basis.core, monitors, trained.networks, later, before, held, basis.states
            )
            publish(model, split, trained, out, config, started, bar)
            (work / LOGS).rename(out / LOGS)
            shutil.rmtree(work)
            return None, None

        distributed.led(complete)


def publish(
    model: PlantModel, split: Split, trained: Trained, out: Path, config: TrainConfig, started: float, bar: Progress
) -> None:
    """Calibrate limits, judge the model, and write it with its report; ``started`` on the monotonic clock."""
    plant = model.plant
    calibration, energies = calibrate_limits(model, split, config, bar)
    licence, card = examine_model(model, split.calibration, split.fitted, config)
    floors = floor_skills(model, split.training, split.calibration)
    card |= {f"skill_{name}": skill.tolist() for name, skill in floors.items()}
    reasons = passed(trained.gauges, plant, config.fit.limits)
    (arrays, described), (limits, summed_up) = model.state(), dump_state(calibration)
    meta = {
        "model": described,
        "calibration": summed_up,
        "train": config,
        "gauges": trained.gauges,
        "withheld": reasons,
        "licence": licence.to_dict(),
        "card": card,
        "hours": {name: hours(getattr(split, name)) for name in ("training", "held_out", "calibration")},
        "seconds": round(time.monotonic() - started, 1),
    }
    model_id = save_checkpoint(out, plant, flatten({"calibration": limits} | arrays), meta)
    findings = TrainingFindings(
        model_id=model_id,
        meta=plain(meta),
        course=trained.course,
        calibration=calibration,
        later=split.calibration,
        stretches=stretches(model, calibration, split, energies),
    )
    write_report(out / "report.html", model, findings)
    log.info("%s: model %s after %.0f s", out, model_id, time.monotonic() - started)


def decisive(config: TrainConfig) -> dict[str, Any]:
    """The settings that make a training another one."""
    settings: dict[str, Any] = plain(config)
    for part, names in NO_OTHER.items():
        for name in names:
            del (settings[part] if part else settings)[name]
    return settings


def _claim(work: Path, recordings: Sequence[Recording], plant: Plant, config: TrainConfig) -> None:
    """Drop the state of another training than this one."""
    read = [digest(recording, plant, config.backbone) for recording in recordings]
    claim = json.dumps([decisive(config), read])
    file = work / "claim.json"
    if not file.is_file() or file.read_text() != claim:
        (work / STATE).unlink(missing_ok=True)
        with whole_file(file) as aside:
            aside.write_text(claim)


# --- recordings to ticks


def prepare(
    recordings: Sequence[Path],
    config: TrainConfig,
    work: Path,
    ticks: Path,
    bar: Progress,
    plant: Plant | None = None,
) -> tuple[Basis, tuple[Split, Monitors]]:
    """Recordings to ticks, linear core and monitors: what comes before the networks."""
    found = [Recording(path) for path in recordings]
    plant = plant or one_plant(found)
    for folder in (work, ticks):
        folder.mkdir(parents=True, exist_ok=True)
    _claim(work, found, plant, config)
    files = cache_ticks(found, plant, ticks, bar, config.backbone)
    runs = [Ticks.load(file) for file in files]
    states = fit_states(runs, plant)
    _say_states(states)
    split = split_runs(runs, config, states)
    core, monitors = fit_closed_form(plant, split, config.linear, bar)
    if config.backbone is not None and monitors.perception is None:
        raise ConfigError(
            f"backbone: {config.backbone} has seen too little to know what is normal; expected a plant with a camera, "
            f"and at least {FEWEST_TICKS} ticks of it to train on"
        )
    if begin_well(found, config):
        monitors = beginning_well(monitors)
    return Basis(plant=plant, files=files, core=core, states=states), (split, monitors)


def begin_well(recordings: Sequence[Recording], config: TrainConfig) -> bool:
    """Whether what the first minutes of a run are like is usual: as told, or as labels say of all runs."""
    if config.begins_well is not None:
        return config.begins_well
    labelled = [recording for recording in recordings if recording.kind == LABELLED]
    well = bool(labelled) and all(_begins_well(recording) for recording in labelled)
    if well:
        log.info("labels say that runs begin well: their first %d ticks count as usual (begins_well)", FIRST_TICKS)
    return well


def _begins_well(recording: Recording) -> bool:
    faults = [event.onset_ns for event in recording.events if not event.nuisance]
    least_ns = FIRST_TICKS * round(recording.plant.step_s * NS_PER_S)
    return min(faults, default=LAST_NS) - recording.span_ns[0] >= least_ns


def _say_states(states: OperatingStates) -> None:
    """Tell a person what was taken for an operating state, so that wrong ones can be corrected in the plant file."""
    if len(states) > 1:
        log.info("%d operating states, each with its own normal: %s", len(states), "; ".join(states.names))


# --- the model


def fit_closed_form(plant: Plant, split: Split, config: LinearConfig, bar: Progress) -> tuple[LinearCore, Monitors]:
    """Linear core and monitors in closed form."""
    task = bar.add_task("linear core", total=None)
    media = [run for run in split.training if run.media]
    core = fit_core([*media, *(run for run in split.training if not run.media)], plant, config)
    stem, with_media = FeatureStem(plant), [run for run in split.fitted if run.media]
    tag_runs = [run for run in split.training if not run.media] if with_media else []  # none is to be seen twice
    monitors = fit_monitors(with_media or split.fitted, core, plant, stem, tag_runs=tag_runs)
    bar.update(task, total=1, completed=1)
    return core, monitors


def fit(basis: Basis, split: Split, config: TrainConfig, work: Path, bar: Progress) -> Trained:
    """The networks on top of the linear core, by all processes."""
    networks = build(basis.plant, basis.core, split.training, config.model, config.fit.seed)
    networks = networks.to(distributed.device(config.device))
    fitter = Fitter(networks, basis.core, basis.plant, split.training, split.held_out, config.fit)
    course, gauges = train_networks(fitter, config, work, bar)
    return Trained(networks=fitter.networks(), course=course, gauges=gauges)


def train_networks(fitter: Fitter, config: TrainConfig, work: Path, bar: Progress) -> tuple[Curves, Gauges]:
    """Run the fitter with a progress bar, writing state, course and events as it goes and going on from them."""
    course = Curves()
    _resume(fitter, course, work)
    task = bar.add_task("networks", total=1.0)
    written = fitter.elapsed_s

    with Log(work / LOGS if distributed.is_first() else None, course) as journal:

        def follow(step: int, total: int, losses: Mapping[str, float], gauges: Gauges | None) -> None:
            nonlocal written
            journal.note(step, _named("loss", losses) | {"rate/learning": fitter.rate})
            if gauges is not None:
                journal.note(step, _named("gauge", gauges.numbers))
            _show(bar, task, fitter.progress, step, total, course)
            if fitter.elapsed_s - written > config.checkpoint_every_s:
                _write_state(fitter, course, work)
                written = fitter.elapsed_s

        gauges = fitter.run(follow)
        journal.note(fitter.step, _named("gauge", gauges.numbers))
    log.info("networks end at step %d: %s", fitter.step, fitter.ending)
    bar.update(task, completed=1.0)
    return course, gauges


def _named(group: str, values: Mapping[str, float]) -> dict[str, float]:
    return {f"{group}/{name}": value for name, value in values.items()}


def _show(bar: Progress, task: TaskID, progress: float, step: int, total: int, course: Curves) -> None:
    text = f"networks: step {step}/{total}, loss {course.curves['loss/total'].values[-1]:.3f}"
    gauges = {name: curve.values[-1] for name, curve in course.group("gauge").items()}
    if gauges:
        text += f", EP {gauges['epps_pulley']:.1f}, rank {gauges['rank_me']:.0f}, gates {gauges['gates_open']:.0%}"
    bar.update(task, completed=progress, description=text)


def _write_state(fitter: Fitter, course: Curves, work: Path) -> None:
    state = fitter.state_dict()
    if not distributed.is_first():
        return
    with whole_file(work / STATE) as aside:
        save_file(state["arrays"] | course.arrays(), aside, metadata={"meta": json.dumps(state["meta"])})


def _resume(fitter: Fitter, course: Curves, work: Path) -> None:
    file = work / STATE
    if not distributed.agreed(file.is_file()):
        return
    with safe_open(file, "pt") as opened:
        meta = json.loads(opened.metadata()["meta"])
    arrays = load_file(file)
    fitter.load_state_dict({"arrays": arrays, "meta": meta})
    course.load(arrays)
    log.info("training goes on at step %d", fitter.step)


# --- limits


def calibrate_limits(
    model: PlantModel, split: Split, config: TrainConfig, bar: Progress
) -> tuple[Calibration, list[NDArray[np.float64]]]:
    """One limit on all energies from the calibration runs, under the budget of false raises; the energies of those.

    Where they are few and short, what is fitted in closed form is judged on the others as well.
    """
    runs = [run for run in split.calibration if run.media] or split.calibration
    task = bar.add_task("calibration", total=len(runs))
    energies = []
    for run in runs:
        energies.append(model.judge(run))
        bar.advance(task)
    more = crossed(model, split, config)
    return calibrate([*energies, *more], model.energies, config.surprise, model.plant.step_s), energies


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    return Bars(*columns, disable=not distributed.is_first())
