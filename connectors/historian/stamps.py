"""Time stamps of exports: which format by evidence, then UTC nanoseconds, with the clock changes of a zone."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

import numpy as np
import polars as pl

from fusion.errors import ConfigError, HistorianError
from fusion.records import NS_PER_S

DAY_FIRST, MONTH_FIRST = "day-first", "month-first"
EARLIEST_S, LATEST_S = 315_532_800, 4_102_444_800  # 1980 to 2100: other numbers are no epoch
FIRST_S = 631_152_000  # 1990: an earlier stamp is that of a clock that was never set
NS_PER_DAY = 86_400 * NS_PER_S
DAY_NS = 86_400e9
ENOUGH = 0.8
_DAYS, _FRACTION = r"^\d+(,\d+)?$", r":\d\d,\d"  # days or seconds with a decimal comma, and times of day
REASON_UNREADABLE = "time stamp cannot be read"
REASON_IMPOSSIBLE = "time stamp outside 1990 to tomorrow"
REASON_SKIPPED = "time stamp does not exist in {zone}: the clock was put forward"


@dataclass(frozen=True, slots=True, kw_only=True)
class StampFormat:
    """One way of writing a time: a strptime pattern, or a number of ``unit_ns`` that is ``zero`` at the start of 1970.

    ``comma``: it stands for a point.
    """

    name: str
    pattern: str = ""
    zoned: bool = False
    order: str = ""
    unit_ns: float = 0.0
    zero: int = 0
    comma: bool = False


def _clocks(date: str, order: str = "", name: str = "") -> list[StampFormat]:
    times = ("%H:%M:%S%.f", "%H:%M", "%I:%M:%S%.f %p", "%I:%M %p")
    return [StampFormat(name=f"{name or date} {time}", pattern=f"{date} {time}", order=order) for time in times]


FORMATS: tuple[StampFormat, ...] = (
    StampFormat(name="ISO 8601 with zone", pattern="%Y-%m-%dT%H:%M:%S%.f%#z", zoned=True),
    StampFormat(name="ISO 8601 with zone, blank", pattern="%Y-%m-%d %H:%M:%S%.f%#z", zoned=True),
    StampFormat(name="ISO 8601 with zone, two blanks", pattern="%Y-%m-%d %H:%M:%S%.f %#z", zoned=True),
    StampFormat(name="ISO 8601 and UTC", pattern="%Y-%m-%d %H:%M:%S%.f UTC", zoned=True),
    StampFormat(name="ISO 8601 and GMT", pattern="%Y-%m-%d %H:%M:%S%.f GMT", zoned=True),
    StampFormat(name="compact ISO 8601 with zone", pattern="%Y%m%dT%H%M%S%#z", zoned=True),
    StampFormat(name="compact ISO 8601", pattern="%Y%m%dT%H%M%S"),
    StampFormat(name="ISO 8601", pattern="%Y-%m-%dT%H:%M:%S%.f"),
    StampFormat(name="ISO 8601, minutes", pattern="%Y-%m-%dT%H:%M"),
    *_clocks("%Y-%m-%d"),
    *_clocks("%Y/%m/%d"),
    *_clocks("%d-%b-%y"),
    *_clocks("%d-%b-%Y"),
    *_clocks("%d %b %Y"),
    *_clocks("%b %d, %Y"),
    *_clocks("%d.%m.%y", DAY_FIRST),
    *_clocks("%d.%m.%Y", DAY_FIRST),
    *[f for sep in "/-" for year in "yY" for f in _clocks(f"%d{sep}%m{sep}%{year}", DAY_FIRST)],
    *[f for sep in "/-" for year in "yY" for f in _clocks(f"%m{sep}%d{sep}%{year}", MONTH_FIRST)],
    StampFormat(name="date alone", pattern="%Y-%m-%d"),
)
NUMBERS: tuple[StampFormat, ...] = (
    StampFormat(name="seconds since 1970", unit_ns=1e9, zoned=True),
    StampFormat(name="milliseconds since 1970", unit_ns=1e6, zoned=True),
    StampFormat(name="microseconds since 1970", unit_ns=1e3, zoned=True),
    StampFormat(name="nanoseconds since 1970", unit_ns=1.0, zoned=True),
)
EXCEL = StampFormat(name="Excel day number", unit_ns=DAY_NS, zero=25_569)
EPOCHS: Mapping[str, StampFormat] = {
    "excel": EXCEL,
    "excel-1904": StampFormat(name="Excel day number since 1904", unit_ns=DAY_NS, zero=24_107),
    "labview": StampFormat(name="seconds since 1904", unit_ns=1e9, zero=2_082_844_800, zoned=True),
    "dotnet": StampFormat(name=".NET ticks", unit_ns=100.0, zero=621_355_968_000_000_000),
    "unix-ns": NUMBERS[3],
    "filetime": StampFormat(name="Windows file time", unit_ns=100.0, zero=116_444_736_000_000_000, zoned=True),
}
"""Numbers that are taken for stamps only where the user says so: each could be another."""
TYPED = StampFormat(name="time without zone")
TYPED_UTC = StampFormat(name="time with zone", zoned=True)
GE_EPOCH = StampFormat(name="seconds:nanoseconds since 1970", zoned=True)


def zone(name: str) -> ZoneInfo:
    """A zone by its IANA name.

    Raises:
        ConfigError: where there is none of that name.
    """
    try:
        return ZoneInfo(name)
    except (ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise ConfigError(f"--tz: {name!r} is not a time zone; expected a name such as Europe/Berlin or UTC") from error


def choose(where: str, samples: Sequence[str], dates: str = "", epoch: str = "") -> StampFormat:
    """The format that reads the samples.

    Raises:
        HistorianError: where none does, where days and months cannot be told apart, or where zones are mixed.
    """
    texts = pl.Series("stamp", [s.strip() for s in samples if s and s.strip()], dtype=pl.String)
    if not len(texts):
        raise HistorianError(f"{where}: no rows below its header")
    _one_zone(where, texts)
    found = recognise(texts, epoch)
    if not found and epoch:
        raise HistorianError(f"{where}: time stamps such as {texts[0]!r} are not {EPOCHS[epoch].name}")
    if not found:
        raise HistorianError(
            f"{where}: time stamps such as {texts[0]!r} are not known; looked for ISO 8601, "
            "01-Jan-24 00:00:00, day.month.year, month/day/year with AM or PM, seconds to nanoseconds since 1970, "
            f"Excel day numbers, and with --epoch: {', '.join(EPOCHS)}"
        )
    if found[0][0] is NUMBERS[3] and not epoch and recognise(texts, "dotnet"):
        raise HistorianError(
            f"{where}: time stamps such as {texts[0]!r} may be .NET ticks, or nanoseconds since 1970; "
            "say --epoch dotnet or --epoch unix-ns"
        )
    best = max(share for _, share in found)
    equal = [f for f, share in found if share >= best - 1e-9]
    wanted = [f for f in equal if not f.order or not dates or f.order == dates]
    if not wanted:
        raise HistorianError(f"{where}: time stamps such as {texts[0]!r} are not {dates}")
    orders = {f.order for f in wanted}
    if orders == {DAY_FIRST, MONTH_FIRST}:
        raise HistorianError(
            f"{where}: {texts[0]!r} may be day or month first, and no stamp in the sample decides; say --dates "
            f"{DAY_FIRST} or --dates {MONTH_FIRST}"
        )
    return wanted[0]


def recognise(texts: pl.Series, epoch: str = "") -> list[tuple[StampFormat, float]]:
    """Formats that read most of some texts, with the share they read; of ``EPOCHS`` the one that is said alone."""
    if not len(texts):
        return []
    if epoch:
        form = EPOCHS[epoch]
        days = (texts.str.replace(",", ".").cast(pl.Float64, strict=False) - form.zero) * (form.unit_ns / DAY_NS)
        share = int(days.is_between(EARLIEST_S / 86_400, LATEST_S / 86_400).sum()) / len(texts)
        return [(replace(form, comma=True), share)] if share >= ENOUGH else []
    if texts.str.contains(_FRACTION).any() or (texts.str.contains(_DAYS).all() and texts.str.contains(",").any()):
        return [(replace(form, comma=True), share) for form, share in recognise(texts.str.replace(",", "."))]
    if texts.str.contains(r"^\d{9,11}:\d{1,9}$").mean() == 1.0:
        return [(GE_EPOCH, 1.0)]
    numbers = texts.cast(pl.Float64, strict=False).drop_nulls()
    if len(numbers) >= ENOUGH * len(texts):
        return _recognise_number(numbers, len(texts))
    found = []
    for form in FORMATS:
        share = int(_plausible(_parse(texts, form)).sum()) / len(texts)
        if share >= ENOUGH:
            found.append((form, share))
    return found


def _parse(texts: pl.Series, form: StampFormat) -> pl.Series:
    return texts.str.strptime(pl.Datetime("ns", "UTC" if form.zoned else None), form.pattern, strict=False)


def _plausible(stamps: pl.Series) -> pl.Series:
    return stamps.dt.year().is_between(1980, 2099).fill_null(value=False)


def _recognise_number(numbers: pl.Series, size: int) -> list[tuple[StampFormat, float]]:
    middle = float(np.median(numbers.to_numpy()))
    share = len(numbers) / size
    for form in NUMBERS:
        if FIRST_S <= middle * form.unit_ns / 1e9 <= _tomorrow_ns() / 1e9:
            return [(form, share)]
    days = (middle - EXCEL.zero) * 86_400
    return [(EXCEL, share)] if FIRST_S <= days <= _tomorrow_ns() / 1e9 else []


def _one_zone(where: str, texts: pl.Series) -> None:
    """Some stamps with an offset and some without cannot be put on one axis."""
    zoned = texts.str.contains(r"\d{2}:\d{2}.*(Z|UTC|GMT|[+-]\d{2}(:?\d{2})?)$")
    local = ~zoned & texts.str.contains(r"\d{2}:\d{2}")
    if zoned.any() and local.any():
        raise HistorianError(
            f"{where}: mixed time zones: {int(zoned.sum())} of {len(texts)} stamps carry an offset and the others do "
            f"not, such as {texts.filter(zoned)[0]!r} and {texts.filter(local)[0]!r}; export them one way"
        )


@dataclass(slots=True)
class StampReader:
    """Turns the stamps of one file into UTC; ``ambiguous`` counts those of a repeated hour that nothing told apart.

    In the hour that a zone repeats, the first pass ends where the stamps of a tag (of the whole file, where that is in
    order of time) go back.
    """

    where: str
    form: StampFormat
    tz: str
    by_signal: bool = True
    descending: bool = False
    ambiguous: int = 0
    repeated: int = 0
    _passes: dict[str, tuple[int, bool, int]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Stamps without a zone need one."""
        if not self.form.zoned and not self.tz:
            raise HistorianError(
                f"{self.where}: time stamps carry no zone; say which it is, such as --tz Europe/Berlin or --tz UTC"
            )

    def forget(self) -> None:
        """Begin again: what was seen was a sample."""
        self._passes.clear()
        self.ambiguous = self.repeated = 0

    def utc(self, frame: pl.DataFrame, column: str = "stamp") -> pl.DataFrame:
        """The frame with ``t_ns`` [UTC ns] and ``why``, the reason where ``t_ns`` is null."""
        local = frame.select(self._read(pl.col(column)).alias("t"))["t"]
        if local.has_nulls() and frame.schema[column] == pl.String:
            local = frame.select(self._read(pl.col(column).str.strip_chars()).alias("t"))["t"]
        if self.form.zoned:
            t_ns, skipped = local, None
        else:
            t_ns, skipped = self._from_zone(frame, local)
        done = frame.with_columns(t_ns.alias("t_ns"), pl.lit(None, pl.String).alias("why"))
        if not t_ns.has_nulls() and _possible(t_ns.min(), t_ns.max()):
            return done
        unread = pl.when(pl.col("t_ns").is_null()).then(pl.lit(REASON_UNREADABLE))
        possible = pl.col("t_ns").is_between(FIRST_S * NS_PER_S, _tomorrow_ns())
        done = done.with_columns(unread.when(~possible).then(pl.lit(REASON_IMPOSSIBLE)).alias("why"))
        if skipped is None or not skipped.any():
            return done
        reason = pl.when(skipped).then(pl.lit(REASON_SKIPPED.format(zone=self.tz))).otherwise(pl.col("why"))
        return done.with_columns(reason.alias("why"))

    def _read(self, column: pl.Expr) -> pl.Expr:
        """Nanoseconds since 1970 as the stamp says, in its own zone."""
        form = self.form
        if form.comma:
            column = column.cast(pl.String).str.replace(",", ".", literal=True)
        if form is TYPED or form is TYPED_UTC:
            return column.dt.epoch("ns")
        if form is GE_EPOCH:
            parts = column.str.split_exact(":", 1)
            seconds = parts.struct.field("field_0").cast(pl.Int64, strict=False)
            return seconds * 1_000_000_000 + parts.struct.field("field_1").cast(pl.Int64, strict=False)
        if form.unit_ns == DAY_NS:
            days = column.cast(pl.Float64, strict=False) - form.zero
            return (days * 86_400e3).round().cast(pl.Int64, strict=False) * 1_000_000
        if form.unit_ns:
            return _exactly(column.cast(pl.String), form)
        kind = pl.Datetime("ns", "UTC" if form.zoned else None)
        return column.str.strptime(kind, form.pattern, strict=False).dt.epoch("ns")

    def _from_zone(self, frame: pl.DataFrame, local: pl.Series) -> tuple[pl.Series, pl.Series | None]:
        """UTC of local times, and where a local time never was."""
        offset = _constant_offset(local, self.tz)
        if offset is not None:
            return local - offset, None
        naive = local.cast(pl.Datetime("ns"))
        early = naive.dt.replace_time_zone(self.tz, ambiguous="earliest", non_existent="null").dt.epoch("ns")
        late = naive.dt.replace_time_zone(self.tz, ambiguous="latest", non_existent="null").dt.epoch("ns")
        twice = (early != late).fill_null(value=False)
        second = self._second_pass(frame, local, twice) if twice.any() else twice
        t_ns = pl.select(pl.when(second).then(late).otherwise(early).alias("t_ns"))["t_ns"]
        return t_ns, early.is_null() & local.is_not_null()

    def _second_pass(self, frame: pl.DataFrame, local: pl.Series, twice: pl.Series) -> pl.Series:
        """Which rows of repeated hours belong to the second pass; few rows, so one by one."""
        where = twice.arg_true()
        signals = frame["signal"].gather(where).to_list() if self.by_signal and "signal" in frame.columns else None
        second = [False] * len(frame)
        for i, (row, stamp) in enumerate(zip(where.to_list(), local.gather(where).to_list(), strict=True)):
            key = signals[i] if signals else ""
            last, passed, alone = self._passes.get(key, (stamp, False, 0))
            if abs(stamp - last) > NS_PER_DAY:
                passed, alone = False, 0
            if not passed and (stamp > last if self.descending else stamp < last):
                passed, self.ambiguous, alone = True, self.ambiguous - alone, 0
            self._passes[key] = stamp, passed, alone + (not passed)
            second[row] = passed is not self.descending
            self.repeated += passed
            self.ambiguous += not passed
        return pl.Series(second, dtype=pl.Boolean)


