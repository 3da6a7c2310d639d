"""The recorder: everything that arrives becomes recordings, in a thread of its own, within a budget of disk.

A recording is closed every ``slice_s``, so that a process which is killed loses no more than that; when a segment's
time is over, or it takes much of the budget, its slices become one recording. What is found of an earlier run is made
whole first. When the budget is spent, ``room`` says what goes.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import os
import shutil
import threading
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from fusion.alarms import MarkOrder
from fusion.clock import CLOCK
from fusion.errors import ConfigError, RecordingError
from fusion.files import hold
from fusion.plant import Modality, Plant
from fusion.recordings import normal
from fusion.recordings.held import Held
from fusion.recordings.marks import Journal, Mark, kind_of
from fusion.recordings.recording import Event, Recording, arrival_ns
from fusion.recordings.room import GIB, Room, size
from fusion.recordings.writer import RecordingWriter, relabel
from fusion.records import NS_PER_S, Columns, Item, Peaks, Sample

log = logging.getLogger(__name__)

OPEN, MARKS, LOCK = "open", "marks.jsonl", "lock"
MOST_WAITING = GIB // 4  # bytes between the intake and the disk
MOST_PEAKS = 3600  # ticks that wait for a slice
WAKE_S = 0.5


@dataclass(kw_only=True, slots=True)
class RecorderConfig:
    """What is kept of what arrives, and how much disk it may take.

    ``folder`` "" records nothing. Of the media in ``thin`` one sample in so many is kept; sound cannot be thinned.
    ``budget_gib`` holds all of it: what is open and, while a segment is made, its slices too. ``free_gib`` of the disk
    stay free whatever the budget says.
    """

    folder: str = ""
    segment_s: float = 1800.0
    slice_s: float = 10.0
    budget_gib: float = 50.0
    free_gib: float = 2.0
    thin: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Reject times and sizes that keep nothing."""
        if not 0 < self.slice_s <= self.segment_s:
            raise ConfigError(f"record.slice_s: {self.slice_s} must be positive and at most segment_s")
        if self.budget_gib <= 0 or self.free_gib < 0:
            raise ConfigError("record.budget_gib, record.free_gib: expected a positive size, and one of zero or more")
        if any(every < 1 for every in self.thin.values()):
            raise ConfigError("record.thin: expected for each medium of how many samples one is kept, from 1 on")

    def check(self, plant: Plant) -> None:
        """Reject a thinning of what is no picture or cloud of the plant."""
        media = [s.name for s in plant.media if s.modality is not Modality.AUDIO]
        if unknown := sorted(set(self.thin) - set(media)):
            raise ConfigError(
                f"record.thin: {unknown[0]!r} is not accepted; expected some of {', '.join(media) or '-'}"
            )


class FolderInUseError(ConfigError):
    """Another process records into the folder."""


