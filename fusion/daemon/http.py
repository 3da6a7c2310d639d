"""A little HTTP for those who watch the daemon: one answer a connection, read only."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from http import HTTPStatus

from fusion.errors import ConfigError

PATIENCE_S = 5.0
CONNECTIONS = 16
HEAD_BYTES = 8192


@dataclass(kw_only=True, slots=True)
class HttpConfig:
    """Where health and metrics are served; nowhere where ``port`` is 0. Whoever reaches it may read."""

    host: str = "127.0.0.1"
    port: int = 0

    def __post_init__(self) -> None:
        """Reject ports that do not exist."""
        if not 0 <= self.port < 65536:
            raise ConfigError(f"http.port: {self.port} is not accepted; expected 1..65535, or 0 for none")


@dataclass(frozen=True, slots=True)
class Answer:
    """What is said to one request."""

    status: HTTPStatus
    content_type: str
    body: str


Answering = Callable[[str], Answer | None]
"""Gives the answer for a path; None where there is nothing."""


@contextlib.asynccontextmanager
async def serving(config: HttpConfig, answer: Answering) -> AsyncIterator[None]:
    """Serve while the context lasts.

    Raises:
        ConfigError: the address cannot be had.
    """
    if config.port == 0:
        yield
        return
    rooms = asyncio.Semaphore(CONNECTIONS)

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            async with rooms, asyncio.timeout(PATIENCE_S):
                head = await reader.readuntil(b"\r\n\r\n")
                writer.write(_response(head, answer))
                await writer.drain()
        writer.close()

    try:
        server = await asyncio.start_server(serve, config.host, config.port, limit=HEAD_BYTES)
    except OSError as error:
        raise ConfigError(f"http: {config.host}:{config.port} cannot be served ({error.strerror})") from error
    async with server:
        yield


def _response(head: bytes, answer: Answering) -> bytes:
    method, _, rest = head.split(b"\r\n", 1)[0].decode("latin-1").partition(" ")
    path = rest.partition(" ")[0].partition("?")[0]
    said = answer(path) if method in ("GET", "HEAD") else Answer(HTTPStatus.METHOD_NOT_ALLOWED, "text/plain", "")
    said = said or Answer(HTTPStatus.NOT_FOUND, "text/plain", "/livez /readyz /health /metrics\n")
    body = said.body.encode()
    lines = [
        f"HTTP/1.1 {said.status.value} {said.status.phrase}",
        f"Content-Type: {said.content_type}",
        f"Content-Length: {len(body)}",
        "Cache-Control: no-store",
        "Connection: close",
    ]
    return "\r\n".join([*lines, "", ""]).encode() + (body if method == "GET" else b"")
