"""Paths into JSON: keys from the outside in, quoted where they hold dots, and elements of a list by what they say."""

from __future__ import annotations

import re
from typing import Any, NamedTuple

from fusion.errors import ConfigError

MISSING = object()
_STEP = re.compile(
    r'(?P<dot>\.?)(?:"(?P<quoted>[^"]+)"|(?P<key>[^."\[\]]+)'
    r'|\[(?P<field>[^="\[\]]+)=(?:"(?P<text>[^"]*)"|(?P<bare>[^"\[\]]*))\])'
)


class Select(NamedTuple):
    """The elements of a list of objects whose ``field`` says ``text``."""

    field: str
    text: str


class Path(NamedTuple):
    """Steps from the outside in, and how they were written."""

    steps: tuple[str | Select, ...] = ()
    text: str = ""


def parse_path(key: str, text: str) -> Path:
    """Read ``data."1.7.0"`` or ``values[id=Channel1.Device1.TT101].v``; an empty path is the whole document.

    Raises:
        ConfigError: naming the key and what would be accepted.
    """
    steps: list[str | Select] = []
    at = 0
    while at < len(text):
        found = _STEP.match(text, at)
        if found is None or bool(found["dot"]) != (bool(steps) and found["field"] is None):
            raise ConfigError(
                f'{key}: {text!r} is not accepted at {text[at:]!r}; expected keys separated by dots, "in quotes" '
                "where they hold dots, and [field=text] for an element of a list"
            )
        if found["field"] is not None:
            steps.append(Select(found["field"], found["text"] if found["text"] is not None else found["bare"]))
        else:
            steps.append(found["quoted"] or found["key"])
        at = found.end()
    return Path(tuple(steps), text)


class Document:
    """One decoded payload, in which many paths are looked up; lists are indexed once."""

    def __init__(self, root: Any) -> None:
        self._root = root
        self._indices: dict[tuple[int, str], dict[str, list[Any]]] = {}

    def find(self, path: Path) -> list[Any]:
        """What a path leads to: one thing, ``MISSING`` where there is none; of selected elements each that there is.

        A path that leads nowhere may be the name of an outermost key as a whole.
        """
        if len(path.steps) == 1 and isinstance(path.steps[0], str):  # as most often
            return [_child(self._root, path.steps[0])]
        nodes = [self._root]
        for step in path.steps:
            if isinstance(step, Select):
                nodes = [element for node in nodes for element in self._selected(node, step)]
            else:
                nodes = [_child(node, step) for node in nodes]
        return [_child(self._root, path.text)] if nodes == [MISSING] else nodes

    def _selected(self, node: Any, step: Select) -> list[Any]:
        if not isinstance(node, list):
            return [MISSING]
        key = (id(node), step.field)
        if key not in self._indices:
            index = self._indices[key] = {}
            for element in node:
                if isinstance(element, dict) and step.field in element:
                    index.setdefault(str(element[step.field]), []).append(element)
        return self._indices[key].get(step.text, [])


def _child(node: Any, key: str) -> Any:
    if isinstance(node, dict):
        return node.get(key, MISSING)
    if isinstance(node, list) and key.isdecimal() and int(key) < len(node):
        return node[int(key)]
    return MISSING
