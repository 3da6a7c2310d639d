"""The one file that knows hydra: registers the schemas, composes YAML and overrides, returns plain dataclasses.

Schema and defaults travel with the code (each component owns its dataclass), YAML travels with the plant.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import MISSING, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from connectors.lidar.config import LidarConfig
from connectors.media.audio import AudioConfig
from connectors.media.video import VideoConfig
from connectors.mqtt.config import MqttConfig
from connectors.opcua.config import OpcUaConfig
from connectors.replay import ReplayConfig
from control.advice.advisor import AdvisorConfig
from control.anomaly.detector import DetectorConfig
from fusion.errors import ConfigError
from fusion.timeline.timeline import TimelineConfig

CONNECTORS: dict[str, type] = {
    "opcua": OpcUaConfig,
    "mqtt": MqttConfig,
    "video": VideoConfig,
    "audio": AudioConfig,
    "lidar": LidarConfig,
    "replay": ReplayConfig,
}


@dataclass(kw_only=True, slots=True)
class PublishConfig:
    """Where results go: an MQTT broker; ``outbox`` is the file that keeps what was not yet acknowledged."""

    host: str = "127.0.0.1"
    port: int = 1883
    protocol: str = "auto"
    username: str | None = None
    password_file: str | None = None
    outbox: str = "var/outbox.sqlite"


@dataclass(kw_only=True, slots=True)
class DaemonConfig:
    """Everything `fusion run` needs; paths are relative to the folder that holds the configuration.

    ``plant`` is a plant YAML, ``model`` a checkpoint folder. ``connectors`` names one source each; give its kind
    in the defaults list (``- connector/opcua@connectors.plc``) and its settings under the same name. ``advise``
    switches advice on; it stays HOLD where the model's licence does not allow it.
    """

    plant: str = MISSING
    model: str = MISSING
    connectors: dict[str, Any] = field(default_factory=dict)
    timeline: TimelineConfig = field(default_factory=TimelineConfig)
    detector: DetectorConfig = field(default_factory=DetectorConfig)
    advisor: AdvisorConfig = field(default_factory=AdvisorConfig)
    publish: PublishConfig = field(default_factory=PublishConfig)
    advise: bool = True
    forecast_every_s: float = 5.0
    advise_every_s: float = 30.0


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """How `fusion train` spends its time.

    ``seconds`` bounds the network's training on this machine, ``steps`` its optimiser steps; whichever ends first. Only
    with ``seconds=inf`` does the loss curve not depend on the machine. ``average_keep`` is what a step leaves of the
    average of the weights that is validated and served.
    ``size`` is the preset (`demo` or `plant`). The latest normal runs calibrate thresholds and bands:
    ``calibration_share`` of the time with media, or up to ``calibration_hours`` where ``training_hours`` are left;
    ``validation_share`` of the other runs gate the networks.

    ``device`` is `cpu`, `cuda` or `auto`: a GPU for each process where there are any; ``half_precision`` (bfloat16) and
    ``compile`` are on for the `plant` size on a GPU unless set. ``batch`` is that of all processes together; they share
    the networks by ``parallel``: `ddp`, `fsdp` or `auto`, which shards the `plant` size. None waits for another's part
    of a step for more than ``timeout_s``.
    """

    size: str = "demo"
    seed: int = 0
    seconds: float = 90.0
    steps: int = 100_000
    batch: int = 32
    validate_every: int = 100
    average_keep: float = 0.995
    calibration_share: float = 0.35
    calibration_hours: float = 24.0
    training_hours: float = 4.0
    validation_share: float = 0.2
    false_raises_per_day: float = 1.0
    checkpoint_every_s: float = 15.0
    threads: int = 0
    device: str = "auto"
    half_precision: bool | None = None
    compile: bool | None = None
    parallel: str = "auto"
    timeout_s: float = 900.0

    def __post_init__(self) -> None:
        """Reject shares that leave nothing to train on."""
        if self.size not in ("demo", "plant"):
            raise ConfigError(f"train.size: {self.size!r} is not accepted; expected demo or plant")
        for key, accepted in (("device", ("auto", "cpu", "cuda")), ("parallel", ("auto", "ddp", "fsdp"))):
            if getattr(self, key) not in accepted:
                value = getattr(self, key)
                raise ConfigError(f"train.{key}: {value!r} is not accepted; expected {', '.join(accepted)}")
        if not 0 < self.calibration_share < 1 or not 0 < self.validation_share < 1:
            raise ConfigError("train: calibration_share and validation_share must lie between 0 and 1")
        if self.seconds <= 0 or self.timeout_s <= 0 or self.steps < 0 or self.batch < 2:
            raise ConfigError("train: seconds and timeout_s must be positive, steps at least 0, batch at least 2")


SCHEMAS: dict[str, type] = {"daemon": DaemonConfig, "train": TrainConfig}

_Config = TypeVar("_Config", DaemonConfig, TrainConfig)


def register_schemas() -> None:
    """Make the dataclasses known to hydra: ``daemon_schema``, ``train_schema`` and ``connector/<kind>``."""
    store = ConfigStore.instance()
    for name, schema in SCHEMAS.items():
        store.store(name=f"{name}_schema", node=schema)
    for kind, schema in CONNECTORS.items():
        store.store(group="connector", name=kind, node=schema)


def load_daemon_config(file: Path, overrides: Sequence[str] = ()) -> DaemonConfig:
    """Compose a daemon configuration and make its paths absolute.

    Raises:
        ConfigError: naming the key and what would be accepted.
    """
    config = _compose(file, overrides, DaemonConfig)
    for name, connector in config.connectors.items():
        if type(connector) not in CONNECTORS.values():
            kinds = ", ".join(f"connector/{kind}@connectors.{name}" for kind in CONNECTORS)
            raise ConfigError(f"connectors.{name}: no kind given; add one to the defaults list: {kinds}")
    base = file.resolve().parent
    config.plant, config.model = str(base / config.plant), str(base / config.model)
    config.publish.outbox = str(base / config.publish.outbox)
    return config


def train_config(overrides: Sequence[str] = ()) -> TrainConfig:
    """Training defaults with ``key=value`` overrides, as typed on the command line."""
    try:
        merged = OmegaConf.merge(OmegaConf.structured(TrainConfig), OmegaConf.from_dotlist(list(overrides)))
        config = OmegaConf.to_object(merged)
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(config, TrainConfig)  # noqa: S101 - to_object returns the schema's type
    return config


def sweep_overrides(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of overrides such as ``seed=0,1,2 batch=16,32`` or ``seed=range(3)``, as in hydra's multirun.

    Raises:
        ConfigError: on what is not hydra's grammar.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except HydraException as error:
        raise ConfigError(f"--multirun: {str(error).splitlines()[0]}") from error
    return [list(job) for batch in batches for job in batch]


def _compose(file: Path, overrides: Sequence[str], schema: type[_Config]) -> _Config:
    if not file.is_file():
        raise ConfigError(f"{file}: no such configuration; expected a YAML file such as configs/demo.yaml")
    register_schemas()
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(file.resolve().parent), version_base="1.3"):
            composed = compose(file.stem, overrides=list(overrides))
        config = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{file}: {explain(error)}") from error
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    if not isinstance(config, schema):
        raise ConfigError(f"{file}: its defaults list must begin with {schema.__name__.lower()[:-6]}_schema")
    return config


def explain(error: Exception) -> str:
    """One sentence a user can act on: the full key and the accepted ones."""
    root: BaseException = error
    while root.__cause__ is not None:
        root = root.__cause__
    text = str(root).strip().splitlines()[0]
    key = getattr(root, "full_key", None)
    schema = getattr(root, "object_type", None)
    if dataclasses.is_dataclass(schema) and re.search(r"not in", text):
        accepted = ", ".join(f.name for f in dataclasses.fields(schema))
        return f"{key}: unknown key; accepted: {accepted}"
    return f"{key}: {text}" if key else text
