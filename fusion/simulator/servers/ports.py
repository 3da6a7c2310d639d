"""Whether a port can be listened on, asked before a server is started that would say so less clearly."""

from __future__ import annotations

import socket

from fusion.errors import ConfigError


def usable_port(key: str, host: str, port: int) -> int:
    """The port, or a free one where it is 0.

    Raises:
        ConfigError: where it is taken or may not be used; names ``key``.
    """
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"{key}: {host}:{port} cannot be used ({error.strerror}); choose another port") from error
        return int(probe.getsockname()[1])
