"""What a broker carries: topics heard for a while, the form of their payloads, and how often they come."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import msgspec

from connectors.columns import number
from connectors.mqtt.config import MqttConfig
from connectors.mqtt.payload import WORDS
from fusion.errors import SourceError
from fusion.mqtt.connection import Connection
from fusion.site.found import Found, FoundTag, Kind, Seen
from fusion.site.opcua import matches
from fusion.site.units import from_text, from_words
from fusion.site.yaml_text import flow

MOST_TOPICS = 20_000
DEEPEST, LONGEST_ARRAY = 4, 16
STEP_S = 0.2
OWN = ("fusion", "simulator")
SPARKPLUG = "spBv1.0"
VALUE_KEYS = ("value", "val", "v", "payload", "reading")
TIME_KEYS = ("t_ns", "timestamp", "time", "ts", "t", "datetime", "date", "timestamp_ms", "time_ms", "epoch")
QUALITY_KEYS = ("quality", "q", "status", "good")
UNIT_KEYS = ("unit", "units", "uom", "engunit")
TEXT_KEYS = ("description", "desc", "name", "tag")
"""What says nothing of a value's size, but what it is."""


@dataclass(slots=True)
class Topic:
    """One topic: its numbers by path, what stands beside them, and what could not be read."""

    seen: dict[str, Seen] = field(default_factory=dict)
    kinds: dict[str, Kind] = field(default_factory=dict)
    words: dict[str, str] = field(default_factory=dict)
    time_path: str = ""
    time_unit: str = ""
    quality_path: str = ""
    messages: int = 0
    retained: int = 0
    plain: int = 0
    unread: int = 0
    long_arrays: int = 0
    shapes: set[tuple[str, ...]] = field(default_factory=set)


class Listener:
    """Takes every message in; runs on the network thread."""

    def __init__(self) -> None:
        self.topics: dict[str, Topic] = {}
        self.left_out: Counter[str] = Counter()
        self.sparkplug: set[str] = set()
        self._edge: set[str] = set()

    def take(self, topic: str, payload: bytes, retained: bool) -> None:
        """One message."""
        levels = topic.split("/")
        if levels[0] == SPARKPLUG:
            self.sparkplug.add("/".join((*levels[1:2], *levels[3:5])))
        elif levels[0] in OWN:
            self._once("our own results and the simulator's state", topic)
        elif topic not in self.topics and len(self.topics) >= MOST_TOPICS:
            self._once(f"beyond {MOST_TOPICS} topics", topic)
        else:
            _note(self.topics.setdefault(topic, Topic()), payload, retained)

    def _once(self, reason: str, topic: str) -> None:
        if topic not in self._edge:
            self._edge.add(topic)
            self.left_out[reason] += 1


def _note(topic: Topic, payload: bytes, retained: bool) -> None:
    topic.messages += 1
    topic.retained += retained
    now_s = time.monotonic()
    text = payload.decode("utf-8", "replace").strip()
    plain = WORDS.get(text.lower(), _float(text))
    if plain is not None:
        topic.plain += 1
        kind = Kind.TRUTH if text.lower() in WORDS else Kind.REAL
        _add(topic, "", plain, kind, now_s)
        return
    try:
        document = msgspec.json.decode(payload)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        document = None
    if not isinstance(document, dict | list):
        topic.unread += 1
        return
    leaves = list(_leaves(document, (), topic))
    topic.shapes.add(tuple(path for path, _ in leaves))
    for path, value in leaves:
        _take_leaf(topic, path, value, now_s)


def _float(text: str) -> float | None:
    try:
        return number(float(text))
    except ValueError:
        return None


def _leaves(document: Any, path: tuple[str, ...], topic: Topic) -> Iterator[tuple[str, Any]]:
    """Scalars with their paths, keys from the outside in; a key with a dot cannot be named."""
    if len(path) > DEEPEST:
        return
    if isinstance(document, dict):
        for key, value in document.items():
            if "." not in key:
                yield from _leaves(value, (*path, key), topic)
    elif isinstance(document, list):
        if len(document) > LONGEST_ARRAY:
            topic.long_arrays += 1
            return
        for i, value in enumerate(document):
            yield from _leaves(value, (*path, str(i)), topic)
    elif document is not None:
        yield ".".join(path), document


def _take_leaf(topic: Topic, path: str, value: Any, now_s: float) -> None:
    key = path.rpartition(".")[2].lower()
    unit = _time_unit(value) if key in TIME_KEYS else ""
    if unit:
        topic.time_path, topic.time_unit = topic.time_path or path, topic.time_unit or unit
    elif key in QUALITY_KEYS and (key[0] == "q" or isinstance(value, str | bool)):
        topic.quality_path = topic.quality_path or path
    elif isinstance(value, str):
        if key in UNIT_KEYS or key in TEXT_KEYS:
            topic.words[path] = value
    elif (found := number(value)) is not None:
        kind = Kind.TRUTH if isinstance(value, bool) else Kind.REAL
        _add(topic, path, found, kind, now_s)


def _add(topic: Topic, path: str, value: float, kind: Kind, now_s: float) -> None:
    topic.kinds.setdefault(path, kind)
    topic.seen.setdefault(path, Seen()).add(value, now_s)


