import asyncio
import contextlib
import struct
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.ua.uaerrors import BadTooManyOperations

import connectors.opcua.session
from connectors.base import ARRIVAL_CLOCK, Source, Tally
from connectors.kinds import source_of
from connectors.opcua.config import OpcUaConfig, StandIn
from connectors.opcua.nodes import NodeAddress, identifier, parse_node
from connectors.opcua.notifications import NotificationReader, to_ns, to_quality
from connectors.opcua.reasons import refusal_or_loss
from connectors.opcua.wire import Array, DataValue, Notification, Unread, Wire
from fusion.clock import CLOCK
from fusion.errors import ConfigError, SourceError, SourceRefused
from fusion.health import SourceState
from fusion.records import Quality
from tests.contract.peers import PLANT, OpcUaPeer, collect, free_port, supervision, until, values

GOOD, UNCERTAIN, BAD, RESERVED = 0, 0x40000000, 0x80340000, 0xC0000000


def build(peer: OpcUaPeer, url: str | None = None, **options: object) -> Source:
    settings = {
        "url": url or peer.url,
        "namespace_uri": peer.URI,
        "signals": ["TT101", "LT101"],
        "insecure": True,
        "publishing_interval_ms": 100,
        "sampling_interval_ms": 50,
        "keepalive_s": 0.4,
        "supervision": supervision(),
    }
    return source_of(OpcUaConfig(**{**settings, **options}), PLANT)


def test_namespaces_that_moved_and_a_tag_that_comes_late(monkeypatch: pytest.MonkeyPatch):
    """The value is the right machine's after the restart; a missing tag is named and taken up when it appears."""
    monkeypatch.setattr(connectors.opcua.session, "RETRY_MIN_S", 0.2)

    async def scenario() -> None:
        peer = OpcUaPeer(namespaces=["urn:peer"], tags=("TT101", "LT101"))
        await peer.start()
        source = build(peer, signals=["TT101", "LT101", "FT101"])
        await source.start()
        try:
            found = values(await collect(source, lambda items: len(values(items)) >= 2))
            assert set(found) == {("TT101", 0.0, 2), ("LT101", 1.0, 2)}
            assert "FT101: ns=2;s=FT101 BadNodeIdUnknown" in source.health().message
            assert "insecure channel" in source.health().message
            await peer.add_tag("FT101", 7.0)
            assert values(await collect(source, values)) == [("FT101", 7.0, 2)]
            assert "FT101" not in source.health().message

            heart = await collect(source, lambda items: any(item.heartbeat_ns for item in items))
            assert {name for item in heart if item.heartbeat_ns for name in item.signals} == set(source.signals)
            assert values(heart) == []

            await peer.stop()
            peer.namespaces = ["urn:other:line", "urn:peer"]
            await peer.start()
            again = values(await collect(source, lambda items: len(values(items)) >= 2))
            assert ("TT101", 0.0, 2) in again
            assert all(value >= 0 for _, value, _ in again)
        finally:
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())


def test_passwords_qualities_and_stamps_of_a_real_server(tmp_path):
    (tmp_path / "password").write_text("right\n")

    async def scenario() -> None:
        peer = OpcUaPeer(passwords={"fusion": "right"})
        await peer.start()
        wrong = build(peer, username="fusion", password="wrong")
        source = build(peer, username="fusion", password_file=str(tmp_path / "password"))
        try:
            await wrong.start()
            await until(lambda: wrong.state is SourceState.REFUSED)
            assert "BadUserAccessDenied" in wrong.health().message or "BadIdentityToken" in wrong.health().message
            assert "wrong" not in wrong.health().message
            await source.start()
            await collect(source, lambda items: len(values(items)) >= 2)
            stamp = datetime.now(UTC) - timedelta(hours=1)
            await peer.write("TT101", 5.0, UNCERTAIN, source=stamp)
            (batch,) = [item for item in await collect(source, values) if len(item)]
            assert values([batch]) == [("TT101", 5.0, 1)]
            assert batch.t_ns.tolist() == [to_ns(stamp)]
            assert "TT101" in source.health().message
        finally:
            await wrong.stop()
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())


