"""How the networks are trained: every number of the loop, and what follows from size and device where left open."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from fusion.errors import ConfigError
from models.networks.size import ModelConfig, preset
from models.training.gauges import GaugeLimits
from models.training.parallel import Parallel

LEAST = {
    **dict.fromkeys(("steps", "warm_up_steps", "weight_decay", "seed"), 0),
    **dict.fromkeys(("learning_rate", "perception_rate", "settled_rate"), 0),
    **dict.fromkeys(("validate_every", "short_cut_ticks", "patience", "collapse_patience"), 1),
    **dict.fromkeys(("batch", "validation_clips", "gate_clips"), 2),
}


@dataclass(kw_only=True, slots=True)
class FitConfig:
    """How the networks are trained.

    Training ends after ``steps`` or ``seconds`` of wall clock, whichever is first, after ``patience`` validations
    without progress, or once ``collapse_patience`` validations in a row have found a latent collapsed that was sound
    before: the forecast alone would not tell, for it does not need the latent. For the first ``alone_share`` of it
    the short cut of the heads learns alone, from ``short_cut_ticks`` ticks at each step: a step without sensors costs
    a fifth of one with them, and most of what networks add to a forecast comes from there. It goes on learning with
    the rest, at ``settled_rate``.
    ``media_share`` of the ``batch`` clips come from ticks with media. ``perception_rate`` is that of encoders and
    mixer; both are learning rates as shares of that of the rest: faster encoders put all variance into one direction.
    ``average_keep`` is what a step leaves of the average of the weights, which is what is judged and kept; 0 keeps the
    weights themselves. ``validation_clips`` bound a validation, ``gate_clips`` the last one, which fits the gates.
    ``batch`` and ``short_cut_ticks`` are those of all processes together; ``parallel`` is how they share the networks.
    What is left open (``half_precision``, that is bfloat16, ``compile``, ``parallel``) follows from the size of the
    networks and from where they are trained, see ``closed``. ``limits`` tell a collapsed latent from a sound one.
    """

    steps: int = 100_000
    seconds: float = math.inf
    batch: int = 32
    learning_rate: float = 4e-3
    perception_rate: float = 0.3
    settled_rate: float = 0.2
    weight_decay: float = 0.5
    warm_up_steps: int = 40
    clip: float = 1.0
    media_share: float = 0.3
    validate_every: int = 100
    alone_share: float = 0.4
    short_cut_ticks: int = 512
    validation_clips: int = 256
    gate_clips: int = 1536
    patience: int = 12
    collapse_patience: int = 4
    average_keep: float = 0.995
    seed: int = 0
    half_precision: bool | None = None
    compile: bool | None = None
    parallel: Parallel = Parallel.AUTO
    limits: GaugeLimits = field(default_factory=GaugeLimits)

    def __post_init__(self) -> None:
        """Reject what no training can use."""
        for key, least in LEAST.items():
            if getattr(self, key) < least:
                raise ConfigError(f"fit.{key}: {getattr(self, key)} is not accepted; expected at least {least}")
        for key in ("seconds", "clip"):
            if getattr(self, key) <= 0:
                raise ConfigError(f"fit.{key}: {getattr(self, key)} must be positive")
        if not 0 <= self.average_keep < 1:
            raise ConfigError("fit.average_keep must lie from 0 to below 1")
        if not 0 <= self.media_share <= 1 or not 0 <= self.alone_share < 1:
            raise ConfigError("fit.media_share must lie between 0 and 1, fit.alone_share from 0 to below 1")


def closed(config: FitConfig, model: ModelConfig, device: str) -> FitConfig:
    """Settings without anything left open: large networks are sharded, and on a GPU fast and compiled."""
    large = model.width >= preset("plant").width
    fast = large and device == "cuda"
    return replace(
        config,
        half_precision=fast if config.half_precision is None else config.half_precision,
        compile=fast if config.compile is None else config.compile,
        parallel=(Parallel.FSDP if large else Parallel.DDP) if config.parallel is Parallel.AUTO else config.parallel,
    )
