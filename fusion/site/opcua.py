"""What an OPC UA server serves: its numeric variables with unit, range, access and the rate at which they change."""

from __future__ import annotations

import asyncio
import base64
import re
import time
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from fnmatch import fnmatch
from typing import Any, TypeVar

from asyncua import ua
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaError, UaStatusCodeError

from connectors.base import Tally, bounded
from connectors.opcua.config import OpcUaConfig
from connectors.opcua.nodes import parse_node
from connectors.opcua.reasons import refusal_or_loss
from connectors.opcua.session import OpcUaSession, node_id
from fusion.errors import SourceError
from fusion.records import NS_PER_S, Columns, Quality
from fusion.site.found import Found, FoundTag, Kind
from fusion.site.units import from_code, from_text, from_words

MOST_NODES = 100_000
BROWSE_S = 240.0
AT_ONCE = 500
OBJECT, VARIABLE = 1, 2
READ, WRITE = 1, 2
UNIT, RANGE, STRINGS, VALUES = "EngineeringUnits", "EURange", "EnumStrings", "EnumValues"
PROPERTIES = (UNIT, RANGE, STRINGS, VALUES)
MOST_STATES = 64
NAMES_SHOWN = 3
TRUTHS, WHOLES, REALS = (1,), (2, 3, 4, 5, 6, 7, 8, 9, 27, 28, 29), (10, 11, 26, 50)
BY_VALUE: dict[type, Kind] = {bool: Kind.TRUTH, int: Kind.WHOLE, float: Kind.REAL}

T = TypeVar("T")
R = TypeVar("R")


@dataclass(slots=True)
class Variable:
    """A variable as it was browsed, and the nodes of those of its properties that say something, by name."""

    node: Any
    path: tuple[str, ...]
    properties: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class Survey:
    """What was browsed for a pattern, and how far; ``other`` counts variables that it does not fit."""

    only: str = ""
    variables: list[Variable] = field(default_factory=list)
    areas: list[str] = field(default_factory=list)
    other: int = 0
    nodes: int = 0
    cut: str = ""


class Browser(OpcUaSession):
    """A session that looks around and subscribes to nothing."""

    def __init__(self, config: OpcUaConfig) -> None:
        super().__init__(config, {}, Tally())
        self._at_once = AT_ONCE

    async def survey(self, only: str = "", most: int = MOST_NODES) -> Survey:
        """Every variable below Objects that ``only`` fits, breadth first, but for those of the OPC UA standard.

        Folders that such a pattern leaves out by their names are not entered.
        """
        found, deadline = Survey(only), time.monotonic() + BROWSE_S
        waiting: list[tuple[Any, tuple[str, ...], Variable | None]] = [(node_id(0, ObjectIds.ObjectsFolder), (), None)]
        seen = {waiting[0][0]}
        while waiting:
            now, waiting = waiting[: self._at_once], waiting[self._at_once :]
            answers = await self.references([node for node, _, _ in now])
            for (_, path, parent), references in zip(now, answers, strict=True):
                waiting += [new for ref in references if (new := _reached(ref, path, parent, seen, found)) is not None]
            found.nodes = len(seen)
            if found.nodes >= most or time.monotonic() > deadline:
                found.cut = f"{found.nodes} nodes were browsed, and not all of them looked below" if waiting else ""
                break
        return found

    async def references(self, nodes: Sequence[Any]) -> list[list[Any]]:
        """What lies below each of these nodes, its properties included."""
        return await self._in_batches(nodes, self._references)

    async def _references(self, nodes: Sequence[Any]) -> list[list[Any]]:
        session = self._session()
        answers = await session.browse(ua.BrowseParameters(ua.ViewDescription(), 0, [_downwards(n) for n in nodes]))
        found = [list(answer.References or ()) for answer in answers]
        waiting = [(i, answer.ContinuationPoint) for i, answer in enumerate(answers) if answer.ContinuationPoint]
        while waiting:
            more = await session.browse_next(ua.BrowseNextParameters(False, [point for _, point in waiting]))
            for (i, _), answer in zip(waiting, more, strict=True):
                found[i] += answer.References or ()
            waiting = [(i, a.ContinuationPoint) for (i, _), a in zip(waiting, more, strict=True) if a.ContinuationPoint]
        return found

    async def read_all(self, nodes: Sequence[Any], attribute: AttributeIds) -> list[Any]:
        """The values of one attribute; None where there is none."""

        async def read(some: Sequence[Any]) -> list[Any]:
            items = [ua.ReadValueId(node, attribute) for node in some]
            return list(await self._session().read(ua.ReadParameters(NodesToRead=items)))

        answers = await self._in_batches(nodes, read)
        return [a.Value.Value if a.Value is not None and a.StatusCode.is_good() else None for a in answers]

    async def namespaces(self) -> list[str]:
        """The URIs of the server's namespaces."""
        assert self._client is not None  # noqa: S101 - opened before
        return list(await self._client.get_namespace_array())

    def _session(self) -> Any:
        assert self._client is not None  # noqa: S101 - opened before
        return self._client.uaclient.session

    async def _in_batches(self, things: Sequence[T], ask: Callable[[Sequence[T]], Awaitable[list[R]]]) -> list[R]:
        """The answers to all; where the server finds a batch too large, batches are halved."""
        found: list[R] = []
        while len(found) < len(things):
            try:
                found += await ask(things[len(found) : len(found) + self._at_once])
            except UaStatusCodeError:
                if self._at_once == 1:
                    raise
                self._at_once //= 2
        return found


