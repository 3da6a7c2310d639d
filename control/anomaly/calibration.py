"""Raw energies in, calibrated surprise out: one threshold on the maximum, from one budget of false raises.

Each energy is standardised on later normal data as (E - median) / (upper quantile - median); the largest of those
present decides. Knows neither what an energy means nor how an anomaly is raised from it.
Shape letters: T ticks, E energies.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import chdtri  # type: ignore[import-untyped]

from control.anomaly.tail import Tail, fit_tail
from fusion.errors import ConfigError
from fusion.plant import Modality
from fusion.records import FAMILIES, Energy, Origin, Statistic

Floats = NDArray[np.float64]
Bools = NDArray[np.bool_]
SILENT = ("state", "discarded", "unexplained", "redundancy", "joint", "band", "spot", str(Origin.LATER))
SILENT_BESIDE_MEDIA = ("lagged",)
LEAST_SPEED = 0.03  # without media: between averages over fifty ticks, which drift, and over twenty
EMPIRICAL = (Origin.ACROSS, Origin.LATER)
STRANGE = (
    30.0  # typical distance of normal data: .3 on the simulated line, 3 on SKAB, 2238 on an hour of a foreign plant
)
_TABLE = 2048  # quantiles of the maximum kept: p-values to 1 in 2000, finer ones come from the tail
_UPPER = 0.99  # quantile of the maximum from which its p-values come from the tail


@dataclass(kw_only=True, slots=True)
class SurpriseConfig:
    """The budget and how the threshold follows from it.

    A raise needs the maximum above the threshold for ``on_delay_s``, and raises closer than ``apart_s``, or than
    ``apart_ticks``, are one.

    Where the budget allows less than one raise in the calibration itself, the threshold is an extrapolation, and new
    operating points, not noise, raise falsely. Laws and what stands beside each other hold there too; what one sense
    says of another is only as good as what was seen, and energies of the origins in ``EMPIRICAL`` are scaled down by
    ``safety`` for each power of ten. An energy seen for less than ``minimum_s`` takes no part. One whose largest
    sustained value is more than ``heaviest`` times that of the median energy is scaled down to that, so that a single
    ill-behaved energy cannot set the limit of all. ``resolution`` is the smallest spread of an energy.

    Energies of a family or an origin in ``silent``, and those averaged more slowly than ``least_speed`` (the weight of
    the newest tick), do not raise, count for no limit and are computed only where an evaluation asks for them: on the
    simulated line they found no fault that the others had not, and each one more in the maximum costs the others
    sensitivity. Both follow from the energies where they are left open, see ``closed``.
    """

    false_raises_per_day: float = 1.0
    on_delay_s: float = 10.0
    apart_s: float = 300.0
    apart_ticks: int = 10
    upper_quantile: float = 0.995
    minimum_s: float = 600.0
    safety: float = 0.35
    heaviest: float = 1.5
    resolution: float = 1e-3
    silent: tuple[str, ...] | None = None
    least_speed: float | None = None

    def __post_init__(self) -> None:
        """Reject what gives no threshold."""
        if self.false_raises_per_day <= 0:
            raise ConfigError(f"surprise.false_raises_per_day: {self.false_raises_per_day} must be above 0")
        if not 0.5 < self.upper_quantile < 1:
            raise ConfigError(f"surprise.upper_quantile: {self.upper_quantile} must be between 0.5 and 1")
        if self.heaviest < 1 or self.resolution <= 0:
            raise ConfigError("surprise: heaviest must be at least 1 and resolution positive")
        if min(self.on_delay_s, self.apart_s, self.minimum_s) <= 0 or self.safety < 0:
            raise ConfigError("surprise: on_delay_s, apart_s, minimum_s must be above 0, safety not below")
        if self.least_speed is not None and not 0 <= self.least_speed < 1:
            raise ConfigError(f"surprise.least_speed: {self.least_speed} must be at least 0 and below 1")
        accepted = (*FAMILIES, *Origin)
        for word in self.silent or ():
            if word not in accepted:
                raise ConfigError(f"surprise.silent: {word!r} is not accepted; expected some of {', '.join(accepted)}")

    def closed(self, energies: Sequence[Energy]) -> SurpriseConfig:
        """Settings without anything left open.

        Beside media the tags all at once find nothing of their own. Without media nothing contradicts a tag but other
        tags and its own past: then they speak, and what is averaged over fifty ticks does not, since it follows levels,
        which drift.
        """
        media = any(energy.modality is not Modality.PROCESS for energy in energies)
        silent = (*SILENT, *SILENT_BESIDE_MEDIA) if media else SILENT
        least_speed = 0.0 if media else LEAST_SPEED
        return replace(
            self,
            silent=silent if self.silent is None else self.silent,
            least_speed=least_speed if self.least_speed is None else self.least_speed,
        )

    def lets_raise(self, energy: Energy) -> bool:
        """Whether an energy counts towards the peak; what is left open silences nothing."""
        named = {energy.family, str(energy.origin)}.isdisjoint(self.silent or ())
        return named and energy.speed >= (self.least_speed or 0.0)


@dataclass(frozen=True, slots=True, kw_only=True)
class Surprise:
    """One tick: ``standardised`` [E] (NaN where absent), its maximum ``peak`` and the p-value of that maximum.

    ``p_value`` is the share of normal ticks with a maximum at least as large. ``factor`` [E] is ``standardised``
    over the threshold, NaN for energies that may not raise. With none present ``peak`` is NaN and ``p_value`` is 1.
    """

    p_value: float
    peak: float
    standardised: Floats
    factor: Floats


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibration:
    """Energies of normal operation, summed up; made by ``calibrate`` and kept in a checkpoint.

    ``median`` and ``scale`` are [E]; ``scale`` is infinite where an energy was not seen long enough. ``table`` are
    increasing quantiles of the maximum, ``marginal`` its tail per tick, ``events`` the tail of sustained peaks per
    hour, from which ``threshold`` comes. ``raises`` is how often the calibration data themselves would have raised.
    ``blocks`` [B, E] are the largest sustained standardised values of each energy, by block, before any safety.
    """

    energies: tuple[Energy, ...]
    median: Floats
    scale: Floats
    table: Floats
    marginal: Tail
    events: Tail
    threshold: float
    hours: float
    raises: int
    step_s: float
    on_delay_s: float
    false_raises_per_day: float
    blocks: NDArray[np.float32]

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the energies: E."""
        return tuple(energy.name for energy in self.energies)

    @property
    def modality(self) -> tuple[str, ...]:
        """The modality [E] that each energy watches."""
        return tuple(str(energy.modality) for energy in self.energies)

    @property
    def raising(self) -> Bools:
        """Which energies [E] may raise."""
        return _raising(self.energies)

    def heard(self) -> Calibration:
        """The calibration of those that may raise alone, which is all that inference needs."""
        kept = self.raising
        energies = tuple(energy for energy in self.energies if energy.raises)
        median, scale, blocks = self.median[kept], self.scale[kept], self.blocks[:, kept]
        return replace(self, energies=energies, median=median, scale=scale, blocks=blocks)

    def restricted(self, kept: Bools) -> Calibration:
        """The calibration of some energies [E] only, under the same budget; the others count as not calibrated.

        The limit rests on what each energy sustained by itself, so an exceedance shared by two does not count. Where
        none of those kept may raise, they all do.
        """
        raising = kept & self.raising if bool((kept & self.raising).any()) else kept
        energies = tuple(replace(e, raises=bool(r)) for e, r in zip(self.energies, raising, strict=True))
        calibration = replace(self, energies=energies, scale=np.where(kept, self.scale, np.inf))
        maxima = self.blocks[:, raising].max(1, initial=-np.inf)
        maxima = maxima[np.isfinite(maxima)].astype(np.float64)
        if not len(maxima):
            return calibration
        events = fit_tail(maxima, 0.5, len(maxima) / self.hours)
        threshold = _threshold(maxima, events, self.hours, self.false_raises_per_day)
        raises = int((maxima >= threshold).sum())
        return replace(calibration, events=events, threshold=threshold, raises=raises)

    def standardise(self, values: Floats) -> Floats:
        """Energies [..., E] in units of their own normal spread; NaN where absent or not calibrated."""
        spread = np.where(np.isfinite(self.scale), self.scale, np.nan)
        return np.asarray((np.asarray(values, np.float64) - self.median) / spread)

    def score(self, row: Floats) -> Surprise:
        """Surprise of one row of energies [E]."""
        standardised = self.standardise(row)
        present = np.isfinite(standardised) & self.raising
        peak = float(standardised[present].max()) if present.any() else math.nan
        p_value = float(self.p_values(np.array([peak]))[0])
        factor = np.where(self.raising, standardised / self.threshold, np.nan)
        return Surprise(p_value=p_value, peak=peak, standardised=standardised, factor=factor)

    def peaks(self, values: Floats) -> Floats:
        """Maximum [T] of the standardised energies of ``values`` [T, E] that may raise; NaN where none is present."""
        return row_maximum(self.standardise(values)[:, self.raising])

    def p_values(self, peaks: Floats) -> Floats:
        """Share of normal ticks at or above each peak; 1 where the peak is NaN."""
        count = len(self.table)
        below = np.searchsorted(self.table, peaks, side="left")
        empirical = np.maximum((count - below) / count, 1 / (count + 1))
        p = np.where(peaks > self.marginal.start, self.marginal.rate_above(peaks), empirical)
        return np.where(np.isnan(peaks), 1.0, np.clip(p, 0.0, 1.0))

    @property
    def bound_per_day(self) -> float:
        """Largest rate of false raises that the calibration data themselves cannot rule out (95 %)."""
        return 24 * rate_bound(self.raises, self.hours)

    @property
    def typical(self) -> float:
        """Distance of what limits were set on from what was trained on: about one where they are alike, or zero."""
        distances = [m for e, m in zip(self.energies, self.median, strict=True) if e.statistic is Statistic.T2]
        return float(np.median(distances)) if distances else 0.0

    @property
    def uncalibrated(self) -> tuple[str, ...]:
        """Energies that take no part because normal data did not hold enough of them."""
        return tuple(n for n, s in zip(self.names, self.scale, strict=True) if not np.isfinite(s))


