"""`fusion mark`: what a stretch of time was, told to the daemon that records, or written down where none does."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path

from fusion.alarms import MarkOrder
from fusion.daemon.settings import DaemonConfig
from fusion.errors import BrokerError, ConfigError, FusionError
from fusion.mqtt.broker import Broker
from fusion.mqtt.connection import Connection
from fusion.plant import Plant
from fusion.publish.orders import encode_mark
from fusion.recordings.recorder import MARKS, FolderInUseError, Recorder

DEADLINE_S = 5.0
LOOK_EVERY_S = 0.1


def put_mark(config: DaemonConfig, plant: Plant, order: MarkOrder) -> str:
    """Mark a stretch of time in the recordings of a daemon; returns who wrote it down.

    Raises:
        ConfigError: nothing is recorded, or the order is none.
        FusionError: the daemon cannot be told, or does not write it down; a disk takes it not.
    """
    folder = Path(config.record.folder)
    if not config.record.folder or not folder.is_dir():
        raise ConfigError(f"record.folder: {config.record.folder or 'none'} holds no recordings; run the daemon first")
    journal = folder / MARKS
    read = journal.stat().st_size if journal.exists() else 0
    try:
        recorder = Recorder(config.record, plant)
    except FolderInUseError:
        _tell(config.publish, plant, order)
        _await(order.name, journal, read)
        return "the daemon"
    try:
        recorder.start()
        recorder.obey(order)
    finally:
        recorder.close()
    if order.name not in _names(journal, read):
        raise FusionError(recorder.trouble or f"{journal}: the mark is not written; the log says why")
    return "this command: no daemon runs"


def _tell(broker: Broker, plant: Plant, order: MarkOrder) -> None:
    """Order it over MQTT."""
    connection = Connection(replace(broker, client_id=""))
    try:
        connection.open()
        connection.deliver(f"fusion/{plant.name}/v1/mark/order", encode_mark(order), timeout_s=DEADLINE_S)
        connection.leave()
    except BrokerError as error:
        raise FusionError(f"{error}; the mark is not made") from error
    finally:
        connection.close()


def _await(name: str, journal: Path, read: int) -> None:
    """Wait until a mark stands in the journal."""
    deadline = time.monotonic() + DEADLINE_S
    while name not in _names(journal, read):
        if time.monotonic() > deadline:
            raise FusionError("what records here does not take the mark: its log says why, or it is no daemon")
        time.sleep(LOOK_EVERY_S)


def _names(journal: Path, start: int) -> list[str]:
    """What was marked since a journal had a size."""
    lines = journal.read_bytes()[start:].splitlines(keepends=True) if journal.exists() else []
    return [json.loads(line)["name"] for line in lines if line.endswith(b"\n")]
