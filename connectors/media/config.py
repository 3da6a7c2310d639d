"""Cameras and microphones: where the stream or file is, how it is reached, and when it is doubted."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urlsplit

from connectors.settings import Supervision, choose, redacted, take_beside, utc_ns
from fusion.credentials import secret
from fusion.errors import ConfigError

TRANSPORTS = ("tcp", "udp")
LIVE_SCHEMES = ("rtsp", "rtsps", "http", "https", "tcp", "udp", "rtp", "srt")


@dataclass(kw_only=True, slots=True)
class MediaConfig:
    """One stream (``rtsp://host/path``) or file, and the ``signal`` it carries.

    A file is played in ``realtime``, from now on, or as fast as it is taken; ``loop`` begins it again. ``start_time``
    (ISO 8601, UTC without a zone) is the time of its first moment; without it that is now when in real time, and the
    file's modification time otherwise. ``options`` go to the demuxer as they are.
    """

    url: str
    signal: str
    username: str | None = None
    password: str | None = field(default=None, repr=False)
    password_file: str | None = None
    transport: str = "tcp"
    loop: bool = False
    realtime: bool = True
    start_time: str | None = None
    open_timeout_s: float = 8.0
    read_timeout_s: float = 8.0
    options: dict[str, str] = field(default_factory=dict)
    supervision: Supervision = field(default_factory=Supervision)

    def __post_init__(self) -> None:
        """Reject addresses and times that cannot be meant."""
        parts = urlsplit(self.url)
        if not self.url or (parts.scheme in LIVE_SCHEMES and not parts.hostname):
            raise ConfigError(f"url: {redacted(self.url)!r} is not accepted; expected rtsp://host:port/path or a file")
        if parts.password is not None:
            raise ConfigError("url: holds a password; use username and password_file")
        choose("transport", self.transport, TRANSPORTS)
        if self.open_timeout_s <= 0 or self.read_timeout_s <= 0:
            raise ConfigError("open_timeout_s, read_timeout_s: must be positive; a frozen camera never ends")
        self.start_ns()

    def beside(self, folder: Path) -> None:
        """Take relative names of files from a folder."""
        take_beside(self, folder, "password_file", *([] if urlsplit(self.url).scheme else ["url"]))

    @property
    def live(self) -> bool:
        """Whether this is a stream, which cannot wait, and no file."""
        return urlsplit(self.url).scheme in LIVE_SCHEMES

    def start_ns(self) -> int | None:
        """UTC of a file's first moment; None for now."""
        if self.start_time is not None:
            return utc_ns("start_time", self.start_time)
        if self.live or self.realtime or not Path(self.url).is_file():
            return None
        return Path(self.url).stat().st_mtime_ns

    def address(self) -> str:
        """The URL with credentials, for the decoder only."""
        parts = urlsplit(self.url)
        if not self.username:
            return self.url
        password = secret("password", self.password, self.password_file) or ""
        login = f"{quote(self.username, safe='')}:{quote(password, safe='')}@"
        return parts._replace(netloc=login + parts.netloc).geturl()


@dataclass(kw_only=True, slots=True)
class VideoConfig(MediaConfig):
    """A camera or video file.

    A picture that has been identical, or black, for ``frozen_after_s`` is of uncertain quality; 0 switches this off.
    """

    frozen_after_s: float = 10.0


@dataclass(kw_only=True, slots=True)
class AudioConfig(MediaConfig):
    """A microphone or audio file; the sound of a camera is fine, too.

    After ``silent_after_s`` of digital silence chunks are of uncertain quality; 0 switches this off.
    """

    silent_after_s: float = 5.0
