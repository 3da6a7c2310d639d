"""`make demo`: a simulated plant, its commissioning, the daemon and the page, each in its own process.

Commissioning records normal operation with moved setpoints faster than real time and trains the demo model on it;
both are cached. Live, the processes meet on the same protocols as in a real plant.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
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
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from fusion.checkpoint import load_checkpoint
from fusion.ending import stop_on_signals
from fusion.errors import ConfigError, FusionError
from fusion.plant import Plant
from fusion.plant_file import load_plant
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
START_DEADLINE_S = 30.0
STOP_DEADLINE_S = 3.0
ORDINARY = ("demand_step", "setpoint_step", "rate_change", "mode_change")
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
    """One demo in one folder: ``recordings/``, ``model/``, ``logs/`` and ``demo.json`` with the ports in use."""

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
        self._model = self._folder / "model"
        self._scenario = scenario
        self._page_port = page_port
        self._commissioning = commissioning or Commissioning()
        self._training = training or TrainConfig()

    def run(self, *, again: bool = False) -> int:
        """Commission where needed, then run live until interrupted; returns the exit code."""
        plant = load_plant(PLANT)
        if self._scenario is not None:
            load_scenario(self._scenario)  # the plant's process reads it; refused before minutes of commissioning
        self._folder.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(
            self._folder / "state", ignore_errors=True
        )  # the plant begins anew: nothing of the last one stands
        if again or not self._commissioned(plant):
            self.commission(plant)
        return asyncio.run(self._live())

    def _commissioned(self, plant: Plant) -> bool:
        """Whether the daemon can run on the model there is: one of another version may hold something else."""
        from fusion.inference import Engine

        try:
            Engine(load_checkpoint(self._model, plant))
        except ConfigError:
            return False
        return True

    def commission(self, plant: Plant) -> None:
        """Record normal operation and train on it; minutes, with a progress bar."""
        from fusion.training.train import train

        recordings = self._folder / "recordings"
        for old in (recordings, self._model):
            shutil.rmtree(old, ignore_errors=True)
        started = time.monotonic()
        train(self._record(plant, recordings), self._model, self._training)
        say(f"commissioned in {(time.monotonic() - started) / 60:.1f} min; report: {self._model / 'report.html'}")

    def _record(self, plant: Plant, recordings: Path) -> list[Path]:
        """Record all runs on every core; returns their folders in the order of their scenario time."""
        plan = self._commissioning
        excited = replace(load_scenario(SCENARIOS / "commissioning.yaml"), duration_s=plan.media_s)
        tags = replace(load_scenario(SCENARIOS / "excited_tags.yaml"), duration_s=plan.tag_s)
        batch = [_nth(tags, plan.first_seed + 500, i, 0.0) for i in range(plan.tag_runs)]
        media = [
            _ordinary(_nth(excited, plan.first_seed, i, plan.tag_runs * (plan.tag_s + PAUSE_S)), i)
            for i in range(plan.media_runs)
        ]
        recordings.mkdir(parents=True)
        spawn = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(2, os.cpu_count() or 1), mp_context=spawn) as pool, _bar() as bar:
            task = bar.add_task("recording the plant", total=len(media) + len(batch) // 10)
            jobs: dict[Future[Any], int] = {pool.submit(record_batch, batch, plant, recordings): len(batch) // 10}
            jobs |= {pool.submit(record, s, plant, recordings / f"media-{s.seed}"): 1 for s in media}
            for job in as_completed(jobs):
                job.result()
                bar.advance(task, jobs[job])
        return sorted(path for path in recordings.iterdir() if path.is_dir())

    async def _live(self) -> int:
        stop = asyncio.Event()
        ports = find_ports(self._page_port)
        with stop_on_signals(stop):
            try:
                async with contextlib.AsyncExitStack() as stack:
                    await stack.enter_async_context(LocalBroker(port=ports.mqtt))
                    await self._start_and_watch(stack, ports, stop)
            except FusionError as error:
                say(f"fusion: {error}")
                return error.exit_code
            finally:
                (self._folder / "demo.json").unlink(missing_ok=True)
        return 0

    async def _start_and_watch(self, stack: contextlib.AsyncExitStack, ports: Ports, stop: asyncio.Event) -> None:
        children: list[Child] = []
        stack.push_async_callback(_stop_in_order, children)
        for name, arguments, port in self._processes(ports):
            children.append(await Child.start(name, arguments, self._folder / "logs"))
            await children[-1].listening(port, stop)
        (self._folder / "demo.json").write_text(json.dumps({"mqtt": ports.mqtt, "page": ports.page}))
        say(
            f"the page is at http://127.0.0.1:{ports.page}   (Ctrl-C stops everything; logs in {self._folder / 'logs'})"
        )
        say("try: fusion fault belt_slip --severity 1     and later: fusion fault clear")
        ended = {asyncio.create_task(child.process.wait()): child for child in children}
        done, pending = await asyncio.wait((*ended, asyncio.create_task(stop.wait())), return_when="FIRST_COMPLETED")
        for task in pending:
            task.cancel()
        for task in done:
            if task in ended:
                raise FusionError(f"the {ended[task].name} process ended by itself; its log: {ended[task].log_file}")

    def _processes(self, ports: Ports) -> list[tuple[str, list[str], int | None]]:
        scenario = ["--scenario", str(self._scenario)] if self._scenario else []
        broker = f"127.0.0.1:{ports.mqtt}"
        plant = ["--opcua-port", ports.opcua, "--broker", broker, "--rtsp-port", ports.rtsp]
        overrides = (
            f"model={self._model}",
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
            ("page", ["dashboard", "--port", str(ports.page), "--broker", broker], ports.page),
        ]


@dataclass(slots=True)
class Child:
    """One process of the demo; it dies with its parent and never sees the terminal's Ctrl-C."""

    name: str
    process: asyncio.subprocess.Process
    log_file: Path

    @classmethod
    async def start(cls, name: str, arguments: Sequence[str], logs: Path) -> Child:
        """Start `fusion ARGUMENTS` with its output in a log file."""
        log_file = logs / f"{name}.log"
        with _opened(log_file) as output:
            process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "fusion.cli",
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
        return cls(name, process, log_file)

    async def listening(self, port: int | None, stop: asyncio.Event) -> None:
        """Wait until the process accepts connections on ``port``."""
        deadline = time.monotonic() + START_DEADLINE_S
        while port is not None and not stop.is_set() and not _accepts(port):
            if self.process.returncode is not None:
                raise FusionError(f"the {self.name} process did not start; its log: {self.log_file}")
            if time.monotonic() > deadline:
                raise FusionError(f"the {self.name} process does not listen on port {port}; its log: {self.log_file}")
            await asyncio.sleep(0.1)

    async def stop(self) -> None:
        """Ask, wait, and force only what does not listen."""
        if self.process.returncode is None:
            self.process.send_signal(signal.SIGINT)
            try:
                await asyncio.wait_for(self.process.wait(), STOP_DEADLINE_S)
            except TimeoutError:
                log.warning("%s did not stop within %.0f s and is killed", self.name, STOP_DEADLINE_S)
                self.process.kill()
                await self.process.wait()


