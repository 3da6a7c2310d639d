"""An anomaly in plain words: what shows it, which checks contradict, which senses see it, and where to look."""

from __future__ import annotations

from dataclasses import replace

from fusion.dashboard.board import Board
from fusion.dashboard.places import Place, place
from fusion.dashboard.words import (
    OTHER_CHECK,
    SIGNS_OF_LIFE,
    SPREADS,
    Check,
    blame_text,
    check_of,
    duration,
    figure,
    hold_text,
    kind_text,
    listed,
    percent,
    sense_text,
    unit_text,
)
from fusion.plant import Modality
from fusion.publish.messages import AnomalyMessage, BlameOut, RecommendationMessage
from fusion.records import NS_PER_S, PROCESS, AnomalyKind

CHECKS_SHOWN = 3
TAGS_NAMED = 4
MOVES_TOLD = 3
SHARE_SEEN = 0.005
CARE = {
    Modality.VIDEO: "lens, light, aim and cable",
    Modality.AUDIO: "cover, mounting and cable",
    Modality.LIDAR: "window, mounting and cable",
}
INSTRUMENT = "compare it with a second reading, then look at its wiring and process connection"


def headline(board: Board, anomaly: AnomalyMessage | None, kind: str) -> str:
    """What is wrong, in one sentence: a dead sensor, a balance, or else what is blamed most, seen and expected."""
    if anomaly is None or not anomaly.top_signals:
        return kind_text(kind)
    first, lead = anomaly.top_signals[0], _lead(anomaly)
    if lead and lead.family in SIGNS_OF_LIFE:
        return replace(lead, about=first.signal if lead.about == PROCESS else lead.about).text(board.named)
    if lead and lead.family == "balance":
        text = lead.text(board.named)
        return text[0].upper() + text[1:]
    return _told(board, first)


def evidence(board: Board, anomaly: AnomalyMessage | None, kind: str) -> str:
    """The headline and, where it says nothing of a tag, what the first blamed one reads."""
    said = headline(board, anomaly, kind)
    tag = next((b for b in anomaly.top_signals if b.unit != SPREADS), None) if anomaly else None
    reads = _told(board, tag) if tag else ""
    return said if reads in said or (anomaly and anomaly.kind == AnomalyKind.SENSOR) else f"{said}; {reads}"


def _told(board: Board, blame: BlameOut) -> str:
    return blame_text(blame, board.named(blame.signal), place_of(board, blame).text)


def place_of(board: Board, blame: BlameOut) -> Place:
    """What of a medium stands out, in words and as a place to mark."""
    signal = board.plant.by_name.get(blame.signal) if board.plant else None
    modality = board.modality(blame.signal)
    return place(modality, blame.where, signal.rate_hz if signal and signal.modality is Modality.AUDIO else None)


def checks(anomaly: AnomalyMessage) -> dict[str, tuple[Check, float | None]]:
    """What contradicts what, the strongest first, and by how much: each finding once, in the words for its family."""
    found: dict[str, tuple[Check, float | None]] = {}
    for energy in anomaly.energies:
        check = check_of(energy.name)
        found.setdefault(check.text(), (check, energy.factor))
    return found


def reasons(board: Board, anomaly: AnomalyMessage) -> list[str]:
    """The findings behind an anomaly."""
    known = [(check, size) for text, (check, size) in checks(anomaly).items() if text != OTHER_CHECK]
    return [f"{check.text(board.named)} ({figure(size)} times its limit)" for check, size in known[:CHECKS_SHOWN]]


def senses(board: Board, anomaly: AnomalyMessage) -> str:
    """Which senses see it, and which do not."""
    ranked = sorted(anomaly.by_modality.items(), key=lambda item: -(item[1] or 0))
    seen = [f"{sense_text(name)} {percent(share)}" for name, share in ranked if (share or 0) >= SHARE_SEEN]
    judged = [surprise.modality or surprise.name for surprise in board.modalities()]
    calm = [sense_text(name) for name in judged if (anomaly.by_modality.get(name) or 0) < SHARE_SEEN]
    return listed(seen) + (f"; nothing unusual in {listed(calm)}" if seen and calm else "")


def action(board: Board, anomaly: AnomalyMessage) -> str:
    """What to do next: where to look on the plant, which instrument to check."""
    if not anomaly.top_signals:
        return "Look at the plant; nothing is blamed in particular."
    blame = anomaly.top_signals[0]
    look, care = _look(board, anomaly), _check(board, blame)
    if anomaly.kind == AnomalyKind.SENSOR:
        return f"{care}. Do not rely on it until then."
    if anomaly.kind == AnomalyKind.PROCESS:
        return f"{look}. If all is well there: {care[0].lower()}{care[1:]}."
    return f"Find out which is right. {look}. {care}."


def _lead(anomaly: AnomalyMessage) -> Check | None:
    """The finding that stands out most."""
    return next((check for check, _ in checks(anomaly).values()), None)


def _look(board: Board, anomaly: AnomalyMessage) -> str:
    lead = _lead(anomaly)
    if lead and lead.family == "balance":
        law = lead.about
        declared = next((b for b in board.plant.balances if b.name == law), None) if board.plant else None
        around = listed([board.named(name) for name in declared.signals[:TAGS_NAMED]]) if declared else law
        return f"Look for a leak, a blockage or an unmeasured flow around {around}"
    first = anomaly.top_signals[0].signal
    tags = [board.named(b.signal) for b in anomaly.top_signals if b.unit != SPREADS]
    if board.modality(first) is Modality.PROCESS:
        return f"Look on the plant at {listed(tags[:2])}"
    return f"Look at what {board.named(first)} shows" + (f", and on the plant at {tags[0]}" if tags else "")


def _check(board: Board, blame: BlameOut) -> str:
    care = CARE.get(board.modality(blame.signal))
    if care:
        return f"Check {board.named(blame.signal)} itself: {care}"
    return f"Check the instrument {blame.signal}: {INSTRUMENT}"


def advice_text(board: Board, advice: RecommendationMessage | None) -> str:
    """The advice of now in one sentence."""
    if advice is None:
        return "Advice: none yet"
    left_ns = advice.valid_until_ns - board.now_ns
    if advice.verdict == "hold":
        return f"No advice: {hold_text(advice.reason)}"
    if left_ns <= 0:
        return "Advice: the last one has expired"
    moves = "; ".join(
        f"{m.signal} from {figure(m.current)} to {figure(m.recommended)} {unit_text(m.unit)}".rstrip()
        for m in advice.moves[:MOVES_TOLD]
    )
    more = f" and {len(advice.moves) - MOVES_TOLD} more" if len(advice.moves) > MOVES_TOLD else ""
    gain = f"saves about {figure(advice.gain.expected)} cost units an hour"
    return f"Advice: set {moves}{more}; {gain}, valid for {duration(left_ns // NS_PER_S * NS_PER_S)}"
