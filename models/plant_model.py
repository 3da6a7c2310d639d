"""Everything learned about one plant as one object: world model, monitors and the region they were trained on.

The only place where models meet the Protocol that control asks for. Energies of the linear monitors and of the latent
stand side by side in one row.
Shape letters: T ticks, E energies, G signals, N candidates, K steps of the action grid, A actions, H horizons, S tags.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from fusion.checkpoint import Checkpoint
from fusion.errors import ModelError
from fusion.plant import Plant
from fusion.records import ACTION_STEPS, NS_PER_S, Energy
from fusion.state import CLASS, dump_state, load_state
from models.features.eye import Eye
from models.features.stem import FeatureStem
from models.linear.core import Encoding, LinearCore
from models.linear.past import PastCarry, begun_anew
from models.linear.standing import Lately, trail_ticks
from models.monitors.crossmodal import OBSERVED_SHARE
from models.monitors.monitors import Energies, MonitorCarry, Monitors
from models.monitors.perception import Perception
from models.monitors.relief import LocalCarry
from models.networks.jepa import Jepa
from models.networks.latent_energies import MASKED
from models.networks.stream import Trail
from models.operating.levels import Operating
from models.operating.states import OperatingStates, StateCarry
from models.perception.backbone import same_backbone
from models.region import WARM_UP_TICKS, Region
from models.ticks import Ticks
from models.training.calibration import calibrate, fit_energies
from models.world_model import Observation, State, WorldModel

Floats = NDArray[np.float64]

GAP_STEPS = 1.5  # from one tick to the next, above which errors of before are not those of one stream
PARTS = ("core", "monitors", "region", "operating", "world")  # of a checkpoint
_SHARED = ("plant", "core", "stem")  # of the monitors, which a checkpoint holds once or not at all


@dataclass(slots=True)
class ModelState:
    """What a stream of ticks leaves behind: carries of the parts, and the state from which to look ahead."""

    past: PastCarry | None = None
    trail: Trail | None = None
    carry: MonitorCarry = field(default_factory=MonitorCarry)
    operating: StateCarry = field(default_factory=StateCarry)
    state: State | None = None
    lately: Lately | None = None
    t_ns: int | None = None
    z: Floats | None = None
    action: Floats | None = None
    ticks: int = 0

    @property
    def ready(self) -> bool:
        """Whether enough has been seen to look ahead."""
        return self.ticks >= WARM_UP_TICKS


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """One tick judged: ``energies`` [E]; with evidence ``shares`` [E, G], ``sensor`` [E], ``residual`` [G] [unit].

    ``where`` [G] names what of a medium stands out.
    """

    energies: Floats
    flags: tuple[str, ...]
    shares: Floats | None
    sensor: Floats | None
    residual: Floats | None
    where: tuple[str, ...] = ()


class PlantModel:
    """World model and monitors of one plant; ``latent`` are the energies that are heard of the networks.

    Where the plant has several operating states, energies are told in units of what is normal there.
    """

    def __init__(
        self,
        world: WorldModel,
        monitors: Monitors,
        region: Region,
        latent: tuple[Energy, ...] | None = None,
        operating: Operating | None = None,
    ) -> None:
        self.plant = world.plant
        self.stem = FeatureStem(self.plant)
        self.world_model, self.monitors, self.region = world, monitors, region
        self.latent = world.energies if latent is None else latent
        self.operating = operating or Operating()
        self.tags = tuple(s.name for s in self.plant.tags)
        self.signals = monitors.signals

    @classmethod
    def assemble(
        cls,
        plant: Plant,
        core: LinearCore,
        monitors: Monitors,
        networks: Jepa,
        later: Sequence[Ticks],
        fitted: Sequence[Ticks],
        held_out: Sequence[Ticks],
        states: OperatingStates | None = None,
    ) -> PlantModel:
        """Put fitted parts together: bands come from ``later`` runs, energy scales from those held out."""
        with_media = [run for run in held_out if run.media] or list(held_out)
        world = fit_energies(calibrate(WorldModel(plant, core, networks), later), with_media)
        model = cls(world, monitors, Region.fit(core, fitted, plant))
        if states is not None:
            runs, names = [run for run in fitted if run.media] or fitted, [energy.name for energy in model.energies]
            model.operating = Operating(states=states).fit(names, runs, model.judge)
        return model

    def hearing(self, names: Collection[str]) -> PlantModel:
        """The model that makes these energies and no other; the same numbers at a lower price."""
        latent = tuple(energy for energy in self.latent if energy.name in names)
        monitors = self.monitors.hearing(names)
        heard = [energy.name for energy in (*monitors.energies, *latent)]
        return PlantModel(self.world_model, monitors, self.region, latent, self.operating.hearing(heard))

    @property
    def energies(self) -> tuple[Energy, ...]:
        """What is made of each tick: E columns."""
        return (*self.monitors.energies, *self.latent)

    @property
    def eye(self) -> Eye | None:
        """What looks at the pictures, where that is heard.

        Raises:
            ConfigError: where the backbone of the training is not here, or has other weights.
        """
        seen = self.monitors.perception
        return None if seen is None else Eye(same_backbone(seen.backbone, seen.sha256))

    @property
    def core(self) -> LinearCore:
        """The linear core."""
        return self.world_model.core

    @property
    def networks(self) -> Jepa:
        """The learned part."""
        return self.world_model.networks

    @torch.no_grad()
    def step(self, ticks: Ticks, state: ModelState, *, explain: bool = False) -> list[Seen]:
        """Take in consecutive ticks, encoded once for all parts, and judge each; ``state`` is brought up to date."""
        encoding, state.past = self.core.encode(ticks, state.past)
        observed, state.trail = self.world_model.observe(ticks, encoding, state.trail, energies=bool(self.latent))
        judged, state.carry = self.monitors.step(ticks, encoding, state.carry, explain=explain)
        state.state, state.z, state.action = observed.state, encoding.z[-1], ticks.action[-1]
        self._keep(encoding, ticks, state)
        state.ticks += len(ticks)
        operating = self.operating.states.step(ticks, state.operating)
        energies = self.operating.told(
            np.concatenate([judged.values, self._latent_values(ticks, observed)], 1), operating
        )
        rows = range(len(ticks))
        return [self._seen(i, ticks, energies[i], judged, observed.shares_TS[i], int(operating[i])) for i in rows]

    def _keep(self, encoding: Encoding, ticks: Ticks, state: ModelState) -> None:
        """Note ticks whose forecasts can be held against what came; behind a gap, and in the warm-up, none."""
        state.lately = state.lately or Lately(trail_ticks(self.core.step_s))
        gap_s = 0.0 if state.t_ns is None else (int(ticks.t_ns[0]) - state.t_ns) / NS_PER_S
        if state.ticks < WARM_UP_TICKS or gap_s > GAP_STEPS * self.core.step_s:
            state.lately.restart()
        state.lately.take(encoding[min(max(WARM_UP_TICKS - state.ticks, 0), len(encoding) - 1) :])
        state.t_ns = int(ticks.t_ns[-1])

    def recover(self, state: ModelState) -> None:
        """Forget what a fault that is over has left in averages and windows: the past begins with the present."""
        if state.past is not None:
            state.past = begun_anew(state.past)
        if state.lately is not None:
            state.lately.restart()
        self.monitors.recover(state.carry)

    def heed(self, stands: bool, state: ModelState) -> None:
        """Hear whether a fault stands: what is usual is not learned from it."""
        state.carry.learns = not stands

    def accept(self, which: NDArray[np.bool_], state: ModelState) -> None:
        """Take the level at which some of the energies [E] stand for the normal one from now on."""
        monitored = len(self.monitors.energies)
        self.monitors.local.accept(which[:monitored], state.carry.local)

    def _seen(self, row: int, ticks: Ticks, energies: Floats, judged: Energies, masked: Floats, operating: int) -> Seen:
        return Seen(
            energies=energies,
            flags=(*self._flags(row, judged.calibrated, ticks), *self.operating.flags(operating)),
            shares=None if judged.shares is None else self._padded(judged.shares[row], masked),
            sensor=None if judged.sensor is None else self._padded_sensor(judged.sensor[row]),
            residual=None if judged.residual is None else judged.residual[row],
            where=judged.where[row] if judged.where else (),
        )

    @torch.no_grad()
    def judge(self, run: Ticks, *, begins_well: bool | None = None) -> Floats:
        """Energies [T, E] of a whole run; NaN where a medium's level was never seen in training.

        Where it ``begins_well``, what its first ticks are like is usual; None: as the runs of this plant do.
        """
        encoding, _ = self.core.encode(run)
        judged, _ = self.monitors.step(run, encoding, MonitorCarry(local=LocalCarry(begins_well=begins_well)))
        observed, _ = self.world_model.observe(run, encoding, energies=bool(self.latent))
        values = np.concatenate([judged.values, self._latent_values(run, observed)], 1)
        for signal, good in judged.calibrated.items():
            own = [energy.modality is self.plant.by_name[signal].modality for energy in self.energies]
            values[np.ix_(~good, np.array(own, bool))] = np.nan
        return self.operating.told(values, self.operating.states.of(run))

    @torch.no_grad()
    def evidence(self, run: Ticks, rows: slice) -> list[Seen]:
        """What ``step`` says with evidence at consecutive rows of a run that is seen from its start."""
        state = ModelState()
        if rows.start:
            self.step(run[: rows.start], state)
        return self.step(run[rows], state, explain=True)

    def _latent_values(self, ticks: Ticks, observed: Observation) -> Floats:
        """The latent's energies [T, E] that are heard; NaN where a sense of the training is missing."""
        column = {energy.name: i for i, energy in enumerate(self.world_model.energies)}
        heard = [column[energy.name] for energy in self.latent]
        values = observed.energies_TE[:, heard] if heard else np.zeros((len(ticks), 0))
        return np.where(self._whole(ticks)[:, None], values, np.nan)

    def _whole(self, ticks: Ticks) -> NDArray[np.bool_]:
        """Ticks [T] with every sense of the training: what the networks make of fewer is not judged."""
        whole = ticks.observed.mean(1) >= OBSERVED_SHARE if self.tags else np.ones(len(ticks), bool)
        for medium in self.networks.perception.media:
            whole = whole & ticks.present.get(medium.name, np.zeros(len(ticks), bool))
        return np.asarray(whole)

    def _flags(self, row: int, calibrated: Mapping[str, NDArray[np.bool_]], ticks: Ticks) -> list[str]:
        """Media that are there but at a level that was never seen."""
        there = {name for name, present in ticks.present.items() if present[row]}
        unknown = [name for name in sorted(there) if name in calibrated and not calibrated[name][row]]
        return [f"uncalibrated:{self.plant.by_name[name].modality}" for name in unknown]

    def _padded(self, shares: Floats, masked: Floats) -> Floats:
        """Evidence [E, G] of all energies; those of the latent belong to the signals of their modality in equal parts.

        That of masked tags tells the part of each tag [S].
        """
        rows = []
        for energy in self.latent:
            own = np.array([self.plant.by_name[s].modality is energy.modality for s in self.signals], float)
            told = np.concatenate([masked, np.zeros(len(self.signals) - len(masked))])
            rows.append(told if energy.family == MASKED else own / max(own.sum(), 1.0))
        return np.concatenate([shares, np.array(rows).reshape(len(rows), shares.shape[1])])

    def _padded_sensor(self, sensor: Floats) -> Floats:
        """The same [E] for all energies; the latent's do not say whether an instrument is at fault."""
        return np.concatenate([sensor, np.full(len(self.latent), np.nan)])

    @torch.no_grad()
    def forecast(self, state: ModelState, paths: Tensor) -> Tensor:
        """Expected tags [N, H, S] under paths [N, K, A] of all actions, engineering units.

        Raises:
            ModelError: where nothing has been seen yet, or the forecast is not finite.
        """
        if state.state is None:
            raise ModelError("no tick has been seen yet")
        mean = self.world_model.forecast(state.state, paths).cpu()
        if not bool(torch.isfinite(mean).all()):
            raise ModelError("the forecast is not finite")
        return mean

    def course(self, state: ModelState, paths: Tensor) -> Tensor:
        """As ``forecast``, [N, G, S] at the end of each step of the action grid; differentiable in the paths.

        Raises:
            ModelError: where nothing has been seen yet.
        """
        if state.state is None:
            raise ModelError("no tick has been seen yet")
        return self.world_model.course(state.state, paths).cpu()

    def world(self, state: ModelState, *, every: bool = False) -> PresentWorld:
        """The model standing at a state, as control asks for it."""
        return PresentWorld(self, state, every=every)

    # --- at rest

    def state(self) -> tuple[dict[str, dict[str, NDArray[Any]]], dict[str, Any]]:
        """Arrays to keep, by part, and what JSON holds of each."""
        parts = {
            "core": dump_state(self.core),
            "monitors": dump_state(self.monitors, given=_SHARED),
            "region": dump_state(self.region),
            "operating": dump_state(self.operating),
            "world": (self.world_model.state(), self.world_model.meta()),
        }
        return {name: arrays for name, (arrays, _) in parts.items()}, {name: tree for name, (_, tree) in parts.items()}

    @classmethod
    def from_checkpoint(cls, checkpoint: Checkpoint) -> PlantModel:
        """Rebuild from a checkpoint.

        Raises:
            CheckpointError: where another version wrote it.
        """
        plant = checkpoint.plant
        trees = {name: checkpoint.tree("model", name) for name in PARTS}
        core = load_state(LinearCore, checkpoint.part("core"), trees["core"])
        given = dict(zip(_SHARED, (plant, core, FeatureStem(plant)), strict=True))
        monitors = load_state(Monitors, checkpoint.part("monitors"), trees["monitors"], given)
        region = load_state(Region, checkpoint.part("region"), trees["region"])
        world = WorldModel.from_state(plant, core, checkpoint.part("world"), trees["world"])
        operating = load_state(Operating, checkpoint.part("operating"), trees["operating"])
        return cls(world, monitors, region, operating=operating)


