"""Files: digests, and writing that leaves the old file or the new one, never half of either."""

from __future__ import annotations

from hashlib import file_digest
from pathlib import Path


def sha256_of(file: Path) -> str:
    """SHA-256 of a file's bytes, in hexadecimal digits."""
    with file.open("rb") as stream:
        return file_digest(stream, "sha256").hexdigest()
