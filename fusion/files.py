"""Files: digests, and writing that leaves the old file or the new one, never half of either."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import file_digest
from pathlib import Path

from fusion.errors import ConfigError

PARTIAL, OLD = ".partial", ".old"  # ends of the names of what is being made, and of what it takes the place of


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()


def beside(folder: Path, name: str) -> str:
    """A file's name taken from a folder; an absolute name, and one in a home (``~``), is what it is."""
    return str(folder / os.path.expanduser(name))  # noqa: PTH111 - pathlib raises where it knows no such user


def within(folder: Path, name: str) -> Path:
    """A file that a list in its folder names: of this folder, whatever links lie there.

    Raises:
        ConfigError: the name leads out of the folder.
    """
    file = folder / name
    if not file.resolve().is_relative_to(folder.resolve()) or file.resolve() == folder.resolve():
        raise ConfigError(f"{file}: leads out of {folder}; a file in it is expected")
    return file


def check_place(key: str, file: Path) -> None:
    """Refuse a file that could not be written, before the work whose outcome it is to hold.

    Raises:
        ConfigError: naming ``key``, the file, and its folder where it is that.
    """
    if file.is_dir():
        raise ConfigError(f"{key} {file}: is a folder; expected the name of a file")
    if not file.parent.is_dir():
        raise ConfigError(f"{key} {file}: there is no folder {file.parent}")
    if not os.access(file if is_device(file) else file.parent, os.W_OK):
        raise ConfigError(f"{key} {file}: cannot be written here; choose another place")


def hold(file: Path) -> int:
    """Hold a file, made where it is missing, for this process; returns the handle that lets go when it is closed.

    Raises:
        BlockingIOError: another process holds it.
        OSError: it cannot be made.
    """
    handle = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(handle)
        raise
    return handle


def is_device(file: Path) -> bool:
    """Whether a name is of a terminal, a pipe or another device, whose place no file may take."""
    return file.exists() and not file.is_file()


@contextmanager
def whole_file(path: Path) -> Iterator[Path]:
    """A file to write, beside ``path``, whose place it takes when it is whole and on disk.

    An exception leaves nothing of it, and what was at ``path`` stays.
    """
    aside = _aside(path)
    try:
        yield aside
        _on_disk(aside)
        aside.replace(path)
        _on_disk(path.parent)
    finally:
        aside.unlink(missing_ok=True)


@contextmanager
def whole_folder(path: Path, *, overwrite: bool = False) -> Iterator[Path]:
    """An empty folder to fill, beside ``path``, whose place it takes when it is whole and on disk.

    An exception leaves nothing of it, and what was at ``path`` stays.

    Raises:
        ConfigError: where ``path`` exists, at the beginning or at the end, and is not to be overwritten.
    """
    _free(path, overwrite)
    aside, old = _aside(path), path.with_name(path.name + OLD)
    shutil.rmtree(aside, ignore_errors=True)
    try:
        aside.mkdir(parents=True)
        yield aside
        for found in (*aside.rglob("*"), aside):
            _on_disk(found)
        _free(path, overwrite)
        shutil.rmtree(old, ignore_errors=True)
        if path.exists():
            path.rename(old)
        aside.rename(path)
        _on_disk(path.parent)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    shutil.rmtree(old, ignore_errors=True)


def _aside(path: Path) -> Path:
    return path.with_name(path.name + PARTIAL)


def _free(path: Path, overwrite: bool) -> None:
    if path.exists() and not overwrite:
        raise ConfigError(f"{path}: exists already; choose another folder")


def _on_disk(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
