"""Nested dataclasses as named arrays and plain JSON, and back by their annotations: what a checkpoint holds of a part.

Reading is strict: a key too few or too many, another class, another dtype or another kind of value is refused, for a
state that is read wrongly is worse than one that is not read. Knows arrays, plain values, enumerations of strings,
tuples, mappings with plain keys, and dataclasses of these.
"""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Collection, Mapping
from enum import Enum
from functools import cache
from typing import Any, NoReturn, TypeVar, Union, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from fusion.errors import CheckpointError

Array = NDArray[np.generic]
T = TypeVar("T")

CLASS = "is"  # the key that names the class of a dataclass
PLAIN = (bool, int, float, str)


def dump_state(value: object, given: Collection[str] = ()) -> tuple[dict[str, Array], Any]:
    """Arrays by path, and the rest as JSON; fields named in ``given`` belong to somebody else and are left out."""
    arrays: dict[str, Array] = {}
    return arrays, _plain(value, "", arrays, given)


def load_state(kind: type[T], arrays: Mapping[str, Array], tree: Any, given: Mapping[str, object] | None = None) -> T:
    """Inverse of ``dump_state``; ``given`` holds the fields that were left out.

    Raises:
        CheckpointError: where this is not exactly what ``dump_state`` writes of the class today.
    """
    left = dict(arrays)
    made: T = _read(kind, tree, "", left, given or {})
    if left:
        _refuse(f"{min(left)!r} is not known")
    return made


def _refuse(what: str) -> NoReturn:
    raise CheckpointError(f"this checkpoint was written by another version; train again ({what})")


# --- writing


def _plain(value: Any, path: str, arrays: dict[str, Array], given: Collection[str]) -> Any:
    """The JSON of a value: of an array its dtype, of a mapping its items, of a dataclass its class and fields."""
    if isinstance(value, np.ndarray):
        arrays[path] = value
        return str(value.dtype)
    if dataclasses.is_dataclass(value):
        names = [f.name for f in dataclasses.fields(value) if f.name not in given]
        made = {name: _plain(getattr(value, name), _under(path, name), arrays, given) for name in names}
        return {CLASS: type(value).__name__} | made
    if isinstance(value, Mapping):
        return [[_key(k), _plain(v, _under(path, k), arrays, given)] for k, v in value.items()]
    if isinstance(value, tuple):
        return [_plain(v, _under(path, i), arrays, given) for i, v in enumerate(value)]
    return value.item() if isinstance(value, np.generic) else value


def _key(key: Any) -> Any:
    return list(key) if isinstance(key, tuple) else key


def _under(path: str, key: Any) -> str:
    name = ".".join(map(str, key)) if isinstance(key, tuple) else str(key)
    return f"{path}/{name}" if path else name


# --- reading


def _read(kind: Any, node: Any, path: str, left: dict[str, Array], given: Mapping[str, object]) -> Any:
    """The value of an annotated type; takes its arrays out of ``left``."""
    origin = get_origin(kind) or kind
    if origin in (Union, types.UnionType):
        return None if node is None else _read(_member(kind, node, path), node, path, left, given)
    if origin is np.ndarray:
        return _array(node, path, left)
    if dataclasses.is_dataclass(kind):
        return _dataclass(kind, node, path, left, given)
    if origin is tuple:
        return _tuple(get_args(kind), _listed(node, path), path, left, given)
    if isinstance(origin, type) and issubclass(origin, Mapping):
        key, value = get_args(kind)
        pairs = [_listed(pair, path) for pair in _listed(node, path)]
        if any(len(pair) != 2 for pair in pairs):
            _refuse(f"{path!r} does not hold pairs")
        items = [(_read(key, k, path, {}, {}), v) for k, v in pairs]
        if len(dict(items)) < len(items):
            _refuse(f"{path!r} holds a key twice")
        return {k: _read(value, v, _under(path, k), left, given) for k, v in items}
    return _scalar(kind, node, path)


def _member(kind: Any, node: Any, path: str) -> Any:
    """The member of a union that a node belongs to: the only one beside None, or the dataclass it names."""
    members = [member for member in get_args(kind) if member is not type(None)]
    named = [m for m in members if isinstance(node, dict) and getattr(m, "__name__", "") == node.get(CLASS)]
    found = members if len(members) == 1 else named
    return found[0] if found else _refuse(f"{path!r} is of no known kind")


def _array(node: Any, path: str, left: dict[str, Array]) -> Array:
    if path not in left or str(left[path].dtype) != node:
        _refuse(f"{path!r} is missing or of another kind")
    return left.pop(path)


def _dataclass(kind: Any, node: Any, path: str, left: dict[str, Array], given: Mapping[str, object]) -> Any:
    hints = _hints(kind)
    wanted = [name for name in hints if name not in given]
    if not isinstance(node, dict) or node.get(CLASS) != kind.__name__ or set(node) != {CLASS, *wanted}:
        _refuse(f"{path or kind.__name__!r} has other fields")
    made = {name: _read(hints[name], node[name], _under(path, name), left, given) for name in wanted}
    return kind(**made, **{name: given[name] for name in hints if name in given})


@cache
def _hints(kind: Any) -> dict[str, Any]:
    hints = get_type_hints(kind)
    return {field.name: hints[field.name] for field in dataclasses.fields(kind)}


def _tuple(
    kinds: tuple[Any, ...], nodes: list[Any], path: str, left: dict[str, Array], given: Mapping[str, object]
) -> tuple[Any, ...]:
    each = [kinds[0]] * len(nodes) if kinds[-1:] == (Ellipsis,) else list(kinds)
    if len(each) != len(nodes):
        _refuse(f"{path!r} has {len(nodes)} parts")
    return tuple(_read(k, n, _under(path, i), left, given) for i, (k, n) in enumerate(zip(each, nodes, strict=True)))


def _listed(node: Any, path: str) -> list[Any]:
    return node if isinstance(node, list) else _refuse(f"{path!r} is no list")


def _scalar(kind: Any, node: Any, path: str) -> Any:
    """A plain value of just this kind; a whole number may stand for a float."""
    if isinstance(kind, type) and issubclass(kind, Enum):
        return kind(node) if node in set(kind) else _refuse(f"{path!r} is {node!r}")
    if kind not in PLAIN:
        raise TypeError(f"{path}: a state cannot hold {kind!r}")
    if type(node) is not kind and not (kind is float and type(node) is int):
        _refuse(f"{path!r} is missing or no {kind.__name__}")
    return kind(node)
