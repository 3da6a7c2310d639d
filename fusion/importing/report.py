"""The report on an import: what was read, what each tag's history is worth, and what training will make of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from connectors.historian.rows import TagInfo
from connectors.historian.states import ABSURD
from fusion.importing.tag_quality import TagQuality
from fusion.plant import Plant, Role, Signal
from fusion.records import NS_PER_S
from fusion.templates import render

TEMPLATE = Path(__file__).with_name("report.html")
WIDTH, HEIGHT, BINS = 240, 44, 120
MUCH = 0.05  # share of a tag's rows or time from which a reader should look
ABSURD_FOUND = "{} numbers beyond all that is measured, such as the largest float, are masked as bad"
SENTINEL_FOUND = (
    "{0:.12g} stands {1} times, far from all other values: if it means no value, import again with --bad {0:.12g}"
)


@dataclass(slots=True)
class FileReport:
    """What was read from one file, and what was not."""

    name: str
    format: str = ""
    rows: int = 0
    empty: int = 0
    unread: list[str] = field(default_factory=list)
    aside: list[str] = field(default_factory=list)
    rejected: Counter[str] = field(default_factory=Counter)
    tags: set[str] = field(default_factory=set)
    first_ns: int | None = None
    last_ns: int | None = None
    backwards: int = 0
    furthest_back_s: float = 0.0
    furthest_back_ns: int | None = None
    repeated_hour: int = 0
    ambiguous: int = 0


@dataclass(slots=True)
class Imported:
    """Everything that the report tells."""

    plant: Plant
    proposed: bool
    files: list[FileReport]
    tags: list[TagQuality]
    infos: Mapping[str, TagInfo]
    states: Mapping[str, Mapping[str, int]]
    repeated: int
    conflicting: int
    left_out: Sequence[str]
    losses: Sequence[str]
    recordings: list[Path]
    rows: int


def write_report(file: Path, found: Imported) -> None:
    """Write the report of one import."""
    missing = missing_tags(found.files)
    page = render(
        TEMPLATE,
        name=found.plant.name,
        summary=_summary(found),
        file_columns=_FILE_COLUMNS,
        files=[_file_row(report, missing) for report in found.files],
        tag_columns=_TAG_COLUMNS,
        tags=[_tag_row(tag, found) for tag in found.tags],
        width=WIDTH,
        height=HEIGHT,
    )
    file.write_text(page)


def missing_tags(files: Sequence[FileReport]) -> dict[str, list[str]]:
    """Tags that other files have and a file does not, for files that share at least half of their tags with others."""
    every = set().union(*(report.tags for report in files))
    found = {
        Path(report.name).name: sorted(every - report.tags) for report in files if len(report.tags) * 2 >= len(every)
    }
    return {name: tags for name, tags in found.items() if tags}


def losses(files: Sequence[FileReport], conflicts: Mapping[str, int], wordy: Mapping[str, Sequence[str]]) -> list[str]:
    """What of the files is not in the recordings, in sentences; ``wordy`` are texts of tags that are no states."""
    said = []
    for report in files:
        if report.unread:
            said.append(f"{report.name}: columns not read: {', '.join(report.unread)}")
        if report.rejected:
            reasons = ", ".join(f"{count} x {reason}" for reason, count in report.rejected.most_common(3))
            said.append(f"{report.name}: {report.rejected.total()} rows cannot be read, see rejects.csv: {reasons}")
    if conflicts:
        tag = max(conflicts, key=lambda name: conflicts[name])
        total = sum(conflicts.values())
        said.append(f"{total} rows have a tag and time of a later row with another value, which counts, most of {tag}")
    said += [
        f"{tag}: {len(texts)} texts such as {texts[0]!r} are numbers with units, or one a row, and no states: bad"
        for tag, texts in wordy.items()
    ]
    return said


def treatment(tag: TagQuality, plant: Plant) -> list[str]:
    """What training will do about a tag, in sentences."""
    signal = plant.by_name.get(tag.name)
    if signal is None:
        return ["left out: not a signal of the plant" if tag.rows > tag.bad else "left out: it has no usable value"]
    said = []
    if tag.bad:
        said.append(f"{tag.bad} bad values are masked: the model sees the last good one and that it is not new")
    if count := tag.states[ABSURD]:
        said.append(ABSURD_FOUND.format(count))
    said += [SENTINEL_FOUND.format(number, count) for number, count in tag.sentinels.items()]
    if tag.gap_count or tag.compressed:
        said.append(f"a value counts for {signal.stale_after_s:g} s, then the tag is masked until the next")
    if tag.interpolated:
        said.append("straight lines between archived values carry no dynamics; export raw values if they exist")
    if _suspect_rest(tag, signal):
        said.append("long rests are learned as normal; mark them as bad, or they will not be found later")
    if tag.unit_change():
        said.append("nothing is converted: correct it at the source, or import the two parts by themselves")
    if tag.outliers:
        said.append("outliers stay in, and stretch the proposed limits; scaling goes by quantiles and ignores them")
    if tag.low == tag.high:
        said.append("it never moves: it is scaled by one and teaches nothing")
    return said or ["used as it is"]


def _suspect_rest(tag: TagQuality, signal: Signal | None) -> bool:
    """Whether a tag rests longer than a measured quantity does; setpoints, outputs and states rest by nature."""
    by_nature = tag.whole or (signal is not None and signal.role is Role.MANIPULATED)
    return tag.frozen_s > MUCH * tag.span_s and not by_nature


def _summary(found: Imported) -> dict[str, str]:
    plant = "proposed from the data, to be corrected" if found.proposed else "given"
    return {
        "rows read": f"{found.rows:,}",
        "repeated rows, counted once": f"{found.repeated:,}",
        "rows of one tag and time that disagree, the later taken": f"{found.conflicting:,}",
        "rows that could not be read, in rejects.csv": f"{sum(r.rejected.total() for r in found.files):,}",
        "lost": "; ".join(found.losses) or "nothing",
        "plant": f"{len(found.plant.signals)} signals, step {found.plant.step_s:g} s, {plant}",
        "tags left out": ", ".join(found.left_out) or "none",
        "recordings": f"{len(found.recordings)}",
    }


# --- files


_FILE_COLUMNS = (
    *("file", "format", "rows", "tags", "first", "last", "empty cells", "columns not read", "refused"),
    "clock jumps back",
    *("rows in the repeated hour", "of them ambiguous", "tags missing"),
)


def _file_row(report: FileReport, missing: Mapping[str, Sequence[str]]) -> list[Cell]:
    refused = ", ".join(f"{count} x {reason}" for reason, count in report.rejected.most_common()) or "0"
    lacking = missing.get(Path(report.name).name, ())
    return [
        _cell(report.name),
        _cell(report.format, text=True),
        _cell(f"{report.rows:,}"),
        _cell(len(report.tags)),
        _cell(_time(report.first_ns)),
        _cell(_time(report.last_ns)),
        _cell(report.empty),
        _cell(", ".join([*report.unread, *report.aside]) or "none", bad=bool(report.unread), text=True),
        _cell(refused, bad=bool(report.rejected), text=True),
        _cell(_jumps(report), bad=report.backwards > 0, text=True),
        _cell(report.repeated_hour),
        _cell(report.ambiguous, bad=report.ambiguous > 0),
        _cell(", ".join(lacking) or "none", bad=bool(lacking), text=True),
    ]


def _jumps(report: FileReport) -> str:
    if not report.backwards:
        return "none"
    return f"{report.backwards}, up to {report.furthest_back_s:g} s, at {_time(report.furthest_back_ns)}"


# --- tags


_TAG_COLUMNS = (
    *("tag", "values", "unit", "rows", "from", "to", "interval", "new value every", "archive"),
    *("gaps", "in gaps", "frozen", "longest rest", "bad", "states", "outliers", "change of unit", "role", "limits"),
    "training",
)


def _tag_row(tag: TagQuality, found: Imported) -> list[Cell]:
    span = max(tag.span_s, 1.0)
    signal = found.plant.by_name.get(tag.name)
    bad, gaps, frozen = tag.bad / max(tag.rows, 1), tag.gap_s / span, tag.frozen_s / span
    change = tag.unit_change()
    unit = signal.unit if signal else found.infos[tag.name].unit if tag.name in found.infos else ""
    archive = "changes only" if tag.compressed else "interpolated" if tag.interpolated else "even"
    states = ", ".join(f"{count} x {state}" for state, count in tag.states.most_common(6))
    limits = f"{signal.low:g} to {signal.high:g}" if signal and None not in (signal.low, signal.high) else ""
    return [
        _cell(tag.name),
        _cell(_plot(tag)),
        _cell(unit),
        _cell(f"{tag.rows:,}"),
        _cell(_time(tag.first_ns)),
        _cell(_time(tag.last_ns)),
        _cell(_duration(tag.interval_s())),
        _cell(_duration(tag.effective_s)),
        _cell(archive, bad=tag.interpolated, text=True),
        _cell(tag.gap_count, bad=tag.gap_count > 0),
        _cell(f"{gaps:.1%}", bad=gaps > MUCH),
        _cell(f"{frozen:.1%}", bad=_suspect_rest(tag, signal)),
        _cell(_duration(tag.longest_frozen_s)),
        _cell(f"{bad:.2%}", bad=bad > MUCH),
        _cell(states, text=True),
        _cell(f"{tag.outliers:.2%}", bad=tag.outliers > 0),
        _cell(f"{_factor(change[1])} at {_time(change[0])}" if change else "", bad=change is not None, text=True),
        _cell(str(signal.role) if signal else "", text=True),
        _cell(limits),
        _cell("; ".join(treatment(tag, found.plant)), bad=signal is None, text=True),
    ]


def _plot(tag: TagQuality) -> dict[str, Any] | str:
    """Lowest to highest of the values kept in each of some bins of time, as SVG paths, and the longest gaps."""
    t_ns, value = tag.sample
    if len(value) < 2 or t_ns[-1] == t_ns[0]:
        return ""
    span = float(t_ns[-1] - t_ns[0])
    place = np.minimum(((t_ns - t_ns[0]) / span * BINS).astype(int), BINS - 1)
    low, high = np.full(BINS, np.inf), np.full(BINS, -np.inf)
    np.minimum.at(low, place, value)
    np.maximum.at(high, place, value)
    seen = np.isfinite(low)
    across = np.flatnonzero(seen) * WIDTH / BINS
    top, bottom = _down(high[seen], tag), _down(low[seen], tag)
    path = " ".join(f"M{x:.0f} {a:.1f}V{b + 0.8:.1f}" for x, a, b in zip(across, top, bottom, strict=True))
    line = " ".join(f"{x:.0f},{y:.1f}" for x, y in zip(across, (top + bottom) / 2, strict=True))
    gaps = [
        f"M{(start - t_ns[0]) / span * WIDTH:.0f} {HEIGHT - 1}h{length * NS_PER_S / span * WIDTH:.1f}"
        for length, start in tag.gaps
    ]
    return {"name": tag.name, "path": path, "line": line, "gaps": gaps}


def _down(value: NDArray[np.float64], tag: TagQuality) -> NDArray[np.float64]:
    """Pixels from the top."""
    size = max(tag.high - tag.low, 1e-12)
    return np.asarray((1.0 - (value - tag.low) / size) * (HEIGHT - 6) + 2)


# --- cells


class Cell(NamedTuple):
    """One cell of a table, and how it looks: red where it is ``bad``, wrapped where it is ``text``."""

    value: object
    classes: str


def _cell(value: object, *, bad: bool = False, text: bool = False) -> Cell:
    return Cell(value, " ".join(name for name, on in (("bad", bad), ("text", text)) if on))


def _factor(name: str) -> str:
    return f"factor {name}" if name[0].isdigit() else name


def _duration(seconds: float) -> str:
    for unit, size in (("d", 86_400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def _time(t_ns: int | None) -> str:
    return "" if not t_ns else datetime.fromtimestamp(t_ns / 1e9, UTC).strftime("%Y-%m-%d %H:%M:%S")
