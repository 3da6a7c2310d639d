"""What a server's history holds of an outage is read once it is back, recorded, and moves no tick."""

import asyncio
from datetime import UTC, datetime, timedelta

import numpy as np
import pytest
from asyncua import ua
from test_connectors_opcua import BlackHole, build

from connectors.opcua import history
from fusion.clock import CLOCK
from fusion.health import SourceState
from fusion.recordings.recorder import Recorder, RecorderConfig
from fusion.recordings.recording import PROCESS
from fusion.recordings.writer import RecordingWriter
from fusion.records import NS_PER_S, Columns
from fusion.timeline.history import frames
from fusion.timeline.timeline import Timeline
from tests.contract.peers import PLANT, OpcUaPeer, collect, supervision, until, values

QUICK = {"close_timeout_s": 0.3, "open_timeout_s": 3.0, "stale_after_s": 1.0}


class Station:
    """A server with a history of some tags, behind a relay that can swallow everything; ``asked`` are its reads."""

    def __init__(self, monkeypatch, archived=("TT101",), at_once=1000, capped_at=10_000, refuse=lambda tags: None):
        self.peer, self.asked = OpcUaPeer(), []
        self._archived, self._at_once, self._capped_at = archived, at_once, capped_at
        read = history.read_history

        async def noted(session, nodes, start_ns, end_ns, most):
            tags = [node.Identifier for node, _ in nodes]
            if (refusal := refuse(tags)) is not None:
                self.asked.append((tags, refusal))
                raise ua.UaStatusCodeError(getattr(ua.StatusCodes, refusal))
            answers = await read(session, nodes, start_ns, end_ns, most)
            self.asked.append((tags, [len(answer.values) for answer in answers]))
            return answers

        monkeypatch.setattr(history, "read_history", noted)

    async def __aenter__(self):
        await self.peer.start()
        for tag in self._archived:
            node = self.peer.nodes[self.peer.URI, tag]
            await self.peer._server.historize_node_data_change(node, timedelta(days=1))
        self.peer._server.iserver.history_manager.storage.max_history_data_response_size = self._capped_at
        self.relay = BlackHole(self.peer.port)
        await self.relay.start()
        more = {"url": f"opc.tcp://127.0.0.1:{self.relay.port}", "supervision": supervision(**QUICK)}
        self.source = build(self.peer, **more, history_values=self._at_once)
        await self.source.start()
        await collect(self.source, values)
        return self

    async def __aexit__(self, *_):
        await self.source.stop()
        await self.relay.stop()
        await self.peer.stop()

    async def outage(self, told):
        """Nothing comes through while these values are written; what came until all is back."""
        self.relay.swallow = True
        await until(lambda: self.source.state is SourceState.STALE)
        for tag, value in told:
            await self.peer.write(tag, float(value), source=datetime.now(UTC))
            await asyncio.sleep(0.002)  # stamps differ, as those of a process do
        self.relay.swallow = False
        await until(lambda: self.source.state is SourceState.LIVE)


def past(items):
    return [item for item in items if getattr(item, "backfilled", False)]


async def filled(station, told, count):
    """What an outage with these values brought, live and from history, once history gave so many."""
    await station.outage(told)
    found = await collect(station.source, lambda items: sum(map(len, past(items))) >= count)
    return [item for item in found if not item.backfilled], past(found)


@pytest.mark.parametrize(
    "limits", [{"at_once": 4}, {"capped_at": 3}], ids=["held back silently", "continuation points"]
)
def test_a_gap_is_filled_from_history_and_from_nothing_else(monkeypatch, limits):
    async def scenario():
        async with Station(monkeypatch, **limits) as station:
            await station.peer.write("TT101", 50.0, source=datetime.now(UTC))
            await collect(station.source, lambda items: 50.0 in [value for _, value, _ in values(items)])
            live, found = await filled(station, [("TT101", 100 + n) for n in range(11)] + [("LT101", 7)], 10)
            assert {110.0, 7.0} <= {value for _, value, _ in values(live)}
            assert [value for name, value, _ in values(found)] == [100.0 + n for n in range(10)]
            assert all(item.replayed and item.clock.startswith("opcua-history:") for item in found)
            assert all((item.received_ns == item.t_ns).all() for item in found)
            assert (np.diff(np.concatenate([item.t_ns for item in found])) > 0).all()
            assert {tuple(tags) for tags, _ in station.asked} == {("TT101",)}
            assert max(counts[0] for _, counts in station.asked) == min(limits.values())
            health = station.source.health()
            assert "from history 10" in health.message
            assert health.rate_hz < 5
            live, found = await filled(station, [("TT101", 200 + n) for n in range(3)], 2)
            assert [value for _, value, _ in values(found)] == [200.0, 201.0]

    asyncio.run(scenario())


