"""`fusion up`: a site runs, all of it: a broker where none answers, the daemon and the page."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Iterator
from pathlib import Path

from fusion.command import say
from fusion.daemon.settings import DaemonConfig, load_daemon_config
from fusion.daemon.store import Store
from fusion.daemon.succession import first_model
from fusion.ending import stop_on_signals
from fusion.errors import ConfigError
from fusion.files import hold
from fusion.mqtt.broker import Broker
from fusion.plant_file import load_plant
from fusion.processes import Child, accepts, free_from, stop_in_order, until_stopped
from fusion.simulator.servers.broker import LocalBroker
from fusion.site.folder import DAEMON

LOOPBACK = ("127.0.0.1", "localhost", "::1")
CLOSING_S = 30.0  # the daemon closes what it records
LOCK = "up.lock"


def run_site(site: Path, page_port: int) -> None:
    """Run a site until interrupted.

    Raises:
        ConfigError: its files are not accepted, it runs already, or no broker answers and none can be started in its
            place.
        FusionError: a process has ended by itself.
    """
    config = load_daemon_config(site / DAEMON)
    if not config.connectors:
        raise ConfigError(f"{site / DAEMON}: no connectors yet; fusion discover URL... --site {site}")
    plant = load_plant(Path(config.plant))
    first_model(config)
    with _alone(site):
        if config.state:
            Store(Path(config.state), plant.name).close()  # a daemon that another command runs holds it
        asyncio.run(_until_interrupted(site, config, page_port))


@contextlib.contextmanager
def _alone(site: Path) -> Iterator[None]:
    """Hold a site for this command, from before its first process until after its last."""
    try:
        (site / "var").mkdir(exist_ok=True)
        lock = hold(site / "var" / LOCK)
    except BlockingIOError as error:
        raise ConfigError(f"{site}: is up already, by another `fusion up`; logs in {site / 'var' / 'logs'}") from error
    except OSError as error:
        raise ConfigError(f"{site / 'var'}: cannot be used ({error}); expected a writable folder") from error
    try:
        yield
    finally:
        os.close(lock)


async def _until_interrupted(site: Path, config: DaemonConfig, page_port: int) -> None:
    stop, logs = asyncio.Event(), site / "var" / "logs"
    folders = ["--recordings", config.record.folder, "--state", config.state, "--models", config.learn.models]
    page = ["dashboard", "--plant", config.plant, *folders, *_reading(config.publish)]
    with stop_on_signals(stop):
        async with contextlib.AsyncExitStack() as stack:
            if not accepts(config.publish.host, config.publish.port):
                await stack.enter_async_context(_own_broker(config.publish))
                say(f"no broker answered at {config.publish.address}: this command runs one while it lasts")
            children: list[Child] = []
            stack.push_async_callback(stop_in_order, children)
            daemon = ["run", "--config", str(site / DAEMON)]
            children.append(await Child.start("daemon", daemon, logs, CLOSING_S))
            port = free_from(page_port)
            children.append(await Child.start("page", [*page, "--port", str(port)], logs))
            await children[-1].listening(port, stop)
            say(f"the page is at http://127.0.0.1:{port}   (Ctrl-C stops everything; logs in {logs})")
            await until_stopped(children, stop)


def may_run_own(broker: Broker) -> bool:
    """Whether `fusion up` runs a broker where this one does not answer: on this machine, without encryption."""
    return broker.host in LOOPBACK and not broker.tls


def _own_broker(broker: Broker) -> LocalBroker:
    """A broker of this machine alone, in the place of one that does not answer."""
    if not may_run_own(broker):
        raise ConfigError(f"no broker answers at {broker.address}; start it, or say publish.host: 127.0.0.1")
    return LocalBroker(broker.host, broker.port)


def _reading(broker: Broker) -> Iterator[str]:
    """The options by which the page reaches the broker of the results as the daemon does."""
    if broker.password is not None:
        raise ConfigError("publish.password: the page cannot be given it; put it in a file, publish.password_file")
    yield from ("--broker", broker.address, "--protocol", broker.protocol)
    for name in ("username", "password_file", "tls_ca", "tls_certificate", "tls_key"):
        if value := getattr(broker, name):
            yield from (f"--{name.replace('_', '-')}", value)
    if broker.tls:
        yield "--tls"
