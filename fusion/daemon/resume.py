"""An engine that goes on where the last run was: its model's streams, its open events, its numbers."""

from __future__ import annotations

import logging
from hashlib import sha256
from pathlib import Path

from fusion.checkpoint import Checkpoint
from fusion.clock import CLOCK
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.fleet import FleetForecaster
from fusion.daemon.memory import TickMemory
from fusion.daemon.settings import DaemonConfig
from fusion.errors import ModelError
from fusion.inference import Engine
from fusion.outlook import Cadence
from fusion.plant import Plant
from fusion.recordings.recording import SOFTWARE
from fusion.records import NS_PER_S

log = logging.getLogger(__name__)


def fresh(config: DaemonConfig, checkpoint: Checkpoint, sequence: int) -> Engine:
    """An engine as the daemon's settings want it, whose next event has a number of its own."""
    cadence = Cadence(
        forecast_every_s=config.forecast_every_s, advise_every_s=config.advise_every_s, advise=config.advise
    )
    return Engine(
        checkpoint,
        detector=config.detector,
        advisor=config.advisor,
        cadence=cadence,
        clock_ns=CLOCK.now_ns,
        sequence=sequence,
    )


def memory_of(config: DaemonConfig, plant: Plant) -> TickMemory | None:
    """The memory of a plant's last ticks, where the settings want one; any model of it may go on with them."""
    if not config.state or not config.memory_s:
        return None
    return TickMemory(Path(config.state) / "ticks", columns_of(plant), config.memory_s)


def columns_of(plant: Plant) -> str:
    """What ticks of a plant are: its fingerprint, and the order of its signals."""
    order = sha256("\n".join(signal.name for signal in plant.signals).encode()).hexdigest()
    return f"{SOFTWARE} {plant.fingerprint} {order}"


def resumed(config: DaemonConfig, checkpoint: Checkpoint, desk: AlarmDesk, memory: TickMemory | None) -> Engine:
    """The engine, where the last run left it."""
    engine = fresh(config, checkpoint, desk.sequence)
    if memory is not None and memory.owner == columns_of(engine.plant):
        _recall(engine, memory, config.memory_gap_s)
    engine.resume(desk.open, desk.notes)
    if desk.open:
        log.info("alarms that stood before the start: %s", ", ".join(anomaly.id for anomaly in desk.open))
    return engine


def recall(fleet: FleetForecaster, memory: TickMemory, gap_s: float) -> None:
    """Show the fleet's forecaster the ticks that an earlier run has seen, unless they are too old."""
    ticks = memory.since(0)
    if ticks is not None and 0 <= CLOCK.now_ns() - int(ticks.t_ns[-1]) <= gap_s * NS_PER_S:
        fleet.recall(ticks)


def _recall(engine: Engine, memory: TickMemory, gap_s: float) -> None:
    """Show a model the ticks that an earlier run has seen, unless they are too old."""
    ticks, now_ns = memory.recall(CLOCK.now_ns(), gap_s), CLOCK.now_ns()
    if ticks is None:
        log.info("no recent ticks of this plant are kept: averages and usual levels begin anew")
        return
    try:
        engine.recall(ticks)
    except ModelError as error:
        log.warning("kept ticks are not used: %s", error)
        memory.forget()
    else:
        age_s = (now_ns - int(ticks.t_ns[-1])) / NS_PER_S
        log.info("the model takes up where it was %.0f s ago, after %d ticks", age_s, len(ticks))