def test_a_server_without_history_is_looked_at_once_and_asked_for_none(monkeypatch):
    async def scenario():
        async with Station(monkeypatch, archived=()) as station:
            looked, read = [], history.read_values

            async def noted(session, nodes, *attribute):
                looked.append([node.Identifier for node in nodes])
                return await read(session, nodes, *attribute)

            monkeypatch.setattr(history, "read_values", noted)
            for number in range(3):
                await station.outage([("TT101", number), ("TT101", 0.5 + number)])
                await collect(station.source, lambda items, n=number: 0.5 + n in [v for _, v, _ in values(items)])
                await until(lambda: station.source._driver._tasks[-1].done())
            assert station.asked == []
            assert [nodes for nodes in looked if "TT101" in nodes] == [["TT101"]]
            assert "history" not in station.source.health().message

    asyncio.run(scenario())


def test_a_server_that_takes_less_is_asked_for_less_and_one_that_is_busy_later(monkeypatch):
    refusals = iter(["BadServerTooBusy"])

    def refuse(tags):
        return "BadTooManyOperations" if len(tags) > 1 else next(refusals, None)

    async def scenario():
        async with Station(monkeypatch, archived=("TT101", "LT101"), refuse=refuse) as station:
            told = [(tag, 10 + number) for number in range(5) for tag in ("TT101", "LT101")]
            _, found = await filled(station, told, 8)
            by_tag = {tag: [v for name, v, _ in values(found) if name == tag] for tag in ("TT101", "LT101")}
            assert by_tag == {"TT101": [10.0, 11.0, 12.0, 13.0], "LT101": [10.0, 11.0, 12.0, 13.0]}
            assert [said for _, said in station.asked][:2] == ["BadTooManyOperations", "BadServerTooBusy"]

    asyncio.run(scenario())


def test_a_tag_whose_history_is_refused_is_not_asked_again_and_the_others_are_read(monkeypatch):
    def refuse(tags):
        return "BadHistoryOperationUnsupported" if "LT101" in tags else None

    async def scenario():
        async with Station(monkeypatch, archived=("TT101", "LT101"), refuse=refuse) as station:
            monkeypatch.setattr(history, "AT_ONCE", 1)
            for _ in range(2):
                await filled(station, [("LT101", 1), ("TT101", 1), ("LT101", 2), ("TT101", 2)], 1)
            assert sum("LT101" in tags for tags, _ in station.asked) == 1

    asyncio.run(scenario())


def test_the_time_in_which_nothing_ran_is_a_gap_too(monkeypatch, tmp_path):
    async def scenario():
        async with Station(monkeypatch, archived=("TT101", "LT101")) as station:
            recorder = Recorder(RecorderConfig(folder=str(tmp_path)), PLANT)
            assert recorder.told() == ({}, 0)
            recorder.start()
            await station.peer.write("TT101", 50.0, source=datetime.now(UTC))
            known = await collect(station.source, lambda items: 50.0 in [value for _, value, _ in values(items)])
            await station.source.stop()
            for item in known:
                recorder.add(item)
            await asyncio.to_thread(recorder.close)
            for number in range(10):
                await station.peer.write("TT101", 100.0 + number, source=datetime.now(UTC))
                await asyncio.sleep(0.002)
            again = Recorder(RecorderConfig(folder=str(tmp_path)), PLANT)
            later = build(station.peer)
            again.start()
            later.resume(*again.told())
            again.close()
            await later.start()
            try:
                found = await collect(later, lambda items: sum(map(len, past(items))) >= 9)
                await until(lambda: later._driver._tasks[-1].done())
                found += later.drain()
            finally:
                await later.stop()
            assert [(name, value) for name, value, _ in values(past(found))] == [("TT101", 100.0 + n) for n in range(9)]

    asyncio.run(scenario())


