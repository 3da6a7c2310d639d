"""Passwords: given directly, or better in a file of their own; their text never appears in a message."""

from __future__ import annotations

from pathlib import Path

from fusion.errors import ConfigError


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
