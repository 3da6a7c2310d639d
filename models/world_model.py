"""The frozen model as inference sees it: ticks in; latents, forecasts, bands and raw latent energies out.

The linear core carries the forecast; the networks add what their gates let through. Nothing here is trained.
Shape letters: N candidates, K steps of the action grid, T ticks, A actions, S tags, H horizons, P past features,
D context, L learned latent, Z whole latent, E energies.
"""
# ruff: noqa: N815  # shape-suffixed names of tensors

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.errors import CheckpointError
from fusion.plant import Plant
from models.actions import HORIZONS, course_ticks
from models.linear.core import Encoding, LinearCore
from models.networks.clips import run_view
from models.networks.jepa import Jepa, MediaShape
from models.networks.latent_energies import Ellipsoids, disagreements, latent_energies, masked, trail_vectors
from models.networks.linear_head import LinearHead
from models.networks.plan_head import PlanHead
from models.networks.size import ModelConfig
from models.networks.stream import CHUNK, TRAIL_TICKS, Trail, Unroller, continued
from models.scaling import Floats
from models.ticks import Ticks


@dataclass(frozen=True, slots=True)
class State:
    """Where a forecast starts: the last tick of what was observed."""

    past_P: Tensor
    tags_S: Tensor
    action_A: Tensor
    waiting_DA: Tensor
    context_D: Tensor
    z_L: Tensor


@dataclass(frozen=True, slots=True)
class Observation:
    """Of T ticks: the latent [T, Z] (the core's, then the networks'), energies [T, E] (NaN: not known), last state.

    ``shares_TS`` is the part of each tag in the last energy, that of masked tags; zero where no energies are asked for.
    """

    z_TZ: Tensor
    energies_TE: Floats
    shares_TS: Floats
    state: State


