"""The way from sensor to receiver: delay, jitter, loss, lateness, and clocks that are wrong."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace

import numpy as np

from fusion.recordings.recording import arrival_ns
from fusion.records import NS_PER_S, Columns, Item
from fusion.simulator.noise import keyed
from fusion.simulator.scenario import Network


class Path:
    """Turns the moment of measurement into a moment of arrival; late items are held back to their turn."""

    def __init__(self, network: Network, seed: int) -> None:
        self._network, self._seed = network, seed
        self._held: list[Item] = []

    def deliver(
        self, items: Iterable[Item], tick: int, now_ns: int, disturbed: Mapping[str, tuple[float, float]] | None = None
    ) -> list[Item]:
        """What has arrived shortly after ``now_ns``, in order of arrival; what is late is held back to its turn.

        ``disturbed`` says by stream how far its clock is ahead and how late its data may be now [s].
        """
        disturbed = disturbed or {}
        rng = keyed(self._seed, "network", tick + 100_000)
        sent = [self._arrive(item, rng, disturbed) for item in items if rng.uniform() >= self._network.loss]
        arriving = sorted([*self._held, *sent], key=arrival_ns)
        until_ns = now_ns + int((self._network.delay_s + self._network.jitter_s) * NS_PER_S)
        self._held = [item for item in arriving if arrival_ns(item) > until_ns]
        return [item for item in arriving if arrival_ns(item) <= until_ns]

    def _arrive(self, item: Item, rng: np.random.Generator, disturbed: Mapping[str, tuple[float, float]]) -> Item:
        n, stream = self._network, "process" if isinstance(item, Columns) else item.signal
        delay_s = n.delay_s + n.jitter_s * rng.uniform() + (n.late_s if rng.uniform() < n.late else 0.0)
        skew_s = n.skew_s.get(stream, 0.0)
        if stream in disturbed:
            ahead_s, late_s = disturbed[stream]
            skew_s, delay_s = skew_s + ahead_s, delay_s + late_s * rng.uniform()
        delay_ns, skew_ns = int(delay_s * NS_PER_S), int(skew_s * NS_PER_S)
        if isinstance(item, Columns):
            return replace(item, t_ns=item.t_ns + skew_ns, received_ns=item.received_ns + delay_ns)
        return replace(item, t_ns=item.t_ns + skew_ns, received_ns=item.received_ns + delay_ns)
