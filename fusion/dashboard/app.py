"""The dashboard process: one board, one MQTT subscriber, and a page per browser."""

from __future__ import annotations

import logging
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path

from starlette.responses import FileResponse, PlainTextResponse, Response

from fusion.dashboard.access import Access, Visit, read_people
from fusion.dashboard.acts import ActLog
from fusion.dashboard.archive import Archive
from fusion.dashboard.board import Board
from fusion.dashboard.feed import Feed
from fusion.dashboard.gate import Gate, token_of
from fusion.ending import ignore_hangup
from fusion.errors import BrokerError, ConfigError
from fusion.garbage import set_apart
from fusion.model_store import ModelStore
from fusion.mqtt.broker import Broker
from fusion.notify import notify
from fusion.plant import Plant

log = logging.getLogger(__name__)

INTAKE_S = 0.2
RECONNECT_S = 15.0
"""How long a broken connection leaves a page as it was: its view, what was chosen, what is half written."""
AUDIT = "audit.jsonl"


@dataclass(kw_only=True, slots=True)
class DashboardConfig:
    """Where the page is served, to whom, and which broker it reads; trends show ``past_s`` and ``future_s`` around now.

    ``users`` is a file of people who may log in, required wherever others than this machine reach the page. A session
    ends after ``session_s``, or ``idle_s`` after its page was closed. ``origins`` are other addresses of the page, such
    as that of a proxy. ``certificate`` and ``key`` serve it over TLS. ``recordings`` is the folder of a recorder, to
    look back, ``state`` that of a daemon, for its audit, ``models`` that of its models; they are only read.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    users: str = ""
    session_s: float = 43_200.0
    idle_s: float = 1_800.0
    origins: list[str] = field(default_factory=list)
    certificate: str = ""
    key: str = ""
    recordings: str = ""
    state: str = ""
    models: str = ""
    broker: Broker = field(default_factory=Broker)
    past_s: float = 900.0
    future_s: float = 600.0

    def __post_init__(self) -> None:
        """Reject ports and spans that do not exist."""
        if not 0 < self.port < 65536:
            raise ConfigError(f"dashboard.port: {self.port} is not accepted; expected 1..65535")
        if self.past_s < 60 or self.future_s < 0:
            raise ConfigError("dashboard: past_s must be at least 60, future_s not negative")
        if not (self.session_s > 0 and self.idle_s > 0):
            raise ConfigError("dashboard: session_s and idle_s must be positive")
        if bool(self.certificate) != bool(self.key):
            raise ConfigError("dashboard.certificate: needs key, and the other way round")
        if not self.users and not is_loopback(self.host):
            raise ConfigError(
                f"dashboard.host: {self.host} lets others reach the page, and whoever reaches it may order; "
                "make a login first (`fusion user NAME --users FILE`) and give `--users FILE`, or serve on 127.0.0.1"
            )


def is_loopback(host: str) -> bool:
    """Whether an address is reached from this machine alone."""
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def run(config: DashboardConfig, plant: Plant | None = None) -> None:
    """Serve the page until SIGINT or SIGTERM.

    ``plant`` names signals, units and roles; without one the page shows what the messages say.

    Raises:
        BrokerError: what reads the broker has failed.
    """
    from nicegui import app, ui

    from fusion.dashboard.model_view import REPORT, report_path
    from fusion.dashboard.page import Page

    ignore_hangup()
    set_apart()
    access = Access(read_people(Path(config.users)) if config.users else {}, config.session_s, config.idle_s)
    secure = bool(config.certificate)
    if access.needed and not secure and not is_loopback(config.host):
        log.warning("passwords travel in the clear: give --https-certificate, or let a proxy do TLS")
    board = Board(plant, config.past_s, acts=ActLog(Path(config.state) / AUDIT if config.state else None))
    feed = Feed(config.broker, board.name)
    models = Path(config.models) if config.models else None
    archive = Archive(Path(config.recordings), plant) if config.recordings and plant else None

    def take() -> None:
        try:
            for topic, payload in feed.drain():
                board.take(topic, payload)
            board.acts.read()
            notify("WATCHDOG=1")
        except BrokerError:
            app.shutdown()

    def page() -> None:
        ui.add_css(Path(__file__).parent / "style.css")
        request = ui.context.client.request
        Page(board, feed, archive, models, config.future_s, Visit(access, token_of(request.headers)))

    @app.get(report_path("{name}"))
    def report(name: str) -> Response:
        store = ModelStore(models) if models else None
        if store is None or name not in store.names() or not (file := store.folder / name / REPORT).is_file():
            return PlainTextResponse("no such report\n", 404)
        return FileResponse(file)

    app.add_middleware(Gate, access=access, origins=config.origins, secure=secure)
    app.on_startup(feed.start)
    app.on_startup(lambda: notify("READY=1"))
    app.on_shutdown(feed.stop)
    app.on_shutdown(lambda: notify("STOPPING=1"))
    app.timer(INTAKE_S, take)
    ui.run(
        page,
        host=config.host,
        port=config.port,
        title=f"{board.name or 'plant'} - fusion",
        favicon="<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 8 8'><path d='M0 5h2l1-3 2 5 1-2h2' "
        "fill='none' stroke='#0b3d78'/></svg>",
        show=False,
        reload=False,
        dark=None,
        show_welcome_message=False,
        binding_refresh_interval=None,
        reconnect_timeout=RECONNECT_S,
        tailwind=False,
        ssl_certfile=config.certificate or None,
        ssl_keyfile=config.key or None,
    )
    feed.check()