def calibrate(
    runs: Sequence[Floats] | Floats,
    energies: Sequence[Energy],
    config: SurpriseConfig | None = None,
    step_s: float = 1.0,
) -> Calibration:
    """Fit on normal runs that are later than the training data; each run is [T, E], NaN where absent.

    The configuration decides which of ``energies`` may raise; where it silences all, all do. The others are scaled for
    comparison and change no limit.

    Raises:
        ConfigError: where the runs are too short or no energy was present.
    """
    config = (config or SurpriseConfig()).closed(energies)
    parts = [np.asarray(r, np.float64) for r in ([runs] if isinstance(runs, np.ndarray) else runs)]
    _check(parts, energies)
    median, scale = _spread(np.concatenate(parts), config, step_s)
    judged = tuple(replace(energy, raises=config.lets_raise(energy)) for energy in energies)
    judged = judged if any(e.raises for e in judged) else tuple(replace(e, raises=True) for e in judged)
    raising = _raising(judged)
    scale = scale * _heaviness([(part - median) / scale for part in parts], raising, config, step_s)
    standard = _standardised(parts, median, scale)
    peaks = [row_maximum(part[:, raising]) for part in standard]
    hours = sum(int(np.isfinite(p).sum()) for p in peaks) * step_s / 3600
    apart = _apart(config, step_s)
    if hours * 3600 < 2 * apart * step_s:
        raise ConfigError(f"calibration: {hours:.2f} h of normal data; expected at least {2 * apart * step_s:.0f} s")
    maxima = np.concatenate([block_maxima(sustained(p, config, step_s), apart) for p in peaks])
    if not len(maxima):
        raise ConfigError(f"calibration: no normal run is as long as {apart * step_s:.0f} s")
    events = fit_tail(maxima, 0.5, len(maxima) / hours)
    threshold = _threshold(maxima, events, hours, config.false_raises_per_day)
    scale = scale * _margin(judged, hours, config)
    safe = np.concatenate([row_maximum(part[:, raising]) for part in _standardised(parts, median, scale)])
    safe = safe[np.isfinite(safe)]
    return Calibration(
        energies=judged,
        median=median,
        scale=scale,
        table=np.quantile(safe, np.linspace(0, 1, _TABLE)),
        marginal=fit_tail(safe, _UPPER, 1.0),
        events=events,
        threshold=threshold,
        hours=hours,
        raises=int((maxima >= threshold).sum()),
        step_s=step_s,
        on_delay_s=config.on_delay_s,
        false_raises_per_day=config.false_raises_per_day,
        blocks=np.concatenate([_blocks(part, config, step_s) for part in standard]),
    )


