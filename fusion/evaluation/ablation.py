"""Senses or parts of the model taken away, to see what they are worth: a frame without them, a limit without them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from control.anomaly.calibration import Calibration
from fusion.checkpoint import Checkpoint
from fusion.errors import ConfigError
from fusion.inference import Engine, calibration_of
from fusion.plant import Modality, Plant
from fusion.records import Energy, Frame, MediaTick, Origin

LATENT, CLASSICAL = "latent", "classical"


@dataclass(frozen=True, slots=True, kw_only=True)
class Ablation:
    """``without`` these modalities, as if their sensors had never been there; ``only`` one part of the model judges.

    ``classical`` is everything in closed form (forecasts by the linear core alone), ``latent`` the energies of the
    networks (forecasts by the whole: the networks add to the linear core and forecast nothing by themselves).
    """

    without: tuple[Modality, ...] = ()
    only: str | None = None

    def __post_init__(self) -> None:
        """Reject a part that does not exist."""
        if self.only not in (None, LATENT, CLASSICAL):
            raise ConfigError(f"only {self.only!r} is not accepted; expected {LATENT} or {CLASSICAL}")

    @classmethod
    def parse(cls, without: str | None, only: str | None) -> Ablation:
        """From the command line: ``without`` is a list with commas.

        Raises:
            ConfigError: naming the modalities that are accepted.
        """
        names = [name.strip() for name in (without or "").split(",") if name.strip()]
        known = [str(m) for m in Modality]
        for name in names:
            if name not in known:
                raise ConfigError(f"--without {name!r} is not a modality; accepted: {', '.join(known)}")
        return cls(without=tuple(Modality(name) for name in names), only=only)

    def seen(self, frame: Frame, plant: Plant) -> Frame:
        """The frame as it would be without the sensors of ``without``; setpoints stay, they are not sensed."""
        if not self.without:
            return frame
        actions = {signal.name for signal in plant.actions}
        gone = {s.name for s in plant.signals if s.modality in self.without and s.name not in actions}
        blind = np.array([name in gone for name in frame.signals], bool)
        media = {name: MediaTick() if name in gone else medium for name, medium in frame.media.items()}
        return replace(
            frame, value_S=np.where(blind, 0.0, frame.value_S), observed_S=frame.observed_S & ~blind, media=media
        )

    def limits(self, calibration: Calibration) -> Calibration:
        """The limit on the energies that remain, under the same budget."""
        kept = self._kept(calibration.energies)
        return calibration if kept.all() else calibration.restricted(kept)

    def engine(self, checkpoint: Checkpoint, *, with_silent: bool = False) -> Engine:
        """Inference without what is taken away; ``with_silent`` also with the energies that may not raise."""
        limits = self.limits(calibration_of(checkpoint))
        return Engine(checkpoint, calibration=limits, networks=self.networks, with_silent=with_silent)

    @property
    def networks(self) -> bool:
        """Whether the networks may add to forecasts."""
        return self.only != CLASSICAL

    def _kept(self, energies: Sequence[Energy]) -> NDArray[np.bool_]:
        latent = np.array([energy.origin is Origin.LATER for energy in energies], bool)
        there = np.array([energy.modality not in self.without for energy in energies], bool)
        part = {None: np.ones(len(energies), bool), LATENT: latent, CLASSICAL: ~latent}[self.only]
        return np.asarray(part & there)


NOTHING_MISSING = Ablation()
