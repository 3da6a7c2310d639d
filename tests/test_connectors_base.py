import asyncio
import logging
import random
from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.base import Backoff, Source, SourceEnded, Tally
from connectors.buffer import Buffer, Overflow, RateMeter, count
from connectors.columns import ColumnsBuilder
from connectors.inbox import Inbox
from connectors.settings import Supervision
from fusion.clock import CLOCK
from fusion.credentials import secret
from fusion.errors import ConfigError, SourceError, SourceRefused
from fusion.health import SourceState
from fusion.plant import Signal
from fusion.records import Columns, Item, Sample

QUICK = Supervision(open_timeout_s=0.2, stale_after_s=0.1, close_timeout_s=0.2, backoff_min_s=0.01, backoff_max_s=0.02)


def batch(values: int, heartbeat_ns: int | None = None) -> Columns:
    rows = ColumnsBuilder()
    for i in range(values):
        rows.add(0, i, i, float(i), 2)
    return rows.columns(("A",), "test", heartbeat_ns)


def picture(size: int = 10) -> Sample:
    return Sample(signal="A", t_ns=1, received_ns=2, value=np.zeros((size, size), np.uint8))


class Script:
    """A driver that does what its script says; the script outlives the epochs."""

    def __init__(self, steps: list[object], opens: list[object] | None = None) -> None:
        self.steps, self.opens, self.closed, self.epochs = steps, opens or [], 0, 0

    def connect(self) -> "Script":
        self.epochs += 1
        return self

    @property
    def message(self) -> str:
        return "says the driver"

    async def open(self) -> None:
        await self._do(self.opens.pop(0) if self.opens else None)

    async def read(self) -> list[Item]:
        step = self.steps.pop(0) if self.steps else "silence"
        return await self._do(step) or []

    async def _do(self, step: object) -> list[Item] | None:
        if isinstance(step, Exception):
            raise step
        if step == "silence":
            await asyncio.sleep(30)
        if step == "stubborn":
            while True:
                try:
                    await asyncio.sleep(30)
                except asyncio.CancelledError:
                    await asyncio.sleep(0.3)
                    raise
        return [step] if isinstance(step, Sample | Columns) else None

    async def close(self) -> None:
        self.closed += 1


async def until(condition: Callable[[], bool], seconds: float = 3.0) -> None:
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "did not happen in time"
        await asyncio.sleep(0.005)


def make(script: Script, supervision: Supervision = QUICK, **options: object) -> Source:
    return Source("s", [Signal(name="A")], script.connect, supervision, seed=1, **options)


def test_source_goes_live_and_hands_over_what_it_read():
    async def scenario() -> None:
        source = make(Script([batch(3), batch(0, heartbeat_ns=7), picture()]))
        assert source.health().state is SourceState.DOWN
        await source.start()
        await source.start()
        await asyncio.wait_for(source.wake.wait(), 1)
        await until(lambda: source.health().received == 4)
        assert source.health().message == "says the driver"
        items = source.drain()
        assert [count(item) for item in items] == [3, 0, 1]
        assert not source.wake.is_set()
        assert source.health().age_s is not None
        await source.stop()
        await source.stop()
        assert source.health().state is SourceState.DOWN

    asyncio.run(scenario())


def test_loss_makes_a_fresh_epoch_a_gap_and_two_log_lines(caplog: pytest.LogCaptureFixture):
    async def scenario() -> None:
        lost = [SourceError("gone")] * 3
        script = Script([batch(1), SourceError("cut"), batch(1)], opens=[None, *lost])
        source = make(script)
        await source.start()
        await until(lambda: source.health().received == 2)
        assert script.epochs == source.epoch == 5
        await source.stop()
        assert script.closed == 5
        (gap,) = source.gaps()
        assert gap.reason == "cut"
        assert gap.t_from_ns < gap.t_to_ns
        assert source.gaps() == []

    with caplog.at_level(logging.INFO):
        asyncio.run(scenario())
    assert [record.levelname for record in caplog.records if record.name == "connectors.base"] == ["WARNING", "INFO"]


@pytest.mark.parametrize(
    ("error", "state", "message"),
    [
        (SourceError("no route"), SourceState.DOWN, "no route"),
        (SourceRefused("wrong password"), SourceState.REFUSED, "wrong password"),
        (ZeroDivisionError("oops"), SourceState.DOWN, "ZeroDivisionError: oops"),
    ],
)
def test_every_failure_is_a_state_with_a_message(error: Exception, state: SourceState, message: str):
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)
        await asyncio.sleep(0.01)

    async def scenario() -> None:
        source = make(Script([], opens=[error] * 100), sleep=sleep)
        await source.start()
        await until(lambda: len(waits) >= 2)
        assert source.health().state is state
        assert source.health().message == message
        await source.stop()

    asyncio.run(scenario())
    assert waits[0] == QUICK.refused_retry_s if state is SourceState.REFUSED else waits[0] <= QUICK.backoff_min_s


def test_silence_is_stale_and_a_hanging_open_is_cut_off_even_if_it_ignores_cancellation():
    async def scenario() -> None:
        states = set()
        source = make(Script([batch(1), "silence", "silence"], opens=[None, "stubborn"]))
        await source.start()
        await until(lambda: states.add(source.state) or source.epoch >= 3)
        assert SourceState.STALE in states
        assert SourceState.DOWN in states
        await source.stop()
        await asyncio.sleep(0.35)

    asyncio.run(scenario())


