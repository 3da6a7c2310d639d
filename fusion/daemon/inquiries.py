"""How many questions about the future are answered, so that no tick waits for them."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from fusion.prospects import Prospect, Question, Refusal, refused

WINDOW_S = 60.0


class Inquiries:
    """Admits ``per_minute`` questions; ``clock_s`` is monotonic."""

    def __init__(self, per_minute: int, clock_s: Callable[[], float]) -> None:
        self._per_minute, self._clock_s = per_minute, clock_s
        self._admitted_s: deque[float] = deque()

    def refusal(self, question: Question, t_ns: int) -> Prospect | None:
        """The answer to one question too many; None where it is admitted, which counts."""
        now_s = self._clock_s()
        while self._admitted_s and now_s - self._admitted_s[0] >= WINDOW_S:
            self._admitted_s.popleft()
        if len(self._admitted_s) >= self._per_minute:
            return refused(question, t_ns, Refusal.TOO_MANY, f"{self._per_minute} questions a minute are answered")
        self._admitted_s.append(now_s)
        return None
