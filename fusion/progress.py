"""Progress as it is drawn on a terminal; elsewhere a line every ten seconds, so that a log shows that it goes on."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import Progress, TaskID

EVERY_S = 10.0


class Bars(Progress):
    """As rich draws them; the lines go to standard error."""

    def __init__(self, *columns: Any, **settings: Any) -> None:
        super().__init__(*columns, **settings)
        self._told_s = time.monotonic()

    def update(self, task_id: TaskID, **changes: Any) -> None:
        """Note how far a task is."""
        super().update(task_id, **changes)
        self._tell(task_id)

    def advance(self, task_id: TaskID, advance: float = 1) -> None:
        """Note that a task is further."""
        super().advance(task_id, advance)
        self._tell(task_id)

    def _tell(self, task_id: TaskID) -> None:
        if not self.disable and not self.console.is_terminal and time.monotonic() - self._told_s >= EVERY_S:
            self._told_s = time.monotonic()
            task = self._tasks[task_id]
            share = "" if task.total is None else f": {task.percentage:.0f} %"
            sys.stderr.write(f"{task.description}{share}, {task.elapsed or 0:.0f} s\n")
            sys.stderr.flush()


@contextmanager
def working(what: str, every_s: float = EVERY_S) -> Iterator[None]:
    """The time in which something is done whose length nobody knows."""
    console = Console(stderr=True)
    if console.is_terminal:
        with console.status(what):
            yield
        return
    over, begun_s = threading.Event(), time.monotonic()

    def tell() -> None:
        while not over.wait(every_s):
            sys.stderr.write(f"{what}, {time.monotonic() - begun_s:.0f} s\n")
            sys.stderr.flush()

    thread = threading.Thread(target=tell, name="progress", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
