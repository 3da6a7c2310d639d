"""Passwords: given directly, or better in a file of their own; their text never appears in a message."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fusion.errors import ConfigError

WORDS = "password|passphrase|secret|token"
SECRET = re.compile(rf"({WORDS})(\[|$)", re.IGNORECASE)
IN_URL = re.compile(r"://[^/@\s]*@")
HIDDEN = "(not shown)"


def is_secret(key: str) -> bool:
    """Whether the last name of a key, such as ``publish.password``, is that of a secret; that of its file is not."""
    return SECRET.search(key.rpartition(".")[2]) is not None


def shown(key: str, value: Any) -> str:
    """A value as a message may quote it: without the secrets in it."""
    return HIDDEN if is_secret(key) else repr(_without(value))


def _without(value: Any) -> Any:
    match value:
        case Mapping():
            return {name: HIDDEN if is_secret(str(name)) else _without(inner) for name, inner in value.items()}
        case list() | tuple():
            return [_without(inner) for inner in value]
        case str():
            return IN_URL.sub(f"://{HIDDEN}@", value)
    return value


def quoted(override: str) -> str:
    """An override such as ``publish.port=1884`` as a message may quote it."""
    key, equals, value = override.partition("=")
    hide = is_secret(key) or re.search(WORDS, value, re.IGNORECASE)
    return f"{key}={HIDDEN}" if equals and hide else override


def secret(key: str, value: str | None, file: str | None) -> str | None:
    """A password given directly or in a file (its first line).

    Raises:
        ConfigError: both were given or the file cannot be read.
    """
    if value is not None and file is not None:
        raise ConfigError(f"{key}: give {key} or {key}_file, not both")
    if file is None:
        return value
    try:
        return Path(file).read_text(encoding="utf-8").partition("\n")[0].rstrip("\r")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{key}_file: {file} cannot be read: {error}") from error