def _exactly(number: pl.Expr, form: StampFormat) -> pl.Expr:
    """Nanoseconds of a decimal number; as floating point it would be off by hundreds of them."""
    parts, digits = number.str.split_exact(".", 1), round(np.log10(form.unit_ns))
    whole = (parts.struct.field("field_0").cast(pl.Int64, strict=False) - form.zero) * int(form.unit_ns)
    fraction = parts.struct.field("field_1").str.slice(0, digits).str.pad_end(digits, "0")
    return whole + pl.coalesce(fraction.cast(pl.Int64, strict=False), 0)


def _tomorrow_ns() -> int:
    return time.time_ns() + NS_PER_DAY


def _possible(low: object, high: object) -> bool:
    """Whether all stamps between two are of a time at which a plant can have been recorded."""
    return isinstance(low, int) and isinstance(high, int) and low >= FIRST_S * NS_PER_S and high <= _tomorrow_ns()


def _constant_offset(local: pl.Series, tz: str) -> int | None:
    """Offset from UTC [ns] where no clock change can be near any of the stamps."""
    low, high = local.min(), local.max()
    if not isinstance(low, int) or not isinstance(high, int):
        return 0
    where, offsets = ZoneInfo(tz), set()
    first, last = (datetime.fromtimestamp(t / 1e9, UTC) for t in (low, high))
    if last - first > timedelta(days=400):
        return None if tz != "UTC" else 0
    moment = first - timedelta(days=1)
    while moment <= last + timedelta(days=2):
        offset = moment.astimezone(where).utcoffset()
        offsets.add(int(offset.total_seconds() * 1e9) if offset is not None else 0)
        moment += timedelta(days=1)
    return offsets.pop() if len(offsets) == 1 else None