def _nth(scenario: Scenario, first_seed: int, i: int, after_s: float) -> Scenario:
    """The i-th run of a kind: a seed of its own, and a start after the runs before it."""
    start = datetime.fromtimestamp(scenario.start_ns / NS_PER_S + after_s + i * (scenario.duration_s + PAUSE_S), UTC)
    return replace(scenario, seed=first_seed + i, start=start.isoformat())


def _ordinary(scenario: Scenario, i: int) -> Scenario:
    """With one of the events that an ordinary day holds, in turn: limits rest on what has been seen to be normal."""
    name = ORDINARY[i % len(ORDINARY)]
    event = NuisanceEvent(name=name, onset_s=scenario.duration_s / 2, duration_s=scenario.duration_s / 4)
    return replace(scenario, nuisances=(*scenario.nuisances, event))


async def _stop_in_order(children: Sequence[Child]) -> None:
    for child in children:
        await child.stop()


def find_ports(page: int) -> Ports:
    """The default ports, each moved up to the next free one."""
    found = [_free_from(port) for port in (4840, 1883, 8554)]
    return Ports(
        opcua=found[0], mqtt=found[1], rtsp=found[2], lidar=_free_from(2368, socket.SOCK_DGRAM), page=_free_from(page)
    )


def _free_from(port: int, kind: int = socket.SOCK_STREAM) -> int:
    for candidate in range(port, port + 50):
        with socket.socket(socket.AF_INET, kind) as probe:
            if kind == socket.SOCK_STREAM:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", candidate))
            except OSError:
                continue
            return candidate
    raise FusionError(f"no free port between {port} and {port + 49}")


def _opened(log_file: Path) -> IO[bytes]:
    log_file.parent.mkdir(parents=True, exist_ok=True)
    return log_file.open("wb")


def _accepts(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=0.5):
        return True
    return False


def _die_with_parent() -> None:
    """Linux: the kernel sends SIGTERM to the child when its parent is gone."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"), BarColumn(), TextColumn("{task.percentage:>3.0f} %"), TimeRemainingColumn()
    )


def say(text: str) -> None:
    """One line for the person in front of the demo."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()
