"""Offline training, top to bottom: recordings to ticks, linear core, networks, calibration, licence, report.

The latest normal runs calibrate bands and limits, some of the others decide which networks are kept, the rest train.
A killed run goes on where it stopped: ticks are cached per recording and the networks' state is written as it goes.
Of several processes (`torchrun -m fusion.train`) the first reads, fits in closed form, calibrates and writes; all train
the networks. They need the same folders.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import multiprocessing
import os
import shutil
import sys
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeRemainingColumn
from safetensors.torch import load_file, save_file

from control.surprise import Calibration, SurpriseConfig, calibrate
from fusion.checkpoint import flatten, save_checkpoint
from fusion.command import carry_out, flat, start_logging, training_arguments
from fusion.config import TrainConfig, train_config
from fusion.errors import ConfigError, PlantMismatch
from fusion.history import ticks as read_ticks
from fusion.licensing import examine_model
from fusion.plant import Plant
from fusion.plant_model import PlantModel
from fusion.recording import MANIFEST, Recording
from fusion.report import Course, write_report
from models import ranks
from models.batch import Ticks
from models.features import FeatureStem
from models.fit import FitConfig, Fitter, build
from models.gauges import Gauges, passed
from models.jepa import Jepa
from models.linear import LinearCore
from models.monitors import Monitors
from models.parallel import Parallel
from models.size import preset

log = logging.getLogger("fusion.train")  # also where this is the main module

TAGS_ONLY = 0.4  # of the calibration share is enough for bands of runs without media


@dataclass(frozen=True, slots=True, kw_only=True)
class Split:
    """Normal runs by use, each in order of time; runs without media serve forecasts only."""

    training: list[Ticks]
    held_out: list[Ticks]
    calibration: list[Ticks]

    @property
    def fitted(self) -> list[Ticks]:
        """Everything before the calibration runs."""
        return [*self.training, *self.held_out]


@dataclass(frozen=True, slots=True, kw_only=True)
class Basis:
    """What the networks are trained on: a plant, its ticks in ``files`` by recording, and the linear core."""

    plant: Plant
    files: list[Path]
    core: LinearCore


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point of `python -m fusion.train`, for torchrun: `fusion train` by one process of several."""
    parser = argparse.ArgumentParser(prog="fusion.train", description="Train a model on recordings.")
    training_arguments(parser)
    arguments = parser.parse_args(argv)
    start_logging(logging.INFO if ranks.is_first() else logging.WARNING)
    return carry_out(lambda: run(arguments))


def run(arguments: argparse.Namespace) -> None:
    """One training as the command line asks for it, by as many processes as were started."""
    with ranks.one_voice():
        config = train_config(arguments.overrides)
        with ranks.joined(ranks.device(config.device), config.timeout_s):
            train(flat(arguments.recording), arguments.out, config)


