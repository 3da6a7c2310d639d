"""What the streams were like: the last ticks as the model saw them, in small files that outlive the process.

Each file holds a minute or so and is written whole, in a thread of its own: a tick never waits for the disk. A process
that is killed loses what has not been written yet.
"""

from __future__ import annotations

import logging
import zipfile
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import numpy as np

from fusion.errors import ConfigError
from fusion.files import whole_file
from fusion.records import NS_PER_S
from models.ticks import Ticks, is_perceived

log = logging.getLogger(__name__)

CHUNK_TICKS = 60
MOST_WAITING = 20 * CHUNK_TICKS
OWNER = "owner"


class TickMemory:
    """A folder of ticks of one ``owner``, which names the plant and its columns; older than ``keep_s`` are dropped.

    Raises:
        ConfigError: the folder cannot be made.
    """

    def __init__(self, folder: Path, owner: str, keep_s: float) -> None:
        self.trouble = ""
        self._folder, self.owner, self._keep_ns = folder, owner, round(keep_s * NS_PER_S)
        self._waiting: list[Ticks] = []
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="memory")
        self._writing: Future[None] | None = None
        self._in_flight: Ticks | None = None
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(
                f"state: {folder} cannot be made ({error.strerror}); expected a writable folder"
            ) from error

    def recall(self, now_ns: int, gap_s: float) -> Ticks | None:
        """What was kept until at most ``gap_s`` ago, in one run; where that is nothing, all is forgotten.

        A file that cannot be read, or is of another owner, is dropped with all before it.
        """
        for torn in self._folder.glob("*.partial"):
            torn.unlink(missing_ok=True)
        parts: list[Ticks] = []
        for file in reversed(self._files()):
            ticks = self._read(file)
            if ticks is None or (parts and _columns(ticks) != _columns(parts[0])):
                break
            parts.insert(0, ticks)
        age_s = (now_ns - int(parts[-1].t_ns[-1])) / NS_PER_S if parts else np.inf
        used = parts if 0 <= age_s <= gap_s else []
        self._forget(len(used))
        if not used:
            return None
        found = Ticks.concat(used)
        return found[int(np.searchsorted(found.t_ns, found.t_ns[-1] - self._keep_ns, side="right")) :]

    def forget(self) -> None:
        """Drop all files: what was kept is of no use."""
        self._forget(0)

    def add(self, ticks: Ticks) -> None:
        """Take the next tick; when enough wait, they are written in the background."""
        self._waiting.append(ticks)
        del self._waiting[:-MOST_WAITING]
        if len(self._waiting) < CHUNK_TICKS or not (self._writing is None or self._writing.done()):
            return
        if self._writing is not None:
            self._writing.result()
        self._in_flight = self._taken()
        self._writing = self._writer.submit(self._write, self._in_flight)

    def since(self, t_ns: int) -> Ticks | None:
        """All that is kept, or waits to be, after a time; None where that is nothing. Called where ticks are added."""
        waiting = [*([] if self._in_flight is None else [self._in_flight]), *self._waiting]
        parts = [ticks for file in self._files() if (ticks := self._read(file)) is not None] if t_ns <= 0 else []
        found: list[Ticks] = []
        for ticks in (*parts, *waiting):
            later = ticks[int(np.searchsorted(ticks.t_ns, t_ns, side="right")) :]
            if len(later):
                found.append(later)
                t_ns = int(later.t_ns[-1])
        return Ticks.concat(found) if found else None

    def close(self) -> None:
        """Write what waits."""
        self._writer.shutdown(wait=True)
        if self._waiting:
            self._write(self._taken())

    def _taken(self) -> Ticks:
        waiting, self._waiting = self._waiting, []
        return Ticks.concat(waiting)

    def _write(self, ticks: Ticks) -> None:
        """One file more, and those away that are too old; a full disk is said, and costs these ticks."""
        try:
            with whole_file(self._folder / f"{int(ticks.t_ns[0]):020d}.npz") as aside, aside.open("wb") as stream:
                np.savez(stream, allow_pickle=False, owner=np.array(self.owner), **ticks.arrays())
            self._drop_old(int(ticks.t_ns[-1]) - self._keep_ns)
        except OSError as error:
            if not self.trouble:
                log.error("state: %s: %s; the last ticks are not kept", self._folder, error)
            self.trouble = f"{self._folder}: {error.strerror}"
        else:
            self.trouble = ""

    def _drop_old(self, before_ns: int) -> None:
        files = self._files()
        for file, following in pairwise(files):
            if int(following.stem) <= before_ns:
                file.unlink(missing_ok=True)

    def _forget(self, but_last: int) -> None:
        files = self._files()
        for file in files[: len(files) - but_last]:
            file.unlink(missing_ok=True)

    def _files(self) -> list[Path]:
        """Our files, oldest first."""
        return sorted(file for file in self._folder.glob("*.npz") if file.stem.isdecimal())

    def _read(self, file: Path) -> Ticks | None:
        try:
            with file.open("rb") as stream, np.load(stream, allow_pickle=False) as stored:
                owner = str(stored[OWNER])
            if owner != self.owner:
                return None
            ticks = Ticks.load(file)
        except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
            log.warning("state: %s cannot be read (%s); it and what was before it are forgotten", file, error)
            return None
        return ticks if len(ticks) else None


def _columns(ticks: Ticks) -> dict[str, tuple[int, ...]]:
    return {name: array.shape[1:] for name, array in ticks.arrays().items() if not is_perceived(name)}
