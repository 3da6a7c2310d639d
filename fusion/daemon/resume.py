"""An engine that goes on where the last run was: its model's streams, its open events, its numbers."""

from __future__ import annotations

import logging
from pathlib import Path

from fusion.checkpoint import Checkpoint
from fusion.clock import CLOCK
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.memory import TickMemory
from fusion.daemon.settings import DaemonConfig
from fusion.errors import ModelError
from fusion.inference import Cadence, Engine
from fusion.records import NS_PER_S

log = logging.getLogger(__name__)


def resumed(config: DaemonConfig, checkpoint: Checkpoint, desk: AlarmDesk) -> tuple[Engine, TickMemory | None]:
    """The engine, where the last run left it, and the memory it goes on with."""
    cadence = Cadence(
        forecast_every_s=config.forecast_every_s, advise_every_s=config.advise_every_s, advise=config.advise
    )
    engine = Engine(
        checkpoint,
        detector=config.detector,
        advisor=config.advisor,
        cadence=cadence,
        clock_ns=CLOCK.now_ns,
        sequence=desk.sequence,
    )
    memory = None
    if config.state and config.memory_s:
        owner = f"{engine.model_id} {engine.plant.fingerprint}"
        memory = TickMemory(Path(config.state) / "ticks", owner, config.memory_s)
        _recall(engine, memory, config.memory_gap_s)
    engine.resume(desk.open, desk.notes)
    if desk.open:
        log.info("alarms that stood before the start: %s", ", ".join(anomaly.id for anomaly in desk.open))
    return engine, memory


def _recall(engine: Engine, memory: TickMemory, gap_s: float) -> None:
    """Show a model the ticks that an earlier run has seen, unless they are too old or of another model."""
    ticks, now_ns = memory.recall(CLOCK.now_ns(), gap_s), CLOCK.now_ns()
    if ticks is None:
        log.info("no recent ticks of this model are kept: averages and usual levels begin anew")
        return
    try:
        engine.recall(ticks)
    except ModelError as error:
        log.warning("kept ticks are not used: %s", error)
        memory.forget()
    else:
        age_s = (now_ns - int(ticks.t_ns[-1])) / NS_PER_S
        log.info("the model takes up where it was %.0f s ago, after %d ticks", age_s, len(ticks))
