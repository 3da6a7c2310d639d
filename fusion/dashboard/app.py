"""The dashboard process: one board, one MQTT subscriber, and a page per browser."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from fusion.dashboard.board import Board
from fusion.dashboard.feed import Feed
from fusion.errors import BrokerError, ConfigError
from fusion.mqtt.broker import Broker
from fusion.plant import Plant

INTAKE_S = 0.2


@dataclass(kw_only=True, slots=True)
class DashboardConfig:
    """Where the page is served and which broker it reads; trends show ``past_s`` and ``future_s`` around now."""

    host: str = "127.0.0.1"
    port: int = 8080
    broker: Broker = field(default_factory=Broker)
    past_s: float = 900.0
    future_s: float = 600.0

    def __post_init__(self) -> None:
        """Reject ports and spans that do not exist."""
        if not 0 < self.port < 65536:
            raise ConfigError(f"dashboard.port: {self.port} is not accepted; expected 1..65535")
        if self.past_s < 60 or self.future_s < 0:
            raise ConfigError("dashboard: past_s must be at least 60, future_s not negative")


def run(config: DashboardConfig, plant: Plant | None = None) -> None:
    """Serve the page until SIGINT or SIGTERM.

    ``plant`` names signals, units and roles; without one the page shows what the messages say.

    Raises:
        BrokerError: what reads the broker has failed.
    """
    from nicegui import app, ui

    from fusion.dashboard.page import Page

    board = Board(plant, config.past_s)
    feed = Feed(config.broker, board.name)

    def take() -> None:
        try:
            for topic, payload in feed.drain():
                board.take(topic, payload)
        except BrokerError:
            app.shutdown()

    def page() -> None:
        ui.add_css(Path(__file__).parent / "style.css")
        Page(board, feed, config.future_s)

    app.on_startup(feed.start)
    app.on_shutdown(feed.stop)
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
        show_welcome_message=False,
        binding_refresh_interval=None,
        tailwind=False,
    )
    feed.check()
