"""What the header of a point-cloud file promises, against what the file holds: told before a library trusts it.

Source: Point Cloud Library, the PCD file format 0.7; Greg Turk, the PLY polygon file format 1.0.
"""

from __future__ import annotations

import struct
from pathlib import Path

MOST_POINTS = 50_000_000
HEAD_BYTES = 65_536
PLY_BYTES = {
    **dict.fromkeys(("char", "uchar", "int8", "uint8"), 1),
    **dict.fromkeys(("short", "ushort", "int16", "uint16"), 2),
    **dict.fromkeys(("int", "uint", "float", "int32", "uint32", "float32"), 4),
    **dict.fromkeys(("double", "float64"), 8),
}
COMPRESSED = struct.Struct("<II")


def check(file: Path) -> None:
    """Compare header and file; forms without a header pass.

    Raises:
        ValueError: saying what is promised and not kept.
        OSError: the file cannot be read.
    """
    data = file.read_bytes() if file.stat().st_size < HEAD_BYTES else file.open("rb").read(HEAD_BYTES)
    if data.startswith(b"ply"):
        _check_ply(file, data)
    elif file.suffix.lower() == ".pcd":
        _check_pcd(file, data)


def _lines(data: bytes, last: bytes) -> tuple[list[list[str]], int]:
    """The words of each line of a header up to the one that begins with ``last``, and where the header ends."""
    at, lines = 0, []
    while (end := data.find(b"\n", at)) >= 0:
        line = data[at:end].decode("ascii", "replace").split()
        at = end + 1
        lines.append(line)
        if line[:1] == [last.decode()]:
            return lines, at
    raise ValueError("its header does not end")


def _points(count: int) -> int:
    if not 0 <= count <= MOST_POINTS:
        raise ValueError(f"its header promises {count} points; at most {MOST_POINTS} are read")
    return count


def _check_rows(file: Path, start: int, rows: int, columns: int) -> None:
    """Whether so many rows of text follow, the last of them whole."""
    lines = file.read_bytes()[start:].split(b"\n")
    found = [line for line in lines if line.strip()]
    if len(found) < rows or (rows and len(found[rows - 1].split()) < columns):
        raise ValueError(f"it ends before the {rows} rows that its header promises")


def _check_bytes(file: Path, needed: int) -> None:
    size = file.stat().st_size
    if size < needed:
        raise ValueError(f"it ends after {size} of the {needed} bytes that its header promises")


def _check_ply(file: Path, data: bytes) -> None:
    lines, start = _lines(data, b"end_header")
    form, rows, needed, columns = "", 0, 0, 0
    for words in lines:
        match words:
            case ["format", form, *_]:
                pass
            case ["element", name, count]:
                if rows and columns:  # the points are complete; what follows them is not read
                    break
                rows, columns = _points(int(count)) if name == "vertex" else 0, 0
                if name != "vertex":
                    raise ValueError(f"its first element is {name}; expected vertex")
            case ["property", kind, _] if kind in PLY_BYTES:
                needed, columns = needed + PLY_BYTES[kind], columns + 1
            case ["property", *_]:
                raise ValueError("its points have properties other than numbers")
    if form == "ascii":
        _check_rows(file, start, rows, columns)
    else:
        _check_bytes(file, start + rows * needed)


def _check_pcd(file: Path, data: bytes) -> None:
    lines, start = _lines(data, b"DATA")
    header = {line[0]: line[1:] for line in lines if line}
    try:
        sizes = [int(size) for size in header["SIZE"]]
        counts = [int(count) for count in header.get("COUNT", ["1"] * len(sizes))]
        width, height = int(header["WIDTH"][0]), int(header["HEIGHT"][0])
        points = _points(int(header["POINTS"][0]) if "POINTS" in header else width * height)
        form = header["DATA"][0]
    except (KeyError, IndexError) as error:
        raise ValueError(f"its header lacks {error}") from error
    if not len(sizes) == len(counts) == len(header.get("FIELDS", [])):
        raise ValueError("its header has FIELDS, SIZE and COUNT of different lengths")
    row = sum(size * count for size, count in zip(sizes, counts, strict=True))
    if form == "ascii":
        _check_rows(file, start, points, sum(counts))
    elif form == "binary":
        _check_bytes(file, start + points * row)
    else:
        packed, whole = COMPRESSED.unpack(data[start : start + COMPRESSED.size].ljust(COMPRESSED.size, b"\0"))
        _check_bytes(file, start + COMPRESSED.size + packed)
        if whole != points * row:
            raise ValueError(f"it holds {whole} bytes where its header promises {points * row}")