def test_the_end_of_a_file_is_no_failure():
    async def scenario() -> None:
        source = make(Script([batch(2), SourceEnded("end of recording")]))
        await source.start()
        await until(lambda: source.health().message == "end of recording")
        assert not source.finished
        source.drain()
        assert source.finished
        assert source.health().state is SourceState.DOWN
        await source.stop()
        assert source.health().message == "end of recording"

    asyncio.run(scenario())


@pytest.mark.parametrize("policy", ["drop_oldest", "drop_newest"])
def test_a_full_buffer_drops_and_counts(policy: str):
    async def scenario() -> None:
        supervision = Supervision(stale_after_s=5, buffer_values=10, overflow=policy)
        tally = Tally()
        tally.lost["bad packet"] = 2
        source = make(Script([batch(4) for _ in range(8)]), supervision, tally=tally)
        await source.start()
        await until(lambda: source.health().received == 34)
        health = source.health()
        assert health.dropped == {"buffer_full": 24, "bad packet": 2}
        assert health.received == sum(health.dropped.values()) + sum(count(item) for item in source.drain())
        await source.stop()

    asyncio.run(scenario())


def test_a_waiting_source_loses_nothing():
    async def scenario() -> None:
        supervision = Supervision(buffer_values=5, overflow="wait")
        source = make(Script([*[batch(2) for _ in range(50)], SourceEnded("end")]), supervision)
        await source.start()
        total = 0
        while not source.finished:
            await asyncio.wait_for(source.wake.wait(), 1)
            total += sum(count(item) for item in source.drain())
        assert total == source.health().received == 100
        await source.stop()

    asyncio.run(scenario())


@given(
    st.sampled_from(list(Overflow)),
    st.lists(st.one_of(st.integers(0, 30), st.just("drain"), st.just("picture")), max_size=40),
)
def test_buffer_conserves(policy: Overflow, actions: list[object]):
    buffer = Buffer(20, 3000, policy)
    for action in actions:
        if action == "drain":
            buffer.drain()
        else:
            buffer.push(picture() if action == "picture" else batch(int(str(action))))
        assert buffer.pushed == buffer.drained + buffer.dropped.total() + len(buffer)
        assert policy is Overflow.WAIT or len(buffer) <= 20


def test_buffer_is_bounded_in_bytes_and_a_huge_batch_keeps_its_newest_rows():
    buffer = Buffer(1000, 50_000, Overflow.DROP_OLDEST)
    for _ in range(100):
        buffer.push(picture(100))
    assert len(buffer) == 4
    small = Buffer(10, 10**6, Overflow.DROP_OLDEST)
    small.push(batch(25))
    (kept,) = small.drain()
    assert isinstance(kept, Columns)
    assert kept.value.tolist() == [float(v) for v in range(15, 25)]


def test_backoff_doubles_to_its_bound_and_starts_over():
    backoff = Backoff(Supervision(backoff_min_s=1, backoff_max_s=4), random.Random(0))
    waits = [backoff.next_s() for _ in range(5)]
    assert all(bound / 2 <= wait <= bound for wait, bound in zip(waits, [1, 2, 4, 4, 4], strict=True))
    backoff.reset()
    assert backoff.next_s() <= 1


def test_rate_meter():
    meter = RateMeter()
    for second in range(20):
        meter.add(5, 100.0 + second)
    assert meter.rate_hz(119.5) == pytest.approx(5, rel=0.2)
    assert meter.rate_hz(200.0) == 0


def test_inbox_is_bounded_and_delivers_before_it_fails():
    async def scenario() -> None:
        inbox: Inbox[int] = Inbox(3)
        inbox.put(1, 2, 3, 4)
        inbox.fail(SourceError("gone"))
        assert await inbox.take(1) == [2, 3, 4]
        assert inbox.dropped == 1
        with pytest.raises(SourceError, match="gone"):
            await inbox.take(1)

    asyncio.run(scenario())


def test_arrival_time_is_monotonic_utc():
    first, second = CLOCK.now_ns(), CLOCK.now_ns()
    assert first <= second
    assert CLOCK.utc_ns(0) + 1000 == CLOCK.utc_ns(1000)


@pytest.mark.parametrize(
    ("options", "key"),
    [
        ({"stale_after_s": 0}, "stale_after_s"),
        ({"backoff_min_s": 9}, "backoff_max_s"),
        ({"overflow": "panic"}, "drop_oldest"),
        ({"buffer_values": 0}, "buffer_values"),
    ],
)
def test_supervision_names_what_it_rejects(options: dict[str, object], key: str):
    with pytest.raises(ConfigError, match=key):
        Supervision(**options)


def test_a_secret_comes_from_a_file_or_is_given_but_not_both(tmp_path):
    file = tmp_path / "password"
    file.write_text("hush\nsecond line\n")
    assert secret("x.password", None, str(file)) == "hush"
    with pytest.raises(ConfigError, match="not both"):
        secret("x.password", "a", str(file))
    with pytest.raises(ConfigError, match="cannot be read"):
        secret("x.password", None, str(tmp_path / "missing"))