def check_backbone(checkpoint: Checkpoint) -> None:
    """Refuse a checkpoint whose cameras are seen by what is not here, without making a model of it.

    Raises:
        ConfigError: what is missing, or other.
    """
    for part in checkpoint.meta.get("model", {}).get("monitors", {}).get("others", ()):
        if part[CLASS] == Perception.__name__:
            same_backbone(part["backbone"], part["sha256"])


class PresentWorld:
    """``control.advice.world.World``: rollouts from one state; signals without a rate stay as they are.

    With ``every`` they may be moved as well: in a question, not in an advice.
    """

    def __init__(self, model: PlantModel, state: ModelState, *, every: bool = False) -> None:
        if state.z is None or state.action is None or state.lately is None or state.state is None:
            raise ModelError("no tick has been seen yet")
        self._model, self._state, self._z, self._action = model, state, state.z, state.action
        self._lately, self._last = state.lately, state.state
        actions = model.plant.actions
        self._columns = [i for i, s in enumerate(actions) if every or s.max_rate is not None]
        self.manipulated = tuple(actions[i].name for i in self._columns)
        self.signals = model.tags
        self.horizon_s = model.world_model.horizon_s
        self.course_s = model.world_model.course_s

    @property
    def current_action(self) -> Tensor:
        """Present values [A] of what may be moved."""
        return torch.from_numpy(self._action[self._columns].copy())

    def hold(self) -> Tensor:
        """The path [1, K, A] on which nothing is moved."""
        return self.current_action.expand(1, ACTION_STEPS, -1)

    @cached_property
    def _trail(self) -> Encoding:
        return self._lately.trail()

    @cached_property
    def _standing(self) -> Tensor:
        """What is added to forecasts [H, S]."""
        return self._model.world_model.plan_head.standing(self._trail)

    @torch.no_grad()
    def rollout(self, action_NKA: Tensor) -> Tensor:
        """Expected tags [N, H, S] under paths of what may be moved, corrected by what was missed lately."""
        made = self._model.forecast(self._state, self._whole(action_NKA)) + self._standing
        return made.to(action_NKA.dtype)

    def course(self, action_NKA: Tensor) -> Tensor:
        """Expected tags [N, G, S] at each step of the action grid under paths of what may be moved; differentiable."""
        missed_GS = self._model.world_model.plan_head.along(self._standing)
        return (self._model.course(self._state, self._whole(action_NKA)) + missed_GS).to(action_NKA.dtype)

    @torch.no_grad()
    def fits(self, action_NKA: Tensor) -> Tensor:
        """As ``course``, [E, N, G, S], of fits on parts of the data."""
        made = self._model.world_model.fits(self._trail, self._last, self._whole(action_NKA))
        return made.to(action_NKA.dtype)

    def _whole(self, action_NKA: Tensor) -> Tensor:
        """Paths of all actions: those that may not be moved stay."""
        paths = torch.from_numpy(self._action.copy()).expand(*action_NKA.shape[:2], -1).clone()
        paths[:, :, self._columns] = action_NKA.double()
        return paths

    def half_band(self) -> Tensor:
        """Half width [H, S] of the 90 % band."""
        return torch.from_numpy(self._model.world_model.bands())

    def support(self, action_NKA: Tensor) -> Tensor:
        """Distance [N] of state and path to the trained region; at most 1 is inside."""
        state = self._model.region.state_ratio(self._z)
        return self._model.region.action_ratio(action_NKA, self._columns).clamp_min(state)