def _downwards(node: Any) -> Any:
    return ua.BrowseDescription(
        NodeId=node,
        BrowseDirection=ua.BrowseDirection.Forward,
        ReferenceTypeId=node_id(0, ObjectIds.HierarchicalReferences),
        IncludeSubtypes=True,
        NodeClassMask=OBJECT | VARIABLE,
        ResultMask=ua.BrowseResultMask.All,
    )


def _reached(
    reference: Any, path: tuple[str, ...], parent: Variable | None, seen: set[Any], found: Survey
) -> tuple[Any, tuple[str, ...], Variable | None] | None:
    """Take note of what a reference leads to; returns it where there may be more below."""
    told = reference.NodeId
    node = ua.NodeId(told.Identifier, told.NamespaceIndex, told.NodeIdType)
    name = reference.BrowseName.Name or str(told.Identifier)
    if reference.ReferenceTypeId.Identifier == ObjectIds.HasProperty and reference.ReferenceTypeId.NamespaceIndex == 0:
        if parent is not None and name in PROPERTIES:
            parent.properties[name] = node
        return None
    if node in seen or node.NamespaceIndex == 0:
        return None
    seen.add(node)
    path = (*path, name)
    if reference.NodeClass != ua.NodeClass.Variable:
        if len(path) == 1:
            found.areas.append(name)
        return (node, path, None) if may_hold(path, found.only) else None
    variable = Variable(node, path)
    if not matches(path, found.only):
        found.other += 1
        return (node, path, None) if may_hold(path, found.only) else None
    found.variables.append(variable)
    return node, path, variable


async def discover(config: OpcUaConfig, only: str, most: int, seconds: float) -> Found:
    """The numeric variables of a server that ``only`` fits, at most ``most``, and how they behave for a while.

    Raises:
        SourceError: the server cannot be reached or says no.
    """
    browser = Browser(config)
    try:
        await bounded(browser.open(), config.supervision.open_timeout_s)
        found = await _found(browser, config, only, most)
    except TimeoutError as error:
        raise SourceError(f"{config.url}: no answer within {config.supervision.open_timeout_s:g} s") from error
    except UaError as error:
        raise refusal_or_loss(error) from error
    finally:
        await browser.close()
    if found.tags:
        await _listen(config, found.tags, seconds)
    return found


async def _found(browser: Browser, config: OpcUaConfig, only: str, most: int) -> Found:
    survey = await browser.survey(only)
    left_out: Counter[str] = Counter({"not asked for by --only": survey.other})
    tags: list[FoundTag] = []
    looked = 0
    while looked < len(survey.variables) and len(tags) < most:
        some = survey.variables[looked : looked + max(most, AT_ONCE)]
        tags += await _tags(browser, some, left_out)
        looked += len(some)
    remarks = [f"cut off: {survey.cut}; {_choose(survey)}"] if survey.cut else []
    if not survey.variables:
        remarks.append(
            f"none of {survey.other} variables is called {only!r}; {_choose(survey)}"
            if survey.other
            else "no variable below Objects: may this user see them?"
        )
    if len(tags) > most or looked < len(survey.variables):
        said = f"of {len(survey.variables)} variables the first {min(most, len(tags))} that can be used are taken"
        remarks.append(f"cut off: {said}; {_choose(survey)}, or give --most")
    return Found(url=config.url, connector="plc", tags=tags[:most], remarks=remarks, left_out=+left_out)


