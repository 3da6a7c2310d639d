"""Forecasts for a plant that has no model yet: by the fleet model from its first minutes on, until its own is better.

Which is better is settled on what neither had seen: both foretell, and what comes decides. Where the plant's own
minutes show that it is of another kind than those the fleet knows, the fleet is silent.
Lives in the thread of the engine but for the fitting, which has one of its own. Shape letters: S tags.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.plant import Plant
from fusion.records import NS_PER_S, Forecast, Frame
from models.actions import HORIZONS
from models.fleet.guest import Guest
from models.fleet.model import FleetModel, host, shipped
from models.fleet.view import View, ViewCarry, missing_words, view
from models.ticks import TickBuilder, Ticks

log = logging.getLogger(__name__)

Floats = NDArray[np.float64]

AVERAGED_TICKS = 1500  # by which the slowest average of the past has forgotten what was before
COMPARED_S = (8.0, 64.0)
"""Horizons from .. to which the two forecasts are compared [s]."""
FEWEST_COMPARED = 40
"""Forecasts whose time has come before one may be called the better."""


@dataclass(kw_only=True, slots=True)
class FleetForecastConfig:
    """Whether a fleet model forecasts while a plant has no model of its own that is better.

    ``model`` is its folder; "" takes those that are shipped, of which the plant's own minutes choose. It speaks after
    ``first_min`` of these, bends to them, and does so again whenever there are twice as many; the last ``most_h`` hours
    are kept.
    """

    enabled: bool = True
    model: str = ""
    first_min: float = 10.0
    most_h: float = 4.0

    def __post_init__(self) -> None:
        """Reject times that are none."""
        if self.first_min <= 0 or self.most_h * 60 < self.first_min:
            raise ConfigError("fleet: first_min must be positive, and most_h no less")


class FleetForecaster:
    """Minutes in, forecasts out; ``waiting`` says what it waits for, ``crossing_h`` when the own model was better."""

    def __init__(
        self, models: Sequence[FleetModel], plant: Plant, config: FleetForecastConfig, every_s: float = 5.0
    ) -> None:
        self.crossing_h: float | None = None
        self._models, self._plant, self._every_ns = models, plant, round(every_s * NS_PER_S)
        self._first = round(config.first_min * 60 / plant.step_s)
        self._builder = TickBuilder(plant)
        self._own: deque[Ticks] = deque(maxlen=round(config.most_h * 3600 / plant.step_s))
        self._seen_ticks = self._fitted_ticks = 0
        self._due_ns = 0
        self._guest: Guest | None = None
        self._carry: ViewCarry | None = None
        self._here: View | None = None
        self._fitter = ThreadPoolExecutor(1, thread_name_prefix="fleet")
        self._fitting: Future[Guest] | None = None
        self._duel = Duel(tuple(k * plant.step_s for k in HORIZONS))

    @property
    def model_id(self) -> str:
        """The fleet's model, of several the one that knows this plant best; "" before that is known."""
        return "" if self._guest is None else self._guest.model_id

    @property
    def leads(self) -> bool:
        """Whether its forecasts are the ones to publish."""
        return self.fits and self.crossing_h is None

    @property
    def fits(self) -> bool:
        """Whether the plant's own minutes bear out what the fleet says."""
        return self._guest is not None and self._guest.fits

    @property
    def flags(self) -> tuple[str, ...]:
        """What the operator should know of where forecasts come from."""
        return ("forecast:fleet",) if self.leads else ()

    def recall(self, ticks: Ticks) -> None:
        """Take in what an earlier run has seen of this plant."""
        bare = ticks.without_media()
        for i in range(len(bare)):
            self._own.append(bare[i : i + 1])
        self._seen_ticks += len(bare)

    def step(self, frame: Frame, own: Forecast | None, *, newest: bool) -> Forecast | None:
        """Take one tick; the forecast to publish, which is that of the plant's ``own`` model once that is better."""
        if self.crossing_h is not None or self._late(own):
            return own
        tick = self._builder.tick(frame)
        self._own.append(tick)
        self._seen_ticks += 1
        self._fit()
        if self._guest is None or not self.fits:
            return own
        self._here, self._carry = view(tick, self._guest.scaling, self._carry)
        self._duel.see(tick)
        made = self._forecast(frame.t_ns) if newest and (own is not None or frame.t_ns >= self._due_ns) else None
        if made is not None and own is not None:
            self._compare(made, own)
        return own if self.crossing_h is not None else made

    def _late(self, own: Forecast | None) -> bool:
        """A model that comes before the fleet ever spoke has learned elsewhere, and is not waited for."""
        if own is not None and not self.fits:
            self.crossing_h = self._seen_ticks * self._plant.step_s / 3600
        return self.crossing_h is not None

    def close(self) -> None:
        """Stop fitting."""
        self._fitter.shutdown(wait=True, cancel_futures=True)

    def _fit(self) -> None:
        """Bend to the own minutes when there are enough, and again when there are twice as many."""
        if self._fitting is not None and self._fitting.done():
            self._sit(self._fitting.result())
            self._fitting = None
        due = max(self._first, 2 * self._fitted_ticks)
        if self._fitting is None and self._seen_ticks >= due and len(self._own) >= self._first:
            self._fitted_ticks = self._seen_ticks
            self._fitting = self._fitter.submit(host, self._models, self._plant, [Ticks.concat(list(self._own))])

    def _sit(self, guest: Guest) -> None:
        """Go on with a guest that knows the plant better."""
        recent = Ticks.concat(list(self._own)[-AVERAGED_TICKS - 1 : -1] or list(self._own)[:1])
        _, self._carry = view(recent, guest.scaling)
        self._guest = guest
        self._duel.scale = guest.scaling.tags.scale
        word = "forecasts" if self.fits else "is silent: this plant is of another kind than those it knows"
        log.info(
            "fleet model %s %s (skill over persistence %.2f in %.0f min of the plant's own)",
            self.model_id, word, guest.worth, guest.own_minutes,
        )  # fmt: skip

    def _forecast(self, t_ns: int) -> Forecast | None:
        if self._guest is None or self._here is None:
            return None
        self._due_ns = t_ns + self._every_ns
        mean, half = self._guest.ahead(self._here), self._guest.band()
        if not np.isfinite(mean).all():
            return None
        return Forecast(
            t_ns=t_ns,
            horizon_s=self._guest.horizon_s,
            signals=tuple(s.name for s in self._plant.tags),
            mean=mean,
            low=mean - half,
            high=mean + half,
            model_id=self.model_id,
        )

    def _compare(self, made: Forecast, own: Forecast) -> None:
        """Hand over where the own model has been the better one."""
        self._duel.foretell(made, own)
        ratio = self._duel.ratio()
        if ratio is not None and ratio < 1.0:
            self.crossing_h = self._seen_ticks * self._plant.step_s / 3600
            log.info(
                "the plant's own model forecasts better than the fleet's after %.2f h of its own data "
                "(error %.2f of the fleet's): its forecasts are published from now on",
                self.crossing_h, ratio,
            )  # fmt: skip


