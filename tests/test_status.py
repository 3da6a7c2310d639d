"""What the daemon tells those who watch it: systemd, a probe, Prometheus."""

import asyncio
import http.client
import json
import re
import socket
import time
from contextlib import closing, suppress
from types import SimpleNamespace

import pytest
from scripted_daemon import daemon
from wire_examples import KILN, anomaly, free_port, health, until

from fusion.alarms import Alarm
from fusion.clock import CLOCK
from fusion.daemon.http import HttpConfig, serving
from fusion.daemon.metrics import metrics
from fusion.daemon.settings import load_daemon_config
from fusion.daemon.status import Statistics, Status, Watched
from fusion.errors import ConfigError
from fusion.publish.messages import Delivery
from fusion.records import NS_PER_S
from tests.test_access import DEMO

LINE = re.compile(r'^[a-z_]+(\{([a-z]+="(\\.|[^"\\])*",?)+\})? -?[0-9.e+-]+$')


def get(port, path, method="GET"):
    with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=5)) as connection:
        connection.request(method, path)
        answer = connection.getresponse()
        return answer.status, answer.headers["content-type"], answer.read().decode()


def test_every_line_of_the_metrics_is_one_that_prometheus_reads():
    delivery = Delivery(published={"anomaly": 3}, dropped={'frame:off"line\n': 2}, waiting=1)
    text = metrics(health(), 0.5, delivery)
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert [line for line in lines if not LINE.match(line)] == []
    assert 'fusion_source_dropped_total{source="plc",reason="overflow"} 2' in lines
    assert 'fusion_published_total{kind="anomaly"} 3' in lines
    assert "fusion_outbox_waiting 1" in lines
    named = re.findall(r"^# TYPE (\S+)", text, re.MULTILINE)
    assert len(named) == len(set(named)), "the rows of a name stand together"
    assert {name for name in named if name.endswith("_total")} == set(re.findall(r"^# TYPE (\S+) counter", text, re.M))


def test_a_running_daemon_answers_and_keeps_systemd_informed(tmp_path, monkeypatch):
    address, port = str(tmp_path / "notify"), free_port()
    manager = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    manager.bind(address)
    manager.setblocking(False)
    monkeypatch.setenv("NOTIFY_SOCKET", address)

    def heard():
        found = []
        with suppress(BlockingIOError):
            while True:
                found.append(manager.recv(4096).decode())
        return found

    async def live():
        made, _, _ = daemon(tmp_path, free_port(), lambda engine, t_ns: [])
        made._http, stop = HttpConfig(port=port), asyncio.Event()
        running = asyncio.create_task(made.run(stop))
        try:
            await asyncio.to_thread(until, lambda: made.statistics.ticks > 3, "ticks")
            asked = [
                await asyncio.to_thread(get, port, path) for path in ("/livez", "/readyz", "/health", "/metrics", "/")
            ]
            asked.append(await asyncio.to_thread(get, port, "/health", "POST"))
        finally:
            stop.set()
            await running
        return asked

    with manager:
        alive, ready, said, figures, nothing, post = asyncio.run(live())
        told = heard()
    assert alive[::2] == ready[::2] == (200, "ok\n")
    assert json.loads(said[2])["plant"] == "kiln"
    assert "fusion_ticks_total " in figures[2]
    assert (nothing[0], post[0]) == (404, 405)
    assert told[1].startswith("READY=1") or told[0].startswith("READY=1")
    assert any("WATCHDOG=1" in words and "STATUS=" in words for words in told)
    assert told[-1] == "STOPPING=1"


@pytest.mark.parametrize(
    ("alive", "tick_age_s", "flows"), [(True, 1.0, True), (True, 60.0, False), (True, None, False), (False, 60.0, True)]
)
def test_the_watchdog_is_fed_only_while_ticks_flow(alive, tick_age_s, flows):
    source = SimpleNamespace(health=lambda: SimpleNamespace(alive=alive))
    parts = SimpleNamespace(plant=KILN)
    statistics = Statistics()
    if tick_age_s is not None:
        statistics.tick_ns = time.monotonic_ns() - round(tick_age_s * NS_PER_S)
    watched = Watched(sources=[source], timeline=None, engine=parts, outlet=None, desk=None)
    status = Status(watched, statistics, [], None, CLOCK)
    status._flowing_ns = time.monotonic_ns() - 60 * NS_PER_S
    assert status.flowing is flows


def test_rubbish_and_slow_readers_hold_nobody_up():
    async def scenario():
        config = HttpConfig(port=free_port())
        async with serving(config, lambda path: None):
            idle = [await asyncio.open_connection("127.0.0.1", config.port) for _ in range(4)]
            for rubbish in (b"\r\n\r\n", b"\xff" * 100 + b"\r\n\r\n", b"GET " + b"x" * 20_000 + b"\r\n\r\n", b"GET"):
                reader, writer = await asyncio.open_connection("127.0.0.1", config.port)
                writer.write(rubbish)
                writer.write_eof()
                await asyncio.wait_for(reader.read(), 5)
                writer.close()
            assert (await asyncio.to_thread(get, config.port, "/x"))[0] == 404
            for _, writer in idle:
                writer.close()
        taken = closing(socket.create_server(("127.0.0.1", config.port)))
        with taken, pytest.raises(ConfigError, match="http: .* cannot be served"):
            await serving(config, lambda path: None).__aenter__()

    asyncio.run(scenario())


def test_the_address_is_a_setting():
    assert load_daemon_config(DEMO, ["http.port=9464"]).http == HttpConfig(port=9464)
    with pytest.raises(ConfigError, match=r"http\.port"):
        load_daemon_config(DEMO, ["http.port=99999"])


def test_open_alarms_are_counted_by_their_state():
    text = metrics(SimpleNamespace(**{name: getattr(health(), name) for name in health().__slots__}), None, None)
    assert 'fusion_alarms{state="unacknowledged"} 0' in text
    said = health()
    with_one = SimpleNamespace(**{name: getattr(said, name) for name in said.__slots__})
    with_one.alarms = (Alarm(anomaly=anomaly(), raised_ns=said.t_ns),)
    assert 'fusion_alarms{state="unacknowledged"} 1' in metrics(with_one, None, None)
