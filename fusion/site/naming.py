"""Names of tags: unique, short, and of letters that topics, files and command lines take."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence

from anyascii import anyascii

from fusion.site.found import FoundTag
from fusion.site.loops import PART

LONGEST = 80


def name_tags(tags: Sequence[FoundTag], taken: Collection[str] = ()) -> None:
    """Give every tag a name: its own, with as many folders before it as tell it apart from all others.

    A name that only says a part of a loop, such as PV, has its folder before it. Other scripts are written in ASCII,
    and the description keeps what the source says.
    """
    depth = {id(tag): 2 if _general(tag.path[-1]) else 1 for tag in tags}
    open_tags = list(tags)
    while open_tags:
        for tag in open_tags:
            tag.name = _name(tag.path[-depth[id(tag)] :])
        counted = Counter(tag.name.lower() for tag in tags)
        clashing = [t for t in tags if counted[t.name.lower()] > 1 or t.name in taken]
        open_tags = [t for t in clashing if depth[id(t)] < len(t.path)]
        for tag in open_tags:
            depth[id(tag)] += 1
    _number(tags, taken)
    for tag in tags:
        if not "".join(tag.path).isascii():
            tag.description = "; ".join(dict.fromkeys(part for part in (tag.description, ".".join(tag.path)) if part))


def _general(own: str) -> bool:
    return re.sub(r"[\W_]+", "", own).lower() in PART or len(own) < 2 or own.isdecimal()


def _name(parts: Sequence[str]) -> str:
    text = ".".join(re.sub(r"[^A-Za-z0-9_.-]+", "_", anyascii(part)).strip("_.") for part in parts)
    return text.strip("._-")[-LONGEST:] or "tag"


def _number(tags: Sequence[FoundTag], taken: Collection[str]) -> None:
    """Tell apart by a number what has the same name in the same folder."""
    used = {name.lower() for name in taken}
    for tag in tags:
        name, number = tag.name, 1
        while tag.name.lower() in used:
            number += 1
            tag.name = f"{name}_{number}"
        used.add(tag.name.lower())
