"""Plain values, as YAML and JSON hold them: into dataclasses with every key checked, and back without NaN."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from enum import Enum
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import numpy as np
import yaml
from msgspec.inspect import (
    AnyType,
    DataclassType,
    DictType,
    EnumType,
    Field,
    FloatType,
    ListType,
    NoneType,
    StrType,
    Type,
    UnionType,
    VarTupleType,
    type_info,
)

from fusion.credentials import is_secret, shown
from fusion.errors import ConfigError

T = TypeVar("T")
TIMES = "tag:yaml.org,2002:timestamp"
WORDS = {
    "object": "a mapping",
    "array": "a list",
    "str": "a text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
}
"""What YAML and JSON call the types that msgspec names."""


def plain(value: Any) -> Any:
    """What JSON can hold of dataclasses, mappings, arrays and numbers; null where a number is not finite."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, np.generic | np.ndarray):
        return plain(value.tolist())
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def read_yaml(file: Path, expected: str) -> Any:
    """What a YAML file says.

    Raises:
        ConfigError: naming the file and what was ``expected``.
    """
    try:
        return yaml.load(file.read_text(), LOADER)  # noqa: S506 - it is a safe one
    except OSError as error:
        raise ConfigError(f"{file}: cannot be read ({error.strerror}); expected {expected}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file}: not YAML ({yaml_fault(error)}); expected {expected}") from error


def yaml_fault(error: Exception) -> str:
    """Why a text is not YAML, with the line where it is known, as one line."""
    mark, problem = getattr(error, "problem_mark", None), getattr(error, "problem", None)
    return f"line {mark.line + 1}: {problem}" if mark and problem else " ".join(str(error).split())


def _loader() -> Any:
    """A safe loader of YAML that leaves times as they are written; libyaml's, ten times as quick, where it is there."""
    base = getattr(yaml, "CSafeLoader", yaml.SafeLoader)
    resolvers = {
        letter: [(tag, pattern) for tag, pattern in known if tag != TIMES]
        for letter, known in base.yaml_implicit_resolvers.items()
    }
    return type("Loader", (base,), {"yaml_implicit_resolvers": resolvers})


LOADER = _loader()


def decode(value: Any, schema: type[T], key: str = "", *, infinite: bool = False) -> T:
    """Plain values as a dataclass; ``key`` is where they stand, ``infinite`` whether a number may be infinite.

    Raises:
        ConfigError: naming the full key, the value, and what would be accepted.
    """
    fitted = _fitted(type_info(schema), value, key, infinite)
    try:
        return msgspec.convert(fitted, schema, strict=False)
    except msgspec.ValidationError as error:
        raise ConfigError(_explained(str(error), fitted, key)) from error
    except ConfigError as error:
        raise ConfigError(str(error) if str(error).startswith(key) else f"{key}: {error}") from error


def join(key: str, name: object) -> str:
    """The full key of what is called ``name`` within another."""
    return f"{key}.{name}" if key else str(name)


def _fitted(kind: Type, value: Any, key: str, infinite: bool) -> Any:
    """The value as msgspec takes it, with what it would let pass refused."""
    match kind, value:
        case DataclassType(), _:
            return _record(kind, value, key, infinite)
        case UnionType(), _ if value is not None:
            kind = next(k for k in kind.types if not isinstance(k, NoneType))
            return _fitted(kind, value, key, infinite)
        case ((ListType() | VarTupleType()), (list() | tuple())):
            return [_fitted(kind.item_type, v, f"{key}[{i}]", infinite) for i, v in enumerate(value)]
        case DictType(), Mapping():
            return {str(k): _fitted(kind.value_type, v, join(key, k), infinite) for k, v in value.items()}
        case EnumType(), _:
            return _choice(kind.cls, value, key)
        case FloatType(), _ if not _number(value, infinite):
            raise ConfigError(_refused(key, value, "a number"))
        case StrType(), (int() | float()) if not isinstance(value, bool):
            if is_secret(key):
                raise ConfigError(_refused(key, value, "a text; a number needs quotes"))
            return str(value)
    return value


def _record(kind: DataclassType, value: Any, key: str, infinite: bool) -> dict[str, Any]:
    known = {f.name: f for f in kind.fields}
    fields = {f.name: known[f.name] for f in dataclasses.fields(kind.cls)}
    if not isinstance(value, Mapping):
        raise ConfigError(_refused(key, value, f"a mapping with {', '.join(fields)}"))
    for name in value:
        if name not in fields:
            raise ConfigError(f"{join(key, name)}: unknown key; accepted: {', '.join(fields)}")
    for name, field in fields.items():
        if field.required and name not in value:
            raise ConfigError(f"{join(key, name)}: missing; it is required")
    given = {n: v for n, v in value.items() if v is not None or _takes_none(fields[n])}
    return {name: _fitted(fields[name].type, v, join(key, name), infinite) for name, v in given.items()}


def _takes_none(field: Field) -> bool:
    """Whether null is a value, or is refused; where neither, a key without a value is as good as none."""
    return field.required or isinstance(field.type, UnionType | AnyType)


def _choice(kind: type[Enum], value: Any, key: str) -> Any:
    accepted = [member.value for member in kind]
    chosen = str(value).lower()
    if chosen not in accepted:
        raise ConfigError(_refused(key, value, f"one of {', '.join(accepted)}"))
    return chosen


def _number(value: Any, infinite: bool) -> bool:
    """Whether a value is a number or a text that reads as one, such as 1e-3 in YAML 1.1."""
    try:
        number = float(value)
    except (TypeError, ValueError):
        return False
    return math.isfinite(number) or (infinite and math.isinf(number))


def _explained(error: str, value: Any, key: str) -> str:
    """A message of msgspec with the full key and the value: ``Expected `int`, got `str` - at `$.fit.steps```."""
    expected, _, path = error.partition(" - at `$")
    for name, index in re.findall(r"\.(\w+)|\[(\d+)\]", path.partition("[...")[0]):
        key = join(key, name) if name else f"{key}[{index}]"
        value = value[name] if name else value[int(index)]
    wanted = expected.removeprefix("Expected ").partition(", got")[0].replace("`", "").replace(" | ", " or ")
    return _refused(key, value, re.sub(r"\w+", lambda word: WORDS.get(word[0], word[0]), wanted))


def _refused(key: str, value: Any, expected: str) -> str:
    return f"{key}{': ' if key else ''}{shown(key, value)} is not accepted; expected {expected}"
