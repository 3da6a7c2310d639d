"""Models of one plant in one folder: every one that was ever learned, which is in use, and how it came to that.

``0001``, ``0002`` ... are model folders as `fusion train` writes them; ``current.json`` says which is in use and what
was before. It is written whole: a reader finds the old choice or the new one.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from fusion.clock import CLOCK
from fusion.errors import ConfigError
from fusion.files import whole_file
from fusion.plain import decode, plain

CURRENT = "current.json"
VERDICT = "verdict.json"
NOTE = "note.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class Choice:
    """A model that was put to use: by whom, why, and when [UTC ns]."""

    model: str
    by: str
    reason: str = ""
    t_ns: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class Learned:
    """What a model was made from: ``hours`` of normal operation, and when it was written [UTC ns]."""

    hours: float
    t_ns: int


class ModelStore:
    """The folder; nothing of it is kept in memory, for several processes use it."""

    def __init__(self, folder: Path, now_ns: Callable[[], int] = CLOCK.now_ns) -> None:
        self.folder, self._now_ns = folder, now_ns

    def names(self) -> list[str]:
        """Models that are whole, oldest first."""
        if not self.folder.is_dir():
            return []
        return sorted(p.name for p in self.folder.iterdir() if p.name.isdecimal() and (p / "model.json").is_file())

    def next_place(self) -> Path:
        """A folder for the next model, which is not there yet."""
        self.folder.mkdir(parents=True, exist_ok=True)
        return self.folder / f"{max((int(name) for name in self.names()), default=0) + 1:04d}"

    def last(self) -> Learned | None:
        """What the newest model was made from, in use or not; None while there is none."""
        names = self.names()
        if not names:
            return None
        file = self.folder / names[-1] / "model.json"
        hours: dict[str, float] = {}
        with contextlib.suppress(ValueError, KeyError):  # a damaged one knew nothing
            hours = json.loads(file.read_text())["meta"]["hours"]
        return Learned(hours=sum(hours.values()), t_ns=file.stat().st_mtime_ns)

    def history(self) -> list[Choice]:
        """What was put to use, oldest first.

        Raises:
            ConfigError: where the file that says so is damaged.
        """
        file = self.folder / CURRENT
        try:
            return [decode(choice, Choice) for choice in json.loads(file.read_text())]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, ConfigError) as error:
            raise ConfigError(f"{file}: damaged ({error}); remove it and choose with `fusion model accept`") from error

    @property
    def current(self) -> Path | None:
        """The model in use."""
        history = self.history()
        return self.folder / history[-1].model if history else None

    @property
    def note(self) -> str:
        """What somebody who makes a model here is doing, in words; "" where nobody is."""
        with contextlib.suppress(OSError, UnicodeDecodeError):
            return (self.folder / NOTE).read_text().strip()
        return ""

    def tell(self, note: str) -> None:
        """Say what is being done, or with "" that it is done; a daemon that waits for the model shows it."""
        self.folder.mkdir(parents=True, exist_ok=True)
        with whole_file(self.folder / NOTE) as aside:
            aside.write_text(note)

    def choose(self, name: str, by: str, reason: str = "") -> None:
        """Put a model to use; a daemon that watches the folder takes it between two ticks.

        Raises:
            ConfigError: where there is no such model.
        """
        if name not in self.names():
            known = ", ".join(self.names()) or "none yet"
            raise ConfigError(f"{self.folder}: there is no model {name!r}; expected one of: {known}")
        history = [*self.history(), Choice(model=name, by=by, reason=reason, t_ns=self._now_ns())]
        with whole_file(self.folder / CURRENT) as aside:
            aside.write_text(json.dumps(plain(history), indent=1))

    def roll_back(self, by: str) -> str:
        """Put the model to use that was in use before the present one; returns its name.

        Raises:
            ConfigError: where there was none.
        """
        history = self.history()
        before = [choice.model for choice in history if choice.model != history[-1].model]
        if not before:
            raise ConfigError(f"{self.folder}: no other model was in use before; nothing to go back to")
        self.choose(before[-1], by, "rolled back")
        return before[-1]