class BlackHole:
    """A TCP relay that can swallow everything while both ends stay connected."""

    def __init__(self, port: int) -> None:
        self.port, self._to, self.swallow, self._server, self._tasks = free_port(), port, False, None, set()

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._relay, "127.0.0.1", self.port)

    async def _relay(self, reader, writer) -> None:
        self._tasks.add(asyncio.current_task())
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", self._to)
        try:
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, far_writer):
                end.transport.abort()

    async def _pump(self, reader, writer) -> None:
        while data := await reader.read(65536):
            if not self.swallow:
                writer.write(data)
        raise ConnectionResetError

    async def stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.wait(self._tasks)
        await self._server.wait_closed()


def test_a_server_that_is_connected_but_silent_is_stale_and_comes_back():
    async def scenario() -> None:
        peer = OpcUaPeer()
        await peer.start()
        relay = BlackHole(peer.port)
        await relay.start()
        url = f"opc.tcp://127.0.0.1:{relay.port}"
        source = build(peer, url=url, supervision=supervision(close_timeout_s=0.3, open_timeout_s=2))
        try:
            await source.start()
            await collect(source, values)
            relay.swallow = True
            await until(lambda: source.state is SourceState.STALE)
            assert "no keep-alive" in source.health().message
            relay.swallow = False
            await collect(source, values)
            assert source.epoch >= 2
        finally:
            await source.stop()
            await relay.stop()
            await peer.stop()

    asyncio.run(scenario())


def test_batches_are_halved_where_the_server_finds_them_too_large(monkeypatch: pytest.MonkeyPatch):
    original, sizes = UaSession.create_monitored_items, []

    async def picky(session, params):
        sizes.append(len(params.ItemsToCreate))
        if sizes[-1] > 1:
            raise BadTooManyOperations
        return await original(session, params)

    monkeypatch.setattr(UaSession, "create_monitored_items", picky)

    async def scenario() -> None:
        peer = OpcUaPeer()
        await peer.start()
        source = build(peer, signals=["TT101", "LT101", "FT101"])
        try:
            await source.start()
            assert len(values(await collect(source, lambda items: len(values(items)) >= 3))) == 3
        finally:
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())
    assert sizes == [3, 1, 1, 1]


def publish(*items: tuple[int, DataValue], more: bool = False) -> ua.PublishResult:
    message = ua.NotificationMessage(NotificationData=[Notification(list(items))] if items else [])
    return ua.PublishResult(SubscriptionId=1, MoreNotifications=more, NotificationMessage=message)


def item(handle: int, value: object, status: int = GOOD, source: object = None, server: object = None):
    return handle, DataValue(value, status, to_ns(source), to_ns(server))


@pytest.mark.parametrize(
    ("value", "status", "expected"),
    [
        (3, GOOD, (3.0, 2)),
        (True, GOOD, (1.0, 2)),
        (2.5, UNCERTAIN, (2.5, 1)),
        (2.5, BAD, (2.5, 0)),
        (2.5, RESERVED, (2.5, 0)),
        (float("nan"), GOOD, (np.nan, 0)),
        (float("inf"), GOOD, (np.nan, 0)),
        ("text", GOOD, (np.nan, 0)),
        ("12.5", GOOD, (12.5, 2)),
        (2**64 - 1, GOOD, (2.0**64, 2)),
        (Array((1.0, 2.0), ()), GOOD, (np.nan, 0)),
        (Array((1.0,), ()), GOOD, (np.nan, 0)),
        (Unread("ExtensionObject"), GOOD, (np.nan, 0)),
        (None, BAD, (np.nan, 0)),
    ],
)
def test_values_and_qualities(value: object, status: int, expected: tuple[float, int]):
    tally = Tally()
    intake = NotificationReader(("A",), "host", tally)
    (batch,) = intake.columns(publish(item(1, value, status, source=datetime.now(UTC))))
    np.testing.assert_equal((batch.value[0], batch.quality[0]), expected)
    assert tally.noted["value not good"] == (expected[1] < 2)
    assert bool(intake.faults) == (expected[1] < 2)


