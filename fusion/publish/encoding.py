"""Records to messages: plain lists and texts, units from the plant, six significant digits, null for NaN."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any

import msgspec
import numpy as np

from fusion.alarms import Alarm
from fusion.clock import iso_time
from fusion.health import Health, SourceHealth
from fusion.ledger import Entry
from fusion.plant import Modality, Plant, Role
from fusion.prospects import Prospect
from fusion.publish.base import Number, head, number
from fusion.publish.messages import (
    AlarmMessage,
    AlarmOut,
    AnomalyMessage,
    AnyMessage,
    BlameOut,
    Course,
    Delivery,
    EnergyFactor,
    EnergyMessage,
    EntryOut,
    ForecastMessage,
    FrameMessage,
    GainOut,
    GapMessage,
    HealthMessage,
    LedgerMessage,
    MoveOut,
    RecommendationMessage,
    SourceOut,
    SurpriseOut,
    VerifierMessage,
    WhatifMessage,
)
from fusion.publish.progression import progression_message
from fusion.records import Anomaly, Forecast, Frame, Gap, Move, Recommendation
from fusion.trends import Progression

Record = Health | Anomaly | Forecast | Recommendation | Frame | Gap | Prospect | Progression


def to_message(record: Record, plant: Plant, model_id: str = "") -> AnyMessage:
    """The message for a record; ``model_id`` is for records that do not carry their own."""
    match record:
        case Health():
            return health_message(record, plant)
        case Anomaly():
            return anomaly_message(record, plant)
        case Forecast():
            return forecast_message(record, plant, model_id)
        case Recommendation():
            return recommendation_message(record, plant)
        case Frame():
            return frame_message(record, plant, model_id)
        case Gap():
            return gap_message(record, plant, model_id)
        case Prospect():
            return whatif_message(record, plant)
        case Progression():
            return progression_message(record, plant, model_id)


def health_message(
    health: Health, plant: Plant, open_anomalies: Iterable[AnomalyMessage] = (), delivery: Delivery | None = None
) -> HealthMessage:
    """The daemon's state with the anomalies still open and what became of earlier messages."""
    return HealthMessage(
        **head(plant, health.t_ns, health.model_id, "health"),
        state=health.state,
        sources=[_source(source) for source in health.sources],
        latency_p50_s=number(health.latency_p50_s),
        latency_p99_s=number(health.latency_p99_s),
        ticks=health.ticks,
        skipped_ticks=health.skipped_ticks,
        uptime_s=number(health.uptime_s),
        calibrated_hours=number(health.calibrated_hours),
        licence=health.licence,
        mode=health.mode,
        flags=list(health.flags),
        open_anomalies=list(open_anomalies),
        delivery=delivery,
        plant_state=health.plant_state.value,
        reason=health.reason,
        alarms=[alarm_out(alarm, health.t_ns) for alarm in health.alarms],
        learning=health.learning,
    )


def full_health(health: Health, plant: Plant, delivery: Delivery | None = None) -> HealthMessage:
    """The daemon's state with every anomaly that stands."""
    standing = [anomaly_message(alarm.anomaly, plant) for alarm in health.alarms if alarm.active]
    return health_message(health, plant, standing, delivery)


def bare_health(plant: Plant, t_ns: int, state: str, model_id: str) -> HealthMessage:
    """A health message that says only whether the daemon is there: birth and last will."""
    return HealthMessage(**head(plant, t_ns, model_id, state), state=state)


def anomaly_message(anomaly: Anomaly, plant: Plant) -> AnomalyMessage:
    """An anomaly with the units of the signals it blames."""
    return AnomalyMessage(
        **head(plant, anomaly.t_ns, anomaly.model_id, f"{anomaly.id}:{anomaly.state.value}"),
        id=anomaly.id,
        onset=iso_time(anomaly.t_onset_ns),
        t_onset_ns=anomaly.t_onset_ns,
        state=anomaly.state.value,
        p_value=number(anomaly.p_value),
        kind=anomaly.kind.value,
        by_modality={name: number(share) for name, share in anomaly.by_modality.items()},
        top_signals=[
            BlameOut(
                signal=b.signal,
                residual=number(b.residual),
                unit=_unit(plant, b.signal),
                share=number(b.share),
                expected=number(b.expected),
                seen=number(b.seen),
                where=b.where,
            )
            for b in anomaly.top_signals
        ],
        energies=[EnergyFactor(name=name, factor=number(factor)) for name, factor in anomaly.energies],
        earlier=anomaly.earlier,
        revision=anomaly.revision,
    )


