"""What a decoder process is told, and the queue of what it answers. Imports nothing heavy: both ends load it."""

from __future__ import annotations

import json
from collections import deque
from dataclasses import asdict, dataclass, field
from threading import Condition
from typing import Any, BinaryIO

from connectors.pipe import pack

QUEUE_MESSAGES = 64


@dataclass(kw_only=True, slots=True)
class Job:
    """What a decoder process is to do.

    ``shape`` is the signal's, ``period_s`` the time between its pictures or the length of its chunks. ``live`` says
    that falling behind drops the oldest; otherwise the decoder waits. ``start_ns`` is the time of a file's beginning,
    None is now. ``utc_offset_ns`` turns the monotonic clock, which both
    processes share, into the parent's UTC.
    """

    modality: str
    url: str
    shape: tuple[int, ...]
    period_s: float
    live: bool
    options: dict[str, str] = field(default_factory=dict)
    open_timeout_s: float = 8.0
    read_timeout_s: float = 8.0
    loop: bool = False
    realtime: bool = True
    start_ns: int | None = None
    frozen_after_s: float = 0.0
    utc_offset_ns: int = 0

    def line(self) -> bytes:
        """The job as one line."""
        return json.dumps(asdict(self)).encode() + b"\n"

    @classmethod
    def from_line(cls, line: bytes) -> Job:
        """The job in a line."""
        values = json.loads(line)
        return cls(**{**values, "shape": tuple(values["shape"])})


class PipeWriter:
    """The decoder's end: a bounded queue and the loop that writes it out, so that a slow reader never stalls a camera.

    Only data may be dropped; each later header says how many were.
    """

    def __init__(self, stream: BinaryIO, live: bool) -> None:
        self._stream = stream
        self._live = live
        self._messages: deque[tuple[dict[str, Any], bytes]] = deque()
        self._changed = Condition()
        self._lost = 0
        self._closed = False

    def put(self, header: dict[str, Any], payload: bytes = b"") -> None:
        """Queue one message."""
        with self._changed:
            while len(self._messages) >= QUEUE_MESSAGES and not self._live:
                self._changed.wait()
            if len(self._messages) >= QUEUE_MESSAGES:
                self._messages.popleft()
                self._lost += 1
            self._messages.append(({**header, "lost": self._lost}, payload))
            self._changed.notify_all()

    def close(self) -> None:
        """Let the writer finish what is queued."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def write(self) -> None:
        """Write messages until closed; run on a thread of its own."""
        while True:
            with self._changed:
                while not self._messages and not self._closed:
                    self._changed.wait()
                if not self._messages:
                    return
                header, payload = self._messages.popleft()
                self._changed.notify_all()
            self._stream.write(pack(header, payload))
            self._stream.flush()
