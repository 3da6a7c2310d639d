"""The past as features, one tick after another: held tags and actions and how they differ from their own averages.

Where a window spans days, what the rhythm of each tag lets expect stands beside them.
Streams: feeding a run in pieces with the carry gives what feeding it at once gives. A value that is not observed is
never read; the last observed one stands in (before the first, the training median). Of many tags each has one average
of its own, which serves itself alone, and all share those of their leading factors.
Shape letters: T ticks, S tags, A actions, P past features, C columns, K own features of a tag.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from models.averages import ewma
from models.linear.rhythm import AHEAD, Rhythm, kept
from models.scaling import FACTOR_CLIP, FACTORS, MANY_TAGS, Bools, Floats, Scaling
from models.ticks import Ticks

TAG_ALPHAS = (0.3, 0.12, 0.05, 0.01, 0.004)
ACTION_ALPHAS = (0.3, 0.1, 0.03, 0.01, 0.003)
OWN_ALPHAS = (0.05,)  # of each tag where there are many
RHYTHM_COLUMNS = tuple(k - 1 for k in (1, 2, 4, 8, 16, 32, 64, AHEAD))


@dataclass(frozen=True, slots=True)
class PastCarry:
    """What a stream of ticks leaves behind: tags [S] ever observed, the sums of each column at each speed, its age.

    ``window`` [W, S] are the last rows of scaled tags, as far back as a rhythm looks, ``asked`` [D, A] the last scaled
    actions as they were asked for, as far back as the longest dead time.
    """

    known: Bools
    tag_sums: Floats
    action_sums: Floats
    factor_sums: Floats | None
    ticks: int
    window: Floats
    asked: Floats


@dataclass(frozen=True, slots=True)
class Past:
    """Scaled held tags [T, S], scaled actions [T, A] and the features made of them [T, P].

    Actions are as they arrive, after their dead time; ``waiting`` [T, D, A] are on their way, the last as it is asked
    for now. The first ``own`` features, K of each tag, serve the forecast of that tag alone; 0 of few tags.
    """

    tags: Floats
    action: Floats
    features: Floats
    waiting: Floats
    own: int = 0

    @property
    def shared(self) -> Floats:
        """The features [T, P - K * S] that serve every tag."""
        return self.features[:, self.own :]

    @property
    def alone(self) -> Floats:
        """The features [T, K, S] that serve one tag each."""
        return self.features[:, : self.own].reshape(len(self.features), -1, max(self.tags.shape[1], 1))

    def __getitem__(self, part: slice) -> Past:
        return Past(self.tags[part], self.action[part], self.features[part], self.waiting[part], self.own)


def past(
    ticks: Ticks,
    scaling: Scaling,
    carry: PastCarry | None = None,
    rhythm: Rhythm | None = None,
    dead: Sequence[int] = (),
) -> tuple[Past, PastCarry]:
    """Features of the past at every tick, and what the next piece needs; ``dead`` [A] are dead times [ticks]."""
    tags, known = _known_tags(ticks, scaling, carry)
    action, waiting, asked = _arrived(scaling.action.scaled(ticks.action), dead, carry)
    before = 0 if carry is None else carry.ticks
    many = scaling.factors is not None
    alphas = OWN_ALPHAS if many else TAG_ALPHAS
    tag_parts, tag_sums = _differences(tags, alphas, None if carry is None else carry.tag_sums, before)
    action_parts, sums = _differences(action, ACTION_ALPHAS, None if carry is None else carry.action_sums, before)
    factor_parts, factor_sums = _factor_parts(tags, scaling, carry)
    window = tags[:0] if carry is None else carry.window
    ahead = [] if rhythm is None else [rhythm.ahead(tags, window, RHYTHM_COLUMNS).reshape(len(tags), -1)]
    features = np.concatenate([tags, *tag_parts, *factor_parts, action, *action_parts, *ahead], 1)
    own = (1 + len(OWN_ALPHAS)) * tags.shape[1] if many else 0
    window = tags[:0] if rhythm is None else kept(tags, window)
    after = PastCarry(known, tag_sums, sums, factor_sums, before + len(ticks), window, asked)
    return Past(tags, action, features, waiting, own), after


def _arrived(asked: Floats, dead: Sequence[int], carry: PastCarry | None) -> tuple[Floats, Floats, Floats]:
    """Scaled actions [T, A] as they arrive, those on their way [T, D, A], and what the next piece needs [D, A].

    Before the first tick the actions are taken to have rested.
    """
    late = max(dead, default=0)
    if not late or not len(asked):
        return asked, np.zeros((len(asked), late, asked.shape[1])), asked[:0] if carry is None else carry.asked
    before = np.repeat(asked[:1], late, 0) if carry is None else carry.asked
    whole = np.concatenate([before, asked])
    action = np.stack([whole[late - d : late - d + len(asked), a] for a, d in enumerate(dead)], 1)
    waiting = np.lib.stride_tricks.sliding_window_view(whole[1:], late, axis=0).swapaxes(1, 2)
    return action, waiting, whole[-late:]


def begun_anew(carry: PastCarry) -> PastCarry:
    """The carry of a stream whose averages begin with the next tick."""
    factors = None if carry.factor_sums is None else np.zeros_like(carry.factor_sums)
    tags, actions = np.zeros_like(carry.tag_sums), np.zeros_like(carry.action_sums)
    return replace(carry, tag_sums=tags, action_sums=actions, factor_sums=factors, ticks=0)


def _factor_parts(tags: Floats, scaling: Scaling, carry: PastCarry | None) -> tuple[list[Floats], Floats | None]:
    """Values of the factors and how they differ from their averages; nothing of few tags."""
    if scaling.factors is None:
        return [], None
    values = tags.clip(-FACTOR_CLIP, FACTOR_CLIP) @ scaling.factors
    sums, before = (None, 0) if carry is None else (carry.factor_sums, carry.ticks)
    parts, sums = _differences(values, TAG_ALPHAS, sums, before)
    return [values, *parts], sums


def held_tags(ticks: Ticks, scaling: Scaling) -> Floats:
    """Scaled tags [T, S] of a whole run; a value that is not observed is the last one that was."""
    return _known_tags(ticks, scaling, None)[0]


def feature_names(tags: tuple[str, ...], actions: tuple[str, ...]) -> tuple[str, ...]:
    """Names of the past features but those of a rhythm, which follow them by horizon and tag."""
    many = len(tags) > MANY_TAGS
    factors = tuple(f"factor {i}" for i in range(FACTORS if many else 0))
    named = [("", tags), *((f".ewma{a}", tags) for a in (OWN_ALPHAS if many else TAG_ALPHAS))]
    named += [("", factors), *((f".ewma{a}", factors) for a in TAG_ALPHAS)]
    named += [("", actions), *((f".ewma{a}", actions) for a in ACTION_ALPHAS)]
    return tuple(name + suffix for suffix, names in named for name in names)


def _known_tags(ticks: Ticks, scaling: Scaling, carry: PastCarry | None) -> tuple[Floats, Bools]:
    before = np.zeros(ticks.tags.shape[1], bool) if carry is None else carry.known
    known = np.logical_or.accumulate(np.concatenate([before[None], ticks.observed]), axis=0)
    return np.where(known[1:], scaling.tags.scaled(ticks.tags), 0.0), known[-1]


def _differences(
    values: Floats, alphas: tuple[float, ...], sums: Floats | None, before: int
) -> tuple[list[Floats], Floats]:
    """Averages less the values [T, C] at each speed, and the sums they stand at.

    The first ticks of a stream are averaged in equal parts: an average that starts at one noisy value would carry its
    noise for as long as it remembers.
    """
    start = np.zeros((len(alphas), values.shape[1])) if sums is None else sums
    made = [ewma(values, alpha, start[i]) for i, alpha in enumerate(alphas)]
    age = before + 1 + np.arange(len(values))[:, None]
    parts = [total / (1.0 - (1.0 - a) ** age) - values for (total, _), a in zip(made, alphas, strict=True)]
    return parts, np.stack([state for _, state in made])
