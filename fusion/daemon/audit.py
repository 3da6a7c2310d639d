"""Who did what, kept for good: a file of JSON lines, each with the hash of all before it.

A line that was changed, taken out or put in breaks the chain from there on. That the last lines are missing, it cannot
say: whoever must know copies the last hash elsewhere from time to time.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import Any

from fusion.clock import CLOCK, iso_time
from fusion.errors import ConfigError

log = logging.getLogger(__name__)

AUDIT = "audit.jsonl"
BEGINNING = "0" * 64
WAITING = 1000


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What was found: lines, those cut short by a loss of power, and the line at which the chain breaks, if it does."""

    lines: int
    torn: int
    broken: int | None
    last: str


class Audit:
    """Writes the file; without one, nothing. What the disk does not take now is tried again with the next.

    Used by one thread at a time.
    """

    def __init__(self, file: Path | None = None, now_ns: Callable[[], int] = CLOCK.now_ns) -> None:
        self.trouble = ""
        self._file, self._now_ns = file, now_ns
        self._waiting: list[dict[str, Any]] = []
        self._last = BEGINNING
        if file is not None and file.exists():
            self._last = check_audit(file).last
            _end_torn_line(file)

    def note(self, what: str, **details: Any) -> None:
        """Put on the disk what was done."""
        if self._file is None:
            return
        self._waiting = [*self._waiting, {"time": iso_time(self._now_ns()), "what": what, **details}][-WAITING:]
        last, lines = self._last, []
        for entry in self._waiting:
            last = _hash(last, entry)
            lines.append(json.dumps(entry | {"hash": last}) + "\n")
        try:
            with self._file.open("ab") as stream:
                stream.write("".join(lines).encode())
                stream.flush()
                os.fsync(stream.fileno())
        except OSError as error:
            if not self.trouble:
                log.error("audit: %s is not written: %s", self._file, error)
            self.trouble = f"audit: {self._file} is not written: {error}"
        else:
            self._last, self.trouble = last, ""
            self._waiting.clear()


def check_audit(file: Path) -> Checked:
    """Follow the chain from its beginning.

    Raises:
        ConfigError: the file cannot be read.
    """
    last, lines, torn, broken = BEGINNING, 0, 0, None
    try:
        with file.open("rb") as stream:
            for lines, line in enumerate(stream, 1):
                entry = _entry(line)
                if entry is None:
                    torn += 1
                    continue
                told = entry.pop("hash", "")
                if told != _hash(last, entry) and broken is None:
                    broken = lines
                last = str(told)
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror})") from error
    return Checked(lines=lines, torn=torn, broken=broken, last=last)


def _hash(last: str, entry: dict[str, Any]) -> str:
    return sha256((last + json.dumps(entry, sort_keys=True)).encode()).hexdigest()


def _entry(line: bytes) -> dict[str, Any] | None:
    try:
        entry = json.loads(line)
    except ValueError:
        return None
    return entry if isinstance(entry, dict) else None


def _end_torn_line(file: Path) -> None:
    with file.open("rb+") as stream:
        if stream.seek(0, os.SEEK_END) and stream.seek(-1, os.SEEK_END) and stream.read(1) != b"\n":
            stream.write(b"\n")
