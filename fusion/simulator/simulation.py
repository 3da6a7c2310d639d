"""One simulated plant with its sensors: each plant second yields the samples that its instruments would send."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.plant import Modality, Plant
from fusion.records import NS_PER_S, Columns, Item, Quality, Sample
from fusion.simulator.fleet import Fleet, check_signal, stamp_offset_s, truck_and_light, truth_row
from fusion.simulator.line.faults import FAULTS
from fusion.simulator.line.physics import STEPS_PER_S
from fusion.simulator.network import Path
from fusion.simulator.scenario import FaultEvent, Scenario
from fusion.simulator.sensors.camera import PIXELS_PER_M, SIZE, VIEW_START_M, Camera
from fusion.simulator.sensors.lidar import Lidar
from fusion.simulator.sensors.microphone import RATE_HZ, Machines, Microphone

CHUNKS_PER_S = 10


class Simulation:
    """A scenario played on one line; ``advance`` returns items in order of arrival."""

    def __init__(self, scenario: Scenario, plant: Plant) -> None:
        self.scenario, self.plant = scenario, plant
        self._fleet = Fleet([scenario], plant)
        self._start_ns = scenario.start_ns
        self._network = Path(scenario.network, scenario.seed)
        media = {signal.modality: signal for signal in plant.media} if scenario.media else {}
        self._camera, self._microphone, self._lidar = (
            media.get(m) for m in (Modality.VIDEO, Modality.AUDIO, Modality.LIDAR)
        )
        self._pictures = Camera(scenario.seed, scenario.plant_seed)
        self._sound = Microphone(scenario.seed)
        self._scanner = Lidar(scenario.seed, self._lidar.pose, self._fleet.line.silo.axis) if self._lidar else None
        self._edges = VIEW_START_M + np.arange(SIZE + 1) / PIXELS_PER_M
        self._frozen_picture: NDArray[np.uint8] | None = None
        self._turned_m: float | None = None
        self._process = list(plant.of(Modality.PROCESS))
        self._offset_ns = np.array([int(stamp_offset_s(s) * NS_PER_S) for s in self._process])

    @property
    def t_ns(self) -> int:
        """Plant time now [UTC ns]."""
        return self._start_ns + self._fleet.elapsed_s * NS_PER_S

    def advance(self, seconds: float = 1.0) -> list[Item]:
        """Advance by whole seconds; everything the sensors sent meanwhile, in order of arrival."""
        items: list[Item] = []
        for _ in range(round(seconds)):
            items.extend(self._second())
        return items

    def inject(self, name: str, severity: float = 1.0, ramp_s: float = 0.0, signal: str | None = None) -> None:
        """Start a fault now.

        Raises:
            ConfigError: naming the known faults.
        """
        if name not in FAULTS:
            raise ConfigError(f"fault {name!r} is not known; accepted: {', '.join(FAULTS)}")
        if not 0.0 <= severity <= 1.0:
            raise ConfigError(f"fault {name!r}: severity {severity} must lie in 0..1")
        onset_s = float(self._fleet.elapsed_s)
        event = FaultEvent(name=name, onset_s=onset_s, ramp_s=ramp_s, severity=severity, signal=signal)
        check_signal(event, self.plant)
        self._fleet.faults[0].append(event)

    def clear(self, name: str | None = None) -> None:
        """End one fault, or all of them, now."""
        now = float(self._fleet.elapsed_s)
        faults = self._fleet.faults[0]
        faults[:] = [replace(f, end_s=now) if name in (None, f.name) and f.end_s is None else f for f in faults]

    def set(self, signal: str, value: float) -> None:
        """Move a setpoint, the vibrator or the refill valve."""
        self._fleet.set(0, signal, value)

    def active(self) -> dict[str, float]:
        """Present faults with their severity."""
        return {name: level for name, level in self._fleet.fault(0).items() if level > 0.0}

    def truth(self) -> dict[str, float]:
        """Hidden state and severities now, with ``t_ns``."""
        return truth_row(self._fleet, 0, self.t_ns)

    def _second(self) -> list[Item]:
        line, tick = self._fleet.line, self._fleet.elapsed_s
        start_ns = self.t_ns
        fault = self._fleet.fault(0)
        speeds = self._audible({name: float(value[0]) for name, value in line.shafts().items()})
        phases = {name: float(value[0]) for name, value in line.phase.items()}
        pictures: list[Sample] = []
        every = max(1, round(STEPS_PER_S / self.scenario.sensors.camera_hz))

        def look(step: int) -> None:
            if self._camera and (step + 1) % every == 0:
                pictures.append(
                    self._picture(tick * STEPS_PER_S + step, start_ns + (step + 1) * NS_PER_S // STEPS_PER_S, fault)
                )

        readings = self._fleet.second(look)
        items: list[Item] = [self._columns(readings, start_ns + NS_PER_S), *pictures]
        if self._microphone:
            feed, warm = float(line.feed_rate[0]), float(line.temperature[0])
            machines = Machines(phase=phases, speed=speeds, feed_kg_s=feed, slaker_degc=warm)
            items.extend(self._chunks(tick, machines, fault, start_ns))
        items.extend(self._scans(tick, fault, start_ns))
        return self._network.deliver(items, tick, start_ns + NS_PER_S, self._fleet.delayed(0))

    def _columns(self, readings: dict[str, NDArray[np.float64]], end_ns: int) -> Columns:
        t_ns = end_ns - self._offset_ns
        n = len(self._process)
        return Columns(
            signals=tuple(s.name for s in self._process),
            index=np.arange(n, dtype=np.int32),
            t_ns=t_ns,
            received_ns=t_ns,
            value=np.array([readings[s.name][0] for s in self._process]),
            quality=np.full(n, Quality.GOOD, np.uint8),
            clock="process",
        )

    def _picture(self, frame: int, t_ns: int, fault: dict[str, float]) -> Sample:
        assert self._camera is not None  # noqa: S101 - callers check
        belt = self._fleet.line.belt
        load = belt.profile(0, self._edges)
        _, light = truck_and_light(self._fleet, 0, frame)
        picture = self._pictures.picture(frame, self._visible(float(belt.travel[0])), load, fault, light)
        if fault.get("frozen_camera", 0.0) > 0.0:
            self._frozen_picture = picture if self._frozen_picture is None else self._frozen_picture
            picture = self._frozen_picture
        else:
            self._frozen_picture = None
        return Sample(signal=self._camera.name, t_ns=t_ns, received_ns=t_ns, value=picture, clock=self._camera.name)

    def _visible(self, travel_m: float) -> float:
        """Where the bed seems to be: it runs backwards where that law is broken."""
        if not self._fleet.broken(0).get("bed_against_drive"):
            self._turned_m = None
            return travel_m
        self._turned_m = travel_m if self._turned_m is None else self._turned_m
        return 2.0 * self._turned_m - travel_m

    def _audible(self, speeds: dict[str, float]) -> dict[str, float]:
        """The shaft speeds as they sound."""
        silent = self._fleet.broken(0).get("sound_of_stopped_machine", 0.0)
        return {name: speed * (1.0 - silent * (name in ("pump", "belt"))) for name, speed in speeds.items()}

    def _chunks(self, tick: int, machines: Machines, fault: dict[str, float], start_ns: int) -> list[Sample]:
        assert self._microphone is not None  # noqa: S101 - callers check
        name = self._microphone.name
        sound = self._sound.second(tick, machines, fault, self._fleet.nuisance(0, "truck"))
        size = RATE_HZ // CHUNKS_PER_S
        times = [start_ns + i * NS_PER_S // CHUNKS_PER_S for i in range(CHUNKS_PER_S)]
        step_ns = NS_PER_S // CHUNKS_PER_S
        return [
            Sample(signal=name, t_ns=t, received_ns=t + step_ns, value=sound[i * size : (i + 1) * size], clock=name)
            for i, t in enumerate(times)
        ]

    def _scans(self, tick: int, fault: dict[str, float], start_ns: int) -> list[Sample]:
        if self._lidar is None or self._scanner is None:
            return []
        silo, per_s = self._fleet.line.silo, max(1, round(self.scenario.sensors.lidar_hz))
        dust = max(self._fleet.nuisance(0, "fill"), float(self._fleet.line.refill[0] > 0.0))
        scans = []
        for i in range(per_s):
            t_ns = start_ns + (i + 1) * NS_PER_S // per_s - NS_PER_S // 100
            cloud = self._scanner.scan(tick * per_s + i, silo, 0, fault, dust)
            scans.append(
                Sample(signal=self._lidar.name, t_ns=t_ns, received_ns=t_ns, value=cloud, clock=self._lidar.name)
            )
        return scans
