"""What is said over the wire: versioned JSON messages.

A message names its own version in ``schema``. Numbers keep six significant digits; NaN and infinity become null. Fields
may be added within a version, so a reader ignores what it does not know.
"""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from fusion.clock import iso_time
from fusion.errors import FusionError
from fusion.publish.base import Message, Number
from fusion.publish.progression import ProgressionMessage


class SourceOut(msgspec.Struct, kw_only=True, frozen=True):
    """One source; rates in Hz, ``age_s`` since its last value, ``dropped`` counts by reason."""

    name: str
    state: str
    alive: bool
    rate_hz: Number
    expected_hz: Number
    age_s: Number
    received: int
    dropped: dict[str, int]
    epoch: int
    clock_offset_s: Number
    message: str


class BlameOut(msgspec.Struct, kw_only=True, frozen=True):
    """One signal's part in an anomaly: ``residual`` in ``unit``, ``share`` of the event 0..1.

    Of a tag, ``residual`` is ``seen`` less ``expected``. Of a medium it is in normal spreads (``unit`` "spreads"), and
    ``where`` names what of it stands out most.
    """

    signal: str
    residual: Number
    unit: str
    share: Number
    expected: Number = None
    seen: Number = None
    where: str = ""


class EnergyFactor(msgspec.Struct, kw_only=True, frozen=True):
    """An energy and by which factor it stands above its limit."""

    name: str
    factor: Number


class AnomalyMessage(Message, tag="fusion.anomaly/1", kw_only=True, frozen=True):
    """A stretch of surprising behaviour; ``state`` is raised, held or cleared."""

    id: str
    onset: str
    t_onset_ns: int
    state: str
    p_value: Number
    kind: str
    by_modality: dict[str, Number]
    top_signals: list[BlameOut]
    energies: list[EnergyFactor]
    earlier: str = ""
    revision: str = ""


class AlarmOut(msgspec.Struct, kw_only=True, frozen=True):
    """What the operator did with the anomaly ``id``; ``state`` by ISA-18.2, times UTC nanoseconds.

    ``called`` is what somebody said it was: fault, maintenance or good. ``suppressed_by`` is the state of the plant in
    which it is no alarm. ``priority`` is low, medium or high.
    """

    id: str
    state: str
    kind: str
    t_onset_ns: int
    t_raised_ns: int
    t_cleared_ns: int | None = None
    t_acknowledged_ns: int | None = None
    acknowledged_by: str = ""
    t_shelved_until_ns: int | None = None
    shelved_by: str = ""
    accepted_by: str = ""
    called: str = ""
    called_by: str = ""
    suppressed_by: str = ""
    priority: str = ""


class AlarmMessage(Message, tag="fusion.alarm/1", kw_only=True, frozen=True):
    """A change in the life of an alarm, with the operator's name where one made it."""

    alarm: AlarmOut


class Delivery(msgspec.Struct, kw_only=True, frozen=True):
    """What the publisher did so far: messages by kind, losses by kind and reason, rows waiting for the broker.

    ``message`` says what stands in the way of delivery now, if anything.
    """

    published: dict[str, int]
    dropped: dict[str, int]
    waiting: int
    message: str = ""


class HealthMessage(Message, tag="fusion.health/1", kw_only=True, frozen=True):
    """The daemon as a whole, retained; its last will is the same message with ``state`` "offline".

    ``open_anomalies`` is what is not cleared, all of it: an anomaly that is not among them does not stand any more.
    ``alarms`` are those that are not normal. ``plant_state`` is no_data, alarm, degraded, learning (there is no model
    yet, nothing is judged), warming_up or normal, and ``reason`` says why. ``learning`` says what model is being
    learned, or when the next one is.
    """

    state: str
    sources: list[SourceOut] = msgspec.field(default_factory=list)
    latency_p50_s: Number = None
    latency_p99_s: Number = None
    ticks: int = 0
    skipped_ticks: int = 0
    uptime_s: Number = None
    calibrated_hours: Number = None
    licence: str = ""
    mode: str = ""
    flags: list[str] = msgspec.field(default_factory=list)
    open_anomalies: list[AnomalyMessage] = msgspec.field(default_factory=list)
    delivery: Delivery | None = None
    plant_state: str = ""
    reason: str = ""
    alarms: list[AlarmOut] = msgspec.field(default_factory=list)
    learning: str = ""