class WorldModel:
    """A linear core and the networks around it, frozen; takes ownership of ``networks``.

    ``half_width_HS`` are half bands in engineering units. Device and precision are those of ``networks``; forecasts
    are float64.
    """

    def __init__(
        self,
        plant: Plant,
        core: LinearCore,
        networks: Jepa,
        half_width_HS: Floats | None = None,
        ellipsoids: Ellipsoids | None = None,
        told: Ellipsoids | None = None,
    ) -> None:
        self.plant, self.core = plant, core
        self.networks = networks.eval().requires_grad_(False)
        self.networks.teacher = None
        self.energies = latent_energies(networks.perception)
        self._head = self._linear()
        self._half_width = core.band() if half_width_HS is None else np.asarray(half_width_HS, np.float64)
        self._ellipsoids = ellipsoids or Ellipsoids.unit(len(self.energies) - 1, networks.config.latent)
        self._told = told or Ellipsoids.unit(1, len(plant.tags))

    @property
    def device(self) -> torch.device:
        """Where the networks are."""
        return self.networks.device

    @property
    def horizon_s(self) -> tuple[float, ...]:
        """Times ahead of the H forecasts [s]."""
        return tuple(k * self.core.step_s for k in HORIZONS)

    @property
    def gates(self) -> Floats:
        """How much of the networks reaches the forecast [H, S], 0..1."""
        return np.asarray(self.networks.readout.gate_HS.double().cpu().numpy())

    def shut(self) -> None:
        """Let nothing of the networks reach the forecast."""
        self.networks.readout.gate_HS.zero_()
        self._head = self._linear()
        self.__dict__.pop("plan_head", None)

    def _linear(self) -> LinearHead:
        """The core's forecast; planned actions count in full where no networks correct them."""
        return LinearHead(self.core, torch.float64, self.gates == 0).to(self.networks.device)

    # --- observing

    def observe(
        self, ticks: Ticks, encoding: Encoding, trail: Trail | None = None, *, energies: bool = True
    ) -> tuple[Observation, Trail]:
        """Take in consecutive ticks as the core encoded them; in pieces with the trail as all at once."""
        trail, vectors, hidden = self._take_in(ticks, encoding, trail, energies=energies)
        found = [self._ellipsoids.energy(vectors), self._told.energy(hidden)] if energies else []
        values = torch.cat(found, 1).double().cpu().numpy() if energies else np.zeros((len(ticks), 0))
        told = self._told.column_shares(hidden)[:, 0] if energies else hidden[:, 0]
        shares = told.double().cpu().numpy()
        linear = torch.from_numpy(encoding.z).float().to(self.device)
        z_net = trail.z_TL[-len(ticks) :]
        state = self._state(encoding, trail)
        keep = max(TRAIL_TICKS, self.networks.config.window_ticks - 1)
        return Observation(torch.cat([linear, z_net], 1), values, shares, state), trail.last(keep)

    def _state(self, encoding: Encoding, trail: Trail) -> State:
        def last(values: Floats) -> Tensor:
            return torch.from_numpy(np.array(values[-1])).to(self.device)

        actions = last(encoding.action), last(encoding.waiting)
        return State(last(encoding.past), last(encoding.tags), *actions, trail.context_TD[-1], trail.z_TL[-1])

    @torch.no_grad()
    def _take_in(
        self, ticks: Ticks, encoding: Encoding, before: Trail | None, *, energies: bool
    ) -> tuple[Trail, Tensor, Tensor]:
        view = run_view(ticks, self.core.scaling).to(self.device)
        parts = [
            self._perceive(view.at(index), energies=energies)
            for index in torch.split(torch.arange(len(view), device=self.device), CHUNK)
        ]
        seen, apart, hidden = (torch.cat(list(p)) for p in zip(*parts, strict=True))
        actions = continued(None if before is None else before.actions, encoding.action, self.core.step_s, self.device)
        linear, features = (torch.from_numpy(x).float().to(self.device) for x in (encoding.z, encoding.past))
        trail = Unroller(self.networks, before, linear, features, actions).run(seen, view.empty())
        vectors = torch.cat([trail_vectors(self.networks, trail, len(view)), apart], 1) if energies else apart
        return trail, vectors, hidden[:, None]

    def _perceive(self, view: Any, *, energies: bool) -> tuple[Tensor, Tensor, Tensor]:
        perception = self.networks.perception
        tokens = perception.tokens(view)
        z = perception.standardise(perception.mixer(tokens, len(view)).float())
        hidden = masked(self.networks, view) if energies else torch.zeros_like(view.tags_NS)
        if not energies or len(tokens) < 2:
            return z, z.new_zeros(len(view), 0, z.shape[1]), hidden
        return z, disagreements(perception, tokens, view), hidden

    # --- forecasting

    def forecast(self, state: State, action_NKA: Tensor | None = None) -> Tensor:
        """Mean [N, H, S] in engineering units, float64, under action paths in engineering units on the 10 s grid.

        Without paths the present actions stay (N = 1). Differentiable in the paths.
        """
        summary = self._summary(state, action_NKA)
        mean: Tensor = self._head(state.past_P[None], state.tags_S[None], summary)
        return mean if not self.open else mean + self._learned(state, summary)

    def course(self, state: State, action_NKA: Tensor) -> Tensor:
        """As ``forecast``, [N, G, S] at the end of each step of the action grid; what networks add is interpolated."""
        paths = action_NKA.double().to(self.device)
        mean = self._head.course(state.past_P, state.tags_S, paths, state.action_A, state.waiting_DA)
        if not self.open:
            return mean
        return mean + torch.einsum(
            "gh,nhs->ngs", self._head.between_GH, self._learned(state, self._summary(state, paths))
        )

    @property
    def course_s(self) -> tuple[float, ...]:
        """Times ahead of the G steps of a course [s]."""
        return tuple(k * self.core.step_s for k in course_ticks(self.core.step_s))

    @property
    def open(self) -> bool:
        """Whether anything of the networks reaches the forecast."""
        return bool((self.networks.readout.gate_HS > 0).any())

    def _summary(self, state: State, action_NKA: Tensor | None) -> Tensor:
        if action_NKA is not None:
            return self._head.summary(action_NKA.double().to(self.device), state.action_A, state.waiting_DA)
        if len(state.waiting_DA):
            return self._head.held(state.action_A, state.waiting_DA)
        width = self._head.action_HQS.shape[1]
        return torch.zeros(1, len(HORIZONS), width, dtype=torch.float64, device=self.device)

    def _learned(self, state: State, summary: Tensor) -> Tensor:
        """What the networks add [N, H, S], engineering units."""
        heads, short = self.networks.heads, summary.float()
        residual, _ = heads(state.context_D[None], state.z_L[None], short)
        residual = residual + heads.direct(state.past_P[None].float(), short)
        return torch.as_tensor(self.networks.readout(residual).double() * self._head.tag_scale_S)

    @cached_property
    def plan_head(self) -> PlanHead:
        """What plans need beside a forecast; what networks correct is not corrected twice."""
        return PlanHead(self.core, self.gates == 0)

    def fits(self, trail: Encoding, state: State, action_NKA: Tensor) -> Tensor:
        """Courses [E, N, G, S] of the core's fits on parts of the data, on the CPU, with what networks add to all."""
        made = self.plan_head.fits(trail, action_NKA.cpu())
        if not self.open:
            return made
        learned_NHS = self._learned(state, self._summary(state, action_NKA)).cpu()
        return made + self.plan_head.along(learned_NHS)

    rollout = forecast

    def bands(self) -> Floats:
        """Half width [H, S] of the band, engineering units."""
        return self._half_width

    def with_bands(self, half_width_HS: Floats) -> WorldModel:
        """A copy of the model with other bands."""
        return WorldModel(self.plant, self.core, self.networks, half_width_HS, self._ellipsoids, self._told)

    def with_energies(self, ellipsoids: Ellipsoids, told: Ellipsoids) -> WorldModel:
        """A copy of the model with energies of another scale."""
        return WorldModel(self.plant, self.core, self.networks, self._half_width, ellipsoids, told)

    def raw_energies(self, run: Ticks) -> tuple[Tensor, Tensor]:
        """What the energies of a run are made of: latent vectors [T, E - 1, L], and tags told from others [T, 1, S]."""
        _, vectors, told = self._take_in(run, self.core.encode(run)[0], None, energies=True)
        return vectors, told

    # --- at rest

    def state(self) -> dict[str, NDArray[Any]]:
        """Arrays to keep, by name, without the core's."""
        arrays = {f"net/{k}": v.cpu().numpy() for k, v in self.networks.state_dict().items()}
        arrays |= {"half_width": self._half_width}
        for name, cloud in (("energy", self._ellipsoids), ("told", self._told)):
            arrays |= {f"{name}/centre": cloud.centre_EL.cpu().numpy()}
            arrays |= {f"{name}/whiten": cloud.whiten_ELL.cpu().numpy()}
        return arrays

    def meta(self) -> dict[str, Any]:
        """JSON-able values to keep."""
        shapes = {name: [shape.features, list(shape.patches)] for name, shape in self.networks.shapes.items()}
        return {"config": self.networks.config.to_dict(), "shapes": shapes}

    @classmethod
    def from_state(
        cls,
        plant: Plant,
        core: LinearCore,
        state: Mapping[str, NDArray[Any]],
        meta: Mapping[str, Any],
        device: torch.device | str = "cpu",
    ) -> WorldModel:
        """Inverse of ``state`` and ``meta``.

        Raises:
            CheckpointError: where they are not what these wrote.
        """
        weights = {k.removeprefix("net/"): torch.tensor(v) for k, v in state.items() if k.startswith("net/")}
        try:
            shapes = {name: MediaShape(int(f), tuple(int(n) for n in p)) for name, (f, p) in meta["shapes"].items()}
            with torch.random.fork_rng(devices=[]):
                networks = Jepa(plant, core, shapes, ModelConfig.from_dict(meta["config"]))
            networks.teacher = None
            networks.load_state_dict(weights)
            clouds = [
                Ellipsoids(torch.tensor(state[f"{name}/centre"]), torch.tensor(state[f"{name}/whiten"]))
                for name in ("energy", "told")
            ]
            half_width = np.asarray(state["half_width"])
        except (AttributeError, KeyError, RuntimeError, TypeError, ValueError) as error:
            raise CheckpointError(f"the networks are not those of their description; train again ({error})") from error
        return cls(plant, core, networks.to(device), half_width, *clouds)
