"""YAML as people write it: lines with comments, and lines put into a text whose other lines stay as they are."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import yaml

from fusion.plant import Signal
from fusion.site.found import FoundSignal

WIDE = 1 << 20


def flow(values: Any) -> str:
    """Plain values on one line."""
    return yaml.safe_dump(values, default_flow_style=True, width=WIDE, allow_unicode=True, sort_keys=False).strip()


def block(values: Mapping[str, Any]) -> list[str]:
    """Plain values in lines."""
    text: str = yaml.safe_dump(dict(values), width=WIDE, allow_unicode=True, sort_keys=False)
    return text.splitlines()


def signal_lines(found: FoundSignal) -> list[str]:
    """An entry of ``signals``: its doubts above it, its reason behind it."""
    doubts = [f"# unsure: {_one_line(doubt)}" for doubt in found.doubts]
    why = f"  # {_one_line(found.why)}" if found.why else ""
    return [*doubts, f"- {flow(signal_values(found.signal))}{why}"]


def signal_values(signal: Signal) -> dict[str, Any]:
    """What a plant file says of a signal; what every signal has by itself is left out."""
    values = {}
    for field in dataclasses.fields(signal):
        value = getattr(signal, field.name)
        if field.name in ("name", "unit", "role") or value != field.default:
            values[field.name] = list(value) if isinstance(value, tuple) else value
    return {k: v.value if hasattr(v, "value") else v for k, v in values.items()}


def _one_line(text: str) -> str:
    return " ".join(text.split())


def insert(text: str, path: Sequence[str], lines: Sequence[str]) -> str | None:
    """The text with lines at the end of the block that ``path`` names, all others as they were.

    None where there is no such block: the key is missing, or its value stands on one line and is not empty.
    """
    key, node = _find(yaml.compose(text), path)
    if key is None or node is None:
        return None
    kept = text.splitlines()
    if not node.value:
        line = key.end_mark.line
        if isinstance(node, yaml.CollectionNode):  # an empty [] or {}
            if node.start_mark.line != node.end_mark.line:
                return None
            line, (start, end) = node.start_mark.line, (node.start_mark.column, node.end_mark.column)
            kept[line] = (kept[line][:start].rstrip() + kept[line][end:]).rstrip()
        indent = key.start_mark.column + 2
    elif isinstance(node, yaml.CollectionNode) and not node.flow_style:
        line, indent = _last_line(node), node.start_mark.column
    else:
        return None
    kept[line + 1 : line + 1] = [" " * indent + added if added else "" for added in lines]
    return "\n".join(kept) + "\n"


def _find(root: yaml.Node | None, path: Sequence[str]) -> tuple[yaml.Node | None, yaml.Node | None]:
    key, node = None, root
    for name in path:
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        key, node = next(((k, v) for k, v in pairs if k.value == name), (None, None))
    return key, node


def _last_line(node: yaml.Node) -> int:
    """The line in which a block ends, comments after it apart."""
    while isinstance(node, yaml.CollectionNode) and not node.flow_style and node.value:
        last = node.value[-1]
        node = last[1] if isinstance(last, tuple) else last
    mark = node.end_mark
    return int(mark.line - 1 if mark.column == 0 and mark.line > node.start_mark.line else mark.line)
