"""A local MQTT broker: mosquitto where it is installed, otherwise one inside this process.

Mosquitto speaks MQTT 5 and 3.1.1; the embedded broker speaks 3.1.1 only and knows no passwords.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import getpass
import hashlib
import logging
import secrets
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from fusion.errors import ConfigError, FusionError
from fusion.simulator.servers.ports import usable_port

if TYPE_CHECKING:
    from amqtt.broker import Broker as EmbeddedBroker  # type: ignore[import-untyped]

log = logging.getLogger(__name__)

START_S, STOP_S = 10.0, 2.0
_PBKDF2_ROUNDS = 101


class LocalBroker:
    """An MQTT broker on ``host:port``, as an async context; port 0 takes a free one.

    With ``passwords`` (user to password) nobody else may connect. ``embedded`` forbids or forces the broker inside
    this process; by default it stands in where mosquitto is not installed.
    """

    def __init__(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        passwords: Mapping[str, str] | None = None,
        embedded: bool | None = None,
    ) -> None:
        self.host, self.port = host, port
        self._passwords = dict(passwords or {})
        self._program = None if embedded else find_mosquitto()
        if self._program is None and embedded is False:
            raise ConfigError("mqtt broker: mosquitto is not installed (Debian package mosquitto)")
        if self._program is None and self._passwords:
            raise ConfigError("mqtt broker: passwords need mosquitto (Debian package mosquitto)")
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: asyncio.subprocess.Process | None = None
        self._embedded: EmbeddedBroker | None = None

    @property
    def speaks_v5(self) -> bool:
        """Whether clients may use MQTT 5."""
        return self._program is not None

    async def __aenter__(self) -> Self:
        """Start, and return once clients can connect.

        Raises:
            ConfigError: where the port is taken, or may not be used.
            FusionError: where the broker does not start.
        """
        self.port = usable_port("mqtt_port", self.host, self.port)
        try:
            await (self._start_mosquitto(self._program) if self._program else self._start_embedded())
        except BaseException:
            await self.__aexit__()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        """Stop; the child process is gone afterwards."""
        if self._process is not None and self._process.returncode is None:
            self._process.terminate()
            try:
                await asyncio.wait_for(self._process.wait(), STOP_S)
            except TimeoutError:
                self._process.kill()
                await self._process.wait()
        if self._embedded is not None:
            await self._embedded.shutdown()
            self._embedded = None
        if self._folder is not None:
            self._folder.cleanup()

    async def _start_mosquitto(self, program: str) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="fusion-broker-")
        folder = Path(self._folder.name)
        log_file = folder / "log"
        with log_file.open("wb") as output:
            self._process = await asyncio.create_subprocess_exec(
                *_ends_with_us(),
                program,
                "-c",
                str(self._configure(folder)),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        deadline = time.monotonic() + START_S
        while not await _accepts(self.host, self.port):
            if self._process.returncode is not None or time.monotonic() > deadline:
                said = log_file.read_text("utf-8", "replace").strip().splitlines()
                raise FusionError(f"mqtt broker: mosquitto did not start on port {self.port}: {(said or ['?'])[-1]}")
            await asyncio.sleep(0.02)

    def _configure(self, folder: Path) -> Path:
        """The configuration file; the user it names keeps a broker that was started by root able to read it."""
        lines = [f"user {getpass.getuser()}", f"listener {self.port} {self.host}", "set_tcp_nodelay true"]
        lines += [f"allow_anonymous {'false' if self._passwords else 'true'}", "persistence false"]
        if self._passwords:
            (folder / "passwords").write_text("".join(_password_line(*pair) for pair in self._passwords.items()))
            (folder / "passwords").chmod(0o600)
            lines.append(f"password_file {folder / 'passwords'}")
        (folder / "broker.conf").write_text("\n".join(lines) + "\n")
        return folder / "broker.conf"

    async def _start_embedded(self) -> None:
        from amqtt.broker import Broker as EmbeddedBroker
        from amqtt.errors import BrokerError  # type: ignore[import-untyped]

        log.warning("mosquitto is not installed: the embedded MQTT broker speaks 3.1.1 only, not 5")
        config = {
            "listeners": {"default": {"type": "tcp", "bind": f"{self.host}:{self.port}"}},
            "plugins": {"amqtt.plugins.authentication.AnonymousAuthPlugin": {"allow_anonymous": True}},
        }
        broker = EmbeddedBroker(config)
        try:
            await broker.start()
        except BrokerError as error:
            raise FusionError(f"mqtt broker: the embedded broker did not start on port {self.port}: {error}") from error
        self._embedded = broker


def find_mosquitto() -> str | None:
    """The program; Debian keeps it where the path of a plain user does not lead."""
    return shutil.which("mosquitto") or shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/opt/homebrew/sbin")


def _ends_with_us() -> list[str]:
    """A prefix that makes the kernel end the child when this process dies, where there is one."""
    program = shutil.which("setpriv")
    return [program, "--pdeathsig", "TERM"] if program else []


async def _accepts(host: str, port: int) -> bool:
    with contextlib.suppress(OSError):
        _, writer = await asyncio.open_connection(host, port)
        writer.close()
        await writer.wait_closed()
        return True
    return False


def _password_line(user: str, password: str) -> str:
    """One line of mosquitto's password file (PBKDF2 with SHA-512)."""
    salt = secrets.token_bytes(12)
    digest = hashlib.pbkdf2_hmac("sha512", password.encode(), salt, _PBKDF2_ROUNDS)
    return f"{user}:$7${_PBKDF2_ROUNDS}${base64.b64encode(salt).decode()}${base64.b64encode(digest).decode()}\n"
