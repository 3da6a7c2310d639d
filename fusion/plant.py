"""The plant: signals, their modality and role, the plant and its fingerprint; no behaviour beyond lookup."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from functools import cached_property
from typing import Any

from fusion.errors import ConfigError
from fusion.targets import Target, check_agreement


class Modality(StrEnum):
    """The kind of sensor a signal comes from."""

    PROCESS = "process"
    VIDEO = "video"
    AUDIO = "audio"
    LIDAR = "lidar"


class Role(StrEnum):
    """What a signal is to control."""

    MEASURED = "measured"
    CONTROLLED = "controlled"
    MANIPULATED = "manipulated"
    DISTURBANCE = "disturbance"


SHAPES: Mapping[Modality, tuple[tuple[str | int, ...], ...]] = {
    Modality.PROCESS: ((),),
    Modality.VIDEO: (("height", "width"), ("height", "width", 3)),
    Modality.AUDIO: (("samples",),),
    Modality.LIDAR: (("points", 4),),
}
"""What one sample of a modality may look like; a word stands for any positive number."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Signal:
    """One stream of values.

    ``shape`` is that of one sample: ``()`` for a process value, ``(height, width)`` for a picture, ``(n,)`` for an
    audio chunk of ``period_s`` (so the sampling rate is ``n / period_s``), ``(points, 4)`` for a point cloud of
    x, y, z [m] and intensity in the sensor frame. ``low`` and ``high`` are engineering limits [unit]. A manipulated
    signal without ``max_rate`` [unit/s] conditions the model but is never recommended. ``pose`` places a LiDAR in
    the plant frame: x, y, z [m], roll, pitch, yaw [rad]. Signals of one ``device`` fail together (default: each is its
    own). ``machine`` marks what a valve or drive does (its position, speed or current): where such a tag alone
    contradicts the others, the machine is at fault and not an instrument. Values of an ``operating_state`` say whether
    the plant runs, stands or is cleaned; where no tag does, states are looked for in all. ``auto_tag`` of a manipulated
    signal names the process signal that is not zero while its loop takes a setpoint; a loop without one always does.
    ``equipment`` names the part of the plant that it belongs to, for overviews.
    """

    name: str
    modality: Modality = Modality.PROCESS
    unit: str = "1"
    shape: tuple[int, ...] = ()
    period_s: float = 1.0
    stale_after_s: float = 5.0
    role: Role = Role.MEASURED
    low: float | None = None
    high: float | None = None
    max_rate: float | None = None
    pose: tuple[float, ...] = ()
    description: str = ""
    device: str = ""
    machine: bool = False
    operating_state: bool = False
    auto_tag: str = ""
    equipment: str = ""

    def __post_init__(self) -> None:
        """Reject limits and periods that no plant has."""
        if self.period_s <= 0 or self.stale_after_s <= 0:
            raise ConfigError(f"signal {self.name!r}: period_s and stale_after_s must be positive")
        if not _fits(self.shape, self.modality):
            accepted = " or ".join(str(list(shape)) for shape in SHAPES[self.modality]).replace("'", "")
            raise ConfigError(f"signal {self.name!r}: shape {list(self.shape)} of {self.modality}; expected {accepted}")
        if self.low is not None and self.high is not None and not self.low < self.high:
            raise ConfigError(f"signal {self.name!r}: low {self.low} must be below high {self.high}")
        if self.role is Role.MANIPULATED and (self.low is None or self.high is None):
            raise ConfigError(f"signal {self.name!r}: a manipulated signal needs low and high")
        if self.max_rate is not None and self.role is not Role.MANIPULATED:
            raise ConfigError(f"signal {self.name!r}: max_rate is for manipulated signals; its role is {self.role}")
        if self.auto_tag and self.role is not Role.MANIPULATED:
            raise ConfigError(f"signal {self.name!r}: auto_tag is for manipulated signals")
        if self.operating_state and (self.modality is not Modality.PROCESS or self.role is Role.MANIPULATED):
            raise ConfigError(f"signal {self.name!r}: operating_state is for process tags that nobody manipulates")
        if self.max_rate is not None and self.max_rate <= 0:
            raise ConfigError(f"signal {self.name!r}: max_rate must be positive")
        if self.pose and len(self.pose) != 6:
            raise ConfigError(f"signal {self.name!r}: pose is x, y, z, roll, pitch, yaw")

    @property
    def rate_hz(self) -> float:
        """Values per second: samples of an audio signal, records of any other."""
        return (self.shape[0] if self.modality is Modality.AUDIO else 1) / self.period_s


