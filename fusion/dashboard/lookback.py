"""Looking back on one open page: courses, marks and pictures of the stretch that it shows."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from fusion.dashboard.archive import Archive
from fusion.dashboard.board import Board
from fusion.dashboard.charts import Past
from fusion.dashboard.courses import Data
from fusion.dashboard.previews import Picture, Sound
from fusion.dashboard.sight import AHEAD, Fetch, Sight
from fusion.plant import Modality, Plant
from fusion.publish.preview import cloud_bytes, picture_png, spectrogram
from fusion.records import NS_PER_S

POINTS = 300
AGAIN_NS = 10 * NS_PER_S
SOUND_S = 30.0
WRITTEN_NS = 15 * NS_PER_S
PER_MS = 1_000_000


@dataclass(frozen=True, slots=True)
class Scene:
    """What cameras, microphones and LiDARs showed at one moment."""

    pictures: dict[str, Picture] = field(default_factory=dict)
    sounds: dict[str, Sound] = field(default_factory=dict)
    clouds: dict[str, bytes] = field(default_factory=dict)


class LookBack:
    """What one page needs of the archive; without one, only what the page itself remembers is there."""

    def __init__(self, board: Board, archive: Archive | None, done: Callable[[], None]) -> None:
        self._board, self._archive = board, archive
        self._courses: Fetch[dict[str, Data]] = Fetch({}, done)
        self._surprise: Fetch[dict[str, Data]] = Fetch({}, done)
        self._scene: Fetch[Scene] = Fetch(Scene(), done)
        self._last, self._last_ns = Scene(), 0

    @property
    def busy(self) -> bool:
        """Whether something is still being read."""
        return self._courses.busy or self._surprise.busy or self._scene.busy

    def past(self, names: Sequence[str], sight: Sight, future_s: float) -> Past:
        """What is known of these tags in the stretch that is looked at."""
        board, now_ns = self._board, self._board.now_ns
        whole = [*names, *filter(None, map(board.setpoint_of, names))]
        span_ns = sight.span_ns(now_ns)
        at_ms = None if sight.at_ns is None else sight.at_ns / PER_MS
        ahead_ms = 1000 * min(future_s, AHEAD * sight.length_s) if sight.live else 0.0
        chosen = not sight.live or sight.length_s != board.window_s
        span_ms = (span_ns[0] / PER_MS, span_ns[1] / PER_MS + ahead_ms) if chosen else None
        marks = self._archive.marks(*span_ns) if self._archive else []
        return Past(span_ms, at_ms, self._read(whole, span_ns), self._unusual(span_ns), tuple(marks))

    def _read(self, names: Sequence[str], span_ns: tuple[int, int]) -> dict[str, Data]:
        archive, (t0_ns, t1_ns) = self._archive, span_ns
        if archive is None or self._remembered(names, t0_ns):
            return {}
        key = tuple(names), t0_ns // AGAIN_NS, t1_ns // AGAIN_NS
        return self._courses.get(key, lambda: archive.courses(names, t0_ns, t1_ns, POINTS))

    def _unusual(self, span_ns: tuple[int, int]) -> dict[str, Data]:
        archive, (t0_ns, t1_ns) = self._archive, span_ns
        began = [peaks[0][0] * PER_MS for peaks in self._board.peaks.values() if peaks]
        if archive is None or (began and max(began) <= t0_ns + AGAIN_NS):
            return {}
        key = t0_ns // AGAIN_NS, t1_ns // AGAIN_NS
        return self._surprise.get(key, lambda: archive.surprise(t0_ns, t1_ns, POINTS))

    def _remembered(self, names: Sequence[str], t0_ns: int) -> bool:
        """Whether the page's memory reaches back so far."""
        known = [self._board.tags[name] for name in names if name in self._board.tags]
        return bool(known) and all(course[0][0] * PER_MS <= t0_ns + AGAIN_NS for course in known if course)

    def scene(self, sight: Sight) -> Scene | None:
        """What was to be seen and heard at the moment that is looked at; None where that is now."""
        if sight.at_ns is None:
            self._scene.drop()
            self._last, self._last_ns = seen(self._board), self._board.now_ns
            return None
        if abs(sight.at_ns - self._last_ns) < WRITTEN_NS:  # what is newer than this need not be on the disk yet
            return self._last
        archive, plant, at_ns = self._archive, self._board.plant, sight.at_ns
        if archive is None or plant is None:
            return Scene()
        return self._scene.get(at_ns, lambda: recorded(archive, plant, at_ns))


def seen(board: Board) -> Scene:
    """What came last."""
    return Scene(dict(board.pictures), dict(board.sounds), dict(board.clouds))


def recorded(archive: Archive, plant: Plant, at_ns: int) -> Scene:
    """What was recorded of every medium at a moment."""
    scene = Scene()
    for signal in plant.media:
        sound = signal.modality is Modality.AUDIO
        values = archive.samples(signal, at_ns, SOUND_S if sound else 0.0)
        if not values:
            continue
        if signal.modality is Modality.VIDEO:
            scene.pictures[signal.name] = Picture("image/png", picture_png(values[-1]))
        elif sound:
            heard = spectrogram(plant, signal, np.concatenate(values), at_ns)
            columns = [[v or 0.0 for v in column] for column in heard.columns]
            scene.sounds[signal.name] = Sound([f or 0.0 for f in heard.frequency_hz], deque(columns), len(columns))
        else:
            scene.clouds[signal.name] = cloud_bytes(values[-1])
    return scene
