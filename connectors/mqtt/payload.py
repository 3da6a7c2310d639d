"""Values out of an MQTT payload: plain text or paths into JSON, with their time and quality if it says them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import msgspec

from connectors.base import Tally
from connectors.columns import UNUSABLE, StampWatch, number, plausible
from connectors.mqtt.config import TopicConfig
from connectors.mqtt.paths import MISSING, Document, Path, parse_path
from connectors.settings import datetime_ns
from fusion.records import Quality

NS = {"ns": 1, "us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
LONGEST_STAMP = 20
WORDS = {"true": 1.0, "false": 0.0}
QUALITIES = {"good": Quality.GOOD, "uncertain": Quality.UNCERTAIN, "bad": Quality.BAD}
BOM = b"\xef\xbb\xbf"


class Reading(NamedTuple):
    """One value; ``t_ns`` is None where the payload does not say when it was taken."""

    value: float
    quality: int
    t_ns: int | None


class Extractor:
    """Takes one signal's values out of the payloads of one topic; what is no number is counted, never raised."""

    def __init__(self, config: TopicConfig, signal: str, index: int, tally: Tally) -> None:
        self.index = index
        self.plain = config.format == "plain"
        self._signal = signal
        self._states = config.states
        self._decimal = config.decimal
        self._value_path = Path() if self.plain else parse_path(config.key("value_path"), config.value_path)
        self._time_path = self._path(config, "time_path")
        self._time_unit = config.time_unit
        self._quality_path = self._path(config, "quality_path")
        self._quality_of = QUALITY_CODES[config.quality_code]
        self._no_quality = QUALITIES[config.quality_missing]
        self._tally = tally
        self._stamps = StampWatch(tally)

    def _path(self, config: TopicConfig, name: str) -> Path | None:
        text = getattr(config, name)
        return parse_path(config.key(name), text) if text and not self.plain else None

    def readings(self, document: Document, received_ns: int, retained: bool) -> Iterator[Reading]:
        """The values in a payload; a retained one that does not say its time may be old, hence uncertain."""
        found = document.find(self._value_path)
        times = self._beside(document, self._time_path, len(found))
        qualities = self._beside(document, self._quality_path, len(found))
        for said, stamp, quality in zip(found, times, qualities, strict=True):
            yield self._reading(said, stamp, quality, received_ns, retained)

    def _beside(self, document: Document, path: Path | None, values: int) -> Sequence[Any]:
        """What belongs to each value: beside it in its own element of a list, or once for all of them."""
        if path is None:
            return [None] * values
        found = document.find(path)
        return found if len(found) == values else (found if len(found) == 1 else [MISSING]) * values

    def _reading(self, said: Any, stamp: Any, level: Any, received_ns: int, retained: bool) -> Reading:
        t_ns = None if stamp is None else self._time(stamp, received_ns)
        value = self._value(said)
        if value is None:
            self._tally.note("payload without a number", self._signal)
            return Reading(*UNUSABLE, t_ns)
        quality = Quality.GOOD if level is None else self._no_quality if level is MISSING else self._quality_of(level)
        if retained and t_ns is None:
            self._tally.note("retained without a time", self._signal)
            quality = min(quality, Quality.UNCERTAIN)
        if t_ns is not None:
            self._stamps.look(self._signal, t_ns, value)
        return Reading(value, int(quality), t_ns)

    def _value(self, said: Any) -> float | None:
        if isinstance(said, str):
            said = said.strip()
            said = self._states.get(said, WORDS.get(said.lower(), said))
        return number(said, self._decimal)

    def _time(self, stamp: Any, received_ns: int) -> int | None:
        t_ns = _time_ns(stamp, self._time_unit)
        if plausible(t_ns, received_ns):
            return t_ns
        self._tally.note("no usable time stamp", self._signal)
        return None


def document_of(payload: bytes, plain: bool) -> Document:
    """A payload, decoded; what cannot be is ``MISSING``."""
    payload = payload.removeprefix(BOM)
    if plain:
        text = payload.decode("utf-8", "replace").strip()
        return Document(text[1:-1] if len(text) > 1 and text[0] == text[-1] == '"' else text)
    try:
        return Document(msgspec.json.decode(payload))
    except (ValueError, RecursionError):  # no JSON, no UTF-8, numbers of thousands of digits, or too deep
        return Document(MISSING)


def _time_ns(stamp: Any, unit: str) -> int | None:
    if isinstance(stamp, str) and unit == "iso":
        return _iso_ns(stamp)
    if isinstance(stamp, str) and stamp.isascii() and stamp.isdigit() and len(stamp) <= LONGEST_STAMP:
        stamp = int(stamp)
    if unit == "iso" or isinstance(stamp, bool) or not isinstance(stamp, int | float):
        return None
    try:
        return round(stamp * NS[unit])
    except (OverflowError, ValueError):  # no finite number, or none once it is in nanoseconds
        return None


def _iso_ns(text: str) -> int | None:
    """An ISO 8601 stamp; one without a zone is UTC."""
    try:
        return datetime_ns(datetime.fromisoformat(text))
    except (ValueError, OverflowError):
        return None


def _opcua(said: Any) -> Quality:
    """A word, a truth value or a 32-bit OPC UA status code; a quality that cannot be read is uncertain."""
    if isinstance(said, bool):
        return Quality.GOOD if said else Quality.BAD
    if isinstance(said, int) and 0 <= said < 1 << 32:
        return Quality(max(2 - (said >> 30), 0))
    return QUALITIES.get(said.lower(), Quality.UNCERTAIN) if isinstance(said, str) else Quality.UNCERTAIN


def _opcda(said: Any) -> Quality:
    """The same with the code of OPC classic: the severity in bits 6 and 7, 192 good."""
    if isinstance(said, int) and not isinstance(said, bool):
        return (Quality.BAD, Quality.UNCERTAIN, Quality.UNCERTAIN, Quality.GOOD)[said >> 6 & 3]
    return _opcua(said)


def _profibus(said: Any) -> Quality:
    """The same with the code of PROFIBUS and Siemens Industrial Edge: 0 bad, 1 uncertain, 2 and 3 good."""
    if isinstance(said, int) and not isinstance(said, bool):
        return (
            (Quality.BAD, Quality.UNCERTAIN, Quality.GOOD, Quality.GOOD)[said] if 0 <= said < 4 else Quality.UNCERTAIN
        )
    return _opcua(said)


QUALITY_CODES = {"opcua": _opcua, "opcda": _opcda, "profibus": _profibus}
