"""A broker and how to reach it: the settings that every user of MQTT has."""

from __future__ import annotations

import ssl
import uuid
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar

from fusion.credentials import secret
from fusion.errors import ConfigError
from fusion.files import beside

VERSIONS = ("5", "3.1.1")


@dataclass(kw_only=True, slots=True)
class Broker:
    """A broker and how to reach it; every user of MQTT has these settings.

    ``protocol`` is 5, 3.1.1 or auto (5, then 3.1.1 where the broker does not speak it). ``tls`` verifies the broker
    against ``tls_ca`` or the system's authorities; ``tls_certificate`` and ``tls_key`` say who we are.
    """

    SECTION: ClassVar[str] = "broker"  # begins the key path in messages

    host: str = "127.0.0.1"
    port: int = 1883
    protocol: str = "auto"
    client_id: str = ""
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    tls: bool = False
    tls_ca: str | None = None
    tls_certificate: str | None = None
    tls_key: str | None = None
    keepalive_s: int = 10
    connect_timeout_s: float = 3.0

    def __post_init__(self) -> None:
        """Reject what no broker can be reached with."""
        key = self.SECTION
        if not self.host:
            raise ConfigError(f"{key}.host: a name or address is required")
        if not 0 < self.port < 65536:
            raise ConfigError(f"{key}.port: {self.port} is not accepted; expected 1..65535")
        if self.protocol not in ("auto", *VERSIONS):
            accepted = ", ".join(("auto", *VERSIONS))
            raise ConfigError(f"{key}.protocol: {self.protocol!r} is not accepted; expected one of {accepted}")
        if not 0 < self.keepalive_s < 65536 or not self.connect_timeout_s > 0:
            raise ConfigError(f"{key}: keepalive_s must lie in 1..65535, connect_timeout_s must be positive")
        self._check_credentials()

    def _check_credentials(self) -> None:
        key = self.SECTION
        if self.password is not None and self.password_file is not None:
            raise ConfigError(f"{key}.password: give password or password_file, not both")
        if self.username is None and (self.password is not None or self.password_file is not None):
            raise ConfigError(f"{key}.username: is required with password or password_file")
        if bool(self.tls_certificate) != bool(self.tls_key):
            raise ConfigError(f"{key}.tls_certificate: needs tls_key, and the other way round")
        if not self.tls and (self.tls_ca or self.tls_certificate):
            raise ConfigError(f"{key}.tls: must be true where tls_ca, tls_certificate or tls_key is given")

    @property
    def address(self) -> str:
        """Host and port, for messages."""
        return f"{self.host}:{self.port}"

    @property
    def versions(self) -> tuple[str, ...]:
        """Protocol versions to try, in this order."""
        return VERSIONS if self.protocol == "auto" else (self.protocol,)

    def beside(self, folder: Path) -> None:
        """Take relative names of files from a folder."""
        for name in ("password_file", "tls_ca", "tls_certificate", "tls_key"):
            if file := getattr(self, name):
                setattr(self, name, beside(folder, file))

    def check(self) -> None:
        """Read every file once, so that a wrong one is refused at the start.

        Raises:
            ConfigError: a file that is missing or cannot be used.
        """
        self.secret(), self.context()

    def secret(self) -> str | None:
        """The password, read from its file where one is named."""
        return secret(f"{self.SECTION}.password", self.password, self.password_file)

    def context(self) -> ssl.SSLContext | None:
        """What encrypts the connection; None for a plain one."""
        if not self.tls:
            return None
        for name in ("tls_ca", "tls_certificate", "tls_key"):
            if file := getattr(self, name):
                self._must_be_readable(name, Path(file))
        try:
            context = ssl.create_default_context(cafile=self.tls_ca)
            if self.tls_certificate:
                context.load_cert_chain(self.tls_certificate, self.tls_key, _no_passphrase)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"{self.SECTION}.tls_*: certificate or key cannot be used ({error})") from error
        return context

    def _must_be_readable(self, name: str, file: Path) -> None:
        try:
            with file.open("rb"):
                return
        except OSError as error:
            raise ConfigError(f"{self.SECTION}.{name}: {file} cannot be read: {error.strerror}") from error


def _no_passphrase() -> str:
    """Nobody sits at a daemon to type one: a key that asks for it is refused."""
    return ""


def client_name() -> str:
    """A client id that no other client has; every broker accepts its length and letters."""
    return f"fusion-{uuid.uuid4().hex[:12]}"
