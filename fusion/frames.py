"""For notebooks: what was recorded and what a model makes of it, as polars data frames.

Times are UTC, values in engineering units; a recording or model is named by its folder.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fusion.checkpoint import load_checkpoint
from fusion.errors import ConfigError
from fusion.evaluation.whatif import advance, answer
from fusion.inference import Engine
from fusion.plant import Modality, Plant, parse_moves
from fusion.recordings.recording import Recording
from fusion.timeline.history import process_grid
from fusion.training.ticks import ticks
from models.ticks import Ticks

Folder = Path | str


def values(recording: Folder) -> pl.DataFrame:
    """Process values, one row a tick and one column a signal; null where there is none that is usable.

    Raises:
        RecordingError: the recording is missing or damaged.
    """
    recorded = Recording.verified(Path(recording))
    grid = process_grid(recorded)
    seen = np.where(grid.observed, grid.value, np.nan)
    return _timed(grid.t_ns, [s.name for s in recorded.plant.of(Modality.PROCESS)], seen)


def surprise(recording: Folder) -> pl.DataFrame:
    """How unusual the model of the daemon found each tick, one column `SENSE.FAMILY`, over the limit; null where not.

    Raises:
        RecordingError: the recording is missing or damaged.
        ConfigError: no daemon with a model has recorded it.
    """
    rows = Recording.verified(Path(recording)).surprise()
    if not len(rows):
        raise ConfigError(f"{recording}: nothing was judged while this was recorded; name a model to judge it now")
    named = rows.with_columns(name=pl.col("sense") + "." + pl.col("family")).sort("t_ns", "name")
    wide = named.pivot("name", index="t_ns", values="factor", aggregate_function="max").sort("t_ns")
    names = sorted(column for column in wide.columns if column != "t_ns")
    return _timed(wide["t_ns"].to_numpy(), names, wide.select(names).cast(pl.Float64).fill_null(np.nan).to_numpy())


class Model:
    """A trained model; ``limit`` is what a standardised energy that may raise must pass for an anomaly.

    Raises:
        ConfigError: the folder is none of a model, or damaged.
    """

    def __init__(self, folder: Folder) -> None:
        self._checkpoint = load_checkpoint(Path(folder))
        fresh = self._fresh()
        self._judge, self._calibration = fresh.model, fresh.calibration
        self.plant: Plant = fresh.plant
        self.limit: float = fresh.calibration.threshold

    def latents(self, recording: Folder) -> pl.DataFrame:
        """The latent of each tick: ``core.N`` of the linear core, ``net.N`` of the networks."""
        run = self._run(Path(recording))
        encoding, _ = self._judge.core.encode(run)
        observed, _ = self._judge.world_model.observe(run, encoding, energies=False)
        z = observed.z_TZ.double().cpu().numpy()
        linear = encoding.z.shape[1]
        names = [f"core.{i}" if i < linear else f"net.{i - linear}" for i in range(z.shape[1])]
        return _timed(run.t_ns, names, z)

    def energies(self, recording: Folder) -> pl.DataFrame:
        """Every energy of each tick by its name, standardised as the daemon publishes it; null where it is not known.

        The recording is judged from its start, as by a daemon that has no ticks of an earlier run.
        """
        run = self._run(Path(recording))
        rows = self._calibration.standardise(self._judge.judge(run))
        return _timed(run.t_ns, self._calibration.names, rows)

    def forecast(self, recording: Folder, at_s: float, horizon_s: float | None = None) -> pl.DataFrame:
        """What is expected ``at_s`` after the start if nothing is moved, with the 90 % band.

        Columns: ``horizon_s``, ``signal``, ``unit``, ``expected``, ``low``, ``high``.
        """
        return self.what_if(recording, at_s, {}, horizon_s).drop("do_nothing")

    def what_if(
        self, recording: Folder, at_s: float, moves: Mapping[str, float], horizon_s: float | None = None
    ) -> pl.DataFrame:
        """The same with signals set at once and held, and beside it what is expected if nothing is moved.

        Raises:
            ConfigError: a signal cannot be moved so, or there is too little past at that moment.
        """
        engine, recorded = self._fresh(), self._recorded(Path(recording))
        wanted = parse_moves([f"{name}={value!r}" for name, value in moves.items()], self.plant)
        advance(engine, recorded, at_s)
        found = answer(engine.model, engine, wanted, horizon_s or engine.model.world_model.horizon_s[-1])
        parts = [
            pl.DataFrame({"horizon_s": found["horizon_s"], **courses}).with_columns(
                signal=pl.lit(name), unit=pl.lit(self.plant.by_name[name].unit)
            )
            for name, courses in found["signals"].items()
        ]
        return pl.concat(parts).select("horizon_s", "signal", "unit", "expected", "low", "high", "do_nothing")

    def _fresh(self) -> Engine:
        return Engine(self._checkpoint)

    def _recorded(self, path: Path) -> Recording:
        return Recording.verified(path).of(self.plant)

    def _run(self, path: Path) -> Ticks:
        return ticks(self._recorded(path), self.plant, self._judge.eye)


def _timed(t_ns: NDArray[np.int64], names: list[str] | tuple[str, ...], rows: NDArray[np.float64]) -> pl.DataFrame:
    """Rows [T, N] as columns of these names beside their time; what is not a number is null."""
    columns = pl.DataFrame(rows, schema=list(names), orient="row").fill_nan(None)
    time = pl.Series("time", t_ns).cast(pl.Datetime("ns")).dt.replace_time_zone("UTC")
    return columns.insert_column(0, time)
