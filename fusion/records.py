"""Records: what flows through the system from ``Sample`` to ``Recommendation``, frozen, each field with its unit.

Times named ``t_ns`` are UTC nanoseconds at the source; ``received_ns`` are UTC nanoseconds of a monotonic local
clock, so that a recording and a live stream share one axis. Shape letters: S process signals, H horizons.
"""
# ruff: noqa: N815  # shape-suffixed names of arrays

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum, StrEnum

import numpy as np
from numpy.typing import NDArray

from fusion.plant import Modality

NS_PER_S = 1_000_000_000
ACTION_STEP_S = 10.0
"""Grid of an action path [s]: the value at step ``k`` holds from ``k`` to ``k + 1`` steps from now."""
ACTION_STEPS = 60
"""Steps of an action path: ten minutes, or as many ticks, which covers the settling of the loops that are advised."""


def action_step_s(step_s: float) -> float:
    """A plant's step of the action grid [s]: about ``ACTION_STEP_S`` in whole ticks, or a tick where that is longer."""
    return max(1, round(ACTION_STEP_S / step_s)) * step_s


class Quality(IntEnum):
    """OPC UA severity of a value; larger is better."""

    BAD = 0
    UNCERTAIN = 1
    GOOD = 2


_QUALITIES = tuple(Quality)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One media value: a picture, an audio chunk (``t_ns`` of its first sample) or a point cloud.

    ``clock`` names the clock that stamped ``t_ns``; sources that share a clock share its offset.
    """

    signal: str
    t_ns: int
    received_ns: int
    value: NDArray[np.generic]
    quality: Quality = Quality.GOOD
    clock: str = ""
    replayed: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Columns:
    """A batch of n process values as columns: ``signals[index[i]]`` had ``value[i]`` at ``t_ns[i]``.

    ``heartbeat`` says that every signal named in ``signals`` is known to be unchanged and alive at ``received_ns``
    (an OPC UA keep-alive): a batch may hold no values and still carry that news. ``backfilled`` values are what a
    server's history holds of a gap that is over: they are recorded, as if they had arrived in time, and no tick waits
    for them.
    """

    signals: tuple[str, ...]
    index: NDArray[np.int32]
    t_ns: NDArray[np.int64]
    received_ns: NDArray[np.int64]
    value: NDArray[np.float64]
    quality: NDArray[np.uint8]
    clock: str = ""
    replayed: bool = False
    backfilled: bool = False
    heartbeat_ns: int | None = None

    def __len__(self) -> int:
        return len(self.index)


Item = Sample | Columns


@dataclass(frozen=True, slots=True, kw_only=True)
class Gap:
    """A stretch in which a source delivered nothing it should have delivered."""

    source: str
    t_from_ns: int
    t_to_ns: int
    reason: str


@dataclass(frozen=True, slots=True)
class MediaTick:
    """What one medium contributes to one tick; no value where nothing came or all of it was BAD.

    Video is uint8 [F, H, W], the pictures of the interval; audio is float32 [N], the whole interval with zeros where
    ``coverage`` is below one; LiDAR is float32 [P, 4], the last cloud. ``age_s`` is infinite where nothing came.
    """

    value: NDArray[np.generic] | None = None
    age_s: float = math.inf
    coverage: float = 0.0
    quality: Quality = Quality.BAD


@dataclass(frozen=True, slots=True, kw_only=True)
class Frame:
    """Everything known about one grid tick: the interval ``(t_ns - step, t_ns]``.

    Arrays [S] are of the process ``signals`` in plant order: ``value_S`` is the last usable value (before the first,
    mid-range of what may be moved and 0 of the rest), ``observed_S`` whether the newest one is usable now: seen, not
    BAD, not stale. ``age_s_S`` is the time from the value to the tick (infinite where nothing came yet),
    ``coverage_S`` the received share of what was expected. ``media`` holds every medium by name.
    """

    t_ns: int
    signals: tuple[str, ...]
    value_S: NDArray[np.float64]
    observed_S: NDArray[np.bool_]
    age_s_S: NDArray[np.float64]
    quality_S: NDArray[np.uint8]
    coverage_S: NDArray[np.float64]
    media: Mapping[str, MediaTick]
    flags: tuple[str, ...] = ()
    revision: int = 0

    # --- by name, for people and pages: absent means absent

    @property
    def values(self) -> dict[str, float | NDArray[np.generic]]:
        """Usable values."""
        rows = zip(self.signals, self.value_S.tolist(), self.observed_S.tolist(), strict=True)
        media = {name: medium.value for name, medium in self.media.items() if medium.value is not None}
        return {name: value for name, value, observed in rows if observed} | media

    @property
    def age_s(self) -> dict[str, float]:
        """Age of what has come."""
        rows = zip(self.signals, self.age_s_S.tolist(), strict=True)
        media = {name: medium.age_s for name, medium in self.media.items() if medium.value is not None}
        return {name: age for name, age in rows if age < math.inf} | media

    @property
    def coverage(self) -> dict[str, float]:
        """Received share of every signal."""
        media = {name: medium.coverage for name, medium in self.media.items()}
        return dict(zip(self.signals, self.coverage_S.tolist(), strict=True)) | media

    @property
    def quality(self) -> dict[str, Quality]:
        """Quality of what has come."""
        rows = zip(self.signals, self.quality_S.tolist(), self.age_s_S.tolist(), strict=True)
        media = {name: medium.quality for name, medium in self.media.items() if medium.age_s < math.inf}
        return {name: _QUALITIES[level] for name, level, age in rows if age < math.inf} | media

    @property
    def missing(self) -> tuple[str, ...]:
        """Process signals without a usable value."""
        return tuple(
            name for name, observed in zip(self.signals, self.observed_S.tolist(), strict=True) if not observed
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class Forecast:
    """Predicted signals: ``mean``, ``low`` and ``high`` (90 % band) are [H, S] in engineering units.

    ``model_id`` is that of another model than the one in use, or "".
    """

    t_ns: int
    horizon_s: tuple[float, ...]
    signals: tuple[str, ...]
    mean: NDArray[np.float64]
    low: NDArray[np.float64]
    high: NDArray[np.float64]
    model_id: str = ""


class AnomalyState(StrEnum):
    """Life cycle of an anomaly."""

    RAISED = "raised"
    HELD = "held"
    CLEARED = "cleared"


class AnomalyKind(StrEnum):
    """Whether the plant or one of its sensors behaves as it never did."""

    PROCESS = "process"
    SENSOR = "sensor"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, kw_only=True)
class SignalBlame:
    """One signal's part in an anomaly: ``residual`` and ``share`` of the event, 0..1.

    Of a tag, ``residual`` is ``seen`` less ``expected``, in its unit. Of a medium it is counted in normal spreads, and
    ``where`` names what of it stands out most, such as a region or a band.
    """

    signal: str
    residual: float
    share: float
    expected: float | None = None
    seen: float | None = None
    where: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Anomaly:
    """An event: a stretch of surprising behaviour with its own onset, kind and blame.

    ``by_modality`` are shares of the blame that sum to one; ``energies`` names what raised and by which factor of
    its limit, largest first. Kind and blame are those of the moment at which it stood out most; ``revision`` says why
    they were changed since the raise. ``earlier`` is the id of a former event that looked the same, or "".
    """

    id: str
    t_onset_ns: int
    t_ns: int
    state: AnomalyState
    p_value: float
    kind: AnomalyKind
    by_modality: Mapping[str, float]
    top_signals: tuple[SignalBlame, ...]
    energies: tuple[tuple[str, float], ...]
    model_id: str
    earlier: str = ""
    revision: str = ""


class Verdict(StrEnum):
    """Whether there is advice."""

    ADVISE = "advise"
    HOLD = "hold"


class AdviceKind(StrEnum):
    """What moves rest on: a plan, or that the values they return to are those from before own advice."""

    PLAN = "plan"
    RETURN = "return"


class HoldReason(StrEnum):
    """Why there is no advice; the list is fixed so that a control system can act on it."""

    STALE_DATA = "stale_or_missing_data"
    OUT_OF_REGION = "outside_trained_region"
    NO_LICENCE = "no_licence"
    ANOMALY = "open_anomaly"
    CONSTRAINT = "constraint_within_backoff"
    SMALL_GAIN = "gain_below_uncertainty"
    MODEL_FAILED = "model_late_or_not_finite"
    OPERATOR_MODE = "operator_mode"
    RATE_LIMITED = "advice_rate_limit"


@dataclass(frozen=True, slots=True, kw_only=True)
class Move:
    """One recommended change of a manipulated signal, in its unit; ``rate`` [unit/s] is the fastest allowed."""

    signal: str
    current: float
    recommended: float
    unit: str
    low: float
    high: float
    rate: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Recommendation:
    """A request to the operator or a verifier, never a command; HOLD is an answer with a reason.

    ``gain`` is the expected saving against doing nothing with its 90 % interval ``gain_low .. gain_high``, in the
    objective's unit. ``requires`` lists conditions such as loop modes; ``rollback`` the values to return to. ``mode``
    is "supervised" where it may be followed without being accepted. Of ``kind`` "return" it takes own moves back.
    """

    id: str
    sequence: int
    t_ns: int
    valid_until_ns: int
    verdict: Verdict
    reason: HoldReason | None
    text: str
    moves: tuple[Move, ...]
    expected: Forecast | None
    baseline: Forecast | None
    gain: float
    gain_low: float
    gain_high: float
    binding: tuple[str, ...]
    stale: tuple[str, ...]
    licence: str
    model_id: str
    plant_fingerprint: str
    mode: str = "advise"
    kind: AdviceKind = AdviceKind.PLAN
    requires: tuple[str, ...] = ()
    rollback: Mapping[str, float] = field(default_factory=dict)


class AnswerKind(StrEnum):
    """What became of a recommendation, as the operator or a verifier says."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    EXPIRED = "expired"
    APPLIED = "applied"
    FAILED = "failed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """The answer to the recommendation ``id``, and whose it is."""

    id: str
    answer: AnswerKind
    reason: str = ""
    by: str = ""


class Origin(StrEnum):
    """What a residual is generated from."""

    AHEAD = "ahead"
    """The linear core's forecast against what came, and the state it knows."""
    ACROSS = "across"
    """One sense from the others, or a part of it from its other parts."""
    BESIDE = "beside"
    """Tags from other tags."""
    LAW = "law"
    """Conservation laws."""
    ALIVE = "alive"
    """A sensor's own signs of life."""
    LATER = "later"
    """The latent of the networks: all that is learned and not in closed form."""