def alarm_message(alarm: Alarm, plant: Plant, t_ns: int) -> AlarmMessage:
    """An alarm as it stands at a time."""
    out = alarm_out(alarm, t_ns)
    header = head(plant, t_ns, alarm.anomaly.model_id, f"{out.id}:alarm:{out.state}:{t_ns}")
    return AlarmMessage(**header, alarm=out)


def alarm_out(alarm: Alarm, t_ns: int) -> AlarmOut:
    """What the operator did with an anomaly, as it stands at a time."""
    return AlarmOut(
        id=alarm.anomaly.id,
        state=alarm.state(t_ns).value,
        kind=alarm.anomaly.kind.value,
        t_onset_ns=alarm.anomaly.t_onset_ns,
        t_raised_ns=alarm.raised_ns,
        t_cleared_ns=alarm.cleared_ns,
        t_acknowledged_ns=alarm.acknowledged_ns,
        acknowledged_by=alarm.acknowledged_by,
        t_shelved_until_ns=alarm.shelved_until_ns,
        shelved_by=alarm.shelved_by,
        accepted_by=alarm.accepted_by,
        called=str(alarm.called or ""),
        called_by=alarm.called_by,
        suppressed_by=alarm.suppressed_by,
        priority=str(alarm.priority),
    )


def forecast_message(forecast: Forecast, plant: Plant, model_id: str = "") -> ForecastMessage:
    """Controlled and manipulated signals of a forecast; the others stay in the daemon."""
    return ForecastMessage(
        **head(plant, forecast.t_ns, forecast.model_id or model_id, "forecast"),
        horizon_s=[number(h) for h in forecast.horizon_s],
        signals=_courses(forecast, plant, (Role.CONTROLLED, Role.MANIPULATED)),
    )


def recommendation_message(advice: Recommendation, plant: Plant) -> RecommendationMessage:
    """A recommendation with the courses of the controlled signals, applied and not."""
    some = advice.expected or advice.baseline
    return RecommendationMessage(
        **head(plant, advice.t_ns, advice.model_id, f"{advice.id}:{advice.sequence}"),
        id=advice.id,
        sequence=advice.sequence,
        valid_until=iso_time(advice.valid_until_ns),
        valid_until_ns=advice.valid_until_ns,
        verdict=advice.verdict.value,
        reason=advice.reason.value if advice.reason else None,
        text=advice.text,
        moves=[_move(move) for move in advice.moves],
        horizon_s=[number(h) for h in some.horizon_s] if some else [],
        if_applied=_courses(advice.expected, plant, (Role.CONTROLLED,)),
        if_nothing=_courses(advice.baseline, plant, (Role.CONTROLLED,)),
        gain=_gain(advice.gain, advice.gain_low, advice.gain_high),
        binding=list(advice.binding),
        stale=list(advice.stale),
        licence=advice.licence,
        plant_fingerprint=advice.plant_fingerprint,
        requires=list(advice.requires),
        rollback={name: number(value) for name, value in advice.rollback.items()},
        mode=advice.mode,
        kind=advice.kind.value,
    )


def ledger_message(
    entries: Sequence[Entry],
    plant: Plant,
    t_ns: int,
    model_id: str = "",
    manual: Mapping[str, float] = MappingProxyType({}),
) -> LedgerMessage:
    """What became of the newest advices, and how much of the last day loops took no setpoint."""
    header = head(plant, t_ns, model_id, "ledger")
    return LedgerMessage(**header, entries=[_entry(entry) for entry in entries], manual=dict(manual))


def _entry(entry: Entry) -> EntryOut:
    return EntryOut(
        id=entry.id,
        t_ns=entry.t_ns,
        valid_until_ns=entry.valid_until_ns,
        mode=entry.mode,
        moves=[_move(move) for move in entry.moves],
        promised=_gain(entry.gain, entry.gain_low, entry.gain_high),
        state=entry.state.value,
        by=entry.by,
        reason=entry.reason,
        t_answer_ns=entry.t_answer_ns,
        t_applied_ns=entry.t_applied_ns,
        delivered=number(entry.delivered),
        within=number(entry.within),
        note=entry.note,
        kind=entry.kind.value,
    )


def verifier_message(plant: Plant, t_ns: int, state: str, reason: str, advice: str, beat: int) -> VerifierMessage:
    """How the verifier is."""
    return VerifierMessage(**head(plant, t_ns, "", "verifier"), state=state, reason=reason, advice=advice, beat=beat)