def train(recordings: Sequence[Path], out: Path, config: TrainConfig) -> None:
    """Train on recordings of one plant and write the model folder ``out`` with its report.

    Raises:
        ConfigError: where there is too little normal data, or recordings of different plants.
    """
    started = time.monotonic()
    ranks.per_rank(config.batch)
    torch.set_num_threads(config.threads or max(1, (os.cpu_count() or 1) // ranks.local("WORLD_SIZE", 1)))
    work = out.with_name(out.name + ".work")
    with _bar() as bar:
        basis, own = ranks.led(lambda: prepare(recordings, config, work, bar))
        split = own[0] if own else split_runs([Ticks.load(file) for file in basis.files], config)
        networks, course = fit(basis, split, config, work, bar)

        def complete() -> tuple[None, None]:
            assert own is not None  # noqa: S101 - only the first process is asked
            later, before, held = split.calibration, split.fitted, split.held_out
            model = PlantModel.assemble(basis.plant, basis.core, own[1], networks, later, before, held)
            publish(model, split, course, out, config, started, bar)
            shutil.rmtree(work)
            return None, None

        ranks.led(complete)


def publish(
    model: PlantModel, split: Split, course: Course, out: Path, config: TrainConfig, started: float, bar: Progress
) -> None:
    """Calibrate limits, judge the model, and write it with its report; ``started`` on the monotonic clock."""
    plant = model.plant
    calibration, energies = calibrate_limits(model, split, config, bar)
    licence, card = examine_model(model, plant, split.calibration, split.fitted)
    gauges = course.gauges[-1]
    reasons = passed(gauges, plant)
    meta = {
        "model": model.meta(),
        "train": asdict(config),
        "gauges": gauges.to_dict(),
        "withheld": reasons,
        "licence": licence.to_dict(),
        "card": card,
        "hours": {name: hours(getattr(split, name)) for name in ("training", "held_out", "calibration")},
        "seconds": round(time.monotonic() - started, 1),
    }
    arrays, meta["calibration"] = calibration.state()
    model_id = save_checkpoint(out, plant, flatten({"calibration": arrays} | model.state()), _finite(meta))
    write_report(out / "report.html", plant, model_id, meta, course, model, calibration, energies, split.calibration)
    log.info("%s: model %s after %.0f s", out, model_id, time.monotonic() - started)


# --- recordings to ticks


def prepare(
    recordings: Sequence[Path], config: TrainConfig, work: Path, bar: Progress
) -> tuple[Basis, tuple[Split, Monitors]]:
    """Recordings to ticks, linear core and monitors: what comes before the networks."""
    found = [Recording(path) for path in recordings]
    plant = _one_plant(found)
    work.mkdir(parents=True, exist_ok=True)
    files = cache_ticks(found, work, bar)
    split = split_runs([Ticks.load(file) for file in files], config)
    core, monitors = fit_core(plant, split, bar)
    return Basis(plant=plant, files=files, core=core), (split, monitors)


def cache_ticks(recordings: Sequence[Recording], cache: Path, bar: Progress) -> list[Path]:
    """Files with the ticks of normal recordings in order of time; computed on all cores, cached by content."""
    normal = sorted((r for r in recordings if r.kind == "normal"), key=lambda r: r.manifest["t0_ns"])
    if len(normal) < len(recordings):
        log.info("%d recordings hold faults and are left out of training", len(recordings) - len(normal))
    files = [cache / f"{_digest(r)}.npz" for r in normal]
    missing = [(r.path, f) for r, f in zip(normal, files, strict=True) if not f.is_file()]
    task = bar.add_task("reading recordings", total=len(missing))
    if missing:
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(os.cpu_count() or 1, len(missing)), mp_context=spawn) as pool:
            for _ in pool.map(_cache_ticks, missing):
                bar.advance(task)
    return files


def _cache_ticks(job: tuple[Path, Path]) -> None:
    path, file = job
    aside = file.with_suffix(".partial")
    read_ticks(Recording(path)).save(aside)
    aside.rename(file)


def _digest(recording: Recording) -> str:
    return hashlib.sha256((recording.path / MANIFEST).read_bytes()).hexdigest()[:24]


def _one_plant(recordings: Sequence[Recording]) -> Plant:
    if not recordings:
        raise ConfigError("training needs at least one recording")
    plant = recordings[0].plant
    for recording in recordings:
        if recording.plant.fingerprint != plant.fingerprint:
            raise PlantMismatch(
                f"{recording.path}: another plant than {recordings[0].path}; train on one plant at a time"
            )
    return plant


def split_runs(runs: Sequence[Ticks], config: TrainConfig) -> Split:
    """The latest runs of each kind calibrate, the ones before decide on the networks, the rest train."""
    kinds = [[r for r in runs if r.media], [r for r in runs if not r.media]]
    split = Split(training=[], held_out=[], calibration=[])
    for kind in kinds:
        wanted_h = calibration_hours(hours(kind), config, media=bool(kind and kind[0].media))
        earlier = len(kind)
        while earlier and hours(kind[earlier:]) + 0.5 * hours(kind[earlier - 1 : earlier]) <= wanted_h:
            earlier -= 1
        decide = max(1, round(earlier * config.validation_share)) if earlier > 2 else 0
        split.training.extend(kind[: earlier - decide])
        split.held_out.extend(kind[earlier - decide : earlier])
        split.calibration.extend(kind[earlier:])
    if not split.training or not split.held_out or not split.calibration:
        raise ConfigError(
            f"{len(runs)} normal recordings are too few; at least 5 are needed, to train on, to decide and to calibrate"
        )
    return split


def calibration_hours(total_h: float, config: TrainConfig, *, media: bool) -> float:
    """How much of runs with media, or of those without, calibrates [h].

    Limits rest on runs with media alone: of those, all that training can spare, until a rate of one a day is more than
    a hope.
    """
    if not media:
        return total_h * config.calibration_share * TAGS_ONLY
    share_h = total_h * config.calibration_share
    return max(share_h, min(config.calibration_hours, total_h - config.training_hours))


def hours(runs: Sequence[Ticks]) -> float:
    """Duration of runs [h]."""
    return round(sum(float(r.t_ns[-1] - r.t_ns[0]) for r in runs if len(r)) / 3.6e12, 3)


# --- the model


def fit_core(plant: Plant, split: Split, bar: Progress) -> tuple[LinearCore, Monitors]:
    """Linear core and monitors in closed form."""
    task = bar.add_task("linear core", total=None)
    media = [run for run in split.training if run.media]
    core = LinearCore.fit(media, [run for run in split.training if not run.media], plant)
    stem, with_media = FeatureStem(plant), [run for run in split.fitted if run.media] or split.fitted
    monitors = Monitors.fit(with_media, core, plant, stem, tag_runs=[run for run in split.training if not run.media])
    bar.update(task, total=1, completed=1)
    return core, monitors


def fit(basis: Basis, split: Split, config: TrainConfig, work: Path, bar: Progress) -> tuple[Jepa, Course]:
    """The networks on top of the linear core, by all processes."""
    place = ranks.device(config.device)
    networks = build(basis.plant, basis.core, split.training, preset(config.size), config.seed).to(place)
    chosen = fit_config(config, place)
    fitter = Fitter(networks, basis.core, basis.plant, split.training, split.held_out, chosen)
    course = train_networks(fitter, config, work, bar)
    return fitter.networks(), course


def fit_config(config: TrainConfig, place: torch.device) -> FitConfig:
    """How the networks are trained there: what was left open follows from their size."""
    large = config.size == "plant"
    sharded = config.parallel == "fsdp" or (config.parallel == "auto" and large)
    fast = large and place.type == "cuda"
    return FitConfig(
        steps=config.steps,
        max_seconds=config.seconds,
        batch=config.batch,
        seed=config.seed,
        half_precision=fast if config.half_precision is None else config.half_precision,
        compile=fast if config.compile is None else config.compile,
        parallel=Parallel.FSDP if sharded else Parallel.DDP,
    )


def train_networks(fitter: Fitter, config: TrainConfig, work: Path, bar: Progress) -> Course:
    """Run the fitter with a progress bar, writing its state now and then and resuming from it."""
    course = Course([], [], [])
    _resume(fitter, work)
    task = bar.add_task("networks", total=1.0)
    written = fitter.elapsed_s

    def follow(step: int, total: int, losses: Mapping[str, float], gauges: Gauges | None) -> None:
        nonlocal written
        course.steps.append(step)
        course.losses.append(dict(losses))
        if gauges is not None:
            course.gauges.append(gauges)
        _show(bar, task, fitter.progress, step, total, losses, course.gauges)
        if fitter.elapsed_s - written > config.checkpoint_every_s:
            _write_state(fitter, work)
            written = fitter.elapsed_s

    course.gauges.append(fitter.run(follow))
    bar.update(task, completed=1.0)
    return course


def _show(
    bar: Progress,
    task: TaskID,
    progress: float,
    step: int,
    total: int,
    losses: Mapping[str, float],
    seen: Sequence[Gauges],
) -> None:
    text = f"networks: step {step}/{total}, loss {losses['total']:.3f}"
    if seen:
        text += f", EP {seen[-1].epps_pulley:.1f}, rank {seen[-1].rank_me:.0f}, gates {seen[-1].gates_open:.0%}"
    bar.update(task, completed=progress, description=text)


def _write_state(fitter: Fitter, work: Path) -> None:
    state = fitter.state_dict()
    if not ranks.is_first():
        return
    aside = work / "state.partial"
    save_file(state["arrays"], aside, metadata={"meta": json.dumps(state["meta"])})
    aside.rename(work / "state.safetensors")


def _resume(fitter: Fitter, work: Path) -> None:
    from safetensors import safe_open

    file = work / "state.safetensors"
    if not ranks.agreed(file.is_file()):
        return
    with safe_open(file, "pt") as opened:
        meta = json.loads(opened.metadata()["meta"])
    fitter.load_state_dict({"arrays": load_file(file), "meta": meta})
    log.info("training goes on at step %d", fitter.step)


# --- limits


def calibrate_limits(
    model: PlantModel, split: Split, config: TrainConfig, bar: Progress
) -> tuple[Calibration, list[NDArray[np.float64]]]:
    """One limit on all energies from the calibration runs, under the budget of false raises."""
    runs = [run for run in split.calibration if run.media] or split.calibration
    task = bar.add_task("calibration", total=len(runs))
    energies = []
    for run in runs:
        energies.append(model.energies(run))
        bar.advance(task)
    surprise = SurpriseConfig(false_raises_per_day=config.false_raises_per_day)
    return calibrate(energies, model.energy_names, model.energy_modality, surprise, model.plant.step_s), energies


def _finite(value: Any) -> Any:
    """JSON has no NaN: what is not known is null."""
    if isinstance(value, float | np.floating):
        return float(value) if np.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, np.ndarray):
        return _finite(value.tolist())
    return [_finite(v) for v in value] if isinstance(value, list | tuple) else value


def _bar() -> Progress:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeRemainingColumn(),
    )
    return Progress(*columns, disable=not ranks.is_first())


if __name__ == "__main__":
    sys.exit(main())