def _time_unit(value: Any) -> str:
    """In what a stamp of about now is written; empty where it is none."""
    if isinstance(value, str):
        return "iso" if len(value) >= 10 and value[4:5] == "-" and value[:4].isdecimal() else ""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return ""
    now_s = time.time()
    scales = {"s": 1.0, "ms": 1e3, "us": 1e6, "ns": 1e9}
    return next((unit for unit, scale in scales.items() if 0.5 < value / scale / now_s < 2.0), "")


async def discover(config: MqttConfig, only: str, most: int, seconds: float) -> Found:
    """The numbers on a broker; ``only`` is a filter of MQTT (with + or #), or a pattern of topics.

    Raises:
        BrokerError: the broker cannot be reached or says no.
    """
    asked = only if "#" in only or "+" in only else "#"
    pattern = "" if asked == only else only
    listener = Listener()
    await asyncio.to_thread(_listen, config, asked, listener, seconds)
    heard = {t: topic for t, topic in listener.topics.items() if matches(t.strip("/").split("/"), pattern)}
    left_out = listener.left_out
    left_out["not asked for by --only"] = len(listener.topics) - len(heard)
    tags = [tag for name, topic in sorted(heard.items()) for tag in _tags(name, topic, seconds)]
    left_out["no number in it"] = sum(not topic.seen for topic in heard.values())
    left_out["arrays longer than 16"] = sum(bool(topic.long_arrays) for topic in heard.values())
    remarks = [] if heard else [f"no message in {seconds:g} s: is anything published, and may we read it?"]
    if listener.sparkplug:
        nodes = sorted(listener.sparkplug)
        first = dict(zip(("group", "node", "device"), nodes[0].split("/"), strict=False))
        remarks.append(
            f"Sparkplug B, not proposed as tags here: {len(nodes)} nodes and devices, {', '.join(nodes[:3])}; "
            f"to read one, write into the connector sparkplug: [{flow({**first, 'signals': ['METRIC']})}]"
        )
    if len(tags) > most:
        remarks.append(
            f"cut off: {len(tags)} numbers, the first {most} are taken; choose some with --only or give --most"
        )
    where = f"mqtt{'s' if config.tls else ''}://{config.address}"
    return Found(url=where, connector="broker", tags=tags[:most], remarks=remarks, left_out=+left_out)


def _listen(config: MqttConfig, asked: str, listener: Listener, seconds: float) -> None:
    """Subscribe, and take in what comes until the time is over."""
    connection = Connection(config, received=listener.take)
    try:
        connection.open()
        if connection.subscribe([asked], config.qos):
            raise SourceError(f"broker {config.address} denied to subscribe {asked}; name a part: --only 'plant/#'")
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline and not connection.lost:
            connection.step(STEP_S)
        if connection.lost:
            raise SourceError(f"broker {config.address}: {connection.lost}")
        connection.leave()
    finally:
        connection.close()


def _tags(name: str, topic: Topic, seconds: float) -> Iterator[FoundTag]:
    levels = tuple(level for level in name.split("/") if level)
    for path, seen in topic.seen.items():
        keys = [key for key in path.split(".") if key]
        spoken = _spoken(keys[:-1] if keys and keys[-1].lower() in VALUE_KEYS else keys, topic)
        place: dict[str, Any] = {"topic": name}
        if not path:
            place["format"] = "plain"
        else:
            place |= {"value_path": path} if path != "value" else {}
            place |= {"time_path": topic.time_path, "time_unit": topic.time_unit} if topic.time_path else {}
            place |= {"quality_path": topic.quality_path} if topic.quality_path else {}
        tag = FoundTag(path=(*levels, *spoken), address=f"{name} {path}".strip(), place=place, seen=seen)
        tag.kind = topic.kinds[path]
        _take_words(tag, path, topic)
        _doubt(tag, topic, seconds)
        yield tag


def _spoken(keys: list[str], topic: Topic) -> list[str]:
    """Keys with the name that an entry of an array gives itself in place of its number."""
    spoken = []
    for i, key in enumerate(keys):
        within = ".".join(keys[: i + 1])
        said = topic.words.get(f"{within}.name") or topic.words.get(f"{within}.tag")
        spoken.append(said if key.isdecimal() and said else key)
    return spoken


def _take_words(tag: FoundTag, path: str, topic: Topic) -> None:
    """Unit and description that stand beside the value."""
    folder = path.rpartition(".")[0]
    for where, text in topic.words.items():
        beside, _, key = where.rpartition(".")
        if beside not in (folder, ""):
            continue
        if key.lower() in UNIT_KEYS:
            tag.unit, known = from_text(text)
            if not known:
                tag.doubts.append(f"unit {text!r} is none that is known: write it in UCUM")
        elif key.lower().startswith("desc"):
            tag.description = text
    if not tag.unit and (unit := from_words(tag.path[-1], tag.description)):
        tag.unit = unit
        tag.doubts.append("unit from its words, none is served")


def _doubt(tag: FoundTag, topic: Topic, seconds: float) -> None:
    if topic.messages == topic.retained:
        tag.doubts.append(f"retained, nothing new in {seconds:g} s")
    if tag.place.get("format") == "plain" and topic.plain < topic.messages:
        tag.doubts.append(f"{topic.messages - topic.plain} of {topic.messages} payloads are no plain number")
    if any(key.isdecimal() for key in str(tag.place.get("value_path", "")).split(".")):
        tag.doubts.append("taken by its place in an array: may it change?")
    if len(topic.shapes) > 1:
        tag.doubts.append("its payloads do not always have the same keys")
