"""Who did what and when: from the daemon's audit where the page may read it, else what it has heard itself."""

from __future__ import annotations

import contextlib
import json
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from fusion.alarms import AlarmState
from fusion.dashboard.words import kind_word
from fusion.publish.messages import AlarmMessage
from fusion.records import NS_PER_S

KEPT = 5000
TAIL_BYTES = 4 * 2**20
TEXT_LENGTH = 200
TOPICS = {"alarm": "order", "mark": "mark", "mode": "mode", "model": "model", "recommendation": "answer"}
STATES = {
    AlarmState.UNACKNOWLEDGED: "raised",
    AlarmState.RETURNED: "well again",
    AlarmState.NORMAL: "over",
}
SILENT = ("time", "hash", "what", "by", "id", "name", "since", "until", "t_from_ns", "t_to_ns", "for_s")


@dataclass(frozen=True, slots=True)
class Act:
    """One thing that was done or happened: ``what`` is one of ``TOPICS``' values, started, stopped, alarm or advice."""

    t_ns: int
    what: str
    id: str
    by: str
    text: str


class ActLog:
    """The newest acts, oldest first; ``audit`` is the file in the daemon's state folder."""

    def __init__(self, audit: Path | None = None) -> None:
        self.acts: deque[Act] = deque(maxlen=KEPT)
        self._audit, self._at = audit, -1

    @property
    def whole(self) -> bool:
        """Whether it knows of what was done before the page was started."""
        return self._audit is not None

    def heard(self, levels: Sequence[str], payload: bytes, t_ns: int) -> None:
        """Note what somebody says to the daemon; with an audit it is the daemon that tells what came of it."""
        what = TOPICS.get(levels[0]) if levels else None
        if self._audit is None and what:
            with contextlib.suppress(ValueError, RecursionError):
                said = json.loads(payload)
                if isinstance(said, dict):
                    self.acts.append(_act(what, said, t_ns))

    def told(self, message: AlarmMessage) -> None:
        """Note what became of an alarm by itself."""
        alarm = message.alarm
        text = {state.value: text for state, text in STATES.items()}.get(alarm.state)
        if self._audit is None and text and alarm.t_acknowledged_ns is None:
            self.acts.append(Act(message.t_ns, "alarm", alarm.id, "", f"{kind_word(alarm.kind)}: {text}"))

    def read(self) -> None:
        """Take what the daemon has written since the last call."""
        if self._audit is None:
            return
        try:
            with self._audit.open("rb") as stream:
                size = stream.seek(0, 2)
                begin = max(0, size - TAIL_BYTES) if self._at < 0 or size < self._at else self._at
                stream.seek(begin)
                whole = stream.read(TAIL_BYTES).rpartition(b"\n")[0]
        except OSError:
            return
        self._at = begin + len(whole) + bool(whole)
        for line in whole.splitlines():
            with contextlib.suppress(ValueError, KeyError, TypeError, RecursionError):
                said = json.loads(line)
                moment = datetime.fromisoformat(said["time"])
                self.acts.append(_act(str(said["what"]), said, round(moment.timestamp() * NS_PER_S)))


def _act(what: str, said: Mapping[str, Any], t_ns: int) -> Act:
    rest = {key: value for key, value in said.items() if key not in SILENT and value not in ("", None, 0.0)}
    words = (
        rest.values()
        if what in ("order", "alarm", "answer", "mode", "model")
        else (f"{k} {_word(v)}" for k, v in rest.items())
    )
    text = ", ".join(map(_word, words))[:TEXT_LENGTH]
    return Act(t_ns, what, str(said.get("id") or said.get("name") or ""), str(said.get("by") or ""), text)


def _word(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{key} {_word(item)}" for key, item in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)