def test_stamps_fall_back_from_source_to_server_to_arrival():
    now = datetime.now(UTC)
    empty, future = datetime(1601, 1, 1, tzinfo=UTC), now + timedelta(days=3)
    naive = now.replace(tzinfo=None)
    intake = NotificationReader(("A", "B", "C", "D"), "host", tally := Tally())
    before_ns = CLOCK.now_ns()
    found = intake.columns(
        publish(
            item(1, 1.0, source=naive, server=now),
            item(2, 2.0, source=empty, server=now),
            item(3, 3.0, source=future, server=None),
            item(4, 4.0, source=now, server=None),
            item(99, 5.0, source=now),
        )
    )
    by_clock = {batch.clock: batch for batch in found}
    assert by_clock["opcua:host"].index.tolist() == [0, 3]
    assert by_clock["opcua:host"].t_ns.tolist() == [to_ns(now)] * 2
    assert by_clock["opcua-server:host"].index.tolist() == [1]
    assert by_clock[ARRIVAL_CLOCK].t_ns[0] >= before_ns
    assert tally.noted["no usable time stamp"] == 1
    assert tally.lost["unknown handle"] == 1


def test_heartbeats_name_only_tags_that_are_subscribed_to():
    intake = NotificationReader(("A", "B"), "host", Tally())
    assert intake.columns(publish()) == []
    intake.subscribed.add("A")
    (beat,) = intake.columns(publish())
    assert (beat.signals, len(beat)) == (("A",), 0)
    assert beat.heartbeat_ns is not None
    (data,) = intake.columns(publish(item(1, 1.0), more=True))
    assert data.heartbeat_ns is None


def test_overflow_of_the_server_is_noted_and_the_end_of_a_subscription_is_a_loss():
    intake = NotificationReader(("A",), "host", tally := Tally())
    intake.columns(publish(item(1, 1.0, 0x480)))
    assert tally.noted["server queue overflow"] == 1
    ended = publish()
    ended.NotificationMessage.NotificationData = [Notification([], BAD)]
    with pytest.raises(SourceError, match="ended the subscription"):
        intake.columns(ended)


def test_quality_is_the_severity():
    assert [to_quality(s) for s in (GOOD, UNCERTAIN, BAD, RESERVED)] == [
        Quality.GOOD,
        Quality.UNCERTAIN,
        Quality.BAD,
        Quality.BAD,
    ]


def test_refusals_are_told_from_losses():
    assert isinstance(refusal_or_loss(ua.UaStatusCodeError(ua.StatusCodes.BadUserAccessDenied)), SourceRefused)
    assert isinstance(refusal_or_loss(ua.UaStatusCodeError(ua.StatusCodes.BadCertificateUntrusted)), SourceRefused)
    assert not isinstance(refusal_or_loss(ua.UaStatusCodeError(ua.StatusCodes.BadTimeout)), SourceRefused)
    assert isinstance(refusal_or_loss(ua.UaError("No matching endpoints: x")), SourceRefused)


