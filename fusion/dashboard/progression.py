"""Where slow quantities go, in plain words, for the page and the terminal."""

from __future__ import annotations

from html import escape

from fusion.dashboard.board import Board
from fusion.dashboard.look import PLAIN, Look
from fusion.dashboard.panels import empty
from fusion.dashboard.words import figure, listed, reading, when_text, with_unit
from fusion.publish.progression import LifeOut, ProgressionMessage, StateOut, TrendOut
from fusion.trends import LimitSource, QuantityKind

HOURS_BELOW_DAYS = 2.0
NOTHING = "nothing drifts towards a limit"
NOT_YET = "nothing is said before two days of data"
LEAST_DAYS = 2.0
NOT_TAGS = (QuantityKind.BALANCE, QuantityKind.CONDITION)


def progression(board: Board, look: Look = PLAIN) -> str:
    """The panel of the page."""
    said = board.progression
    life = f"<div>{escape(life_text(said.life))}</div>" if said and said.life else ""
    life += "".join(f"<div>{escape(text)}</div>" for text in condition_lines(said))
    if said is None or not said.trends:
        return life + empty(quiet(said))
    lines = [
        f"<div>{escape(trend_text(board, trend))} "
        f'<span class="muted">said since {when_text(trend.since_ns, board.now_ns, look.zone)}</span></div>'
        for trend in said.trends
    ]
    more = f'<div class="muted">and {said.more} more</div>' if said.more else ""
    return life + "".join(lines) + more


def progression_lines(board: Board) -> list[str]:
    """The same for a terminal."""
    said = board.progression
    life = [life_text(said.life)] if said and said.life else []
    life += condition_lines(said)
    if said is None or not said.trends:
        return [*life, f"Trends: {quiet(said)}"]
    return [*life, "Trends:", *(f"  {trend_text(board, trend)}" for trend in said.trends)]


def condition_lines(said: ProgressionMessage | None) -> list[str]:
    """What has changed of the states that no instrument reads, and how many have not."""
    states = said.states if said else []
    changed = [state for state in states if state.changed]
    rest = len(states) - len(changed)
    others = [f"{rest} hidden {'state is' if rest == 1 else 'states are'} as at first"] if rest else []
    return [*map(state_text, changed), *others]


def state_text(state: StateOut) -> str:
    """How far a hidden state is from what it was at first, with its interval."""
    below = (state.value or 0.0) < 0.0
    sides = (state.high, state.low) if below else (state.low, state.high)
    near, far = (figure(None if side is None else max(-side if below else side, 0.0)) for side in sides)
    size = with_unit(figure(None if state.value is None else abs(state.value)), state.unit)
    name = state.name[:1].upper() + state.name[1:]
    return f"{name}: {size} ({near} to {far}) {'below' if below else 'above'} what it was at first"


def life_text(life: LifeOut) -> str:
    """How long what wears will last; in hours below two days."""
    hours = (life.expected_h or 0.0) < HOURS_BELOW_DAYS * 24
    expected, low, high = (_figure_of(value, hours) for value in (life.expected_h, life.low_h, life.high_h))
    unit = "h" if hours else "days"
    if life.capped:
        return f"Remaining life: more than {low} {unit}; the end is too far to be told"
    return f"Remaining life: {expected} {unit} ({low} to {high})"


def _figure_of(hours: float | None, as_hours: bool) -> str:
    return figure(None if hours is None else hours if as_hours else hours / 24.0)


def quiet(said: ProgressionMessage | None) -> str:
    """Why no trend is stated."""
    if said is None:
        return "nothing was said of them yet"
    return NOT_YET if (said.seen_days or 0.0) < LEAST_DAYS else f"{NOTHING}, of {said.watched} that are watched"


def trend_text(board: Board, trend: TrendOut) -> str:
    """One trend: what is, how it moves, and when it is where."""
    named = trend.signal if trend.kind in NOT_TAGS else board.named(trend.signal)
    with_it = f"; {listed(trend.with_it)} with it" if trend.with_it else ""
    return f"{_is(named, trend)}, {_moves(trend)}; {_arrives(trend)}{with_it}"


def _is(named: str, trend: TrendOut) -> str:
    size = with_unit(figure(None if trend.level is None else abs(trend.level)), trend.unit)
    positive = (trend.level or 0.0) >= 0
    match trend.kind:
        case QuantityKind.BESIDE:
            return f"{named} reads {size} {'above' if positive else 'below'} what the others tell"
        case QuantityKind.BALANCE:
            return f"The balance of {named} {'gains' if positive else 'loses'} {size}"
        case QuantityKind.CONDITION:
            return f"The {named} is {size} {'above' if positive else 'below'} what it was at first"
    return f"{named} is at {with_unit(reading(trend.level), trend.unit)}"


def _moves(trend: TrendOut) -> str:
    """How fast; what lies below and grows falls."""
    by = with_unit(figure(None if trend.per_day is None else abs(trend.per_day)), trend.unit)
    return f"{'rising' if (trend.per_day or 0.0) > 0 else 'falling'} {by} a day"


def _arrives(trend: TrendOut) -> str:
    when = _span(trend.days_to_limit, trend.days_to_limit_low, trend.days_to_limit_high)
    if trend.limit_source == LimitSource.ALARM:
        return f"would be as far off as raises an alarm {when}"
    if trend.limit_source == LimitSource.FLEET:
        return f"would be as far off as on the most worn plants of the fleet {when}"
    whose = "its limit" if trend.limit_source == LimitSource.TARGET else "the end of its range"
    return f"reaches {whose}, {with_unit(reading(trend.limit), trend.unit)}, {when}"


def _span(expected: float | None, low: float | None, high: float | None) -> str:
    """When, with its interval; in hours where that is sooner than two days."""
    hours = expected is not None and expected < HOURS_BELOW_DAYS
    unit, factor = ("h", 24.0) if hours else ("days", 1.0)

    def of(days: float | None) -> str:
        return "later" if days is None else f"{days * factor:.2g}"

    first = "in the time that can be told" if expected is None else f"in {of(expected)} {unit}"
    return f"{first} ({of(low)} to {of(high)})"
