"""The dashboard process: one board, one MQTT subscriber, and a page per browser."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from fusion.dashboard.board import Board
from fusion.dashboard.feed import Feed
from fusion.errors import ConfigError
from fusion.plant import Plant

INTAKE_S = 0.2


@dataclass(kw_only=True, slots=True)
class DashboardConfig:
    """Where the page is served and which broker it reads; trends show ``past_s`` and ``future_s`` around now.

    ``plant`` names signals, units and roles; without one the page shows what the messages say.
    """

    host: str = "127.0.0.1"
    port: int = 8080
    broker_host: str = "127.0.0.1"
    broker_port: int = 1883
    username: str | None = None
    password_file: str | None = None
    plant: Plant | Path | str | None = None
    past_s: float = 900.0
    future_s: float = 600.0

    def __post_init__(self) -> None:
        """Reject ports and spans that do not exist."""
        for key in ("port", "broker_port"):
            if not 0 < getattr(self, key) < 65536:
                raise ConfigError(f"dashboard.{key}: {getattr(self, key)} is not accepted; expected 1..65535")
        if self.past_s < 60 or self.future_s < 0:
            raise ConfigError("dashboard: past_s must be at least 60, future_s not negative")

    def known_plant(self) -> Plant | None:
        """The plant itself, read from its file where a path is given."""
        if self.plant is None or isinstance(self.plant, Plant):
            return self.plant
        from fusion.plant_file import load_plant

        return load_plant(Path(self.plant))


def run(config: DashboardConfig, plant: Plant | None = None) -> None:
    """Serve the page until SIGINT or SIGTERM."""
    from nicegui import app, ui

    from fusion.dashboard.page import Page

    plant = plant or config.known_plant()
    board = Board(plant, config.past_s)
    feed = Feed(config.broker_host, config.broker_port, board.name, config.username, config.password_file)

    def take() -> None:
        for topic, payload in feed.drain():
            board.take(topic, payload)

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


def main(argv: Sequence[str] | None = None) -> None:
    """The dashboard from a command line."""
    parser = argparse.ArgumentParser(prog="fusion dashboard", description="serve the operator's page; reads MQTT only")
    parser.add_argument("--host", default="127.0.0.1", help="address of the page")
    parser.add_argument("--port", type=int, default=8080, help="port of the page")
    parser.add_argument("--broker", default="127.0.0.1:1883", metavar="HOST:PORT", help="MQTT broker")
    parser.add_argument("--plant", type=Path, help="plant YAML: names, units, roles")
    arguments = parser.parse_args(argv)
    host, _, port = arguments.broker.rpartition(":")
    if not host or not port.isdigit():
        raise ConfigError(f"--broker: {arguments.broker!r} is not accepted; expected HOST:PORT")
    run(
        DashboardConfig(
            host=arguments.host,
            port=arguments.port,
            broker_host=host,
            broker_port=int(port),
            plant=arguments.plant,
        )
    )
