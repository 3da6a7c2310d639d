"""What somebody asks of the future of a plant, and what is answered: a prospect, or why there is none."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from fusion.records import Forecast, Move


class Refusal(StrEnum):
    """Why a question is not answered; the list is fixed so that a program can act on it."""

    NO_MODEL = "no_model"
    WARMING_UP = "warming_up"
    UNKNOWN_SIGNAL = "unknown_signal"
    OUT_OF_RANGE = "outside_range"
    OUT_OF_REGION = "outside_trained_region"
    STALE_DATA = "stale_or_missing_data"
    MODEL_FAILED = "model_late_or_not_finite"
    TOO_MANY = "too_many_questions"
    BUSY = "busy"


@dataclass(frozen=True, slots=True, kw_only=True)
class Question:
    """What happens if the manipulated signals in ``moves`` are brought to these values, in their units, from now on."""

    id: str
    moves: Mapping[str, float]
    by: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Prospect:
    """The answer to the question ``id``: both forecasts, or a ``refusal``; ``text`` says it in words.

    ``gain`` is the saving against doing nothing with its 90 % interval, in the objective's unit; ``binding`` are limits
    that the moved course reaches; ``support`` is the distance to the trained region as a ratio to its limit. ``stale``
    are signals without a usable value.
    """

    id: str
    t_ns: int
    model_id: str = ""
    by: str = ""
    refusal: Refusal | None = None
    text: str = ""
    moves: tuple[Move, ...] = ()
    moved: Forecast | None = None
    baseline: Forecast | None = None
    gain: tuple[float, float, float] | None = None
    binding: tuple[str, ...] = ()
    support: float | None = None
    stale: tuple[str, ...] = field(default=())


def refused(question: Question, t_ns: int, refusal: Refusal, text: str, model_id: str = "") -> Prospect:
    """The answer that there is none."""
    return Prospect(id=question.id, by=question.by, t_ns=t_ns, refusal=refusal, text=text, model_id=model_id)
