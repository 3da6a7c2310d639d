"""`make demo`: a simulated plant, the daemon, the page and the plant's commissioning, each in its own process.

Live, the processes meet on the same protocols as in a real plant. They are up at once: the daemon begins without a
model and takes each as it comes. Commissioning records normal operation with moved setpoints faster than real time, the
past that a real plant has in its historian, and fits a model of the tags, then one of all senses in closed form, then
one with networks; all are cached.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import multiprocessing
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fusion.checkpoint import load_checkpoint
from fusion.command import say
from fusion.ending import stop_on_signals
from fusion.errors import ConfigError, FusionError
from fusion.model_store import ModelStore
from fusion.plant import Plant
from fusion.plant_file import load_plant
from fusion.processes import Child, free_from, stop_in_order, until_stopped
from fusion.progress import Bars
from fusion.records import NS_PER_S
from fusion.simulator.record import record, record_batch
from fusion.simulator.scenario import NuisanceEvent, Scenario, load_scenario
from fusion.simulator.servers.broker import LocalBroker
from fusion.training.settings import TrainConfig

log = logging.getLogger(__name__)

ROOT = Path(__file__).resolve().parent.parent
PLANT = ROOT / "configs" / "plant" / "lime.yaml"
SCENARIOS = ROOT / "configs" / "scenario"
CONFIG = ROOT / "configs" / "demo.yaml"
ORDINARY = ("demand_step", "setpoint_step", "rate_change", "mode_change")
STAGES = ("of the tags alone", "in closed form", "with networks")  # each a model of the commissioning
PATIENCE_S = 20.0  # for the daemon to make one recording of its last slices
RECORDS_GIB = 2.0  # of what the live plant delivers
PAUSE_S = 900.0  # between recordings: training leaves a gap between the ones it learns from and the ones it judges by


@dataclass(frozen=True, slots=True, kw_only=True)
class Commissioning:
    """How much is recorded before the model is trained; seeds differ from run to run."""

    media_runs: int = 11
    media_s: float = 900.0
    tag_runs: int = 30
    tag_s: float = 1800.0
    first_seed: int = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Ports:
    """Loopback ports of one demo; each default moves up where it is taken."""

    opcua: int
    mqtt: int
    rtsp: int
    lidar: int
    page: int


class Demo:
    """One demo in one folder: ``recordings/``, ``models/``, ``logs/`` and ``demo.json`` with the ports in use."""

    def __init__(
        self,
        folder: Path,
        *,
        page_port: int = 8080,
        scenario: Path | None = None,
        commissioning: Commissioning | None = None,
        training: TrainConfig | None = None,
    ) -> None:
        self._folder = folder.resolve()
        self._models = ModelStore(self._folder / "models")
        self._scenario = scenario
        self._page_port = page_port
        self._commissioning = commissioning or Commissioning()
        self._training = training or TrainConfig()

    def run(self, *, again: bool = False) -> int:
        """Run live until interrupted, and commission meanwhile where that is needed; returns the exit code."""
        plant = load_plant(PLANT)
        if self._scenario is not None:
            load_scenario(self._scenario)  # the plant's process reads it; refused before anything starts
        self._folder.mkdir(parents=True, exist_ok=True)
        for old in ("state", "records"):  # the plant begins anew: nothing of the last one stands
            shutil.rmtree(self._folder / old, ignore_errors=True)
        anew = again or not self._commissioned(plant)
        if anew:
            shutil.rmtree(self._models.folder, ignore_errors=True)
        return asyncio.run(self._live(anew))

    def _commissioned(self, plant: Plant) -> bool:
        """Whether the daemon can run on the model there is: one of another version may hold something else."""
        from fusion.inference import Engine

        try:
            place = self._models.current
            if place is not None:
                Engine(load_checkpoint(place, plant))
        except ConfigError:
            return False
        return place is not None and len(self._models.names()) == len(STAGES)

    def commission(self) -> None:
        """Record normal operation and train on it, in stages, each put to use: tags cost seconds and come first."""
        for old in (self._folder / "recordings", self._folder / "ticks", self._models.folder):
            shutil.rmtree(old, ignore_errors=True)
        started, plant = time.monotonic(), load_plant(PLANT)
        trained = self._training
        closed = replace(trained, fit=replace(trained.fit, steps=0))
        self._models.tell("commissioning: the plant's past is recorded")
        paths = self._record_tags(plant)
        self._fit(STAGES[0], paths, closed, started)
        self._models.tell("commissioning: what camera, microphone and LiDAR saw of it is recorded")
        paths += self._record_media(plant)
        self._fit(STAGES[1], paths, closed, started)
        self._fit(STAGES[2], paths, trained, started)
        self._models.tell("")
        shutil.rmtree(self._folder / "ticks")

    def _fit(self, stage: str, recordings: Sequence[Path], config: TrainConfig, started: float) -> None:
        """One model of the commissioning, put to use; ``started`` on the monotonic clock."""
        from fusion.training.train import train

        self._models.tell(f"commissioning: a model is fitted {stage}")
        place = self._models.next_place()
        train(recordings, place, config, self._folder / "ticks")
        self._models.choose(place.name, "commissioning", stage)
        minutes = (time.monotonic() - started) / 60
        say(f"commissioned {stage} in {minutes:.1f} min; report: {place / 'report.html'}")

    def _record_tags(self, plant: Plant) -> list[Path]:
        """Record the runs of tags alone, all in one batch."""
        plan = self._commissioning
        tags = replace(load_scenario(SCENARIOS / "excited_tags.yaml"), duration_s=plan.tag_s)
        folder = self._folder / "recordings"
        folder.mkdir(parents=True)
        return record_batch([_nth(tags, plan.first_seed + 500, i, 0.0) for i in range(plan.tag_runs)], plant, folder)

    def _record_media(self, plant: Plant) -> list[Path]:
        """Record the runs of all senses, later than those of tags, on every core."""
        plan = self._commissioning
        excited = replace(load_scenario(SCENARIOS / "commissioning.yaml"), duration_s=plan.media_s)
        after_s = plan.tag_runs * (plan.tag_s + PAUSE_S)
        media = [_ordinary(_nth(excited, plan.first_seed, i, after_s), i) for i in range(plan.media_runs)]
        paths = [self._folder / "recordings" / f"media-{scenario.seed}" for scenario in media]
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=spawn) as pool, _bar() as bar:
            task = bar.add_task("recording the plant", total=len(media))
            for job in as_completed([pool.submit(record, s, plant, p) for s, p in zip(media, paths, strict=True)]):
                job.result()
                bar.advance(task)
        return paths

    async def _live(self, commission: bool) -> int:
        stop = asyncio.Event()
        ports = find_ports(self._page_port)
        with stop_on_signals(stop):
            try:
                async with contextlib.AsyncExitStack() as stack:
                    await stack.enter_async_context(LocalBroker(port=ports.mqtt))
                    await self._start_and_watch(stack, ports, stop, commission)
            except FusionError as error:
                say(f"fusion: {error}")
                return error.exit_code
            finally:
                (self._folder / "demo.json").unlink(missing_ok=True)
        return 0

    async def _start_and_watch(
        self, stack: contextlib.AsyncExitStack, ports: Ports, stop: asyncio.Event, commission: bool
    ) -> None:
        children: list[Child] = []
        stack.push_async_callback(stop_in_order, children)
        for name, arguments, port in self._processes(ports):
            children.append(await Child.start(name, arguments, self._folder / "logs", PATIENCE_S))
            await children[-1].listening(port, stop)
        (self._folder / "demo.json").write_text(json.dumps({"mqtt": ports.mqtt, "page": ports.page}))
        say(
            f"the page is at http://127.0.0.1:{ports.page}   (Ctrl-C stops everything; logs in {self._folder / 'logs'})"
        )
        if commission:
            say("the plant is being commissioned meanwhile: the page shows it live, judged from the first model on")
            task = asyncio.create_task(self._commissioning_process(stop))
            stack.callback(task.cancel)
        say("try, once it is judged: fusion fault belt_slip --severity 1     and later: fusion fault clear")
        await until_stopped(children, stop)

    async def _commissioning_process(self, stop: asyncio.Event) -> None:
        """Commission in a process of low priority with its own progress bars; it and all of its own end with us."""
        process = await asyncio.create_subprocess_exec(
            "nice", sys.executable, "-m", "fusion.demo", str(self._folder), start_new_session=True
        )
        try:
            if await process.wait() and not stop.is_set():
                say("fusion: commissioning has failed, as it said above; the page shows the plant, nothing is judged")
                self._models.tell("")
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGTERM)

    def _processes(self, ports: Ports) -> list[tuple[str, list[str], int | None]]:
        scenario = ["--scenario", str(self._scenario)] if self._scenario else []
        broker = f"127.0.0.1:{ports.mqtt}"
        plant = ["--opcua-port", ports.opcua, "--broker", broker, "--rtsp-port", ports.rtsp]
        folders = {"recordings": "records", "state": "state", "models": "models"}
        past = [word for key, name in folders.items() for word in (f"--{key}", str(self._folder / name))]
        overrides = (
            "model=''",
            f"learn.models={self._models.folder}",
            f"record.folder={self._folder / 'records'}",
            f"record.budget_gib={RECORDS_GIB}",
            "record.free_gib=0.5",
            f"publish.outbox={self._folder / 'outbox.sqlite'}",
            f"state={self._folder / 'state'}",
            f"publish.port={ports.mqtt}",
            f"connectors.plc.url=opc.tcp://127.0.0.1:{ports.opcua}",
            f"connectors.skid.port={ports.mqtt}",
            f"connectors.camera.url=rtsp://127.0.0.1:{ports.rtsp}/camera",
            f"connectors.microphone.url=rtsp://127.0.0.1:{ports.rtsp}/microphone",
            f"connectors.silo_lidar.port={ports.lidar}",
        )
        return [
            (
                "plant",
                [*map(str, ("plant", *plant, "--lidar-port", ports.lidar)), *scenario],
                ports.opcua,
            ),
            ("daemon", ["run", "--config", str(CONFIG), *overrides], None),
            ("page", ["dashboard", "--port", str(ports.page), "--broker", broker, *past], ports.page),
        ]


def _nth(scenario: Scenario, first_seed: int, i: int, after_s: float) -> Scenario:
    """The i-th run of a kind: a seed of its own, and a start after the runs before it."""
    start = datetime.fromtimestamp(scenario.start_ns / NS_PER_S + after_s + i * (scenario.duration_s + PAUSE_S), UTC)
    return replace(scenario, seed=first_seed + i, start=start.isoformat())


def _ordinary(scenario: Scenario, i: int) -> Scenario:
    """With one of the events that an ordinary day holds, in turn: limits rest on what has been seen to be normal."""
    name = ORDINARY[i % len(ORDINARY)]
    event = NuisanceEvent(name=name, onset_s=scenario.duration_s / 2, duration_s=scenario.duration_s / 4)
    return replace(scenario, nuisances=(*scenario.nuisances, event))


def find_ports(page: int) -> Ports:
    """The default ports, each moved up to the next free one."""
    found = [free_from(port) for port in (4840, 1883, 8554)]
    return Ports(
        opcua=found[0], mqtt=found[1], rtsp=found[2], lidar=free_from(2368, socket.SOCK_DGRAM), page=free_from(page)
    )


def _bar() -> Progress:
    return Bars(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn()
    )


if __name__ == "__main__":
    logging.basicConfig(level=logging.WARNING)
    Demo(Path(sys.argv[1])).commission()
