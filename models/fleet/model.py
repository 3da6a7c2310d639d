"""The fleet model: ridge, network and usual errors in one, in use and at rest."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from fusion.checkpoint import Array, Checkpoint, flatten, load_checkpoint, save_checkpoint
from fusion.errors import CheckpointError, ConfigError
from fusion.plant import Plant
from fusion.state import dump_state, load_state
from models.fleet.guest import Guest, Usual, welcome
from models.fleet.network import FleetNetwork, FleetSize
from models.fleet.ridge import FleetRidge
from models.fleet.states import StateHead
from models.ticks import Ticks

FLEET = Plant(name="fleet", signals=())
SHIPPED = Path(__file__).parent / "pretrained"


@dataclass(frozen=True, slots=True, kw_only=True)
class FleetModel:
    """What many plants have in common; ``card`` says how it came about and what it is worth.

    ``states`` tells hidden states, where it was made of plants whose own were known.
    """

    ridge: FleetRidge
    network: FleetNetwork
    usual: Usual
    states: StateHead | None = None
    card: Mapping[str, Any] = field(default_factory=dict)
    model_id: str = ""

    def welcome(self, plant: Plant, runs: Sequence[Ticks] = (), *, bend: bool = True) -> Guest:
        """A plant as it is known after its own runs.

        Raises:
            ConfigError: where nothing can be said of it, in one sentence.
        """
        if reason := self.unfit(plant):
            raise ConfigError(f"plant {plant.name!r}: {reason}")
        guest = welcome(self.ridge, self.network, self.usual, plant, runs, bend=bend)
        return replace(guest, model_id=self.model_id)

    def unfit(self, plant: Plant) -> str:
        """Why nothing can be said of a plant; "" where something can."""
        if not plant.tags:
            return "it has no process tags, and the fleet model knows nothing else"
        if plant.step_s != self.ridge.step_s:
            return f"its step is {plant.step_s:g} s, that of the fleet model {self.ridge.step_s:g} s"
        return ""

    # --- at rest

    def save(self, folder: Path) -> str:
        """Write a checkpoint; returns its ``model_id``."""
        (told, tree), (usual, usual_tree) = dump_state(self.ridge), dump_state(self.usual)
        weights = {name: value.cpu().numpy() for name, value in self.network.state_dict().items()}
        fleet = {"ridge": tree, "usual": usual_tree, "size": self.network.size.to_dict()}
        parts: dict[str, Mapping[str, Array]] = {"ridge": told, "usual": usual, "network": weights}
        if self.states is not None:
            parts["states"], fleet["states"] = dump_state(self.states)
        return save_checkpoint(folder, FLEET, flatten(parts), {"fleet": fleet, "card": self.card})

    @classmethod
    def load(cls, folder: Path, device: torch.device | str = "cpu") -> FleetModel:
        """Read a checkpoint.

        Raises:
            ConfigError: where it is missing, damaged, of another version or no fleet model.
        """
        return cls.from_checkpoint(load_checkpoint(folder), device)

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint, device: torch.device | str = "cpu") -> FleetModel:
        """Rebuild from a checkpoint.

        Raises:
            CheckpointError: where another version wrote it, or it is no fleet model.
        """
        ridge = load_state(FleetRidge, checkpoint.part("ridge"), checkpoint.tree("fleet", "ridge"))
        usual = load_state(Usual, checkpoint.part("usual"), checkpoint.tree("fleet", "usual"))
        try:
            with torch.random.fork_rng(devices=[]):
                network = FleetNetwork(FleetSize(**checkpoint.tree("fleet", "size")))
            network.load_state_dict({name: torch.tensor(v) for name, v in checkpoint.part("network").items()})
        except (TypeError, RuntimeError, ValueError) as error:
            raise CheckpointError(
                f"{checkpoint.model_id}: its network is not that of its description; train again ({error})"
            ) from error
        return cls(
            ridge=ridge,
            network=network.to(device).eval().requires_grad_(False),
            usual=usual,
            states=_states(checkpoint),
            card=checkpoint.tree("card"),
            model_id=checkpoint.model_id,
        )


def _states(checkpoint: Checkpoint) -> StateHead | None:
    if "states" not in checkpoint.tree("fleet"):
        return None
    return load_state(StateHead, checkpoint.part("states"), checkpoint.tree("fleet", "states"))


def shipped() -> list[Path]:
    """Folders of the models that this package brings, one for each kind of fleet."""
    return sorted(file.parent for file in SHIPPED.glob("*/model.json"))


def host(models: Sequence[FleetModel], plant: Plant, runs: Sequence[Ticks]) -> Guest:
    """A plant as the one of several models knows it that its own ``runs`` bear out best; of too few, the first.

    Raises:
        ConfigError: where none can say anything of it, in one sentence.
    """
    able = [model for model in models if not model.unfit(plant)] or models[:1]
    return max(
        (model.welcome(plant, runs) for model in able), key=lambda guest: np.nan_to_num(guest.worth, nan=-np.inf)
    )