def whatif_message(prospect: Prospect, plant: Plant) -> WhatifMessage:
    """The answer to a question, with the courses of the controlled signals."""
    return WhatifMessage(
        **head(plant, prospect.t_ns, prospect.model_id, f"whatif.{prospect.id}"),
        id=prospect.id,
        by=prospect.by,
        verdict="answered" if prospect.refusal is None else "refused",
        reason=prospect.refusal.value if prospect.refusal else None,
        text=prospect.text,
        moves=[_move(move) for move in prospect.moves],
        horizon_s=[number(h) for h in prospect.moved.horizon_s] if prospect.moved else [],
        if_moved=_courses(prospect.moved, plant, (Role.CONTROLLED,)),
        if_nothing=_courses(prospect.baseline, plant, (Role.CONTROLLED,)),
        gain=_gain(*prospect.gain) if prospect.gain else None,
        binding=list(prospect.binding),
        support=number(prospect.support),
        stale=list(prospect.stale),
    )


def gap_message(gap: Gap, plant: Plant, model_id: str = "") -> GapMessage:
    """A gap that is over."""
    return GapMessage(
        **head(plant, gap.t_to_ns, model_id, f"gap.{gap.source}.{gap.t_from_ns}"),
        source=gap.source,
        t_from_ns=gap.t_from_ns,
        reason=gap.reason,
    )


def frame_message(frame: Frame, plant: Plant, model_id: str = "") -> FrameMessage:
    """The process values of a frame; pictures, sound and clouds travel as previews."""
    process = {s.name for s in plant.of(Modality.PROCESS)}
    return FrameMessage(
        **head(plant, frame.t_ns, model_id, f"frame.{frame.revision}"),
        values={name: _scalar(value) for name, value in frame.values.items() if name in process},
        age_s={name: number(age) for name, age in frame.age_s.items()},
        coverage={name: number(share) for name, share in frame.coverage.items()},
        quality={name: int(quality) for name, quality in frame.quality.items()},
        flags=list(frame.flags),
        revision=frame.revision,
    )


def energy_message(
    plant: Plant,
    t_ns: int,
    by_modality: Sequence[SurpriseOut],
    energies: Sequence[SurpriseOut],
    *,
    p_value: float | None = None,
    p_limit: float | None = None,
    model_id: str = "",
) -> EnergyMessage:
    """The surprise of one tick; there is no record for it because only pages read it."""
    return EnergyMessage(
        **head(plant, t_ns, model_id, "energy"),
        p_value=number(p_value),
        p_limit=number(p_limit),
        by_modality=[_rounded(s) for s in by_modality],
        energies=[_rounded(s) for s in energies],
    )


def _source(source: SourceHealth) -> SourceOut:
    return SourceOut(
        name=source.name,
        state=source.state.value,
        alive=source.alive,
        rate_hz=number(source.rate_hz),
        expected_hz=number(source.expected_hz),
        age_s=number(source.age_s),
        received=source.received,
        dropped=dict(source.dropped),
        epoch=source.epoch,
        clock_offset_s=number(source.clock_offset_s),
        message=source.message,
    )


def _gain(expected: float, low: float, high: float) -> GainOut:
    return GainOut(expected=number(expected), low=number(low), high=number(high))


def _move(move: Move) -> MoveOut:
    return MoveOut(
        signal=move.signal,
        current=number(move.current),
        recommended=number(move.recommended),
        unit=move.unit,
        low=number(move.low),
        high=number(move.high),
        rate=number(move.rate),
    )


def _courses(forecast: Forecast | None, plant: Plant, roles: tuple[Role, ...]) -> list[Course]:
    if forecast is None:
        return []
    wanted = {s.name: s for s in plant.roles(*roles)}
    return [
        Course(
            signal=name,
            unit=wanted[name].unit,
            role=wanted[name].role.value,
            mean=[number(v) for v in forecast.mean[:, i]],
            low=[number(v) for v in forecast.low[:, i]],
            high=[number(v) for v in forecast.high[:, i]],
        )
        for i, name in enumerate(forecast.signals)
        if name in wanted
    ]


def _rounded(surprise: SurpriseOut) -> SurpriseOut:
    return msgspec.structs.replace(
        surprise, value=number(surprise.value), limit=number(surprise.limit), p_value=number(surprise.p_value)
    )


def _scalar(value: Any) -> Number:
    return number(np.asarray(value).reshape(-1)[0])


def _unit(plant: Plant, name: str) -> str:
    signal = plant.by_name.get(name)
    if signal is None:
        return ""
    return signal.unit if signal.modality is Modality.PROCESS else "spreads"
