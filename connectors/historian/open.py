"""The reader of a file or a URI, by what it is."""

from __future__ import annotations

import re
from pathlib import Path

from connectors.historian.detect import open_text
from connectors.historian.parquet import open_parquet
from connectors.historian.rows import Reader, ReadOptions
from connectors.historian.sql import SCHEMES, export
from connectors.historian.webapi import open_webapi
from fusion.errors import HistorianError


def open_reader(
    source: str, aside: Path, options: ReadOptions, *, query: str = "", start: str = "", end: str = ""
) -> Reader:
    """A reader of a file; copies that are needed go to ``aside``.

    Raises:
        HistorianError: where it is missing, empty or of no known format.
    """
    scheme = source.split(":", 1)[0]
    if scheme == "opc.tcp":
        from connectors.historian.opcua import open_history

        return open_history(source, query, start, end)
    if scheme in SCHEMES:
        copy, name = export(source, query, aside)
        return open_text(copy, aside, options, name)
    file = Path(source)
    if file.is_dir():
        raise HistorianError(f"{file}: a folder; name the files in it, such as {file}/*.csv")
    if not file.is_file():
        raise HistorianError(f"{file}: no such file")
    start_bytes = _start(file)
    if start_bytes[:4] == b"PK\x03\x04":
        raise HistorianError(f"{file}: a workbook or an archive; save its sheet as CSV, or unpack it")
    if start_bytes[:4] == b"PAR1":
        return open_parquet(file, options)
    if _is_json(file, start_bytes.replace(b"\0", b"").lstrip(b"\xef\xbb\xbf\xff\xfe \r\n\t")):
        return open_webapi(file, options)
    return open_text(file, aside, options)


def _start(file: Path) -> bytes:
    with file.open("rb") as stream:
        return stream.read(64)


def _is_json(file: Path, start: bytes) -> bool:
    """`[Data]` begins a block file, `[{` or `{"` begins JSON."""
    likely = re.match(rb"\[\s*[\[{]|\{\s*[\"}]", start) is not None
    return likely or (start[:1] in (b"{", b"[") and file.suffix.lower() == ".json")