class Recorder:
    """Records into a folder from ``start`` to ``close``; ``trouble`` says what is not recorded now, and why.

    Raises:
        FolderInUseError: another process records into it.
        ConfigError: the folder cannot be used.
    """

    def __init__(self, config: RecorderConfig, plant: Plant, now_ns: Callable[[], int] = CLOCK.now_ns) -> None:
        config.check(plant)
        self.trouble = self._failed = ""
        self.dropped = 0
        self._config, self.plant, self._now_ns = config, plant, now_ns
        self.folder = Path(config.folder)
        self._lock = _locked(self.folder)
        self._journal = Journal(self.folder / MARKS)
        self._room = Room(self.folder, config.budget_gib * GIB, config.free_gib * GIB, self._journal)
        self._waiting: deque[Item | Mark | Peaks] = deque()
        self._peaks: deque[Peaks] = deque(maxlen=MOST_PEAKS)
        self._size = 0
        self._counted: dict[str, int] = {}
        self._guard = threading.Condition()
        self._stopping = self._cutting = False
        self._held = Held()
        self._slice: RecordingWriter | None = None
        self._in_slice = self._opened = self._a_slice = 0
        self._slice_ns = self._segment_ns = 0
        self._thread = threading.Thread(target=self._work, name="recorder", daemon=True)

    def start(self) -> None:
        """Make whole what an earlier run left, and begin."""
        left = sorted((self.folder / OPEN).glob("*.partial"))
        for torn in left:
            shutil.rmtree(torn, ignore_errors=True)
        if left:
            log.warning("record: up to %.0f s before the last end were not written", self._config.slice_s)
        with self._telling():
            self._close_segment()
        self._thread.start()

    def told(self) -> tuple[dict[str, int], int]:
        """What an earlier run has recorded last: the time stamp of each tag, and when that run ended [UTC ns].

        A tag without a value in its last recording has not changed since that began. Nothing where there is none.
        """
        segments = self.segments()
        if not segments:
            return {}, 0
        last = max(segments, key=lambda segment: segment.span_ns[1])
        began_ns, ended_ns = last.span_ns
        try:
            return dict.fromkeys((signal.name for signal in self.plant.tags), began_ns) | last.newest_ns(), ended_ns
        except RecordingError as error:
            log.warning("record: %s; the time since is not asked for", error)
            return {}, 0

    def add(self, item: Item) -> None:
        """Take what arrived; it never waits for the disk, and what there is no room for is counted.

        Raises:
            RecordingError: where the recorder has failed for good.
        """
        if not self._thread.is_alive():
            raise RecordingError(f"{self.folder}: the recorder has ended; the log says why")
        if isinstance(item, Sample) and not self._kept(item.signal):
            return
        size = _bytes(item)
        with self._guard:
            if self._size + size > MOST_WAITING:
                self.dropped += 1
                self.trouble = self.trouble or "record: more arrives than the disk takes"
                return
            self._waiting.append(item)
            self._size += size

    def mark(self, mark: Mark) -> None:
        """Keep what is said of a stretch of time; closed recordings of it will say so too."""
        with self._guard:
            self._waiting.append(mark)

    def note(self, peaks: Peaks) -> None:
        """Keep how unusual a tick was, with what arrived about then."""
        with self._guard:
            self._waiting.append(peaks)

    def obey(self, order: MarkOrder) -> Mark:
        """Mark what somebody orders; returns the mark.

        Raises:
            ConfigError: where it has no name or nobody says so, or it ends before it begins.
        """
        mark = self._journal.ordered(order, self._now_ns())
        self.mark(mark)
        return mark

    def segments(self) -> list[Recording]:
        """The closed recordings, oldest first."""
        return closed_recordings(self.folder)

    @property
    def open_s(self) -> float:
        """Time of normal operation in the segment that is open [s]."""
        since_ns, now_ns = self._segment_ns, self._now_ns()
        spans = normal.spans(since_ns, now_ns, self._label((since_ns, now_ns))[1]) if since_ns else []
        return sum(end_ns - start_ns for start_ns, end_ns in spans) / NS_PER_S

    def cut(self) -> None:
        """Close the open segment before its time."""
        self._cutting = True

    def close(self) -> None:
        """Write what waits and close the segment."""
        with self._guard:
            self._stopping = True
            self._guard.notify()
        if self._thread.is_alive():
            self._thread.join()
        os.close(self._lock)

    def _kept(self, signal: str) -> bool:
        every = self._config.thin.get(signal, 1)
        count = self._counted[signal] = self._counted.get(signal, -1) + 1
        return count % every == 0

    # --- in the thread

    def _work(self) -> None:
        told = 0
        while True:
            with self._guard:
                self._guard.wait(timeout=0.0 if self._stopping else WAKE_S)
                items, self._waiting, self._size = self._waiting, deque(), 0
                stopping = self._stopping
            with self._telling():
                while items:
                    self._write(items[0])
                    items.popleft()
                self._turn(stopping)
            self.dropped += len(items)
            if self.dropped > told:
                log.warning("record: %d items are not recorded by now", self.dropped)
                told = self.dropped
            if stopping:
                return

    def _note(self, mark: Mark) -> None:
        said = [before for before in (self._journal.named(mark.name), mark) if before is not None]
        self._journal.add(mark)
        for segment in self.segments():
            if any(one.overlaps(*_settling(segment.span_ns)) for one in said):
                relabel(segment.path, *self._label(segment.span_ns))

    def _write(self, item: Item | Mark | Peaks) -> None:
        if isinstance(item, Mark):
            self._note(item)
            return
        if isinstance(item, Peaks):
            self._peaks.append(item)
            if self._slice is not None and len(self._peaks) == MOST_PEAKS:
                self._write_peaks(self._slice)
            return
        if self._slice is None:
            self._slice_ns = self._now_ns()
            self._slice = RecordingWriter(self.folder / OPEN / f"{self._slice_ns:020d}", self.plant, exact=True)
        if not self._segment_ns:
            self._segment_ns = self._slice_ns
            for known in self._held.columns(_first_ns(item)):
                self._slice.write(known)
        self._slice.write(item)
        self._in_slice += 1
        if isinstance(item, Columns):
            self._held.take(item)

    def _write_peaks(self, place: RecordingWriter) -> None:
        place.surprise(self._peaks)
        self._peaks.clear()

    def _turn(self, stopping: bool) -> None:
        """Close the slice, and the segment, when their time is over."""
        now_ns = self._now_ns()
        stopping = stopping or self._cutting
        over = now_ns - self._segment_ns >= self._config.segment_s * NS_PER_S
        if self._slice is not None and (stopping or now_ns - self._slice_ns >= self._config.slice_s * NS_PER_S):
            if self._peaks:
                self._write_peaks(self._slice)
            self._slice.close()
            taken = size(self.folder / OPEN / f"{self._slice_ns:020d}")
            self._opened, self._a_slice = self._opened + taken, max(self._a_slice, taken)
            self._slice, self._in_slice, self._failed = None, 0, ""
            over = over or self._room.full(self._opened) or not self._has_room()
        if self._slice is None and self._segment_ns and (stopping or over):
            self._close_segment()

    def _has_room(self) -> bool:
        """Whether there is room for what lies ahead; what may go for it has gone then."""
        return self._room.enough(self._ahead) or self._room.make(self.segments(), self._ahead)

    @property
    def _ahead(self) -> int:
        """Bytes of the open segment and a slice more, twice while they are joined; the largest slice that there was."""
        return 2 * (self._opened + self._a_slice)

    def _close_segment(self) -> None:
        """Make the slices one recording, and room for the next."""
        self._cutting, place = False, None
        slices = sorted(path for path in (self.folder / OPEN).iterdir() if not path.suffix)
        parts = [recording for path in slices if (recording := _whole(path))]
        if parts:
            span_ns = min(part.span_ns[0] for part in parts), max(part.span_ns[1] for part in parts)
            place = self._place(int(parts[0].path.name), span_ns)  # a gap that was filled may begin in a segment before
            if not place.exists():  # else it was joined, and the process killed before its slices went
                kind, events = self._label(span_ns)
                with RecordingWriter(place, parts[0].plant, kind=kind, events=events) as joined:
                    for part in parts:
                        joined.take(part)
        for path in slices:
            shutil.rmtree(path, ignore_errors=True)
        self._segment_ns = 0
        self._opened = size(self.folder / OPEN)  # what is damaged stays there
        self._room.make(self.segments(), self._ahead, place)

    def _place(self, t_ns: int, span_ns: tuple[int, int]) -> Path:
        """Where a segment goes, or lies already; a clock that was set back makes a name that another one has."""
        first = place = self.folder / datetime.fromtimestamp(t_ns // NS_PER_S, UTC).strftime("%Y%m%dT%H%M%SZ")
        others = {recording.path: recording.span_ns for recording in self.segments()} if place.exists() else {}
        for number in itertools.count(2):
            there = others.get(place, (0, 0))
            if not place.exists() or there[0] <= span_ns[0] <= span_ns[1] <= there[1]:
                break
            place = first.with_name(f"{first.name}-{number}")
        return place

    def _label(self, span_ns: tuple[int, int]) -> tuple[str, list[Event]]:
        marks = self._journal.within(*_settling(span_ns))
        return kind_of(marks), [mark.event() for mark in marks]

    @contextlib.contextmanager
    def _telling(self) -> Iterator[None]:
        """A disk that takes nothing is said until a slice is whole again, and costs the open one, which is counted."""
        try:
            yield
        except (OSError, RecordingError) as error:
            why = error.strerror if isinstance(error, OSError) else None
            said = f"record: {self.folder}: {why}" if why else f"record: {error}"
            if not self._failed:
                log.error("%s; nothing is recorded until it is mended", said)
            self._failed = said
            self._abandon()
            with contextlib.suppress(OSError):
                self._room.make(self.segments(), self._ahead)
        self.trouble = "; ".join(filter(None, (self._failed, self._room.trouble)))

    def _abandon(self) -> None:
        torn, self._slice = self._slice, None
        self.dropped += self._in_slice
        self._in_slice = 0
        if torn is not None:
            with contextlib.suppress(OSError):
                torn.abandon()


def _settling(span_ns: tuple[int, int]) -> tuple[int, int]:
    """A span [UTC ns] and the time before it from which on a plant may still settle in it."""
    return span_ns[0] - round(normal.SETTLING_S * NS_PER_S), span_ns[1]


def _first_ns(item: Item) -> int:
    """When the first value of an item arrived [UTC ns]."""
    return int(item.received_ns.min()) if isinstance(item, Columns) and len(item) else arrival_ns(item)


def closed_recordings(folder: Path) -> list[Recording]:
    """The recordings of a recorder's folder that can be read, oldest first."""
    found = []
    for path in sorted(folder.iterdir()) if folder.is_dir() else ():
        if path.is_dir() and path.name != OPEN and not path.suffix:
            with contextlib.suppress(RecordingError):
                found.append(Recording(path))
    return found


def _locked(folder: Path) -> int:
    """The folder, made where it is missing and held for this process."""
    try:
        (folder / OPEN).mkdir(parents=True, exist_ok=True)
        return hold(folder / LOCK)
    except BlockingIOError as error:
        raise FolderInUseError(
            f"record.folder: {folder} is recorded into by another process; choose another"
        ) from error
    except OSError as error:
        raise ConfigError(f"record.folder: {folder} cannot be used ({error}); expected a writable folder") from error


def _whole(path: Path) -> Recording | None:
    """A slice as it was written; None, said, where it is damaged."""
    try:
        return Recording.verified(path)
    except (RecordingError, ConfigError) as error:
        aside = path.rename(path.with_suffix(".damaged"))
        log.error("record: %s is left out and kept as %s: %s", path.name, aside, error)
        return None


def _bytes(item: Item) -> int:
    return item.value.nbytes + (0 if isinstance(item, Sample) else item.t_ns.nbytes * 3)