def rate_bound(raises: int, hours: float, confidence: float = 0.95) -> float:
    """Upper bound per hour of a Poisson rate after ``raises`` in ``hours``: 3 / hours at 95 % when there was none.

    Source: Garwood 1936.
    """
    if hours <= 0:
        return math.inf
    return float(chdtri(2 * (raises + 1), 1 - confidence)) / 2 / hours


def row_maximum(standardised: Floats) -> Floats:
    """Largest entry of each row [T, E] that is not NaN; NaN where there is none."""
    filled = np.where(np.isnan(standardised), -np.inf, standardised)
    top = filled.max(axis=1, initial=-np.inf)
    return np.where(np.isfinite(top), top, np.nan)


def sustained(peaks: Floats, config: SurpriseConfig, step_s: float) -> Floats:
    """Level [T] that the peaks have kept throughout the on-delay; a tick without energies breaks it."""
    ticks = _ticks(config.on_delay_s, step_s)
    filled = np.where(np.isnan(peaks), -np.inf, peaks)
    padded = np.concatenate([np.full(ticks - 1, -np.inf), filled])
    return np.asarray(np.lib.stride_tricks.sliding_window_view(padded, ticks).min(axis=1))


def block_maxima(levels: Floats, block: int) -> Floats:
    """Maximum of each full block; a remainder of at least half a block counts as one, an empty block does not."""
    full = len(levels) // block
    maxima = list(levels[: full * block].reshape(full, block).max(axis=1)) if full else []
    rest = levels[full * block :]
    if len(rest) * 2 >= block:
        maxima.append(rest.max())
    found = np.asarray(maxima, np.float64)
    return found[np.isfinite(found)]


