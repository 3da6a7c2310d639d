"""An outbox whose file is damaged: set aside by name, with what can still be read of it carried over."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import sqlite3
from collections.abc import Iterator
from pathlib import Path

from fusion.clock import Clock
from fusion.errors import ConfigError
from fusion.publish.outbox import COLUMNS, Letter, Outbox, OutboxDamaged

log = logging.getLogger(__name__)

SET_ASIDE = "outbox:set_aside"
BESIDE = ("-wal", "-shm", "")  # what belongs to a database, its file last: a process that is killed here begins again


def opened(path: str, capacity: int, clock: Clock) -> tuple[Outbox, tuple[str, ...]]:
    """The outbox of a file, and a flag where the one found there was damaged.

    Raises:
        ConfigError: the file cannot be created, set aside, or is something else than an outbox.
        FusionError: the disk is full, or another process has locked the file.
    """
    try:
        return Outbox(path, capacity, clock), ()
    except OutboxDamaged as error:
        letters, axis = _readable(path)
        aside = _set_aside(path, clock)
        said = "publisher: outbox %s is not used and kept as %s: %s; %d letters could be read and are sent"
        log.error(said, path, aside.name, error.reason, len(letters))
    with contextlib.closing(Outbox(path, capacity)) as fresh:
        fresh.update((), letters)
        if axis is not None:
            fresh.dated(*axis)
    return Outbox(path, capacity, clock), (SET_ASIDE,)


def _readable(path: str) -> tuple[list[Letter], tuple[str, int | None] | None]:
    """The letters that are whole, oldest first, from both ends to where it is damaged, and whose time theirs is."""
    found: dict[int, Letter] = {}
    axis = None
    with contextlib.closing(sqlite3.connect(path, isolation_level=None)) as database:
        database.execute("PRAGMA writable_schema=ON")  # a file that lost its end is read all the same
        for order in ("", "DESC"):
            for row, letter in _letters(database, order):
                found.setdefault(row, letter)
        with contextlib.suppress(sqlite3.Error):
            axis = database.execute("SELECT boot, offset_ns FROM axis").fetchone()
    return [found[row] for row in sorted(found)], axis


def _letters(database: sqlite3.Connection, order: str) -> Iterator[tuple[int, Letter]]:
    """Letters with their rows until the first that cannot be read; one that is not itself any more is left out."""
    with contextlib.suppress(sqlite3.Error):
        for row, *columns in database.execute(f"SELECT id, {COLUMNS} FROM outbox ORDER BY id {order}"):  # noqa: S608
            key, kind, topic, payload, expires_ns = columns
            with contextlib.suppress(ValueError, TypeError, AttributeError, RecursionError):
                if json.loads(payload).get("message_id") == key:
                    letter = Letter(message_id=key, kind=kind, topic=topic, payload=payload, expires_ns=expires_ns)
                    yield row, letter


def _set_aside(path: str, clock: Clock) -> Path:
    file = Path(path)
    aside = file.with_name(f"{file.name}.{clock.now_ns()}.aside")
    try:
        for end in BESIDE:
            with contextlib.suppress(FileNotFoundError):
                os.replace(f"{file}{end}", f"{aside}{end}")  # noqa: PTH105 - the names are no Paths
    except OSError as error:
        raise ConfigError(f"outbox {path!r} is damaged and cannot be set aside ({error}); move it away") from error
    return aside