def _choose(survey: Survey) -> str:
    """How to ask for a part of a server, with the names of its own parts."""
    example = f"{survey.areas[0]}/*" if survey.areas else "*/TIC*"
    areas = f": its folders are {_some(survey.areas)}" if len(survey.areas) > 1 else ""
    return f"choose by --only, such as --only '{example}'{areas}"


def may_hold(path: Sequence[str], only: str) -> bool:
    """Whether below a folder there may be what a pattern fits: by the folders that it names before its first ``*``."""
    named = re.split(r"[*?\[]", only, maxsplit=1)[0].lower()
    here = "/".join(path).lower() + "/"
    return "/" not in named or here.startswith(named) or named.startswith(here)


def matches(path: Sequence[str], only: str) -> bool:
    """Whether a pattern such as ``*/TIC*`` fits a path, or a name alone, whatever the case."""
    names = ("/".join(path), path[-1])
    return not only or any(fnmatch(name.lower(), only.lower()) for name in names)


async def _tags(browser: Browser, variables: Sequence[Variable], left_out: Counter[str]) -> list[FoundTag]:
    nodes, namespaces = [v.node for v in variables], await browser.namespaces()
    attributes = AttributeIds
    types = await browser.read_all(nodes, attributes.DataType)
    ranks = await browser.read_all(nodes, attributes.ValueRank)
    access = await browser.read_all(nodes, attributes.AccessLevel)
    ours = await browser.read_all(nodes, attributes.UserAccessLevel)
    kinds = await _kinds(browser, nodes, types)
    kept, kept_types, tags, unusable = [], [], [], defaultdict[str, list[str]](list)
    for variable, data_type, kind, rank, level, own in zip(variables, types, kinds, ranks, access, ours, strict=True):
        reason = _unusable(kind, rank, level if own is None else own)
        if reason or kind is None:
            unusable[reason].append(variable.path[-1])
            continue
        kept.append(variable)
        kept_types.append(data_type)
        writable = None if level is None else bool(level & WRITE)
        address = _address(variable.node, namespaces)
        tags.append(FoundTag(path=variable.path, address=address, kind=kind, writable=writable))
    words = await browser.read_all([v.node for v in kept], attributes.Description)
    left_out.update({f"{reason} ({_some(names)})": len(names) for reason, names in unusable.items()})
    units, ranges, strings, values = [
        await _properties(browser, [v.properties.get(name) for v in kept]) for name in PROPERTIES
    ]
    by_type = await _states_of_types(browser, [t for t in kept_types if _is_derived(t)])
    parts = zip(tags, kept_types, words, units, ranges, strings, values, strict=True)
    for tag, data_type, text, unit, span, *states in parts:
        said = (getattr(text, "Text", None) or "").strip()
        tag.description = "" if said == tag.path[-1] else said
        _take_unit(tag, unit)
        low, high = getattr(span, "Low", None), getattr(span, "High", None)
        if low is not None and high is not None and low < high:
            tag.low, tag.high = float(low), float(high)
        tag.states = (_states(*states) or by_type.get(data_type, {})) if tag.kind is Kind.WHOLE else {}
    return tags


async def _states_of_types(browser: Browser, types: Sequence[Any]) -> dict[Any, dict[int, str]]:
    """The words of enumerations that are data types of their own."""
    own = list(dict.fromkeys(types))
    found: dict[Any, dict[int, str]] = {}
    definitions = await browser.read_all(own, AttributeIds.DataTypeDefinition)
    for data_type, definition, references in zip(own, definitions, await browser.references(own), strict=True):
        fields = getattr(definition, "Fields", None) or ()
        found[data_type] = {f.Value: f.Name for f in fields if isinstance(f, ua.EnumField)}
        if found[data_type]:
            continue
        named = {r.BrowseName.Name: r.NodeId for r in references if r.BrowseName.Name in (STRINGS, VALUES)}
        nodes = [ua.NodeId(n.Identifier, n.NamespaceIndex, n.NodeIdType) for n in named.values()]
        said = dict(zip(named, await browser.read_all(nodes, AttributeIds.Value), strict=True))
        found[data_type] = _states(said.get(STRINGS), said.get(VALUES))
    return found


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:NAMES_SHOWN]) + (" ..." if len(names) > NAMES_SHOWN else "")