def test_node_addresses():
    address = parse_node("k", "nsu=http://x/;s=Line 1.TT101")
    assert (address.uri, identifier(address)) == ("http://x/", "Line 1.TT101")
    assert address.index_in(["http://opcfoundation.org/UA/", "u", "http://x/"]) == 2
    assert address.index_in(["u"]) is None
    assert identifier(parse_node("k", "i=2258")) == 2258
    assert parse_node("k", "i=2258").index_in(["http://opcfoundation.org/UA/"]) == 0
    assert identifier(NodeAddress(uri=None, kind="b", identifier="AQI=")) == b"\x01\x02"


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"url": "http://h"}, "opc.tcp"),
        ({"stand_ins": [StandIn(url="http://h")]}, "opcua.stand_ins.url"),
        ({"url": "opc.tcp://me:secret@h:1"}, "password_file"),
        ({"insecure": False}, "insecure: true"),
        ({"namespace_uri": None}, "namespace_uri"),
        ({"security_policy": "None"}, "Basic256Sha256"),
        ({"nodes": {"TT101": "ns=2;s=x"}}, "may move"),
        ({"nodes": {"TT101": "TT101"}}, "nsu=URI"),
        ({"nodes": {"TT101": "nsu=u;i=x"}}, "no identifier"),
        ({"signals": ["XX"]}, "no process signal"),
        ({"signals": []}, "no tags"),
        ({"publishing_interval_ms": 0}, "publishing_interval_ms"),
        ({"elements": {"FT101": [0]}}, "opcua.elements.FT101"),
        ({"elements": {"TT101": [-1]}}, "opcua.elements.TT101"),
        ({"password_file": "/nonexistent"}, "cannot be read"),
    ],
)
def test_configuration_errors_name_the_key(options: dict[str, object], key: str):
    settings = {"url": "opc.tcp://h:1", "namespace_uri": "u", "signals": ["TT101"], "insecure": True}
    with pytest.raises(ConfigError, match=key) as caught:
        source_of(OpcUaConfig(**{**settings, **options}), PLANT)
    assert "secret" not in str(caught.value)


def test_a_server_that_is_lost_is_stood_in_for():
    async def scenario() -> None:
        first, second = OpcUaPeer(tags=("TT101",)), OpcUaPeer(tags=("TT101",))
        await second.start()
        await second.write("TT101", 7.0)
        source = build(first, stand_ins=[StandIn(url=second.url)], signals=["TT101"])
        await source.start()
        try:
            assert values(await collect(source, values)) == [("TT101", 7.0, 2)]
            assert source.epoch == 2
            await second.stop()
            await first.start()
            assert values(await collect(source, values)) == [("TT101", 0.0, 2)]
        finally:
            await source.stop()
            await first.stop()

    asyncio.run(scenario())


def test_an_open_that_fails_leaves_nothing_behind():
    async def scenario() -> None:
        source = build(OpcUaPeer())
        await source.start()
        await until(lambda: source.epoch >= 2)
        await source.stop()
        rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(asyncio.gather(*rest, return_exceptions=True), 1)
        assert all(task.done() for task in rest)

    asyncio.run(scenario())


def test_the_library_s_own_word_of_a_loss_ends_the_connection(caplog: pytest.LogCaptureFixture):
    async def scenario() -> None:
        peer = OpcUaPeer()
        await peer.start()
        source = build(peer)
        await source.start()
        try:
            await collect(source, values)
            await source._driver._client.uaclient.inform_subscriptions(ua.StatusCode(ua.StatusCodes.BadShutdown))
            await until(lambda: source.epoch == 2 and source.state is SourceState.LIVE)
            (gap,) = source.gaps()
            assert gap.reason == "the connection is lost"
        finally:
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())
    assert "Exception while calling user callback" not in caplog.text


