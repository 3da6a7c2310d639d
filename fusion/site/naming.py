"""Names of tags: unique, short, and of letters that topics, files and command lines take."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Collection, Sequence
from itertools import takewhile

from anyascii import anyascii

from fusion.site.found import FoundTag
from fusion.site.loops import PART

LONGEST = 80


def name_tags(tags: Sequence[FoundTag], taken: Collection[str] = ()) -> None:
    """Give every tag a name: its own, with as many folders before it as tell it apart from all others.

    A name without a number, or one that only says a part of a loop, has its folder before it; the parts of one loop are
    called alike. Other scripts are written in ASCII, and the description keeps what the source says.
    """
    groups = [(tag.path[:-1], "") if _general(tag.path[-1]) else tag.path for tag in tags]
    levels = zip(*(tag.path[:-1] for tag in tags), strict=False)
    shared = sum(1 for _ in takewhile(lambda names: len(set(names)) == 1, levels))
    depth = {group: _least_depth(tag.path, shared) for tag, group in zip(tags, groups, strict=True)}
    while True:
        for tag, group in zip(tags, groups, strict=True):
            tag.name = _name(tag.path[-depth[group] :])
        counted = Counter(tag.name.lower() for tag in tags)
        clashing = {
            group
            for tag, group in zip(tags, groups, strict=True)
            if (counted[tag.name.lower()] > 1 or tag.name in taken) and depth[group] < len(tag.path)
        }
        if not clashing:
            break
        for group in clashing:
            depth[group] += 1
    _number(tags, taken)
    for tag, group in zip(tags, groups, strict=True):
        if not "".join(tag.path[-depth[group] :]).isascii():
            tag.description = "; ".join(dict.fromkeys(part for part in (tag.description, ".".join(tag.path)) if part))


def _general(own: str) -> bool:
    return re.sub(r"[\W_]+", "", own).lower() in PART or len(own) < 2 or own.isdecimal()


def _least_depth(path: tuple[str, ...], shared: int) -> int:
    """How much of a path a name needs to say something; the ``shared`` folders of all tags say nothing."""
    depth = 1
    while depth < len(path) and _general(path[-depth]):
        depth += 1
    tells = depth > 1 or any(sign.isdecimal() or sign == "." for sign in path[-1])
    return depth if tells or len(path) - 1 <= shared else depth + 1


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
