"""What must outlive the daemon, in one folder: the alarm list, and the number of the last event.

One daemon uses a folder. A file that cannot be read is set aside, never overwritten, and said.
"""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from control.anomaly.alarms import AlarmConfig, AlarmLog
from fusion.alarms import Alarm
from fusion.clock import CLOCK, Clock
from fusion.errors import ConfigError
from fusion.files import hold, whole_file
from fusion.publish.messages import times_moved
from fusion.records import NS_PER_S

log = logging.getLogger(__name__)

ALARMS = "alarms.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Kept:
    """What the last run left: its alarms, its last event's number, and the detector's notes.

    ``untold`` are the anomalies whose last change may not have reached the outbox.
    """

    alarms: AlarmLog
    sequence: int = 0
    untold: frozenset[str] = frozenset()
    notes: Mapping[str, Any] = field(default_factory=dict)
    flags: tuple[str, ...] = ()


class Store:
    """The folder; held until ``close``, or until the process ends.

    Times are those of ``clock``: those of an earlier process of the same boot are moved by what the system's clock was
    stepped in between, so that nothing is shelved longer or shorter.

    Raises:
        ConfigError: it cannot be used, or another daemon uses it.
    """

    def __init__(
        self, folder: Path, plant: str, now_ns: Callable[[], int] = CLOCK.now_ns, clock: Clock = CLOCK
    ) -> None:
        self.folder = folder
        self._clock = clock
        self._plant, self._now_ns = plant, now_ns
        self._file = folder / ALARMS
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._lock = hold(folder / "lock")
        except BlockingIOError as error:
            raise ConfigError(f"state: {folder} is used by another daemon; each needs a folder of its own") from error
        except OSError as error:
            raise ConfigError(f"state: {folder} cannot be used ({error}); expected a writable folder") from error

    def close(self) -> None:
        """Let another have the folder."""
        os.close(self._lock)

    def read(self, config: AlarmConfig) -> Kept:
        """What the last run left; a file that is damaged or of another plant is set aside.

        Raises:
            ConfigError: it cannot be set aside.
        """
        try:
            return self._kept(json.loads(self._file.read_bytes()), config)
        except FileNotFoundError:
            return Kept(alarms=AlarmLog(config))
        except (OSError, ValueError, RecursionError, ConfigError) as error:
            return self._begin_anew(error, config)

    def write(self, alarms: Sequence[Alarm], sequence: int, untold: Collection[str], notes: Mapping[str, Any]) -> None:
        """Put all of it on the disk, whole or not at all.

        Raises:
            OSError: where the disk takes it not.
        """
        data = AlarmLog.of(alarms).to_dict()
        data |= {"boot": self._clock.boot, "offset_ns": self._clock.offset_ns}
        data |= {"plant": self._plant, "sequence": sequence, "untold": sorted(untold), "notes": dict(notes)}
        with whole_file(self._file) as aside:
            aside.write_text(json.dumps(data))

    def _kept(self, data: Any, config: AlarmConfig) -> Kept:
        if isinstance(data, dict) and (by_ns := self._clock.moved_ns(data.get("boot"), data.get("offset_ns"))):
            data |= {"alarms": times_moved(data.get("alarms"), by_ns)}
        alarms = AlarmLog.from_dict(data, config)
        sequence, untold, notes = data.get("sequence"), data.get("untold"), data.get("notes")
        if data.get("plant") != self._plant:
            raise ConfigError(f"it is of plant {data.get('plant')!r}, not of {self._plant!r}")
        if type(sequence) is not int or not isinstance(untold, list) or not isinstance(notes, dict):
            raise ConfigError("sequence, untold or notes is missing or not accepted")
        return Kept(alarms=alarms, sequence=sequence, untold=frozenset(map(str, untold)), notes=notes)

    def _begin_anew(self, error: Exception, config: AlarmConfig) -> Kept:
        """Set the file aside and begin with a number that no event can have had."""
        now_ns = self._now_ns()
        aside = self._file.with_name(f"{ALARMS}.{now_ns}.aside")
        log.error("state: %s is not used and kept as %s: %s", self._file, aside.name, error)
        kept = Kept(alarms=AlarmLog(config), sequence=now_ns // NS_PER_S, flags=("state:set_aside",))
        try:
            self._put_aside(aside)
            self.write((), kept.sequence, (), {})
        except OSError as trouble:
            raise ConfigError(f"state: {self._file}: {error}; it cannot be set aside ({trouble})") from trouble
        return kept

    def _put_aside(self, aside: Path) -> None:
        """A second name where there can be one: a process that is killed here still finds the file."""
        try:
            os.link(self._file, aside)
        except OSError:
            self._file.replace(aside)