def _fits(shape: Sequence[int], modality: Modality) -> bool:
    """Whether a sample of a modality can be of a shape: words stand for any positive number."""
    return any(
        len(shape) == len(like)
        and all(n > 0 if isinstance(n_like, str) else n == n_like for n, n_like in zip(shape, like, strict=True))
        for like in SHAPES[modality]
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Gain:
    """The engineer's knowledge of one steady-state gain d(controlled)/d(manipulated).

    ``sign`` is -1, 0 or +1 (0 declares: no effect). ``low`` and ``high`` bound the magnitude where known, in
    units of controlled per unit of manipulated.
    """

    manipulated: str
    controlled: str
    sign: int
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Reject a sign that is none, and bounds that no magnitude can meet."""
        where = f"gain {self.manipulated}->{self.controlled}"
        if self.sign not in (-1, 0, 1):
            raise ConfigError(f"{where}: sign must be -1, 0 or 1")
        low = 0.0 if self.low is None else self.low
        if low < 0 or (self.high is not None and not low < self.high):
            raise ConfigError(
                f"{where}: low {self.low} and high {self.high} bound a magnitude; expected 0 <= low < high"
            )
        if self.sign == 0 and (self.low is not None or self.high is not None):
            raise ConfigError(f"{where}: sign 0 declares that there is no effect; low and high contradict it")


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """A conservation law: ``capacity * d(level)/dt = sum(coefficient * flow)``, or with no level, ``sum == 0``.

    ``flows`` maps signal names, or products such as ``FT101*TT101``, to nominal coefficients in the unit of
    ``capacity`` times level per second; the linear core refines them on normal data. ``window_s`` are the accumulation
    windows.
    """

    name: str
    flows: Mapping[str, float]
    level: str | None = None
    capacity: float = 1.0
    window_s: tuple[float, ...] = (120.0, 600.0)

    @property
    def signals(self) -> tuple[str, ...]:
        """Every signal of the law once, the level first."""
        flows = (factor for flow in self.flows for factor in factors(flow))
        return tuple(dict.fromkeys((*((self.level,) if self.level else ()), *flows)))


def factors(flow: str) -> tuple[str, ...]:
    """The signals whose product a flow of a balance is."""
    return tuple(name.strip() for name in flow.split("*"))


@dataclass(frozen=True, kw_only=True)
class Plant:
    """A named set of signals on one time grid, with what the engineer declares about them.

    ``edges`` is the tag graph as pairs of signal names (flow of material or information).
    """

    name: str
    step_s: float = 1.0
    signals: tuple[Signal, ...]
    gains: tuple[Gain, ...] = ()
    balances: tuple[Balance, ...] = ()
    targets: tuple[Target, ...] = ()
    edges: tuple[tuple[str, str], ...] = ()

    def __post_init__(self) -> None:
        """Check every reference between the parts."""
        if len(self.by_name) != len(self.signals):
            raise ConfigError(f"plant {self.name!r}: signal names must be unique")
        self._check_declared()
        for where, name in self._references():
            if name not in self.by_name:
                raise ConfigError(f"plant {self.name!r}: {where} names unknown signal {name!r}")
            if where == "auto_tag" and self.by_name[name].modality is not Modality.PROCESS:
                raise ConfigError(f"plant {self.name!r}: auto_tag names {name!r}; expected a process tag")

    def _check_declared(self) -> None:
        """What the engineer declares of control must be about signals that can be meant, and agree with itself."""
        for gain in self.gains:
            where = f"gains: {gain.manipulated}->{gain.controlled}"
            self._expect(where, gain.manipulated, "manipulated", lambda s: s.role is Role.MANIPULATED)
            self._expect(where, gain.controlled, "a process tag", _is_tag)
        pairs = [(g.manipulated, g.controlled) for g in self.gains]
        if twice := [pair for pair in pairs if pairs.count(pair) > 1]:
            raise ConfigError(f"gains: {'->'.join(twice[0])} is declared twice; expected once")
        for name in dict.fromkeys(target.signal for target in self.targets):
            self._expect(f"targets: {name!r}", name, "a process signal", lambda s: s.modality is Modality.PROCESS)
            signal = self.by_name.get(name)
            ends = (signal.low, signal.high) if signal else (None, None)
            check_agreement([t for t in self.targets if t.signal == name], *ends)

    def _expect(self, where: str, name: str, what: str, accepts: Callable[[Signal], bool]) -> None:
        signal = self.by_name.get(name)
        if signal is not None and not accepts(signal):
            kind = signal.modality if signal.modality is not Modality.PROCESS else signal.role
            raise ConfigError(f"{where}: {name!r} is {kind}; expected {what}")

    def _references(self) -> list[tuple[str, str]]:
        found = [("gains", n) for g in self.gains for n in (g.manipulated, g.controlled)]
        found += [("auto_tag", s.auto_tag) for s in self.signals if s.auto_tag]
        found += [("balances", n) for b in self.balances for n in b.signals]
        found += [("targets", t.signal) for t in self.targets]
        return found + [("edges", n) for e in self.edges for n in e]

    @cached_property
    def by_name(self) -> Mapping[str, Signal]:
        """Every signal under its name."""
        return {s.name: s for s in self.signals}

    def of(self, *modalities: Modality) -> tuple[Signal, ...]:
        """Signals of the given modalities, in plant order."""
        return tuple(s for s in self.signals if s.modality in modalities)

    def roles(self, *roles: Role) -> tuple[Signal, ...]:
        """Signals of the given roles, in plant order."""
        return tuple(s for s in self.signals if s.role in roles)

    @cached_property
    def tags(self) -> tuple[Signal, ...]:
        """Process signals that are observed, that is all but the manipulated ones: S columns, in plant order."""
        return tuple(s for s in self.of(Modality.PROCESS) if s.role is not Role.MANIPULATED)

    @cached_property
    def actions(self) -> tuple[Signal, ...]:
        """Manipulated process signals: A columns, in plant order."""
        return self.roles(Role.MANIPULATED)

    @cached_property
    def media(self) -> tuple[Signal, ...]:
        """Signals that are not process values, in plant order."""
        return self.of(Modality.VIDEO, Modality.AUDIO, Modality.LIDAR)

    @cached_property
    def essentials(self) -> Mapping[str, Any]:
        """What a model of this plant depends on, by what it is called, in whatever order it is listed.

        Of a signal its modality, unit, shape and role, the sampling of a medium and the place of a LiDAR; the step, the
        declared gains (a licence is granted by them), balances and edges. Words, limits, rates of change, targets and
        what is only looked up at run time are not among them: they are the site's to change.
        """
        gains = {f"gain {g.manipulated}->{g.controlled}": _plain(g) for g in self.gains}
        balances = {f"balance {b.name}": _plain(b) for b in self.balances}
        edges = {f"edge {'-'.join(edge)}": edge for edge in sorted({tuple(sorted(edge)) for edge in self.edges})}
        signals = {f"signal {s.name}": learned(s) for s in self.signals}
        return {"name": self.name, "step_s": self.step_s, **signals, **gains, **balances, **edges}

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of the essentials: a model fits every plant with the fingerprint of the one it was trained on."""
        text = json.dumps(self.essentials, sort_keys=True, separators=(",", ":"))
        return hashlib.sha256(text.encode()).hexdigest()


def _is_tag(signal: Signal) -> bool:
    return signal.modality is Modality.PROCESS and signal.role is not Role.MANIPULATED


def parse_moves(texts: Sequence[str], plant: Plant) -> dict[str, float]:
    """``SIGNAL=VALUE`` as typed by a user, in engineering units.

    Raises:
        ConfigError: naming the signals that can be moved, or the limits of one.
    """
    movable = {signal.name: signal for signal in plant.actions}
    moves = {}
    for text in texts:
        name, _, value = text.partition("=")
        signal = movable.get(name)
        if signal is None:
            raise ConfigError(f"--set {text}: {name!r} cannot be moved; accepted: {', '.join(movable)}")
        try:
            moves[name] = float(value)
        except ValueError as error:
            raise ConfigError(f"--set {text}: {value!r} is not a number; expected SIGNAL=VALUE") from error
        if signal.low is not None and signal.high is not None and not signal.low <= moves[name] <= signal.high:
            raise ConfigError(f"--set {text}: expected {signal.low:g} to {signal.high:g} {signal.unit}")
    return moves


def learned(signal: Signal) -> dict[str, Any]:
    """What of a signal a model depends on, as plain values."""
    kept = ["modality", "unit", "shape", "role"]
    kept += ["period_s"] if signal.modality is not Modality.PROCESS else []
    kept += ["pose"] if signal.modality is Modality.LIDAR else []
    return {name: _plain_value(getattr(signal, name)) for name in kept}


PARTS: dict[str, type] = {"signals": Signal, "gains": Gain, "balances": Balance, "targets": Target}


def plant_to_dict(plant: Plant) -> dict[str, Any]:
    """The plant as plain values that YAML and JSON can hold; inverse of ``plant_from_dict``."""
    return {
        "name": plant.name,
        "step_s": plant.step_s,
        **{part: [_plain(item) for item in getattr(plant, part)] for part in PARTS},
        "edges": [list(edge) for edge in plant.edges],
    }


def _plain(item: Any) -> dict[str, Any]:
    values = {f.name: getattr(item, f.name) for f in dataclasses.fields(item)}
    return {k: _plain_value(v) for k, v in values.items()}


def _plain_value(value: Any) -> Any:
    if isinstance(value, StrEnum):
        return value.value
    if isinstance(value, tuple):
        return [_plain_value(item) for item in value]
    if dataclasses.is_dataclass(value):
        return _plain(value)
    return dict(value) if isinstance(value, Mapping) else value
