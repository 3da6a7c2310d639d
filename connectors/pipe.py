"""Messages of a child process: a JSON header and an array each. Imports nothing heavy: both ends load it."""

from __future__ import annotations

import json
import struct
from typing import Any

SIZES = struct.Struct("<IQ")


def pack(header: dict[str, Any], payload: bytes = b"") -> bytes:
    """One message."""
    text = json.dumps(header).encode()
    return SIZES.pack(len(text), len(payload)) + text + payload
