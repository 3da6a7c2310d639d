"""Letters on their way to the broker: on the disk before anything else or, while it takes nothing, in memory."""

from __future__ import annotations

import logging
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Sequence

from fusion.clock import Clock
from fusion.publish.outbox import Letter
from fusion.publish.salvage import opened

log = logging.getLogger(__name__)

RETRY_S = 1.0
FORGET_S = 0.25


class Mailbag:
    """What must arrive, in order; for the thread that publishes and the thread that sends.

    A letter is sent whether the disk takes it or not. ``dropped`` counts by kind and reason. ``path`` and ``capacity``
    are those of the outbox; ``flags`` say whether the one that was found had to be set aside.
    """

    def __init__(self, path: str, capacity: int, clock: Clock, dropped: Counter[str]) -> None:
        self.trouble = ""
        self._path, self._capacity, self._clock, self._dropped = path, capacity, clock, dropped
        self._outbox, self.flags = opened(path, capacity, clock)
        self._rows = len(self._outbox)
        self._row = 0
        self._unstored: dict[str, Letter] = {}
        self._taken: set[str] = set()
        self._done: set[str] = set()
        self._again_s = self._forget_s = self._unreadable_s = 0.0
        self._closed = False
        self._lock = threading.RLock()

    def __len__(self) -> int:
        return max(self._rows - len(self._done), 0) + len(self._unstored)

    @property
    def settled(self) -> bool:
        """Whether all of it would outlive the process now."""
        return not self._unstored if self._path else len(self) == 0

    def put(self, letters: Sequence[Letter]) -> bool:
        """Take letters; whether they are on the disk now, else they wait in memory until it takes them."""
        with self._lock:
            if not letters:
                return not self._unstored
            self._unstored |= {letter.message_id: letter for letter in letters}
            self._update()
            self._make_room()
            return not self._unstored

    def tend(self) -> None:
        """Try again what the disk did not take, and let it forget what has arrived."""
        with self._lock:
            if self._closed:
                return
            if self._unstored or self.trouble or (self._done and time.monotonic() >= self._forget_s):
                self._update()

    def begin(self) -> None:
        """Start with the oldest letter again: the connection is another one."""
        with self._lock:
            self._row = 0
            self._taken.clear()

    def take(self, count: int) -> list[Letter]:
        """Up to ``count`` letters to send, oldest first; each once a connection. What has expired is left out."""
        with self._lock:
            if self._closed or count <= 0 or not len(self):
                return []
            letters = self._next(count, count + len(self._taken) + len(self._done))
            self._taken |= {letter.message_id for letter in letters}
            return [letter for letter in letters if not self._expired(letter)]

    def _next(self, count: int, limit: int) -> list[Letter]:
        """First what is stored; memory holds what came later. ``limit`` rows hold one to send, if any is left."""
        stored = self._read(limit)
        if stored is None:
            return []
        fresh = [(row, x) for row, x in stored if x.message_id not in self._taken and x.message_id not in self._done]
        if len(fresh) > count or len(stored) == limit:
            self._row = fresh[:count][-1][0]
            return [letter for _, letter in fresh[:count]]
        self._row = stored[-1][0] if stored else self._row
        unstored = [letter for key, letter in self._unstored.items() if key not in self._taken]
        return [*(letter for _, letter in fresh), *unstored[: count - len(fresh)]]

    def _read(self, count: int) -> list[tuple[int, Letter]] | None:
        """Letters on the disk that were not taken yet; None where it does not give them now."""
        if time.monotonic() < self._unreadable_s:
            return None
        try:
            return self._outbox.after(self._row, count)
        except sqlite3.OperationalError as error:
            self._unreadable_s = self._note(error)
            return None

    def _expired(self, letter: Letter) -> bool:
        if letter.expires_ns is None or letter.expires_ns > self._clock.now_ns():
            return False
        self._dropped[f"{letter.kind}:expired"] += 1
        self.arrived(letter.message_id)
        return True

    def arrived(self, message_id: str) -> None:
        """The broker has a letter."""
        with self._lock:
            self._taken.discard(message_id)
            if self._unstored.pop(message_id, None) is None:
                if not self._done:
                    self._forget_s = time.monotonic() + FORGET_S
                self._done.add(message_id)

    def _update(self) -> None:
        """Bring the disk up to date; a full disk or a locked file is said, and tried again after a while."""
        if time.monotonic() < self._again_s:
            return
        try:
            for kind in self._outbox.update(self._done, list(self._unstored.values())):
                self._dropped[f"{kind}:outbox_full"] += 1
            self._rows = len(self._outbox)
        except sqlite3.OperationalError as error:
            self._again_s = self._note(error)
        else:
            self._done.clear()
            self._unstored.clear()
            self.trouble = ""

    def _note(self, error: sqlite3.OperationalError) -> float:
        """Say it, once; returns when to try again."""
        if not self.trouble:
            log.error("publisher: outbox %s: %s; trying again", self._path, error)
        self.trouble = f"outbox {self._path}: {error}"
        return time.monotonic() + RETRY_S

    def _make_room(self) -> None:
        for key in list(self._unstored)[: max(len(self._unstored) - self._capacity, 0)]:
            self._dropped[f"{self._unstored.pop(key).kind}:outbox_full"] += 1

    def close(self) -> None:
        """Store what came last; what the disk does not take now is lost, and said."""
        with self._lock:
            if self._closed:
                return
            self._again_s = 0.0
            self._update()
            if self._unstored:
                log.error("publisher: %s; %d letters are lost", self.trouble, len(self._unstored))
            for letter in self._unstored.values():
                self._dropped[f"{letter.kind}:not_stored"] += 1
            self._unstored.clear()
            self._closed = True
            self._outbox.close()
