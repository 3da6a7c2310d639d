"""What is heard over the wire: answers, questions and orders of people and of other programs.

What is bounded here is so before anything is made of it: names, numbers of moves, times. A payload that is none of
these is refused in words and changes nothing.
"""

from __future__ import annotations

from typing import Annotated, Literal, TypeVar

import msgspec

from fusion.alarms import AlarmOrder, MarkKind, MarkOrder, ModelOrder, ModeOrder, OrderKind
from fusion.errors import FusionError
from fusion.prospects import Question
from fusion.records import Answer, AnswerKind

Moment = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
Word = Annotated[str, msgspec.Meta(max_length=200)]
Moves = Annotated[dict[Word, float], msgspec.Meta(max_length=100)]
Heard = TypeVar("Heard", bound=msgspec.Struct)

_ENCODER = msgspec.json.Encoder()


class AnswerMessage(msgspec.Struct, kw_only=True, frozen=True):
    """What others say on ``recommendation/ack`` of the recommendation ``id``."""

    id: str
    answer: AnswerKind
    reason: str = ""
    by: str = ""


class QuestionMessage(msgspec.Struct, kw_only=True, frozen=True):
    """What somebody asks on ``whatif/request``: ``moves`` names manipulated signals and values in their units."""

    id: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    moves: Moves
    by: Word = ""


class AlarmOrderMessage(msgspec.Struct, kw_only=True, frozen=True):
    """What an operator says on ``alarm/order`` of the alarm of the anomaly ``id``; shelved ``for_s`` seconds."""

    id: str
    order: OrderKind
    by: str
    for_s: float = 0.0


class ModeOrderMessage(msgspec.Struct, kw_only=True, frozen=True):
    """What an operator says on ``mode/order`` of advice: what it may do from now on."""

    mode: Literal["observe", "shadow", "advise", "supervised"]
    by: Word


class ModelOrderMessage(msgspec.Struct, kw_only=True, frozen=True):
    """What somebody says on ``model/order``: which of the models that are kept is to be used from now on."""

    model: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
    by: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class VerifierOrderMessage(msgspec.Struct, kw_only=True, frozen=True):
    """What an operator says on ``verifier/order``: nothing is written before the start, nor after a stop."""

    order: Literal["start", "stop"]
    by: Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class MarkOrderMessage(msgspec.Struct, kw_only=True, frozen=True):
    """What somebody says on ``mark/order`` of a stretch of time [UTC ns], for what is learned from it.

    Without ``t_from_ns`` it begins now, or where an unended mark of this name began; without ``t_to_ns`` it has no end
    yet. The last word on a name holds.
    """

    name: Word
    kind: Literal["fault", "maintenance", "good"]
    by: Word
    t_from_ns: Moment | None = None
    t_to_ns: Moment | None = None


def decode_answer(payload: bytes) -> Answer:
    """The answer to a recommendation in a payload.

    Raises:
        FusionError: not JSON, or without ``id`` and a known ``answer``; the text says which.
    """
    said = _heard(payload, AnswerMessage, "an answer", f"id, and answer as one of {', '.join(AnswerKind)}")
    return Answer(id=said.id, answer=said.answer, reason=said.reason, by=said.by)


def decode_order(payload: bytes) -> AlarmOrder:
    """The order of an operator in a payload.

    Raises:
        FusionError: not JSON, or without ``id``, ``by`` and a known ``order``; the text says which.
    """
    said = _heard(payload, AlarmOrderMessage, "an order", f"id, by, and order as one of {', '.join(OrderKind)}")
    return AlarmOrder(id=said.id, order=said.order, by=said.by, for_s=said.for_s)


def decode_mode(payload: bytes) -> ModeOrder:
    """What an operator asks of advice in a payload.

    Raises:
        FusionError: not JSON, or without ``by`` and a known ``mode``; the text says which.
    """
    accepted = "by, and mode as one of observe, shadow, advise, supervised"
    said = _heard(payload, ModeOrderMessage, "a mode", accepted)
    return ModeOrder(mode=said.mode, by=said.by)


def decode_model(payload: bytes) -> ModelOrder:
    """Which model is to be used, in a payload.

    Raises:
        FusionError: not JSON, or without ``model`` and ``by``; the text says which.
    """
    said = _heard(payload, ModelOrderMessage, "a choice of a model", "model and by, neither of them empty")
    return ModelOrder(model=said.model, by=said.by)


def decode_verifier_order(payload: bytes) -> VerifierOrderMessage:
    """What an operator orders of the verifier in a payload.

    Raises:
        FusionError: not JSON, or without ``by`` and a known ``order``; the text says which.
    """
    return _heard(payload, VerifierOrderMessage, "an order", "by, and order as start or stop")


def decode_question(payload: bytes) -> Question:
    """The question about the future in a payload.

    Raises:
        FusionError: not JSON, or without ``id`` and ``moves``; the text says which.
    """
    said = _heard(payload, QuestionMessage, "a question", "id, and moves as values by signal")
    return Question(id=said.id, moves=said.moves, by=said.by)


def encode_question(question: Question) -> bytes:
    """A question as JSON."""
    return _ENCODER.encode(question)


def decode_mark(payload: bytes) -> MarkOrder:
    """What is said of a stretch of time in a payload.

    Raises:
        FusionError: not JSON, or without ``name``, ``by`` and a known ``kind``; the text says which.
    """
    said = _heard(payload, MarkOrderMessage, "a mark", "name, by, and kind as fault, maintenance or good")
    kind = MarkKind(said.kind)
    return MarkOrder(name=said.name, kind=kind, by=said.by, t_from_ns=said.t_from_ns, t_to_ns=said.t_to_ns)


def encode_mark(order: MarkOrder) -> bytes:
    """What somebody says of a stretch of time, as JSON."""
    return _ENCODER.encode(order)


def _heard(payload: bytes, kind: type[Heard], what: str, expected: str) -> Heard:
    try:
        return msgspec.json.decode(payload, type=kind)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise FusionError(f"not {what}: {error}; expected {expected}") from error
