"""Room for recordings: what goes so that a folder keeps to its budget, and the disk to what is to stay free.

Recordings without marks go first, the oldest of them; those that only alarms have marked go likewise once they hold
more than the unmarked do, else a plant whose alarms nobody answers would keep nothing normal to learn from. What people
have marked stays; where that fills the budget, what was recorded last goes again.
"""

from __future__ import annotations

import logging
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

from fusion.alarms import MarkKind
from fusion.recordings.marks import Journal
from fusion.recordings.normal import SETTLING_S
from fusion.recordings.recording import Recording
from fusion.records import NS_PER_S

log = logging.getLogger(__name__)

GIB = 2**30
SHARE = 4
"""An open segment that holds one in so many parts of the budget is long enough: joining it takes as much again."""


class Room:
    """The room of one folder; ``trouble`` says why there is too little, and what to do.

    ``budget`` and ``free`` are bytes that may be used, and that must stay free on the disk.
    """

    def __init__(self, folder: Path, budget: float, free: float, journal: Journal) -> None:
        self.trouble = ""
        self._folder, self._budget, self._least, self._journal = folder, budget, free, journal
        self._used = 0

    def enough(self, used: float) -> bool:
        """Whether so many bytes beside the recordings that were there last are within both."""
        return self._used + used <= self._budget and self._free() >= self._least

    def full(self, opened: int) -> bool:
        """Whether an open segment of so many bytes is as large as one may be."""
        return opened > self._budget / SHARE

    def make(self, segments: Sequence[Recording], ahead: int = 0, last: Path | None = None) -> bool:
        """Let recordings go until there is room for them, and for so many bytes more; whether there is.

        ``last`` is the one that was just made, which goes where nothing else may.
        """
        sizes = {segment.path: size(segment.path) for segment in segments}
        self._used = sum(sizes.values())
        kinds = {segment.path: self._journal.kinds(*segment.span_ns) - {MarkKind.GOOD} for segment in segments}
        unmarked = [path for path, kind in kinds.items() if not kind]
        alarmed = [path for path, kind in kinds.items() if kind == {MarkKind.ALARM}]
        before, self.trouble = self.trouble, ""
        while not self.enough(ahead):
            goes = unmarked if _sum(sizes, unmarked) >= _sum(sizes, alarmed) else alarmed
            if not goes:
                self.trouble = self._why(ahead)
                if self.trouble != before:
                    log.error("%s; until then what is recorded goes again", self.trouble)
                if last not in sizes:
                    return False
                goes = [last]
            oldest = goes.pop(0)
            self._used -= sizes.pop(oldest)
            shutil.rmtree(oldest)
            log.info("record: %s is gone, for the budget of disk", oldest.name)
        begins = [segment.span_ns[0] for segment in segments if segment.path in sizes]
        if begins:
            self._journal.forget(min(begins) - round(SETTLING_S * NS_PER_S))
        return True

    def _free(self) -> int:
        return shutil.disk_usage(self._folder).free

    def _why(self, ahead: int) -> str:
        if self._used + ahead > self._budget:
            what = f"the budget of {self._budget / GIB:g} GiB"
            return (
                f"record: marked recordings fill {what}; move some away"
                if self._used
                else f"record: {what} is too small"
            )
        free, kept = self._free() / GIB, self._least / GIB
        return (
            f"record: {free:.3g} GiB are free on the disk of {self._folder}, record.free_gib keeps {kept:g}; "
            "make room, or record elsewhere"
        )


def _sum(sizes: Mapping[Path, int], some: Sequence[Path]) -> int:
    return sum(sizes[path] for path in some)


def size(folder: Path) -> int:
    """Bytes of all files in a folder; nothing of one that is gone."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())
