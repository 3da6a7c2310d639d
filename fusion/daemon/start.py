"""`fusion run` and `fusion replay`: a daemon put together of what its configuration says, and run until its end."""

from __future__ import annotations

import asyncio
import logging
import signal
from collections.abc import Callable
from pathlib import Path

from connectors.kinds import made_sources
from connectors.replay import ReplayConfig, replay_source
from fusion.checkpoint import checkpoint_for
from fusion.clock import Clock
from fusion.daemon.allocator import keep_memory_low
from fusion.daemon.audit import AUDIT, Audit
from fusion.daemon.certificates import CertificateWatch
from fusion.daemon.condition import condition_of
from fusion.daemon.desk import AlarmDesk
from fusion.daemon.fleet import fleet_forecaster
from fusion.daemon.learning import Learner
from fusion.daemon.outlet import FileOutlet, MqttOutlet, Outlet, Outlets
from fusion.daemon.progression import FILE, Progress
from fusion.daemon.resume import columns_of, memory_of, recall, resumed
from fusion.daemon.seat import Seat
from fusion.daemon.service import Daemon
from fusion.daemon.settings import DaemonConfig
from fusion.daemon.status import Statistics
from fusion.daemon.store import Store
from fusion.daemon.succession import Succession, first_checkpoint
from fusion.ending import ignore_hangup, stop_on_signals
from fusion.errors import ConfigError
from fusion.files import check_place, sha256_of
from fusion.garbage import set_apart
from fusion.inference import Engine
from fusion.plant_file import load_plant
from fusion.publish.publisher import MqttPublisher, PublisherConfig
from fusion.recordings.recorder import Recorder
from fusion.recordings.recording import Recording
from fusion.timeline.timeline import Timeline
from models.progression.life_file import load_life

log = logging.getLogger(__name__)


def run(config: DaemonConfig) -> None:
    """`fusion run`: the daemon on the sources of a configuration, until asked to stop."""
    ignore_hangup()
    keep_memory_low()
    plant = load_plant(Path(config.plant))
    sources = made_sources(config.connectors, plant)
    set_apart()
    place, checkpoint = first_checkpoint(config, plant)
    life = load_life(Path(config.life), plant) if config.life else None
    fleet = fleet_forecaster(config.fleet, plant, config.forecast_every_s) if checkpoint is None else None

    def build() -> Daemon:
        store = Store(Path(config.state), plant.name) if config.state else None
        desk, memory = AlarmDesk(config.alarms, store, plant), memory_of(config, plant)
        engine = None if checkpoint is None else resumed(config, checkpoint, desk, memory)
        if fleet is not None and memory is not None:
            recall(fleet, memory, config.memory_gap_s)
        owner = f"{columns_of(plant)} {sha256_of(Path(config.life)) if config.life else ''}"
        kept = Path(config.state) / FILE if config.state else None
        progress = Progress(plant, kept, owner, life, condition_of(config.fleet, plant))
        seat = Seat(plant, engine, desk.sequence, fleet, progress)
        audit = Audit(Path(config.state) / AUDIT if config.state else None)
        recorder = Recorder(config.record, plant) if config.record.folder else None
        succession = None
        if config.learn.models and recorder is not None:
            learner = Learner(config.learn, Path(config.plant), recorder)
            succession = Succession(config, seat, learner, desk, memory, place)
        watched = {"publish": config.publish, **{f"connectors.{name}": c for name, c in config.connectors.items()}}
        return Daemon(
            sources,
            Timeline(plant, config.timeline),
            seat,
            MqttOutlet(MqttPublisher(config.publish, plant, seat.model_id), seat),
            desk=desk,
            memory=memory,
            audit=audit,
            recorder=recorder,
            succession=succession,
            certificates=CertificateWatch(watched),
            progress=progress,
            http=config.http,
            whatif_per_minute=config.whatif_per_minute,
            verifier_timeout_s=config.verifier_timeout_s,
        )

    asyncio.run(_until_stopped(build, Path(config.plant)))


def replay(
    recording: Path, model: Path, speed: float, publish: PublisherConfig | None, lines: Path | None
) -> Statistics:
    """`fusion replay`: a recording through the daemon path; returns what the daemon counted."""
    if lines is not None:
        check_place("--json", lines)
    checkpoint = checkpoint_for(model, Recording(recording).plant)
    plant = checkpoint.plant
    daemons: list[Daemon] = []

    def build() -> Daemon:
        engine = Engine(checkpoint)
        seat = Seat(plant, engine, progress=Progress(plant))
        outlets: list[Outlet] = [FileOutlet(lines, plant, engine.model_id)] if lines is not None else []
        if publish is not None:
            clock = Clock(engine.now_ns, engine.now_ns)
            outlets.append(MqttOutlet(MqttPublisher(publish, plant, engine.model_id, clock=clock), seat))
        player = replay_source(ReplayConfig(path=str(recording), speed=speed), plant)
        daemons.append(Daemon([player], Timeline(plant), seat, Outlets(outlets), lossless=True))
        return daemons[0]

    asyncio.run(_until_stopped(build))
    statistics = daemons[0].statistics
    log.info("%s: %d ticks, latency p99 %.0f ms", recording, statistics.ticks, 1000 * statistics.latency(99))
    return statistics


async def _until_stopped(build: Callable[[], Daemon], plant_file: Path | None = None) -> None:
    """Build a daemon inside the loop and run it until a signal asks it to stop; SIGHUP reads ``plant_file`` again."""
    stop = asyncio.Event()
    with stop_on_signals(stop):
        daemon = build()
        if plant_file is not None:
            loop, reading = asyncio.get_running_loop(), set[asyncio.Task[None]]()
            loop.add_signal_handler(signal.SIGHUP, lambda: reading.add(loop.create_task(_reread(daemon, plant_file))))
        await daemon.run(stop)


async def _reread(daemon: Daemon, plant_file: Path) -> None:
    """Take over the targets of the plant file as it is now; where it cannot be used, the old ones stay."""
    try:
        await daemon.retarget(load_plant(plant_file))
    except ConfigError as error:
        log.error("targets stay as they were: %s", error)