def test_what_was_recorded_last_is_known_by_tag_and_a_damaged_recording_is_said(tmp_path, caplog):
    recorder = Recorder(RecorderConfig(folder=str(tmp_path), slice_s=0.05, segment_s=3600), PLANT)
    recorder.start()
    recorder.add(columns([1_800_000_010.0, 1_800_000_030.0, 1_800_000_020.0], [1.0, 3.0, 2.0]))
    recorder.close()
    again = Recorder(RecorderConfig(folder=str(tmp_path)), PLANT)
    began_ns, ended_ns = 1_800_000_010 * NS_PER_S, 1_800_000_030 * NS_PER_S
    assert again.told() == ({"TT101": ended_ns, "LT101": began_ns, "FT101": began_ns}, ended_ns)
    (segment,) = again.segments()
    (segment.path / PROCESS).write_bytes(b"PAR1")
    assert again.told() == ({}, 0)
    assert f"{PROCESS}: cannot be read as Parquet" in caplog.text
    again.start()
    again.close()


def columns(t_s, value, **more):
    t_ns = np.array([round(t * NS_PER_S) for t in t_s])
    rows = len(t_ns)
    return Columns(
        signals=("TT101",),
        index=np.zeros(rows, np.int32),
        t_ns=t_ns,
        received_ns=t_ns,
        value=np.array(value, float),
        quality=np.full(rows, 2, np.uint8),
        clock="opcua:plc",
        **more,
    )


def test_history_moves_no_tick_and_fills_the_recording(tmp_path):
    """Twenty seconds of which ten were missed, told of once they were over."""
    t0_s = 1_800_000_000
    live = [columns([t0_s + s + 0.3], [s]) for s in (*range(10), *range(20, 30))]
    missed = columns([t0_s + s + 0.3 for s in range(10, 20)], range(10, 20), replayed=True, backfilled=True)
    told, quiet = Timeline(PLANT), Timeline(PLANT)
    seen, undisturbed = [], []
    with RecordingWriter(tmp_path / "run", PLANT) as writer:
        for number, item in enumerate(live):
            for timeline, found in ((told, seen), (quiet, undisturbed)):
                timeline.push(item)
                found += timeline.advance(int(item.received_ns[0]) + NS_PER_S // 2)
            writer.write(item)
            if number == 12:
                told.push(missed)
                writer.write(missed)
    assert told.health() == quiet.health()
    assert [(f.t_ns, f.values, f.flags) for f in seen] == [(f.t_ns, f.values, f.flags) for f in undisturbed]
    kept = {frame.t_ns // NS_PER_S - t0_s: frame.values.get("TT101") for frame in frames(tmp_path / "run")}
    assert [kept[s + 1] for s in range(29)] == list(range(29))


def test_a_segment_with_a_filled_gap_keeps_its_own_name(tmp_path):
    """The gap began before the segment did, as that before it did too."""
    recorder = Recorder(RecorderConfig(folder=str(tmp_path), slice_s=0.05, segment_s=3600), PLANT)
    recorder.start()
    now_s = CLOCK.now_ns() / NS_PER_S
    recorder.add(columns([now_s], [1.0]))
    recorder.add(columns([now_s - 7200.0], [0.0], replayed=True, backfilled=True))
    recorder.close()
    (segment,) = recorder.segments()
    assert segment.path.name == datetime.fromtimestamp(now_s, UTC).strftime("%Y%m%dT%H%M%SZ")
    assert segment.table()["value"].to_list() == [0.0, 1.0]
    assert segment.span_ns[0] == round((now_s - 7200.0) * NS_PER_S)
