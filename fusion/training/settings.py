"""Settings of `fusion train`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from fusion.config import merged
from fusion.errors import ConfigError


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


def train_config(overrides: Sequence[str] = ()) -> TrainConfig:
    """Training defaults with ``key=value`` overrides, as typed on the command line."""
    return merged(TrainConfig, overrides)
