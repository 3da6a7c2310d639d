"""A small plant with one signal of each modality and the items its sensors send."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace

import numpy as np

from fusion.plant import Modality, Plant, Role, Signal
from fusion.recordings.recording import arrival_ns
from fusion.records import NS_PER_S, Columns, Frame, Item, Quality, Sample
from fusion.timeline.timeline import Timeline, TimelineConfig

T0_NS = 1_800_000_000 * NS_PER_S
TAGS = ("TT101", "FT101", "LIC101.SP")
RATE_HZ = 1600
PLANT = Plant(
    name="small",
    signals=(
        Signal(name="TT101", unit="Cel"),
        Signal(name="FT101", unit="kg/s", stale_after_s=2.0),
        Signal(name="LIC101.SP", role=Role.MANIPULATED, low=0.0, high=1.0),
        Signal(name="camera", modality=Modality.VIDEO, shape=(16, 16), period_s=0.1, stale_after_s=3.0),
        Signal(name="microphone", modality=Modality.AUDIO, shape=(160,), period_s=0.1, stale_after_s=3.0),
        Signal(name="scanner", modality=Modality.LIDAR, shape=(8, 4), period_s=0.2, stale_after_s=3.0),
    ),
)
Delay = Callable[[str], int]


def at(seconds: float) -> int:
    return T0_NS + round(seconds * NS_PER_S)


def rows(
    values: Sequence[tuple[str, float, float]],
    *,
    arrival_s: float | None = None,
    quality: int = 2,
    clock: str = "plc",
    beat_s: float | None = None,
) -> Columns:
    """Values as (tag, stamp [s], value); they arrive at their stamp or at ``arrival_s``."""
    stamps = np.array([at(t) for _, t, _ in values], np.int64)
    return Columns(
        signals=TAGS,
        index=np.array([TAGS.index(tag) for tag, _, _ in values], np.int32),
        t_ns=stamps,
        received_ns=stamps if arrival_s is None else np.full(len(stamps), at(arrival_s)),
        value=np.array([value for _, _, value in values], np.float64),
        quality=np.full(len(stamps), quality, np.uint8),
        clock=clock,
        heartbeat_ns=None if beat_s is None else at(beat_s),
    )


def picture(t_s: float, *, arrival_s: float | None = None, quality: Quality = Quality.GOOD) -> Sample:
    value = np.full((16, 16), int(t_s * 10 + 1e-6) % 256, np.uint8)
    return _sample("camera", t_s, arrival_s, value, quality)


def sound(t_s: float, *, arrival_s: float | None = None, samples: int = 160, quality: Quality = Quality.GOOD) -> Sample:
    """A chunk that begins at ``t_s``; each value tells its position."""
    value = ((round(t_s * RATE_HZ) + np.arange(samples)) % 1000 / 1000 + 1e-3).astype(np.float32)
    return _sample("microphone", t_s, t_s + samples / RATE_HZ if arrival_s is None else arrival_s, value, quality)


def cloud(t_s: float, *, arrival_s: float | None = None, quality: Quality = Quality.GOOD, points: int = 8) -> Sample:
    value = np.full((points, 4), t_s, np.float32)
    return _sample("scanner", t_s, arrival_s, value, quality)


def _sample(name: str, t_s: float, arrival_s: float | None, value: np.ndarray, quality: Quality) -> Sample:
    received_ns = at(t_s if arrival_s is None else arrival_s)
    return Sample(signal=name, t_ns=at(t_s), received_ns=received_ns, value=value, quality=quality, clock=name)


def seconds(first: int, last: int) -> list[Item]:
    """Everything the plant sends from ``first`` to ``last``, arriving at once and in order."""
    items: list[Item] = []
    for second in range(first, last):
        tags = [("TT101", second + 0.62, 80 + second), ("FT101", second + 0.81, second / 10)]
        items += [rows([tag]) for tag in tags]
        if second % 2 == 0:
            items.append(rows([("LIC101.SP", second + 0.93, 0.5)]))
        items += [picture(second + 0.05 + 0.1 * i) for i in range(10)]
        items += [sound(second + 0.1 * i) for i in range(10)]
        items += [cloud(second + 0.13 + 0.2 * i) for i in range(5)]
    return sorted(items, key=arrival_ns)


def later(item: Item, delay_ns: int) -> Item:
    """The same item, arriving later."""
    return replace(item, received_ns=item.received_ns + delay_ns)


def stamped(item: Item, skew_ns: int) -> Item:
    """The same item from a clock that is wrong."""
    return replace(item, t_ns=item.t_ns + skew_ns)


def clock_of(item: Item) -> str:
    return item.clock


def bulk(items: Iterable[Item], config: TimelineConfig | None = None) -> list[Frame]:
    """All frames, from items pushed at once."""
    timeline = Timeline(PLANT, config)
    for item in items:
        timeline.push(item)
    return timeline.flush()


def live(timeline: Timeline, items: Iterable[Item], moments_ns: Iterable[int]) -> list[Frame]:
    """All frames, advancing at each moment with what has arrived before it."""
    waiting = sorted(items, key=arrival_ns)
    frames: list[Frame] = []
    for moment in moments_ns:
        while waiting and arrival_ns(waiting[0]) < moment:
            timeline.push(waiting.pop(0))
        frames += timeline.advance(moment)
    for item in waiting:
        timeline.push(item)
    return frames + timeline.flush()


def same(a: Frame, b: Frame, *, flags: bool = True) -> bool:
    """Bit-equality of two frames."""
    plain = (a.t_ns, a.coverage, a.quality) == (b.t_ns, b.coverage, b.quality) and dict(a.age_s) == dict(b.age_s)
    values = a.values.keys() == b.values.keys() and all(np.array_equal(a.values[n], b.values[n]) for n in a.values)
    return plain and values and (not flags or a.flags == b.flags)


def differing(a: Sequence[Frame], b: Sequence[Frame]) -> list[int]:
    """Seconds of the frames that are not bit-equal."""
    assert [f.t_ns for f in a] == [f.t_ns for f in b]
    return [(x.t_ns - T0_NS) // NS_PER_S for x, y in zip(a, b, strict=True) if not same(x, y)]
