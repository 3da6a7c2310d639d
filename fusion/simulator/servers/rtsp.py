"""An RTSP server for simulated cameras and microphones: RTP interleaved in the TCP connection, several listeners each.

Source: RFC 2326; transport 10.12 (interleaved binary data). Other transports are refused with 461.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import contextlib
import errno
import hmac
import logging
import re
import secrets
import struct
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Self
from urllib.parse import unquote, urlsplit

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.plant import Signal
from fusion.simulator.servers.rtp import Payloads, RtpStream, Unit, payloads_of

log = logging.getLogger(__name__)

METHODS = "OPTIONS, DESCRIBE, SETUP, PLAY, GET_PARAMETER, TEARDOWN"
HEADER_BYTES = 8192
QUEUE_UNITS = 50
REASONS = {
    200: "OK",
    400: "Bad Request",
    401: "Unauthorized",
    404: "Not Found",
    455: "Method Not Valid in This State",
    461: "Unsupported Transport",
    501: "Not Implemented",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One request line with its headers, names in lower case."""

    method: str
    url: str
    headers: dict[str, str]

    @property
    def path(self) -> str:
        """The name of the stream, without track and slashes."""
        return unquote(urlsplit(self.url).path).strip("/").split("/")[0]


@dataclass(frozen=True, slots=True)
class Reply:
    """What a request is answered with."""

    status: int
    headers: tuple[str, ...] = ()
    body: str = ""

    def text(self, sequence: str) -> bytes:
        """The answer on the wire."""
        lines = [f"RTSP/1.0 {self.status} {REASONS[self.status]}", f"CSeq: {sequence}", *self.headers]
        lines += [f"Content-Length: {len(self.body)}"] if self.body else []
        return ("\r\n".join(lines) + "\r\n\r\n" + self.body).encode()


def parse_request(head: bytes) -> Request:
    """Read a request.

    Raises:
        ValueError: where it is none.
    """
    first, *rest = head.decode("latin-1").strip("\r\n").split("\r\n")
    method, url, version = first.split(" ")
    if not version.startswith("RTSP/1."):
        raise ValueError(f"{version!r} is not RTSP/1.0")
    pairs = (line.split(":", 1) for line in rest if ":" in line)
    return Request(method=method, url=url, headers={name.strip().lower(): value.strip() for name, value in pairs})


class Channel:
    """A named stream and those who listen; nothing is encoded while nobody does."""

    def __init__(self, payloads: Payloads) -> None:
        self._payloads = payloads
        self._stream = RtpStream(payloads)
        self._listeners: set[Listener] = set()

    def add(self, listener: Listener) -> None:
        """Let somebody listen, from the next unit on, which will be a key unit."""
        self._listeners.add(listener)
        self._stream.refresh()

    def remove(self, listener: Listener) -> None:
        """Let somebody go."""
        self._listeners.discard(listener)

    def push(self, value: NDArray[np.generic], t_ns: int) -> None:
        """Hand one picture or chunk to everybody who listens."""
        if self._listeners:
            unit = self._stream.unit(value, t_ns)
            for listener in self._listeners:
                listener.offer(unit)

    def description(self) -> str:
        """The session description (SDP)."""
        head = ["v=0", "o=- 0 0 IN IP4 127.0.0.1", "s=plant", "c=IN IP4 0.0.0.0", "t=0 0", "a=control:*"]
        return "".join(f"{line}\r\n" for line in (*head, *self._payloads.description(), "a=control:trackID=0"))


class Listener:
    """One client's share of a stream: a bounded queue; what it is too slow for is dropped, up to a key unit."""

    def __init__(self, channels: tuple[int, int], writer: asyncio.StreamWriter) -> None:
        self._data, self._control = channels
        self._writer = writer
        self._queue: deque[Unit] = deque()
        self._ready = asyncio.Event()
        self._begins = True
        self._greeted = False
        self.dropped = 0

    def offer(self, unit: Unit) -> None:
        """Queue a unit, never block."""
        if len(self._queue) >= QUEUE_UNITS:
            self.dropped += len(self._queue)
            self._queue.clear()
            self._begins = True
        if self._begins and not unit.key:
            self.dropped += 1
            return
        self._begins = False
        self._queue.append(unit)
        self._ready.set()

    async def send(self) -> None:
        """Write what is queued, at the pace at which the client reads, until it is gone."""
        with contextlib.suppress(ConnectionError):
            while await self._ready.wait():
                self._ready.clear()
                while self._queue:
                    self._writer.write(self._framed(self._queue.popleft()))
                    await self._writer.drain()

    def _framed(self, unit: Unit) -> bytes:
        report = unit.report_due or not self._greeted
        self._greeted = True
        parts = [(self._control, unit.report)] if report else []
        parts += [(self._data, packet) for packet in unit.packets]
        return b"".join(struct.pack(">cBH", b"$", channel, len(data)) + data for channel, data in parts)


