"""Settings of `fusion train`: those of the components that it runs, and what is its own."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass, field

from control.advice.gains import GainConfig
from control.advice.licence import LicenceConfig
from control.anomaly.calibration import SurpriseConfig
from fusion.config import merged, settings
from fusion.errors import ConfigError
from fusion.plain import decode, plain
from models.linear.core import LinearConfig
from models.networks.size import ModelConfig, preset
from models.training.settings import FitConfig

SHORT = {
    **{key: f"fit.{key}" for key in ("seed", "seconds", "steps", "batch", "validate_every", "average_keep")},
    **{key: f"fit.{key}" for key in ("half_precision", "compile", "parallel")},
    "false_raises_per_day": "surprise.false_raises_per_day",
}
"""What is typed often, by its short name."""


@dataclass(kw_only=True, slots=True)
class TrainConfig:
    """How `fusion train` spends its time.

    The latest normal runs calibrate thresholds and bands: ``calibration_share`` of the time with media, or up to
    ``calibration_hours`` where ``training_hours`` are left; ``validation_share`` of the other runs gate the networks.

    Where ``begins_well`` holds, what the first minutes of a stream are like is usual; None: where labels say
    so of all runs.

    ``backbone`` names the frozen image network that looks at cameras (``models.perception.backbone``); None: none does.

    ``device`` is `cpu`, `cuda` or `auto`: a GPU for each process where there are any. None waits for another's part of
    a step for more than ``timeout_s``. State is written every ``checkpoint_every_s``; ``threads`` 0 takes all cores.
    """

    fit: FitConfig = field(default_factory=lambda: FitConfig(seconds=90.0))
    model: ModelConfig = field(default_factory=ModelConfig)
    linear: LinearConfig = field(default_factory=LinearConfig)
    surprise: SurpriseConfig = field(default_factory=SurpriseConfig)
    gains: GainConfig = field(default_factory=GainConfig)
    licence: LicenceConfig = field(default_factory=LicenceConfig)
    calibration_share: float = 0.35
    calibration_hours: float = 24.0
    training_hours: float = 4.0
    validation_share: float = 0.2
    begins_well: bool | None = None
    backbone: str | None = None
    checkpoint_every_s: float = 15.0
    threads: int = 0
    device: str = "auto"
    timeout_s: float = 900.0

    def __post_init__(self) -> None:
        """Reject shares that leave nothing to train on."""
        if self.device not in ("auto", "cpu", "cuda"):
            raise ConfigError(f"device: {self.device!r} is not accepted; expected auto, cpu, cuda")
        for key in ("calibration_share", "validation_share"):
            if not 0 < getattr(self, key) < 1:
                raise ConfigError(f"{key}: {getattr(self, key)} is not accepted; expected a number between 0 and 1")
        for key in ("timeout_s", "checkpoint_every_s"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"{key}: {getattr(self, key)} must be positive")
        for key in ("threads", "calibration_hours", "training_hours"):
            if getattr(self, key) < 0:
                raise ConfigError(f"{key}: {getattr(self, key)} is not accepted; expected at least 0")


def train_config(overrides: Sequence[str] = ()) -> TrainConfig:
    """Training defaults with ``key=value`` overrides, as typed on the command line.

    ``size`` is the preset (`demo` or `plant`) that ``model`` begins with.

    Raises:
        ConfigError: naming the full key and what would be accepted.
    """
    given = settings(overrides, SHORT)
    size = given.pop("size", "demo")
    accepted = ("size", *SHORT, *(f.name for f in dataclasses.fields(TrainConfig)))
    for key in given:
        if key not in accepted:
            raise ConfigError(f"{key}: unknown key; accepted: {', '.join(accepted)}")
    defaults = TrainConfig(model=preset(size))
    return decode(merged(plain(defaults), given), TrainConfig, infinite=True)