class Statistic(StrEnum):
    """How averaged residuals become one number."""

    T2 = "t2"
    """A Mahalanobis distance of all columns."""
    LARGEST = "largest"
    """The largest column over its own limit."""


PROCESS = "process"
"""The source of energies that watch the process tags as a whole."""


FAMILIES = (
    "innovation", "state", "discarded", "unexplained", "redundancy", "joint",  # ahead
    "cross", "feature", "cell", "band", "spot", "perception",  # across
    "relation", "accumulation", "lagged",  # beside
    "conditional",  # beside tags, across senses
    "balance", "health", "replay", "resolution", "noise",  # law, alive
    "foresight", "shell", "disagreement", "masked",  # later
)  # fmt: skip
"""What the models make, by origin."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """What one judged number is: where its residual comes from, what it watches, and whether it may raise.

    ``source`` is ``PROCESS`` or a media signal; ``family``, one of ``FAMILIES``, names the residual within its origin.
    ``speed`` is the weight of the newest tick in the average, one without any; ``relative``: less the long mean of the
    stream.
    """

    name: str
    origin: Origin
    family: str
    source: str = PROCESS
    modality: Modality = Modality.PROCESS
    statistic: Statistic = Statistic.T2
    speed: float = 1.0
    relative: bool = False
    raises: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Peaks:
    """How unusual a tick was, as it is recorded: of each sense and family the largest energy over its limit.

    ``factor`` [N] goes with ``senses`` (a modality each) and ``families``; above 1 it is beyond the limit.
    """

    t_ns: int
    senses: tuple[str, ...]
    families: tuple[str, ...]
    factor: NDArray[np.float32]
    model_id: str