class Duel:
    """Two forecasts against what comes; ``scale`` [S] makes tags comparable."""

    def __init__(self, horizon_s: tuple[float, ...]) -> None:
        self.scale: Floats | None = None
        self._rows = [i for i, h in enumerate(horizon_s) if COMPARED_S[0] <= h <= COMPARED_S[1]]
        self._pending: deque[tuple[int, Floats, Floats]] = deque()
        self._errors: Floats | None = None
        self._compared = 0

    def foretell(self, one: Forecast, other: Forecast) -> None:
        """Keep what both say of the same tick."""
        order = [other.signals.index(name) for name in one.signals]
        for row in self._rows:
            due_ns = one.t_ns + round(one.horizon_s[row] * NS_PER_S)
            self._pending.append((due_ns, one.mean[row], other.mean[row, order]))

    def see(self, tick: Ticks) -> None:
        """Compare what was said of this tick; what is not observed says nothing."""
        now_ns, scale = int(tick.t_ns[-1]), self.scale
        due = [said for said in self._pending if said[0] <= now_ns]
        if not due or scale is None:
            return
        self._pending = deque(said for said in self._pending if said[0] > now_ns)
        for _, one, other in due:
            left = np.stack([one, other]) - tick.tags[-1]
            squared = np.where(tick.observed[-1] & np.isfinite(left), (left / scale) ** 2, 0.0)
            self._errors = squared if self._errors is None else self._errors + squared
        self._compared += len(due)

    def ratio(self) -> float | None:
        """The error of the second over that of the first; None while too little has come."""
        if self._errors is None or self._compared < FEWEST_COMPARED * len(self._rows):
            return None
        one, other = np.sqrt(self._errors).mean(1)
        return float(other / max(one, 1e-12))


def fleet_forecaster(config: FleetForecastConfig, plant: Plant, every_s: float) -> FleetForecaster | None:
    """The forecaster of a plant without a model; None where it is switched off or has nothing to say.

    Raises:
        ConfigError: where a model that the settings name cannot be used.
    """
    if not config.enabled:
        return None
    folders = [Path(config.model)] if config.model else shipped()
    if not folders:
        log.warning("no fleet model is shipped with this installation: no forecasts before the plant's own model")
        return None
    models = [FleetModel.load(folder) for folder in folders]
    if all(reason := model.unfit(plant) for model in models):
        log.warning("no forecasts before the plant's own model: %s", reason)
        return None
    if missing := missing_words(plant):
        log.warning("the fleet model reads the plant's description, which says less than it could: %s", missing)
    return FleetForecaster(models, plant, config, every_s)