def _blocks(standardised: Floats, config: SurpriseConfig, step_s: float) -> NDArray[np.float32]:
    """Largest sustained value of each energy in each block [B, E]; minus infinity where it was never present."""
    levels = np.stack([sustained(column, config, step_s) for column in standardised.T], axis=1)
    block = _apart(config, step_s)
    full = len(levels) // block
    return np.asarray(levels[: full * block].reshape(full, block, levels.shape[1]).max(axis=1), np.float32)


def _standardised(parts: Sequence[Floats], median: Floats, scale: Floats) -> list[Floats]:
    spread = np.where(np.isfinite(scale), scale, np.nan)
    return [(part - median) / spread for part in parts]


def _margin(energies: Sequence[Energy], hours: float, config: SurpriseConfig) -> Floats:
    """Factor [E] by which an energy is scaled down where the budget is an extrapolation from so many hours."""
    powers = max(0.0, -math.log10(config.false_raises_per_day / 24 * hours))
    return np.array([1 + config.safety * powers * (e.origin in EMPIRICAL) for e in energies])


def _threshold(maxima: Floats, events: Tail, hours: float, per_day: float) -> float:
    """Level whose expected rate is the budget, not below the peaks that the budget does not allow."""
    per_hour = per_day / 24
    allowed = min(int(per_hour * hours), len(maxima) - 1)
    seen = float(np.sort(maxima)[::-1][allowed])
    return max(seen, events.level(per_hour), np.finfo(np.float64).tiny)


def _spread(values: Floats, config: SurpriseConfig, step_s: float) -> tuple[Floats, Floats]:
    """Median and distance from it to the upper quantile, by energy; infinite where too little was seen."""
    enough = np.isfinite(values).sum(axis=0) * step_s >= config.minimum_s
    median, scale = np.zeros(values.shape[1]), np.full(values.shape[1], np.inf)
    for e in np.flatnonzero(enough):
        column = values[np.isfinite(values[:, e]), e]
        median[e], upper = np.quantile(column, [0.5, config.upper_quantile])
        scale[e] = max(upper - median[e], config.resolution * max(1.0, abs(median[e])))
    return median, scale


def _heaviness(standardised: Sequence[Floats], raising: Bools, config: SurpriseConfig, step_s: float) -> Floats:
    """Factor [E] >= 1 by which the largest sustained value of an energy exceeds what is allowed to one energy.

    What is allowed follows from those that may raise [E] alone.
    """
    levels = [np.stack([sustained(c, config, step_s) for c in part.T], axis=1).max(axis=0) for part in standardised]
    largest = np.max(levels, axis=0)
    judged = np.isfinite(largest) & (largest > 0)
    if not (judged & raising).any():
        return np.ones(len(largest))
    allowed = config.heaviest * max(float(np.median(largest[judged & raising])), 1.0)
    return np.where(judged, np.maximum(largest / allowed, 1.0), 1.0)


def _raising(energies: Sequence[Energy]) -> Bools:
    return np.array([energy.raises for energy in energies], bool)


def _check(parts: Sequence[Floats], energies: Sequence[Energy]) -> None:
    if not parts or any(p.ndim != 2 or p.shape[1] != len(energies) for p in parts):
        raise ConfigError(f"calibration: expected runs of [T, {len(energies)}] energies, one column for each record")
    if not any(np.isfinite(p).any() for p in parts):
        raise ConfigError("calibration: the normal runs hold no energies")


def _apart(config: SurpriseConfig, step_s: float) -> int:
    """Ticks within which raises are one: slow plants do not raise anew at every tick either."""
    return max(_ticks(config.apart_s, step_s), config.apart_ticks)


def _ticks(seconds: float, step_s: float) -> int:
    return max(1, round(seconds / step_s))