def _states(strings: Any, values: Any) -> dict[int, str]:
    """The words of an enumeration by their numbers, as a multi-state variable says them in one of two ways."""
    said = {i: getattr(text, "Text", None) for i, text in enumerate(strings or ())}
    said |= {v.Value: getattr(v.DisplayName, "Text", None) for v in values or () if hasattr(v, "DisplayName")}
    return {number: text or str(number) for number, text in list(said.items())[:MOST_STATES]}


async def _properties(browser: Browser, nodes: Sequence[Any]) -> list[Any]:
    """The values of property nodes; None where there is no node."""
    asked = [node for node in nodes if node is not None]
    values = iter(await browser.read_all(asked, AttributeIds.Value))
    return [None if node is None else next(values) for node in nodes]


async def _kinds(browser: Browser, nodes: Sequence[Any], types: Sequence[Any]) -> list[Kind | None]:
    """What the values of variables are, by their data type or, where that is derived, by a value; None is no number."""
    kinds = [_kind(data_type) for data_type in types]
    derived = [i for i, data_type in enumerate(types) if kinds[i] is None and _is_derived(data_type)]
    values = await browser.read_all([nodes[i] for i in derived], AttributeIds.Value)
    for i, value in zip(derived, values, strict=True):
        kinds[i] = next((kind for python, kind in BY_VALUE.items() if isinstance(value, python)), None)
    return kinds


def _kind(data_type: Any) -> Kind | None:
    if data_type is None or data_type.NamespaceIndex != 0:
        return None
    number = data_type.Identifier
    return (
        Kind.TRUTH if number in TRUTHS else Kind.WHOLE if number in WHOLES else Kind.REAL if number in REALS else None
    )


def _is_derived(data_type: Any) -> bool:
    """Whether a data type is not one of those that all others are made of."""
    return data_type is not None and (data_type.NamespaceIndex != 0 or data_type.Identifier > ObjectIds.Decimal)


def _unusable(kind: Kind | None, rank: int | None, level: int | None) -> str:
    if kind is None:
        return "no number"
    if rank is not None and rank >= 0:
        return "an array"
    return "" if level is None or level & READ else "not readable for us"


def _address(node: Any, namespaces: Sequence[str]) -> str:
    """A node by the URI of its namespace."""
    letters = {ua.NodeIdType.String: "s", ua.NodeIdType.Guid: "g", ua.NodeIdType.ByteString: "b"}
    letter, said = letters.get(node.NodeIdType, "i"), node.Identifier
    text = base64.b64encode(said).decode() if letter == "b" else str(said)
    return f"nsu={namespaces[node.NamespaceIndex]};{letter}={text}"


def _take_unit(tag: FoundTag, information: Any) -> None:
    """The unit that a server declares by code or in words; else one in brackets behind the description or name."""
    code = from_code(getattr(information, "UnitId", 0) or 0)
    text = (getattr(getattr(information, "DisplayName", None), "Text", None) or "").strip()
    spelled, known = from_text(text)
    if "unitsofmeasure" in (getattr(information, "NamespaceUri", None) or ""):
        spelled, known = text, True  # UCUM itself
    if code and text and known and spelled != code:
        tag.doubts.append(f"the unit's code says {code}, its name {text}")
    if code or text:
        tag.unit = code or spelled
        if not code and not known:
            tag.doubts.append(f"unit {text!r} is none that is known: write it in UCUM")
        return
    tag.unit = from_words(tag.path[-1], tag.description)
    if tag.unit:
        tag.doubts.append("unit from its words, none is declared")


async def _listen(config: OpcUaConfig, tags: Sequence[FoundTag], seconds: float) -> None:
    """Subscribe for a while, and note what comes."""
    by_address = {tag.address: tag for tag in tags}
    addresses = {address: parse_node("opcua.nodes", address) for address in by_address}
    session = OpcUaSession(config, addresses, Tally())
    try:
        await bounded(session.open(), config.supervision.open_timeout_s + len(tags) / AT_ONCE)
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                items = await asyncio.wait_for(session.read(), left_s)
            except TimeoutError:
                break
            for item in items:
                if isinstance(item, Columns):
                    _note(item, by_address)
    finally:
        await session.close()


def _note(columns: Columns, tags: dict[str, FoundTag]) -> None:
    rows = zip(columns.index, columns.t_ns, columns.value, columns.quality, strict=True)
    for index, t_ns, value, quality in rows:
        seen = tags[columns.signals[index]].seen
        if quality == Quality.BAD:
            seen.bad += 1
        else:
            seen.add(float(value), float(t_ns) / NS_PER_S)
