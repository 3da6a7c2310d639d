"""What a server's own history holds of the time in which it could not be reached, read once it can be again.

Each tag is asked for what lies between the last value of one connection and the first of the next, both by the tag's
own time stamps: of a tag that did not change in between nothing is asked. A tag that has no history is not asked again.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from asyncua import ua
from asyncua.client.ua_session import UaSession
from asyncua.ua.attribute_ids import AttributeIds
from asyncua.ua.object_ids import ObjectIds
from asyncua.ua.uaerrors import UaStatusCodeError

from connectors.opcua.calls import read_history, read_values
from connectors.opcua.notifications import status_name
from connectors.opcua.past import Past, Stretch
from connectors.opcua.wire import DataValue, History

AT_ONCE, LOOKED_AT_ONCE = 10, 100  # tags in one request, at most
TRIES = 5
PAUSE_S = 1.0
HISTORY_READ = 4  # bit of AccessLevel
TOO_MUCH = {
    *("BadTooManyOperations", "BadRequestTooLarge", "BadResponseTooLarge", "BadEncodingLimitsExceeded"),
    "BadNoContinuationPoints",
}
LATER = {"BadServerTooBusy", "BadTooManyPendingRequests", "BadTimeout", "BadOutOfMemory", "BadContinuationPointInvalid"}


class HistoryReader:
    """Reads what is wanted from a server that is there: one request at a time, and pauses as long as the answers take.

    ``take`` is given each stretch with the values found in it, in the order of the server. Of a tag up to ``values``
    are asked for at once.
    """

    def __init__(
        self, past: Past, url: str, session: UaSession, take: Callable[[Stretch, Sequence[DataValue]], int], values: int
    ) -> None:
        self._wanted, self._without = past.wanted, past.without.setdefault(url, set())
        self._session, self._take = session, take
        self._values, self._at_once = values, AT_ONCE
        self._asked: set[str] = set()

    async def run(self, nodes: Mapping[str, Any]) -> None:
        """Read all that is wanted of these nodes; what fails stays wanted.

        Raises:
            UaStatusCodeError, OSError, TimeoutError, SourceError: the server gives it not now.
        """
        if any(stretch.tag in nodes for stretch in self._wanted):
            self._at_once = min(AT_ONCE, await self._limit() or AT_ONCE)
        tries = 0
        while batch := await self._batch(nodes):
            began_s = time.monotonic()
            try:
                await self._read(batch, nodes)
            except UaStatusCodeError as error:
                tries += 1
                self._make_smaller(error, tries, [stretch.tag for stretch in batch])
                await asyncio.sleep(PAUSE_S * tries)
            else:
                tries = 0
                await asyncio.sleep(time.monotonic() - began_s)

    async def _limit(self) -> int:
        """How many tags the server takes in one request; 0 where it does not say."""
        limit = ObjectIds.Server_ServerCapabilities_OperationLimits_MaxNodesPerHistoryReadData
        (data,) = await read_values(self._session, [ua.NodeId(limit, 0)])  # type: ignore[arg-type]
        return data.value if isinstance(data.value, int) else 0

    async def _batch(self, nodes: Mapping[str, Any]) -> list[Stretch]:
        """The next that are wanted, without those of tags that have no history."""
        new = list({s.tag for s in self._wanted if s.tag in nodes} - self._asked - self._without)
        for at in range(0, len(new), LOOKED_AT_ONCE):
            await self._look([(tag, nodes[tag]) for tag in new[at : at + LOOKED_AT_ONCE]])
        kept = [s for s in self._wanted if s.tag not in self._without]
        batch = [s for s in kept if s.tag in nodes][: self._at_once]
        taken = set(batch)
        self._wanted.clear()
        self._wanted.extend(s for s in kept if s not in taken)
        return batch

    async def _look(self, nodes: Sequence[tuple[str, Any]]) -> None:
        """Learn which tags have a history at all."""
        levels = await read_values(self._session, [node for _, node in nodes], AttributeIds.UserAccessLevel)
        for (tag, _), level in zip(nodes, levels, strict=True):
            self._asked.add(tag)
            if not (isinstance(level.value, int) and level.value & HISTORY_READ):
                self._without.add(tag)

    def _make_smaller(self, error: UaStatusCodeError, tries: int, tags: Sequence[str]) -> None:
        """Ask for less, or later, or no more of these, whatever the server means."""
        name = ua.StatusCode(error.code).name
        if name in TOO_MUCH and len(tags) > 1:
            self._at_once = len(tags) // 2
        elif name in TOO_MUCH and self._values > 1:
            self._values //= 2
        elif name in LATER and tries < TRIES:
            return
        elif name in LATER or name.startswith(("BadSession", "BadSecure", "BadConnection", "BadCommunication")):
            raise error
        else:
            self._without.update(tags)

    async def _read(self, batch: Sequence[Stretch], nodes: Mapping[str, Any]) -> None:
        """All answers to one request; what a server holds back comes with its continuation points."""
        start_ns, end_ns = min(s.after_ns for s in batch), max(s.before_ns for s in batch)
        going, trouble = [(stretch, b"") for stretch in batch], 0
        try:
            while going and not trouble:
                asked = [(nodes[stretch.tag], point) for stretch, point in going]
                answers = await read_history(self._session, asked, start_ns, end_ns, self._values)
                following = []
                for (stretch, point), answer in zip(going, answers, strict=True):
                    if answer.status >> 30 >= 2:
                        trouble = trouble or self._refused(stretch, answer.status)
                        following += [(stretch, b"")] if stretch.tag not in self._without else []
                    elif (left := self._taken(stretch, point, answer)) is not None:
                        following.append(left)
                going = following
        finally:
            self._wanted.extendleft(stretch for stretch, _ in going)
        if trouble:
            raise UaStatusCodeError(trouble)  # type: ignore[no-untyped-call]

    def _taken(self, stretch: Stretch, point: bytes, answer: History) -> tuple[Stretch, bytes] | None:
        """Hand over what came, and say what of the stretch is left and where it goes on."""
        reached_ns = self._take(stretch, answer.values)
        left = stretch._replace(after_ns=max(reached_ns, stretch.after_ns))
        if answer.point and answer.point != point:
            return left, answer.point
        if len(answer.values) >= self._values and left.after_ns > stretch.after_ns:
            self._wanted.appendleft(left)  # a server that holds back without saying so
        return None

    def _refused(self, stretch: Stretch, status: int) -> int:
        """What keeps a tag from being read now, if anything; any other refusal means that it has no history."""
        if status_name(status) in TOO_MUCH | LATER:
            return status
        self._without.add(stretch.tag)
        return 0