class Course(msgspec.Struct, kw_only=True, frozen=True):
    """Predicted course of one signal [unit], one value per horizon; ``low`` and ``high`` span the 90 % band."""

    signal: str
    unit: str
    role: str
    mean: list[Number]
    low: list[Number]
    high: list[Number]


class ForecastMessage(Message, tag="fusion.forecast/1", kw_only=True, frozen=True):
    """Controlled signals as predicted from ``t_ns``, with the manipulated values assumed on the way."""

    horizon_s: list[Number]
    signals: list[Course]


class MoveOut(msgspec.Struct, kw_only=True, frozen=True):
    """One recommended change in ``unit``, its limits, and the fastest ``rate`` [unit/s]."""

    signal: str
    current: Number
    recommended: Number
    unit: str
    low: Number
    high: Number
    rate: Number


class GainOut(msgspec.Struct, kw_only=True, frozen=True):
    """Expected saving against doing nothing with its 90 % interval, in the objective's unit."""

    expected: Number
    low: Number
    high: Number


class RecommendationMessage(Message, tag="fusion.recommendation/1", kw_only=True, frozen=True):
    """A request to the operator or a verifier, never a command; void after ``valid_until``.

    ``if_applied`` and ``if_nothing`` are the courses of the controlled signals from ``t_ns``. ``mode``
    "supervised" may be followed unless somebody objects, "advise" once somebody has accepted. Of ``kind`` "return" it
    takes own moves back, because the model may not be right of the plant as it now is.
    """

    id: str
    sequence: int
    valid_until: str
    valid_until_ns: int
    verdict: str
    reason: str | None
    text: str
    moves: list[MoveOut]
    horizon_s: list[Number]
    if_applied: list[Course]
    if_nothing: list[Course]
    gain: GainOut
    binding: list[str]
    stale: list[str]
    licence: str
    plant_fingerprint: str
    requires: list[str]
    rollback: dict[str, Number]
    mode: str = "advise"
    kind: str = "plan"


class EntryOut(msgspec.Struct, kw_only=True, frozen=True):
    """One advice: what was promised per hour, and what was ``delivered`` once its horizon has passed.

    ``state`` is open, accepted, rejected, expired, applied, failed or withdrawn; ``within`` is the share of what came
    that lay inside the promised 90 % bands; ``note`` says why there is no number. Of ``kind`` "return" it took own
    moves back.
    """

    id: str
    t_ns: int
    valid_until_ns: int
    mode: str
    moves: list[MoveOut]
    promised: GainOut
    state: str
    by: str
    reason: str
    t_answer_ns: int | None
    t_applied_ns: int | None
    delivered: Number
    within: Number
    note: str
    kind: str = "plan"


class LedgerMessage(Message, tag="fusion.ledger/1", kw_only=True, frozen=True):
    """What became of the newest advices, oldest first; retained, and said again with each change.

    ``manual`` is the share of the last day in which the loop of a signal took no setpoint, of those whose loops say so.
    """

    entries: list[EntryOut]
    manual: dict[str, float] = msgspec.field(default_factory=dict)


class VerifierMessage(Message, tag="fusion.verifier/1", kw_only=True, frozen=True):
    """How the verifier is: handed_back, ready, writing or offline, why, which advice it writes, and its heartbeat."""

    state: str
    reason: str
    advice: str
    beat: int


class WhatifMessage(Message, tag="fusion.whatif/1", kw_only=True, frozen=True):
    """The answer to the question ``id``, or ``verdict`` "refused" with a ``reason``; ``text`` says it in words.

    ``if_moved`` and ``if_nothing`` are the courses of the controlled signals from ``t_ns``.
    ``support`` is the distance to the trained region, 1 at its border; ``binding`` are limits that the moved course
    reaches.
    """

    id: str
    by: str
    verdict: Literal["answered", "refused"]
    reason: str | None
    text: str
    moves: list[MoveOut]
    horizon_s: list[Number]
    if_moved: list[Course]
    if_nothing: list[Course]
    gain: GainOut | None
    binding: list[str]
    support: Number
    stale: list[str]


