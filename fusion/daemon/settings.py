"""Settings of the daemon: its YAML as one dataclass, made of those that its components own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from connectors.kinds import KINDS, settings_of
from connectors.settings import take_beside
from control.advice.advisor import AdvisorConfig
from control.anomaly.alarms import AlarmConfig
from control.anomaly.detector import DetectorConfig
from fusion.config import compose, register
from fusion.daemon.fleet import FleetForecastConfig
from fusion.daemon.http import HttpConfig
from fusion.daemon.learning import LearnConfig
from fusion.errors import ConfigError
from fusion.plain import decode
from fusion.publish.publisher import PublisherConfig
from fusion.recordings.recorder import RecorderConfig
from fusion.timeline.timeline import TimelineConfig


@dataclass(kw_only=True, slots=True)
class DaemonConfig:
    """Everything `fusion run` needs; names of files are relative to the folder that holds the configuration.

    ``plant`` is a plant YAML, ``model`` a checkpoint folder; with ``model_key``, a public key, one that its owner
    signed. ``connectors`` names one source each, with its ``kind`` beside its settings; hydra's long form says the kind
    in the defaults list (``- connector/opcua@connectors.plc``).
    ``learn`` makes models of what ``record`` keeps; then ``model`` is only what is used before the first of them.
    ``fleet`` forecasts where there is none yet. ``life`` is a file of `fusion life`, by which remaining life is told.
    ``whatif_per_minute`` questions of what happens if something is moved are answered. Supervised is left where the
    verifier was not heard for ``verifier_timeout_s``.
    ``advise`` switches advice on; it stays HOLD where the model's licence does not allow it. ``record`` keeps what
    arrives. ``state`` is the folder that carries alarms and open events over a restart; with "" nothing is kept. In it
    are the last ``memory_s`` of ticks, by which a model takes up where it was unless more than ``memory_gap_s`` have
    passed since.
    """

    plant: str
    model: str = ""
    connectors: dict[str, Any] = field(default_factory=dict)
    timeline: TimelineConfig = field(default_factory=TimelineConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    alarms: AlarmConfig = field(default_factory=AlarmConfig)
    advisor: AdvisorConfig = field(default_factory=AdvisorConfig)
    publish: PublisherConfig = field(default_factory=PublisherConfig)
    record: RecorderConfig = field(default_factory=RecorderConfig)
    learn: LearnConfig = field(default_factory=LearnConfig)
    fleet: FleetForecastConfig = field(default_factory=FleetForecastConfig)
    http: HttpConfig = field(default_factory=HttpConfig)
    model_key: str = ""
    life: str = ""
    advise: bool = True
    whatif_per_minute: int = 30
    verifier_timeout_s: float = 10.0
    forecast_every_s: float = 5.0
    advise_every_s: float = 30.0
    state: str = "var/state"
    memory_s: float = 3600.0
    memory_gap_s: float = 600.0

    def __post_init__(self) -> None:
        """Reject a memory of less than nothing."""
        if self.memory_s < 0 or self.memory_gap_s < 0:
            raise ConfigError("memory_s, memory_gap_s: must not be negative; 0 keeps no ticks")
        if not 0 < self.verifier_timeout_s < float("inf"):
            raise ConfigError(f"verifier_timeout_s: {self.verifier_timeout_s} must be positive")
        if self.whatif_per_minute < 0:
            raise ConfigError("whatif_per_minute: must not be negative; 0 answers no question")
        if self.learn.models and not self.record.folder:
            raise ConfigError("learn.models: learning needs record.folder, where recordings go")


def load_daemon_config(file: Path, overrides: Sequence[str] = ()) -> DaemonConfig:
    """Compose a daemon configuration and make its names of files absolute.

    Raises:
        ConfigError: naming the key and what would be accepted.
    """
    register("daemon_schema", {"connector": tuple(KINDS)})
    values = compose(file, overrides)
    try:
        config = decode(values, DaemonConfig)
        config.connectors = {n: settings_of(v, f"connectors.{n}") for n, v in config.connectors.items()}
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    base = file.resolve().parent
    take_beside(config, base, "plant", "model", "model_key", "life", "state")
    take_beside(config.publish, base, "outbox")
    take_beside(config.record, base, "folder")
    take_beside(config.learn, base, "models")
    take_beside(config.fleet, base, "model")
    for part in (config.publish, *config.connectors.values()):
        part.beside(base)
    return config
