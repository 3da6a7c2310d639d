"""What the page's head, cards and tables say, as text for a terminal: `fusion status`."""

from __future__ import annotations

import time

from fusion.dashboard import alarms, explain
from fusion.dashboard.board import Board
from fusion.dashboard.header import glance
from fusion.dashboard.progression import progression_lines
from fusion.dashboard.words import duration, figure, flag_text, when_text
from fusion.errors import BrokerError, FusionError
from fusion.mqtt.broker import Broker
from fusion.mqtt.connection import Connection
from fusion.plant import Plant
from fusion.records import NS_PER_S

STEP_S = 0.1
WINDOW_S = 60.0
AFTER_S = 1.0
"""How long frames and advice are waited for once the daemon's health is there."""


def heard(broker: Broker, plant: Plant, wait_s: float) -> Board:
    """What a daemon says of a plant: its health, which the broker keeps, and what comes shortly after.

    Raises:
        ConfigError: a password or certificate that cannot be read.
        FusionError: there is no broker, or it denies to be read.
    """
    board = Board(plant, WINDOW_S)
    connection = Connection(broker, received=lambda topic, payload, _retained: board.take(topic, payload))
    begun_s = time.monotonic()
    deadline_s = begun_s + wait_s
    try:
        connection.open()
        if connection.subscribe([f"fusion/{plant.name}/v1/#"], 1):
            raise FusionError(f"broker {broker.address} denies to subscribe fusion/{plant.name}/v1/#")
        while not connection.lost and (now_s := time.monotonic()) < deadline_s:
            connection.step(STEP_S)
            if board.health is not None and board.frame is not None:
                deadline_s = min(deadline_s, now_s + AFTER_S)
        if connection.lost:
            raise FusionError(f"broker {broker.address}: {connection.lost}")
        connection.leave()
    except BrokerError as error:
        raise FusionError(f"{error}; expected the broker of a daemon") from error
    finally:
        connection.close()
    return board


def screen(board: Board) -> str:
    """State, alarms, trends, sources, model and advice, a few lines each."""
    now = glance(board)
    lines = [f"{board.name}: {now.text}" + (f" - {now.reason}" if now.reason else "")]
    lines += [
        *_alarms(board),
        *progression_lines(board),
        *_sources(board),
        *_model(board),
        explain.advice_text(board, board.advice),
    ]
    return "\n".join(lines)


def _alarms(board: Board) -> list[str]:
    listed = alarms.entries(board)
    if not listed:
        return ["Alarms: none" if board.told else "Alarms: not known"]
    return ["Alarms:"] + [
        f"  {entry.state.value}, since {when_text(entry.t_onset_ns, board.now_ns)} UTC: "
        + explain.evidence(board, entry.anomaly, entry.kind)
        + (f" -> {explain.action(board, entry.anomaly)}" if entry.anomaly else "")
        for entry in listed
    ]


def _sources(board: Board) -> list[str]:
    sources = board.health.sources if board.health else []
    return ["Sources:"] + [
        f"  {s.name:16} {s.state:8} {figure(s.rate_hz)} / {figure(s.expected_hz)} Hz, dropped {sum(s.dropped.values())}"
        + (f"; {s.message}" if s.message else "")
        for s in sources
    ]


def _model(board: Board) -> list[str]:
    health = board.health
    if health is None:
        return ["Model: not known"]
    up = duration(int((health.uptime_s or 0) * NS_PER_S))
    told = [flag_text(flag) for flag in health.flags if flag != health.reason]
    flags = f"; {', '.join(told)}" if told else ""
    rights = " ".join(filter(None, (health.licence or "unknown", f"(now {health.mode})" if health.mode else "")))
    return [
        f"Model: {health.model_id or 'none yet'}, may {rights}, {figure(health.calibrated_hours)} h; up {up}{flags}"
    ]
