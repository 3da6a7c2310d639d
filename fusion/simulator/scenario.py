"""Scenario files: what happens to the simulated plant, and when. Times are seconds after the start of the recording."""

from __future__ import annotations

import dataclasses
import types
import typing
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from fusion.errors import ConfigError
from fusion.plain import decode, plain, read_yaml
from fusion.simulator.line.faults import FAULTS, NUISANCES
from fusion.simulator.line.laws import LAWS

DEFAULT_START = "2026-01-05T06:00:00Z"


@dataclass(frozen=True, kw_only=True)
class Sensors:
    """Rates of the media streams [Hz]; the sound is always 16 kHz."""

    camera_hz: float = 10.0
    lidar_hz: float = 5.0


@dataclass(frozen=True, kw_only=True)
class ExcitationSettings:
    """Random moves of the setpoints: on average one every ``mean_interval_s`` per signal, within ``ranges``.

    Half of them are steps, half are ramps. Without ``ranges`` each signal moves within ``share`` of its limits.
    """

    enabled: bool = False
    mean_interval_s: float = 400.0
    share: float = 0.7
    ranges: Mapping[str, tuple[float, float]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class FaultEvent:
    """A fault: from ``onset_s`` it grows over ``ramp_s`` to ``severity`` (0..1) and ends at ``end_s``."""

    name: str
    onset_s: float = 0.0
    ramp_s: float = 0.0
    severity: float = 1.0
    end_s: float | None = None
    signal: str | None = None


@dataclass(frozen=True, kw_only=True)
class NuisanceEvent:
    """Something ordinary that must not alarm."""

    name: str
    onset_s: float = 0.0
    duration_s: float = 60.0
    severity: float = 1.0


@dataclass(frozen=True, kw_only=True)
class LawEvent(FaultEvent):
    """A law that does not hold, in time like a fault; ``signal`` is the setpoint of a law about actions."""


@dataclass(frozen=True, kw_only=True)
class OperatorMove:
    """The operator brings a signal to ``value`` at ``at_s``, at once or over ``ramp_s``."""

    signal: str
    at_s: float
    value: float
    ramp_s: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Network:
    """What happens between sensor and receiver; ``skew_s`` shifts the clock of each named signal or of ``process``."""

    delay_s: float = 0.01
    jitter_s: float = 0.01
    loss: float = 0.0
    late: float = 0.0
    late_s: float = 3.0
    skew_s: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Scenario:
    """A run of the simulated plant; ``parameters`` overrides drawn constants, ``setpoints`` the start values.

    ``seed`` draws the day (feed, weather, noise). ``plant_seed`` draws another plant of the same kind; null is the
    reference plant. A ``plant_spread`` above one draws it from plants that differ by that factor.
    """

    name: str = "normal"
    seed: int = 0
    start: str = DEFAULT_START
    plant_seed: int | None = None
    plant_spread: float = 1.0
    duration_s: float = 3600.0
    warmup_s: float = 900.0
    media: bool = True
    drift: float = 1.0
    sensors: Sensors = field(default_factory=Sensors)
    excitation: ExcitationSettings = field(default_factory=ExcitationSettings)
    parameters: Mapping[str, float] = field(default_factory=dict)
    setpoints: Mapping[str, float] = field(default_factory=dict)
    faults: tuple[FaultEvent, ...] = ()
    nuisances: tuple[NuisanceEvent, ...] = ()
    moves: tuple[OperatorMove, ...] = ()
    laws: tuple[LawEvent, ...] = ()
    network: Network = field(default_factory=Network)

    def __post_init__(self) -> None:
        """Reject names that do not exist and times that make no sense."""
        _known("faults", FAULTS, self.faults)
        _known("nuisances", NUISANCES, self.nuisances)
        _known("laws", LAWS, self.laws)
        if self.duration_s <= 0 or self.warmup_s < 0:
            raise ConfigError("scenario: duration_s must be positive and warmup_s not negative")
        if not 1.0 <= self.plant_spread <= 10.0:
            raise ConfigError(f"scenario.plant_spread: {self.plant_spread} is not accepted; expected 1 to 10")
        for fault in self.faults:
            if not 0.0 <= fault.severity <= 1.0 or fault.ramp_s < 0:
                raise ConfigError(
                    f"scenario.faults: {fault.name}: severity must lie in 0..1 and ramp_s must not be negative"
                )

    @property
    def start_ns(self) -> int:
        """UTC nanoseconds of the start."""
        try:
            moment = datetime.fromisoformat(self.start)
        except ValueError as error:
            raise ConfigError(f"scenario.start: {self.start!r} is not an ISO time such as {DEFAULT_START}") from error
        moment = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
        return int(moment.timestamp()) * 1_000_000_000

    @property
    def kind(self) -> str:
        """``fault`` where the scenario holds one or breaks a law, else ``normal``."""
        return "fault" if self.faults or self.laws else "normal"


def _known(part: str, known: Mapping[str, Any], events: tuple[Any, ...]) -> None:
    for i, event in enumerate(events):
        if event.name not in known:
            raise ConfigError(f"scenario.{part}[{i}].name: {event.name!r} is not known; accepted: {', '.join(known)}")


def load_scenario(path: Path) -> Scenario:
    """A scenario from YAML.

    Raises:
        ConfigError: naming the file, the key and what would be accepted.
    """
    data = read_yaml(path, "a scenario YAML") or {}
    try:
        return scenario_from_dict({"name": path.stem} | data if isinstance(data, dict) else data)
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from error


def scenario_from_dict(data: Mapping[str, Any]) -> Scenario:
    """A scenario from plain values, with strict keys."""
    return decode(data, Scenario, "scenario")


def scenario_text(scenario: Scenario) -> str:
    """The scenario as YAML that ``load_scenario`` reads back."""
    return yaml.safe_dump(plain(scenario), sort_keys=False)


def json_schema() -> dict[str, Any]:
    """The JSON Schema of scenario files, for editors and for people who write scenarios."""
    schema = _schema(Scenario)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "Scenario", **schema}


def _schema(kind: Any) -> dict[str, Any]:
    origin, inner = typing.get_origin(kind), typing.get_args(kind)
    if dataclasses.is_dataclass(kind) and isinstance(kind, type):
        return _object_schema(kind)
    if origin in (types.UnionType, typing.Union):
        return {"anyOf": [_schema(inner[0]), {"type": "null"}]}
    if origin is tuple:
        size = {} if inner[-1] is Ellipsis else {"minItems": len(inner), "maxItems": len(inner)}
        return {"type": "array", "items": _schema(inner[0]), **size}
    if origin is not None:
        return {"type": "object", "additionalProperties": _schema(inner[1])}
    return {"type": {str: "string", float: "number", int: "integer", bool: "boolean"}[kind]}


def _object_schema(kind: type) -> dict[str, Any]:
    properties = {name: _schema(hint) for name, hint in typing.get_type_hints(kind).items()}
    names = {FaultEvent: FAULTS, NuisanceEvent: NUISANCES, LawEvent: LAWS}.get(kind)
    if names:
        properties["name"]["enum"] = list(names)
    text = (kind.__doc__ or "").split("\n\n")[0].replace("\n    ", " ")
    return {"type": "object", "description": text, "properties": properties, "additionalProperties": False}