def test_one_value_that_cannot_be_decoded_costs_no_other_and_is_named():
    """A known structure cut short, an unknown one, an array and a matrix beside ordinary tags, on a real server."""
    X = ua.VariantType.ExtensionObject
    odd = {
        "FT101": ua.Variant(ua.ExtensionObject(ua.NodeId(886, 0), b"\x01"), X),
        "LT101": ua.Variant([1.5, 2.5, 3.5], ua.VariantType.Double),
    }

    async def scenario() -> None:
        peer = OpcUaPeer()
        await peer.start()
        for tag, value in odd.items():
            index = await peer._server.get_namespace_index(peer.URI)
            await peer._server.delete_nodes([peer.nodes[peer.URI, tag]])
            datatype = {"datatype": ua.NodeId(22)} if value.VariantType is X else {}
            await peer._server.nodes.objects.add_variable(ua.NodeId(tag, index), f"{index}:{tag}", value, **datatype)
        source = build(peer, signals=["TT101", "FT101", "LT101"], elements={"LT101": [2]})
        whole = build(peer, signals=["LT101"])
        beyond = build(peer, signals=["LT101"], elements={"LT101": [3]})
        try:
            for one in (source, whole, beyond):
                await one.start()
            found = values(await collect(source, lambda items: len(values(items)) >= 3))
            np.testing.assert_equal(sorted(found), [("FT101", np.nan, 0), ("LT101", 3.5, 2), ("TT101", 0.0, 2)])
            assert "FT101: not a finite number (ExtensionObject)" in source.health().message
            await peer.write("TT101", 1.0)
            assert ("TT101", 1.0, 2) in values(await collect(source, values))
            assert source.epoch == 1
            np.testing.assert_equal(values(await collect(whole, values)), [("LT101", np.nan, 0)])
            assert "LT101: not a finite number (an array of 3)" in whole.health().message
            np.testing.assert_equal(values(await collect(beyond, values)), [("LT101", np.nan, 0)])
            assert "no element [3] in an array of 3" in beyond.health().message
        finally:
            for one in (source, whole, beyond):
                await one.stop()
            await peer.stop()

    asyncio.run(scenario())


@pytest.mark.filterwarnings("ignore:.*MonitoredItemService")  # the server forgets to tell that a node is gone
def test_a_node_that_is_deleted_and_made_anew_comes_back(monkeypatch: pytest.MonkeyPatch):
    for name, seconds in (("RETRY_MIN_S", 0.2), ("AUDIT_S", 0.2), ("CONFIRM_S", 0.1)):
        monkeypatch.setattr(connectors.opcua.session, name, seconds)

    async def scenario() -> None:
        peer = OpcUaPeer()
        await peer.start()
        source = build(peer)
        await source.start()
        try:
            await collect(source, lambda items: len(values(items)) >= 2)
            await peer._server.delete_nodes([peer.nodes[peer.URI, "TT101"]])
            await until(lambda: "TT101: ns=2;s=TT101" in source.health().message)
            source.drain()
            (beat, *_) = await collect(source, lambda items: [i for i in items if i.heartbeat_ns is not None])
            assert "TT101" not in beat.signals
            await peer.add_tag("TT101", 7.0)
            assert ("TT101", 7.0, 2) in values(await collect(source, values))
            await peer.write("TT101", 8.0)
            assert ("TT101", 8.0, 2) in values(await collect(source, values))
            assert source.epoch == 1
            assert "TT101: " not in source.health().message
        finally:
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())


@pytest.mark.parametrize("ticks", [-(2**63), -1, 0, 2**63 - 1, 2_650_467_743_990_000_000])
def test_stamps_of_all_years_are_read_and_not_believed(ticks: int):
    data = struct.pack("<BBdq", 5, 11, 1.5, ticks)
    intake = NotificationReader(("A",), "host", tally := Tally())
    (batch,) = intake.columns(publish((1, Wire(data).data_value())))
    assert (batch.clock, batch.value.tolist()) == (ARRIVAL_CLOCK, [1.5])
    assert tally.text() == "since the start: no usable time stamp 1 (A)"


def test_values_that_change_under_one_stamp_arrive_and_are_named():
    async def scenario() -> None:
        peer = OpcUaPeer()
        await peer.start()
        source = build(peer, signals=["TT101"])
        try:
            stamp = datetime.now(UTC) - timedelta(hours=3)
            await peer.write("TT101", 1.0, source=stamp)
            await source.start()
            for value in (1.0, 2.0, 3.0):
                await peer.write("TT101", value, source=stamp)
                assert ("TT101", value, 2) in values(await collect(source, values))
            assert "changed under one time stamp 2 (TT101)" in source.health().message
        finally:
            await source.stop()
            await peer.stop()

    asyncio.run(scenario())
