"""What a service manager is told: ready, alive, stopping, and how the plant is. Source: sd_notify(3)."""

from __future__ import annotations

import contextlib
import os
import socket

ADDRESS = "NOTIFY_SOCKET"


def notify(*said: str) -> None:
    """Tell systemd, where it asked to be told; a word that does not get through is nobody's trouble."""
    if address := os.environ.get(ADDRESS):
        with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as out:
            out.setblocking(False)
            out.sendto("\n".join(said).encode(), "\0" + address[1:] if address.startswith("@") else address)
