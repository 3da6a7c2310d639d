"""Settings of the verifier, checked against the plant before anything is connected.

Source: NAMUR NE 178, verification of request.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from connectors.opcua.config import OpcUaConfig
from connectors.opcua.nodes import NodeAddress, parse_node
from connectors.settings import take_beside
from fusion.config import compose
from fusion.errors import ConfigError
from fusion.mqtt.broker import Broker
from fusion.plain import decode
from fusion.plant import Plant, Role, Signal
from fusion.plant_file import load_plant


@dataclass(kw_only=True, slots=True)
class LoopConfig:
    """One setpoint that may be written: where it is, and what is allowed, in ``unit``.

    It is written only while ``mode_node`` has ``mode_value``. Where ``release_node`` is given, ``release_value`` is
    written there to hand the loop back. ``low``, ``high`` and ``rate`` [unit/s] default to those of the plant file and
    may only be tighter; ``largest_step`` [unit] is the most that one advice may move it, a quarter of the range if 0.
    """

    node: str
    unit: str
    mode_node: str
    mode_value: float = 1.0
    release_node: str = ""
    release_value: float = 0.0
    low: float | None = None
    high: float | None = None
    rate: float | None = None
    largest_step: float = 0.0


@dataclass(kw_only=True, slots=True)
class HeartbeatConfig:
    """Counters by which each side sees that the other lives: we write ``ours``, the control system ``theirs``.

    What has not changed for ``timeout_s`` is silent; the same holds of the daemon's health on MQTT.
    """

    ours: str
    theirs: str
    timeout_s: float = 10.0

    def __post_init__(self) -> None:
        """Reject a patience that is none."""
        if self.timeout_s <= 0:
            raise ConfigError(f"heartbeat.timeout_s: {self.timeout_s} must be positive")


@dataclass(kw_only=True, slots=True)
class VerifierConfig:
    """Everything `fusion verify` needs; names of files are relative to the folder of the configuration.

    ``loops`` is the whitelist: signals of the plant that may be written, and nothing else is. ``enable_node`` is the
    kill switch in the control system: while it is not true, nothing is written. ``supervised`` lets advice of that mode
    be followed unasked; ``accepted_by`` are the names whose acceptance counts, all where it is empty.
    """

    SECTION: ClassVar[str] = ""

    plant: str
    opcua: OpcUaConfig
    loops: dict[str, LoopConfig]
    heartbeat: HeartbeatConfig
    enable_node: str
    broker: Broker = field(default_factory=Broker)
    supervised: bool = False
    accepted_by: list[str] = field(default_factory=list)
    interval_s: float = 1.0
    tolerance: float = 1e-3

    def __post_init__(self) -> None:
        """Reject what could write nothing, or would hardly look."""
        if not self.loops:
            raise ConfigError("loops: missing; expected the setpoints that may be written")
        if not 0 < self.interval_s <= self.heartbeat.timeout_s / 2:
            raise ConfigError("interval_s: must be positive and at most half of heartbeat.timeout_s")
        if not 0 < self.tolerance < 0.1:
            raise ConfigError(f"tolerance: {self.tolerance} must be a small share of a range, below 0.1")


@dataclass(frozen=True, slots=True, kw_only=True)
class Loop:
    """A setpoint that may be written, with everything that is checked, in ``unit``."""

    signal: str
    unit: str
    low: float
    high: float
    rate: float
    largest_step: float
    mode_value: float
    tolerance: float
    release_value: float | None


def load_verifier_config(file: Path, overrides: Sequence[str] = ()) -> VerifierConfig:
    """Compose the verifier's configuration and make its names of files absolute.

    Raises:
        ConfigError: naming the key and what would be accepted.
    """
    values = compose(file, overrides)
    try:
        config = decode(values, VerifierConfig)
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    base = file.resolve().parent
    take_beside(config, base, "plant")
    config.broker.beside(base)
    config.opcua.beside(base)
    return config


def checked_loops(config: VerifierConfig, plant: Plant) -> dict[str, Loop]:
    """The whitelist, each loop with limits that the plant allows.

    Raises:
        ConfigError: naming the key: a signal that is not to be moved, limits that contradict, a unit that is another.
    """
    return {name: _loop(f"loops.{name}", name, loop, config, plant) for name, loop in config.loops.items()}


def addresses(config: VerifierConfig) -> dict[str, NodeAddress]:
    """Every node by the key that names it.

    Raises:
        ConfigError: a node that is none.
    """
    texts = {"enable_node": config.enable_node}
    texts |= {"heartbeat.ours": config.heartbeat.ours, "heartbeat.theirs": config.heartbeat.theirs}
    for name, loop in config.loops.items():
        texts |= {f"loops.{name}.node": loop.node, f"loops.{name}.mode_node": loop.mode_node}
        texts |= {f"loops.{name}.release_node": loop.release_node} if loop.release_node else {}
    return {key: parse_node(key, text) for key, text in texts.items()}


def read_plant(config: VerifierConfig) -> Plant:
    """The plant that the configuration names."""
    return load_plant(Path(config.plant))


def _loop(key: str, name: str, loop: LoopConfig, config: VerifierConfig, plant: Plant) -> Loop:
    signal = _movable(key, name, plant)
    if loop.unit != signal.unit:
        raise ConfigError(f"{key}.unit: {loop.unit!r} is not that of the plant file; expected {signal.unit!r}")
    plant_low, plant_high = signal.low, signal.high
    if plant_low is None or plant_high is None or signal.max_rate is None:
        raise ConfigError(f"{key}: {name!r} has no low, high and max_rate in the plant file; it is never written")
    low = plant_low if loop.low is None else loop.low
    high = plant_high if loop.high is None else loop.high
    if not plant_low <= low < high <= plant_high:
        raise ConfigError(
            f"{key}: low {low:g}, high {high:g} contradict; expected within {plant_low:g} to {plant_high:g}"
        )
    rate = signal.max_rate if loop.rate is None else loop.rate
    if not 0 < rate <= signal.max_rate:
        raise ConfigError(f"{key}.rate: {rate:g} is not accepted; expected above 0, at most {signal.max_rate:g}")
    step = loop.largest_step or (high - low) / 4
    if not 0 < step <= high - low or not math.isfinite(loop.mode_value):
        raise ConfigError(f"{key}.largest_step: {step:g} is not accepted; expected above 0, at most {high - low:g}")
    return Loop(
        signal=name,
        unit=signal.unit,
        low=low,
        high=high,
        rate=rate,
        largest_step=step,
        mode_value=loop.mode_value,
        tolerance=config.tolerance * (high - low),
        release_value=loop.release_value if loop.release_node else None,
    )


def _movable(key: str, name: str, plant: Plant) -> Signal:
    signal = plant.by_name.get(name)
    if signal is None or signal.role is not Role.MANIPULATED:
        what = "is not in the plant file" if signal is None else f"is {signal.role.value}, nothing to write"
        accepted = ", ".join(s.name for s in plant.actions if s.max_rate is not None)
        raise ConfigError(f"{key}: {name!r} {what}; accepted: {accepted or 'none'}")
    return signal
