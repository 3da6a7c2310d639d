"""PI Web API answers kept as JSON: recorded values of one stream, of a stream set, or of a batch of requests."""

from __future__ import annotations

import codecs
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import msgspec
import polars as pl

from connectors.historian.rows import Batch, ReadOptions, TagInfo, finish
from connectors.historian.stamps import StampReader, choose
from fusion.errors import HistorianError
from fusion.records import Quality

SHAPES = (
    '{"Items": [{"Timestamp": ..., "Value": ...}]} of one stream, {"Items": [{"Name": ..., "Items": [...]}]} of a set, '
    "or a batch of such answers"
)
SCHEMA = {"line": pl.Int64, "signal": pl.String, "stamp": pl.String, "value": pl.String, "quality": pl.UInt8}


@dataclass(frozen=True, slots=True, kw_only=True)
class TagStream:
    """The values of one tag, as they stood in the answer."""

    tag: str
    unit: str
    values: list[dict[str, Any]]


@dataclass(slots=True)
class WebApiReader:
    """A JSON file with the values of one or more streams; a file is held whole, the server caps what it answers."""

    name: str
    streams: list[TagStream]
    clock: StampReader
    format: str = "PI Web API JSON"
    unread: Sequence[str] = ()
    aside: Sequence[str] = ()
    _line: int = field(default=0)

    def batches(self) -> Iterator[Batch]:
        """One batch a stream; ``line`` counts values from 1."""
        for stream in self.streams:
            rows = [self._row(stream.tag, value) for value in stream.values]
            raw = self.clock.utc(pl.DataFrame(rows, schema=SCHEMA, orient="row"))
            yield replace(finish(raw, self.name), tags={stream.tag: _info(stream)})

    def _row(self, tag: str, item: Mapping[str, Any]) -> tuple[int, str, str | None, str | None, int]:
        self._line += 1
        value, quality = item.get("Value"), _quality(item)
        if isinstance(value, Mapping):
            system = bool(value.get("IsSystem"))
            quality = int(Quality.BAD) if system else quality
            value = value.get("Name") if system else value.get("Value")
        text = None if value is None else str(value)
        return self._line, tag, item.get("Timestamp"), text, quality


def _quality(item: Mapping[str, Any]) -> int:
    if item.get("Good") is False:
        return int(Quality.BAD)
    return int(Quality.UNCERTAIN if item.get("Questionable") or item.get("Substituted") else Quality.GOOD)


def _info(stream: TagStream) -> TagInfo:
    """Unit, and the states of a digital tag by code."""
    found = {
        int(v["Value"]): str(v["Name"])
        for item in stream.values
        if isinstance(v := item.get("Value"), Mapping) and not v.get("IsSystem") and "Name" in v and "Value" in v
    }
    return TagInfo(unit=stream.unit, description=", ".join(f"{code}={found[code]}" for code in sorted(found)))


def open_webapi(file: Path, options: ReadOptions) -> WebApiReader:
    """A reader of PI Web API JSON.

    Raises:
        HistorianError: where the file is no JSON or not of this shape.
    """
    try:
        data = msgspec.json.decode(_text(file.read_bytes()))
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise HistorianError(f"{file}: begins like JSON and is not ({error})") from error
    streams = list(_streams(data, file.stem))
    values = [item for stream in streams for item in stream.values]
    if not values:
        raise HistorianError(f"{file}: no values in its JSON; looked for {SHAPES}")
    stamps = [str(item.get("Timestamp", "")) for item in values[:: max(1, len(values) // 2000)]]
    form = choose(str(file), stamps, options.dates, options.epoch)
    return WebApiReader(str(file), streams, StampReader(str(file), form, options.tz))


def _text(content: bytes) -> str:
    """UTF-8, or UTF-16 as PowerShell writes it, without a mark in front."""
    return content.decode("utf-16" if content[:2] in (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE) else "utf-8-sig")


def _timed(items: Any) -> bool:
    return isinstance(items, list) and bool(items) and all(isinstance(i, Mapping) and "Timestamp" in i for i in items)


def _streams(data: Any, tag: str, unit: str = "") -> Iterator[TagStream]:
    """Every list of timed values in an answer, with the name nearest to it."""
    if _timed(data):
        data = {"Items": data}
    if isinstance(data, list):
        for item in data:
            yield from _streams(item, tag, unit)
    if not isinstance(data, Mapping):
        return
    tag, unit = str(data.get("Name", tag)), str(data.get("UnitsAbbreviation", unit))
    items: Any = data.get("Items")
    if _timed([data.get("Value")]):  # the latest value of a stream
        items = [data["Value"]]
    if _timed(items):
        units = {str(i["UnitsAbbreviation"]) for i in items if i.get("UnitsAbbreviation")}
        yield TagStream(tag=tag, unit="\n".join(sorted(units)) or unit, values=items)
        return
    for key in ("Items", "Content") if items is not None or "Content" in data else data:
        yield from _streams(data.get(key), tag, unit)
