"""How large the learned part is: one set of numbers, two presets of the same code."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fusion.errors import ConfigError
from fusion.plain import decode, plain


class AntiCollapse(StrEnum):
    """What keeps the latent from shrinking to a point; see ``models.networks.regularizer``."""

    SIGREG = "sigreg"
    SUB = "sub"
    VICREG = "vicreg"
    EMA = "ema"


@dataclass(kw_only=True, slots=True)
class ModelConfig:
    """Widths and depths of the networks and the weights of their losses.

    ``width`` is that of tokens and mixer, ``latent`` the size of ``z_net``, ``states`` the learned state tokens,
    ``window_ticks`` what the predictor looks back on, ``context`` its width, ``head`` the width of the horizon heads.
    ``detach_target`` stops the gradient through the latent that is predicted. ``inverse`` weighs inverse dynamics and
    is of use only where action read-backs are not among the tags. ``input_noise`` (standard deviations) is added to
    past features in training.
    """

    width: int = 48
    heads: int = 4
    graph_layers: int = 1
    states: int = 4
    mixer_layers: int = 1
    latent: int = 32
    window_ticks: int = 8
    context: int = 96
    predictor_layers: int = 2
    head: int = 128
    dropout: float = 0.2
    input_noise: float = 0.4
    anti_collapse: AntiCollapse = AntiCollapse.SIGREG
    anti_collapse_weight: float = 0.15
    latent_weight: float = 0.25
    partial_weight: float = 0.5
    observable_weight: float = 0.25
    forecast_weight: float = 1.0
    inverse: float = 0.0
    detach_target: bool = False
    drop_share: float = 0.4
    drop_modality: float = 0.4
    drop_tag: float = 0.15
    far_horizons: int = 2

    def __post_init__(self) -> None:
        """Reject what cannot be built."""
        for key in ("width", "context", "heads", "states", "latent", "window_ticks", "head"):
            if getattr(self, key) < 1:
                raise ConfigError(f"model.{key}: {getattr(self, key)} is not accepted; expected at least 1")
        for key in ("width", "context"):
            if getattr(self, key) % self.heads:
                raise ConfigError(f"model.{key}: {getattr(self, key)} must be a multiple of model.heads {self.heads}")
        for key in ("graph_layers", "mixer_layers", "predictor_layers", "input_noise", "far_horizons"):
            if getattr(self, key) < 0:
                raise ConfigError(f"model.{key}: {getattr(self, key)} is not accepted; expected at least 0")
        for key in ("dropout", "drop_share", "drop_modality", "drop_tag"):
            if not 0 <= getattr(self, key) < 1:
                raise ConfigError(f"model.{key}: expected a number from 0 to below 1")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able form; inverse of ``from_dict``."""
        values: dict[str, Any] = plain(self)
        return values

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> ModelConfig:
        """From what ``to_dict`` gave.

        Raises:
            ConfigError: on a key that is none.
        """
        return decode(values, cls, "model")


def preset(size: str) -> ModelConfig:
    """``demo`` (about 0.5 M parameters, minutes on a CPU) or ``plant`` (15-40 M, a GPU).

    Raises:
        ConfigError: on any other name.
    """
    if size == "demo":
        return ModelConfig()
    if size == "plant":
        return ModelConfig(
            width=384,
            heads=8,
            graph_layers=2,
            states=16,
            mixer_layers=6,
            latent=192,
            window_ticks=32,
            context=384,
            predictor_layers=6,
            head=512,
        )
    raise ConfigError(f"size: {size!r} is not accepted; expected demo or plant")