class FrameMessage(Message, tag="fusion.frame/1", kw_only=True, frozen=True):
    """The process values of one tick, setpoints included; ``age_s``, ``coverage`` and ``quality`` cover media too.

    A signal without a usable value is absent from ``values``. ``quality`` is 0 bad, 1 uncertain, 2 good.
    """

    values: dict[str, Number]
    age_s: dict[str, Number]
    coverage: dict[str, Number]
    quality: dict[str, int]
    flags: list[str]
    revision: int


class SurpriseOut(msgspec.Struct, kw_only=True, frozen=True):
    """One standardised surprise with its alarm ``limit`` and calibrated ``p_value``; ``modality`` may be ""."""

    name: str
    modality: str
    value: Number
    limit: Number
    p_value: Number


class EnergyMessage(Message, tag="fusion.energy/1", kw_only=True, frozen=True):
    """How surprising the last tick was: combined p-value, the largest per modality, and every energy."""

    p_value: Number
    p_limit: Number
    by_modality: list[SurpriseOut]
    energies: list[SurpriseOut]


class SpectrogramMessage(Message, tag="fusion.spectrogram/1", kw_only=True, frozen=True):
    """Log-mel columns of a microphone: ``columns`` [n][bands] in dB of full scale, ``column_s`` apart, oldest first."""

    signal: str
    column_s: float
    frequency_hz: list[Number]
    columns: list[list[Number]]


class GapMessage(Message, tag="fusion.gap/1", kw_only=True, frozen=True):
    """A stretch in which a source delivered nothing that it should have, told when it is over; ``t_ns`` is its end."""

    source: str
    t_from_ns: int
    reason: str


AnyMessage = (
    HealthMessage
    | AnomalyMessage
    | ForecastMessage
    | RecommendationMessage
    | FrameMessage
    | EnergyMessage
    | SpectrogramMessage
    | GapMessage
    | AlarmMessage
    | WhatifMessage
    | LedgerMessage
    | VerifierMessage
    | ProgressionMessage
)

KINDS: dict[str, type[Message]] = {
    "health": HealthMessage,
    "anomaly": AnomalyMessage,
    "forecast": ForecastMessage,
    "recommendation": RecommendationMessage,
    "frame": FrameMessage,
    "energy": EnergyMessage,
    "spectrogram": SpectrogramMessage,
    "gap": GapMessage,
    "alarm": AlarmMessage,
    "whatif": WhatifMessage,
    "ledger": LedgerMessage,
    "verifier": VerifierMessage,
    "progression": ProgressionMessage,
}

_ENCODER = msgspec.json.Encoder()
_DECODER: msgspec.json.Decoder[AnyMessage] = msgspec.json.Decoder(AnyMessage)


def encode(message: Message) -> bytes:
    """The message as JSON."""
    return _ENCODER.encode(message)


def decode(payload: bytes) -> AnyMessage:
    """The message in a payload, of any known kind.

    Raises:
        FusionError: not JSON, an unknown ``schema`` or a field of the wrong type; the text says which.
    """
    try:
        return _DECODER.decode(payload)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise FusionError(f"not a message of this version: {error}") from error


def moved(payload: bytes, by_ns: int) -> bytes:
    """A message with every time in it moved, those in words too; its ``message_id`` stays, and what is no JSON."""
    if by_ns == 0:
        return payload
    try:
        return _ENCODER.encode(times_moved(msgspec.json.decode(payload), by_ns))
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return payload


def times_moved(value: Any, by_ns: int) -> Any:
    """Plain values with every whole number called ``..._ns`` moved, and what is the same time in words beside it."""
    if isinstance(value, list):
        return [times_moved(item, by_ns) for item in value]
    if not isinstance(value, dict):
        return value
    times = {name: t_ns for name, t_ns in value.items() if name.endswith("_ns") and type(t_ns) is int}
    words = {iso_time(t_ns): iso_time(t_ns + by_ns) for t_ns in times.values()}
    rest = {n: words.get(v, v) if isinstance(v, str) else times_moved(v, by_ns) for n, v in value.items()}
    return rest | {name: t_ns + by_ns for name, t_ns in times.items()}