class RtspConnection:
    """One client: its requests are answered in order; media flow between the answers."""

    def __init__(
        self,
        channels: dict[str, Channel],
        admits: Callable[[str], bool],
        streams: tuple[asyncio.StreamReader, asyncio.StreamWriter],
    ) -> None:
        self._channels = channels
        self._admits = admits
        self._reader, self._writer = streams
        self._session = f"Session: {secrets.token_hex(8)};timeout=60"
        self._channel: Channel | None = None
        self._listener: Listener | None = None
        self._sender: asyncio.Task[None] | None = None

    async def run(self) -> None:
        """Serve the client until it leaves."""
        try:
            while self._answered(await self._next()):
                await self._writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
            pass
        except ValueError as error:
            log.info("rtsp: a client sent what is no request: %s", error)
            self._writer.write(Reply(400).text("0"))
        finally:
            await self._close()

    async def _next(self) -> Request:
        """The next request; data that the client sends in between (receiver reports) are skipped."""
        while (first := await self._reader.readexactly(1)) in (b"$", b"\r", b"\n"):
            if first == b"$":
                _, length = struct.unpack(">BH", await self._reader.readexactly(3))
                await self._reader.readexactly(length)
        request = parse_request(first + await self._reader.readuntil(b"\r\n\r\n"))
        body = int(request.headers.get("content-length", "0"))
        if not 0 <= body <= HEADER_BYTES:
            raise ValueError(f"content-length {body}")
        await self._reader.readexactly(body)
        return request

    def _answered(self, request: Request) -> bool:
        """Answer one request; whether the connection stays."""
        answer = self._answer(request)
        self._writer.write(answer.text(request.headers.get("cseq", "0")))
        if request.method == "PLAY" and answer.status == 200:
            self._play()
        return request.method != "TEARDOWN"

    def _answer(self, request: Request) -> Reply:
        if request.method == "OPTIONS":
            return Reply(200, (f"Public: {METHODS}",))
        if not self._admits(request.headers.get("authorization", "")):
            return Reply(401, ('WWW-Authenticate: Basic realm="plant"',))
        match request.method:
            case "DESCRIBE" | "SETUP":
                return self._open(request)
            case "PLAY":
                return Reply(200, (self._session, "Range: npt=now-")) if self._listener else Reply(455)
            case "GET_PARAMETER" | "TEARDOWN":
                return Reply(200, (self._session,))
        return Reply(501)

    def _open(self, request: Request) -> Reply:
        channel = self._channels.get(request.path)
        if channel is None:
            return Reply(404)
        if request.method == "DESCRIBE":
            base = request.url.rstrip("/") + "/"
            return Reply(200, (f"Content-Base: {base}", "Content-Type: application/sdp"), channel.description())
        transport = request.headers.get("transport", "")
        if "RTP/AVP/TCP" not in transport.upper():
            return Reply(461)
        if self._listener is not None:
            return Reply(455)
        found = re.search(r"interleaved=(\d+)-(\d+)", transport)
        pair = (int(found[1]) & 255, int(found[2]) & 255) if found else (0, 1)
        self._channel, self._listener = channel, Listener(pair, self._writer)
        return Reply(200, (f"Transport: RTP/AVP/TCP;unicast;interleaved={pair[0]}-{pair[1]}", self._session))

    def _play(self) -> None:
        if self._sender is None and self._channel is not None and self._listener is not None:
            self._sender = asyncio.create_task(self._listener.send())
            self._channel.add(self._listener)

    async def _close(self) -> None:
        if self._channel is not None and self._listener is not None:
            self._channel.remove(self._listener)
        if self._sender is not None:
            self._sender.cancel()
            await asyncio.wait([self._sender])
        self._writer.close()

    def abort(self) -> None:
        """Cut the connection, whatever is still to be sent."""
        self._writer.transport.abort()


class RtspServer:
    """Serves each video and audio signal at ``rtsp://host:port/<name>``; port 0 takes a free one.

    With a ``password``, clients must say it (Basic authentication). Enter it as an async context.
    """

    def __init__(
        self, host: str, port: int, signals: Iterable[Signal], *, username: str = "", password: str | None = None
    ) -> None:
        self._host, self._asked_port = host, port
        self._channels = {signal.name: Channel(payloads_of(signal)) for signal in signals}
        self._login = None if password is None else f"{username}:{password}".encode()
        self._server: asyncio.Server | None = None
        self._clients: dict[asyncio.Task[None], RtspConnection] = {}

    async def __aenter__(self) -> Self:
        """Listen.

        Raises:
            ConfigError: where the port is taken, or may not be used.
        """
        try:
            self._server = await asyncio.start_server(self._accept, self._host, self._asked_port, limit=HEADER_BYTES)
        except OSError as error:
            reason = "is in use" if error.errno == errno.EADDRINUSE else f"cannot be used ({error.strerror})"
            raise ConfigError(f"rtsp_port: {self._host}:{self._asked_port} {reason}; choose another port") from error
        return self

    async def __aexit__(self, *_: object) -> None:
        """Cut every client and stop listening."""
        assert self._server is not None  # noqa: S101 - only while serving
        self._server.close()
        for connection in self._clients.values():
            connection.abort()
        if self._clients:
            await asyncio.wait([*self._clients], timeout=1.0)
        await self._server.wait_closed()

    @property
    def port(self) -> int:
        """The port that clients connect to."""
        assert self._server is not None  # noqa: S101 - only while serving
        return int(self._server.sockets[0].getsockname()[1])

    def url(self, name: str) -> str:
        """The address of one stream."""
        return f"rtsp://{self._host}:{self.port}/{name}"

    def push(self, name: str, value: NDArray[np.generic], t_ns: int) -> None:
        """Feed a picture [height, width] or a chunk [n] in [-1, 1], stamped with the source's time."""
        self._channels[name].push(value, t_ns)

    @property
    def clients(self) -> int:
        """How many are connected."""
        return len(self._clients)

    def _admits(self, authorization: str) -> bool:
        """Whether the credentials in the header are those asked for, or none are."""
        if self._login is None:
            return True
        kind, _, said = authorization.partition(" ")
        with contextlib.suppress(binascii.Error, ValueError):
            return kind.lower() == "basic" and hmac.compare_digest(base64.b64decode(said, validate=True), self._login)
        return False

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = RtspConnection(self._channels, self._admits, (reader, writer))
        task = asyncio.create_task(connection.run())
        self._clients[task] = connection
        task.add_done_callback(lambda done: self._clients.pop(done, None))
