"""Messages that must outlive a broker outage: a small SQLite table that a row leaves only once it was acknowledged."""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from fusion.clock import Clock
from fusion.errors import ConfigError, FusionError
from fusion.publish.messages import moved

LOCKED_S = 0.1  # how long a file that somebody else has locked is waited for
PASSING = ("SQLITE_FULL", "SQLITE_BUSY", "SQLITE_LOCKED")
DAMAGE = ("SQLITE_NOTADB", "SQLITE_CORRUPT")
COLUMNS = "message_id, kind, topic, payload, expires_ns"

_TABLES = (
    """
CREATE TABLE IF NOT EXISTS outbox (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    message_id TEXT NOT NULL UNIQUE,
    kind TEXT NOT NULL,
    topic TEXT NOT NULL,
    payload BLOB NOT NULL,
    expires_ns INTEGER
)
""",
    "CREATE TABLE IF NOT EXISTS axis (id INTEGER PRIMARY KEY CHECK (id = 0), boot TEXT NOT NULL, offset_ns INTEGER)",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Letter:
    """One message to deliver at least once; without use after ``expires_ns``."""

    message_id: str
    kind: str
    topic: str
    payload: bytes
    expires_ns: int | None = None


class OutboxDamaged(ConfigError):
    """The file of an outbox is damaged, as ``reason`` says."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"outbox {path!r}: {reason}; move the file away to start an empty one")
        self.reason = reason


class Outbox:
    """Letters in order of arrival, at most ``capacity`` of them; survives a restart when ``path`` is given.

    Used by one thread at a time: it does no locking of its own. A full disk or a locked file is an
    ``sqlite3.OperationalError``, after which nothing has changed. Times are those of ``clock``: letters of an earlier
    process of the same boot are moved by what the system's clock was stepped in between.

    Raises:
        OutboxDamaged: the file is damaged, or no database.
        ConfigError: the file cannot be created, or is another database.
        FusionError: the disk is full, or another process has locked the file.
    """

    def __init__(self, path: str = "", capacity: int = 10_000, clock: Clock | None = None) -> None:
        self._capacity = capacity
        try:
            if path:
                Path(path).parent.mkdir(parents=True, exist_ok=True)
            self._database = sqlite3.connect(
                path or ":memory:", LOCKED_S, check_same_thread=False, isolation_level=None
            )
        except (OSError, sqlite3.Error) as error:
            raise ConfigError(f"outbox {path!r}: cannot be opened ({error}); expected a writable file name") from error
        try:
            self._prepare(clock)
            damage = self._database.execute("PRAGMA integrity_check(1)").fetchone()[0] if path else "ok"
        except sqlite3.Error as error:
            self._database.close()
            if error.sqlite_errorname in PASSING:
                raise FusionError(f"outbox {path!r}: {error}; it cannot be used now") from error
            if error.sqlite_errorname.startswith(DAMAGE):
                raise OutboxDamaged(path, str(error)) from error
            raise ConfigError(f"outbox {path!r}: {error}; move the file away to start an empty one") from error
        if damage != "ok":
            self._database.close()
            raise OutboxDamaged(path, damage)

    def _prepare(self, clock: Clock | None) -> None:
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        for table in _TABLES:
            self._database.execute(table)
        self._database.execute(f"SELECT id, {COLUMNS} FROM outbox LIMIT 1")  # noqa: S608 - our own names
        if clock is not None:
            with self._transaction():
                self._take_over(clock)

    def _take_over(self, clock: Clock) -> None:
        """Bring what an earlier process left onto our axis of time."""
        found = self._database.execute("SELECT boot, offset_ns FROM axis").fetchone()
        if by_ns := clock.moved_ns(*(found or ("", None))):
            rows = self._database.execute("SELECT id, payload, expires_ns FROM outbox").fetchall()
            self._database.executemany(
                "UPDATE outbox SET payload = ?, expires_ns = ? WHERE id = ?",
                [(moved(data, by_ns), None if end_ns is None else end_ns + by_ns, row) for row, data, end_ns in rows],
            )
        self.dated(clock.boot, clock.offset_ns)

    def dated(self, boot: str, offset_ns: int | None) -> None:
        """Say on whose axis of time the letters are."""
        self._database.execute("INSERT OR REPLACE INTO axis VALUES (0, ?, ?)", (boot, offset_ns))

    def update(self, done: Collection[str] = (), letters: Sequence[Letter] = ()) -> list[str]:
        """Forget letters by their ``message_id`` and store others, in one transaction; what is there is kept once.

        Returns:
            The kinds of the oldest letters that had to leave for lack of room.
        """
        rows = [(x.message_id, x.kind, x.topic, x.payload, x.expires_ns) for x in letters]
        with self._transaction():
            self._database.executemany("DELETE FROM outbox WHERE message_id = ?", [(key,) for key in done])
            self._database.executemany(
                "INSERT OR IGNORE INTO outbox (message_id, kind, topic, payload, expires_ns) VALUES (?, ?, ?, ?, ?)",
                rows,
            )
            return self._trim() if rows else []

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        """All or nothing; what is committed is on the disk."""
        self._database.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._database.execute("COMMIT")
        finally:
            if self._database.in_transaction:
                self._database.execute("ROLLBACK")

    def _trim(self) -> list[str]:
        excess = len(self) - self._capacity
        if excess <= 0:
            return []
        oldest = self._database.execute("SELECT id, kind FROM outbox ORDER BY id LIMIT ?", (excess,)).fetchall()
        self._database.execute("DELETE FROM outbox WHERE id <= ?", (oldest[-1][0],))
        return [kind for _, kind in oldest]

    def after(self, row: int, count: int) -> list[tuple[int, Letter]]:
        """Up to ``count`` letters behind the given row number, oldest first, with their row numbers."""
        found = self._database.execute(
            "SELECT id, message_id, kind, topic, payload, expires_ns FROM outbox WHERE id > ? ORDER BY id LIMIT ?",
            (row, count),
        ).fetchall()
        return [
            (number, Letter(message_id=key, kind=kind, topic=topic, payload=payload, expires_ns=expires_ns))
            for number, key, kind, topic, payload, expires_ns in found
        ]

    def __len__(self) -> int:
        return int(self._database.execute("SELECT COUNT(*) FROM outbox").fetchone()[0])

    def close(self) -> None:
        """Close the file; what it holds stays."""
        self._database.close()
