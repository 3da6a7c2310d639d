"""The reader of a file or a URI, by what it is."""

from __future__ import annotations

from pathlib import Path

from connectors.historian.detect import open_text
from connectors.historian.rows import Reader, ReadOptions
from fusion.errors import HistorianError


def open_reader(
    source: str, aside: Path, options: ReadOptions, *, query: str = "", start: str = "", end: str = ""
) -> Reader:
    """A reader of a file; copies that are needed go to ``aside``.

    Raises:
        HistorianError: where it is missing, empty or of no known format.
    """
    file = Path(source)
    if not file.is_file():
        raise HistorianError(f"{file}: no such file")
    return open_text(file, aside, options)
