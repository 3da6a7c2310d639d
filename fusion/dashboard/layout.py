"""How the signals of any plant are laid out at a glance: by what they belong to, in the direction of the flow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import chain, takewhile

from fusion.plant import Modality, Plant, Role, Signal

CELLS = 10
MOST_GROUPS = 16
OTHER = "other"
LETTERS = {
    "A": "analysis",
    "D": "density",
    "E": "voltage",
    "F": "flow",
    "I": "current",
    "J": "power",
    "L": "level",
    "P": "pressure",
    "Q": "quantity",
    "S": "speed",
    "T": "temperature",
    "V": "vibration",
    "W": "weight",
    "X": "valves",
    "Z": "position",
}
"""First letters of instruments. Source: ISA-5.1."""
SEPARATORS = r"./:|"
LEAST_SHARED = 3
"""From how many process signals on what all their names begin with says nothing of one of them."""
LOOP_PARTS = re.compile(r"[._](SP|PV|OP|MV|CV|OUT|AUTO|MODE)$", re.IGNORECASE)
RANKS = {Role.CONTROLLED: 0, Role.MANIPULATED: 1, Role.DISTURBANCE: 2, Role.MEASURED: 3}


@dataclass(frozen=True, slots=True)
class Group:
    """Signals that belong together; ``flows`` where something of it goes on to the next group."""

    title: str
    signals: tuple[Signal, ...]
    flows: bool = False


def groups(plant: Plant, without: Iterable[str] = ()) -> list[Group]:
    """Every signal but ``without`` once: by equipment, else by path, number or letter, whichever tells them apart."""
    left_out, shared = set(without), shared_path(plant)
    signals = [s for s in plant.signals if s.name not in left_out]
    by_name = ([(scheme(s.name.removeprefix(shared)), s) for s in signals] for scheme in (_path, _number, _letter))
    named = chain([[(signal.equipment or OTHER, signal) for signal in signals]], by_name)
    found = next((pairs for pairs in named if _tells_apart(pairs)), [("signals", s) for s in signals])
    members: dict[str, list[Signal]] = {}
    for title, signal in found:
        members.setdefault(title, []).append(signal)
    ordered = _in_flow(plant, members)
    return [
        Group(title, tuple(members[title]), _flows(plant, members[title], after))
        for title, after in zip(ordered, [*(members[t] for t in ordered[1:]), []], strict=True)
    ]


def shown(group: Group, wanted: Iterable[str]) -> list[Signal]:
    """As many of a group as there is room for: what is ``wanted``, then what is controlled and moved."""
    first = set(wanted)
    ranked = sorted(group.signals, key=lambda s: (s.name not in first, RANKS[s.role]))
    kept = {s.name for s in ranked[: max(CELLS, len(first & {s.name for s in group.signals}))]}
    return [s for s in group.signals if s.name in kept]


def shared_path(plant: Plant) -> str:
    """The path that all process signals' names begin with, such as ``Channel1.Device1.``; "" where there is none."""
    names = [s.name for s in plant.signals if s.modality is Modality.PROCESS]
    if len(names) < LEAST_SHARED:
        return ""
    paths = (re.findall(rf"[^{SEPARATORS}]*[{SEPARATORS}]", LOOP_PARTS.sub("", name)) for name in names)
    return "".join(parts[0] for parts in takewhile(lambda parts: len(set(parts)) == 1, zip(*paths, strict=False)))


def _tells_apart(pairs: list[tuple[str, Signal]]) -> bool:
    titles = {title for title, _ in pairs}
    unnamed = sum(title == OTHER for title, _ in pairs)
    return 2 <= len(titles) <= MOST_GROUPS and unnamed <= len(pairs) / 2


def _path(name: str) -> str:
    """What stands before the last part of a name such as ``line1/pump2/flow``."""
    found = re.match(rf"(.+)[{SEPARATORS}][^{SEPARATORS}]+$", LOOP_PARTS.sub("", name))
    return found[1] if found else OTHER


def _number(name: str) -> str:
    """The area of a tag: all but the last two digits of its number."""
    found = re.match(r"[^\W\d_]+[-_]?(\d+)\d{2}(?!\d)", name)
    return f"tags {found[1]}xx" if found else OTHER


def _letter(name: str) -> str:
    found = re.match(r"([A-Z])[A-Z]{0,3}[-_]?\d", name)
    return LETTERS.get(found[1], OTHER) if found else OTHER


def loop_of(name: str) -> tuple[str, str, str]:
    """What a tag belongs to: its path, then first letter and number, else what it is called but for PV, SP and such.

    Source: ISA-5.1 tag names, for example TIC101.SP of TT101.
    """
    whole = LOOP_PARTS.sub("", name)
    base = re.split(rf"[{SEPARATORS}]", whole)[-1]
    path = whole.removesuffix(base)
    found = re.match(r"([^\W\d_])[^\W\d_]*?[_-]?(\d+)", base)
    return (path, found[1], found[2]) if found else (path, base, "")


def _in_flow(plant: Plant, members: dict[str, list[Signal]]) -> list[str]:
    """Titles in an order that few of the plant's edges go against; what belongs nowhere is last.

    Source: Eades, Lin and Smyth 1993, a fast heuristic for the feedback arc set problem.
    """
    at = {signal.name: title for title, signals in members.items() for signal in signals}
    arcs = [(at[a], at[b]) for a, b in plant.edges if a in at and b in at and at[a] != at[b]]
    left = [title for title in members if title != OTHER]
    first: list[str] = []
    last: list[str] = []
    while left:
        out = {t: sum(a == t and b in left for a, b in arcs) for t in left}
        into = {t: sum(b == t and a in left for a, b in arcs) for t in left}
        if (sink := next((t for t in reversed(left) if not out[t] and into[t]), None)) is not None:
            last.insert(0, sink)
        else:
            sink = next((t for t in left if not into[t]), max(left, key=lambda t: out[t] - into[t]))
            first.append(sink)
        left.remove(sink)
    return [*first, *last, *(title for title in members if title == OTHER)]


def _flows(plant: Plant, here: list[Signal], after: list[Signal]) -> bool:
    names, then = {s.name for s in here}, {s.name for s in after}
    return any(a in names and b in then for a, b in plant.edges)
