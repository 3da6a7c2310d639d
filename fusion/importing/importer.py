"""Files of a historian to recordings, a plant description and a report on the quality of the data.

Everything is written beside its place and renamed when it is whole. Rows pass through in bounded pieces: read and
spooled, then taken back in order of time, stretch by stretch, once to judge the tags and once to write the recordings.
"""

from __future__ import annotations

import errno
import hashlib
import json
import logging
import re
import shutil
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import polars as pl

from connectors.historian.open import open_reader
from connectors.historian.rows import ReadOptions, TagInfo
from connectors.historian.stamps import DAY_FIRST, EPOCHS, MONTH_FIRST, zone
from connectors.historian.states import ABSURD, INFORMATIVE, codes_of, load_state_sets
from fusion.errors import ConfigError, HistorianError
from fusion.files import whole_file, whole_folder
from fusion.importing.labels import labelled, separate, suspected, tell
from fusion.importing.proposal import propose, ucum
from fusion.importing.reading import Rejects, read, reasons
from fusion.importing.report import (
    ABSURD_FOUND,
    SENTINEL_FOUND,
    FileReport,
    Imported,
    losses,
    missing_tags,
    write_report,
)
from fusion.importing.spool import TEXTS_KEPT, Resolver, Spool, Survey
from fusion.importing.stretches import judge, record
from fusion.importing.tag_quality import TagQuality
from fusion.plant import Modality, Plant
from fusion.plant_file import dump_plant, load_plant, plant_name
from fusion.recordings.recording import PLANT

log = logging.getLogger(__name__)

IMPORTS, RECORDINGS = "imports", "recordings"
REPORT, REJECTS, SUMMARY = "report.html", "rejects.csv", "import.json"
PARTS = 12
OFTEN = 0.2  # share of a tag's rows that another series under its name makes up at least
LOSSY = 3  # exit code of an import that did not take all of its files
STATES = 10  # texts that a tag may have, however few rows it has, and be a tag of states


@dataclass(kw_only=True, slots=True)
class ImportConfig:
    """What the files do not say. ``parts`` is the number of recordings, which training splits by time.

    ``series`` are columns that tell series of one tag apart, ``bad`` numbers that mean no value, ``labels``
    columns that are no tags and not zero where something was wrong, ``query`` may be ``@FILE``.
    """

    tz: str = ""
    dates: str = ""
    states: Path | None = None
    plant: Path | None = None
    name: str = ""
    step_s: float | None = None
    parts: int = PARTS
    kind: str = "normal"
    again: bool = False
    query: str = ""
    start: str = ""
    end: str = ""
    epoch: str = ""
    series: tuple[str, ...] = ()
    bad: tuple[float, ...] = ()
    labels: tuple[str, ...] = ()
    accept_losses: bool = False

    def __post_init__(self) -> None:
        """Reject what cannot be meant."""
        if self.tz:
            zone(self.tz)
        if self.dates not in ("", DAY_FIRST, MONTH_FIRST):
            raise ConfigError(f"--dates: {self.dates!r} is not accepted; expected {DAY_FIRST} or {MONTH_FIRST}")
        if self.epoch and self.epoch not in EPOCHS:
            raise ConfigError(f"--epoch: {self.epoch!r} is not accepted; expected one of {', '.join(EPOCHS)}")
        if self.name and not re.fullmatch(r"[\w-][\w.-]*", self.name):
            raise ConfigError(f"--name: {self.name!r} is not accepted; expected letters, digits, `_`, `-`, `.`")
        if self.parts < 1 or (self.step_s is not None and self.step_s <= 0):
            raise ConfigError("--parts must be at least 1 and --step positive")


def import_files(sources: Sequence[str], site: Path, config: ImportConfig | None = None) -> Path:
    """Import files and queries; the folder of the import.

    Raises:
        HistorianError: a file cannot be imported, or the disk is full; nothing is left behind.
        ConfigError: the settings or an existing plant contradict the files.
    """
    config = config or ImportConfig()
    name = config.name or _name(sources)
    place = site / IMPORTS / name
    digest = _digest(sources, config)
    if place.exists() and not config.again:
        if _digest_of(place) == digest:
            log.info("%s: these files are imported already", place)
            return place
        raise HistorianError(
            f"{place}: exists already and is of other files or settings; choose --name, or --again to replace it"
        )
    with _in_one_sentence(place):
        with whole_folder(place, overwrite=True) as aside:
            found = _import(sources, site, aside, config)
            _write_summary(aside, found, digest)
            write_report(aside / REPORT, found)
            shutil.rmtree(aside / "work")
        if not _own_plant(site):
            with whole_file(site / PLANT) as file:
                dump_plant(found.plant, file)
    return place


def _import(sources: Sequence[str], site: Path, aside: Path, config: ImportConfig) -> Imported:
    work = aside / "work"
    spool = Spool(work / "spool")
    sets = load_state_sets(config.states) if config.states else {}
    options = ReadOptions(tz=config.tz, dates=config.dates, epoch=config.epoch, series=config.series, sets=sets)
    query = _query(config.query)
    infos: dict[str, TagInfo] = {}
    files = []
    with Rejects(aside / REJECTS) as rejects:
        for source in sources:
            reader = open_reader(source, work, options, query=query, start=config.start, end=config.end)
            files.append(read(reader, spool, infos, rejects, config.bad))
    if not spool.names:
        raise HistorianError(f"{', '.join(sources)}: no row could be read; {reasons(files)}")
    survey = spool.survey()
    codes, wordy = _digital(survey, spool.signals, sets)
    if len(wordy) == len(spool.names):
        raise HistorianError("; ".join(losses([], {}, wordy)))
    resolver = Resolver(codes=codes)
    tags = [TagQuality(signal) for signal in spool.signals]
    events = labelled(spool, config.labels)
    runs = separate([(r.first_ns or 0, r.last_ns or 0) for r in files]) if config.labels else []
    stretches = list(judge(spool, survey, resolver, tags, work, config.parts, events, runs))
    if not config.accept_losses:
        _refuse_several(resolver, tags, files)
    states = {spool.signals[code]: names for code, names in codes.items()}
    tags = [tag for tag in tags if tag.name not in config.labels]
    plant, proposed = _plant(site, config, tags, infos, states)
    left_out = [tag.name for tag in tags if tag.name not in plant.by_name]
    apart = [*left_out, *config.labels]
    recordings = list(record(stretches, plant, apart, aside / RECORDINGS, config.kind, events))
    tell(events, config.labels, suspected(tags), plant)
    dump_plant(plant, aside / PLANT)
    conflicts = {spool.signals[code]: count for code, count in resolver.conflicts.items()}
    lost = losses(files, conflicts, wordy)
    _tell(
        files, tags, left_out, [*lost, f"{resolver.repeated} rows repeat a tag and time"] if resolver.repeated else lost
    )
    return Imported(
        plant=plant,
        proposed=proposed,
        files=files,
        tags=tags,
        infos=infos,
        states=states,
        repeated=resolver.repeated,
        conflicting=resolver.conflicts.total(),
        left_out=left_out,
        losses=lost,
        recordings=recordings,
        rows=survey.rows,
    )


def losses_of(place: Path) -> list[str]:
    """What an import lost, in sentences."""
    return list(json.loads((place / SUMMARY).read_text()).get("losses", ()))


def _query(text: str) -> str:
    try:
        return Path(text[1:]).read_text(encoding="utf-8") if text.startswith("@") else text
    except OSError as error:
        raise ConfigError(f"--query: {text[1:]}: {error.strerror}") from error


def _refuse_several(resolver: Resolver, tags: Sequence[TagQuality], files: Sequence[FileReport]) -> None:
    """Where many rows of a tag cannot be of one series with the others, say so and what would tell them apart."""
    often = {code: n for code, n in resolver.conflicts.items() if n > OFTEN * tags[code].rows}
    code = next(filter(resolver.are_several, often), None)
    if code is None:
        return
    unread = [column for report in files for column in report.unread]
    columns = f"such as {', '.join(dict.fromkeys(unread))}" if unread else "if there is one"
    raise HistorianError(
        f"{tags[code].name}: {often[code]} rows have the time of another and a value far from it: several series under "
        f"one name; say --series with the column that tells them apart, {columns}, or --accept-losses to keep the last"
    )


def _tell(
    files: Sequence[FileReport], tags: Sequence[TagQuality], left_out: Sequence[str], said: Sequence[str]
) -> None:
    """What an engineer should know at once; the report says it in full."""
    for sentence in said:
        log.warning("%s", sentence)
    for report in files:
        if report.aside:
            log.warning("%s: no values of tags, and not read: %s", report.name, ", ".join(report.aside))
    for name, missing in missing_tags(files).items():
        log.warning("%s: %d tags of the other files are missing, such as %s", name, len(missing), missing[0])
    for tag in tags:
        if count := tag.states[ABSURD]:
            log.warning("%s: %s", tag.name, ABSURD_FOUND.format(count))
        for number, count in tag.sentinels.items():
            log.warning("%s: %s", tag.name, SENTINEL_FOUND.format(number, count))
    usable = [tag.name for tag in tags if tag.name in left_out and tag.rows > tag.bad]
    if usable:
        log.warning("%d tags are no signals of the plant and left out, such as %s", len(usable), usable[0])


# --- the plant


def _digital(
    survey: Survey, signals: Sequence[str], sets: Mapping[str, tuple[str, ...]]
) -> tuple[dict[int, dict[str, int]], dict[str, list[str]]]:
    """Codes of the tags whose values are texts more often than numbers, and the texts of those that are no states.

    A text at any other tag is a bad value.
    """
    known = {name for names in sets.values() for name in names}
    digital, wordy = {}, {}
    for row in survey.texts.iter_rows(named=True):
        own, numbers = [text for text in row["distinct"] if text in known], survey.numbers.get(row["code"], 0)
        if row["texts"] > numbers or (own and not numbers):
            texts = [text for text in row["distinct"] if text in row["free"] or text in known]
            own_each = len(texts) > STATES and (2 * len(texts) > row["texts"] or len(texts) >= TEXTS_KEPT)
            if not own and (own_each or sum(map(_is_scaled, texts)) > len(texts) / 2):
                wordy[signals[row["code"]]] = sorted(texts)
                continue
            digital[int(row["code"])] = codes_of(texts, sets)
            log.info("%s: digital, %d states", signals[row["code"]], len(texts))
    return digital, wordy


def _is_scaled(text: str) -> bool:
    """Whether a text is a number that a program scaled as it saw fit, such as `1.2 K` or `3 Mil`."""
    return re.fullmatch(r"[+-]?\d[\d.,]* ?([kKmMGTB]|Mil|Bil|Tri)", text) is not None


def _plant(
    site: Path,
    config: ImportConfig,
    tags: Sequence[TagQuality],
    infos: Mapping[str, TagInfo],
    states: Mapping[str, Mapping[str, int]],
) -> tuple[Plant, bool]:
    """The plant that was given, or stands in the site, or is proposed; beside a label what looks like one is no tag."""
    given = config.plant or _own_plant(site)
    if given is None:
        others = suspected(tags) if config.labels else []
        measured = [tag for tag in tags if tag.name not in others]
        plant = propose(plant_name(site), measured, infos, states, config.step_s)
        if not plant.signals:
            kinds = sum((tag.states for tag in tags), Counter[str]())
            found = ", ".join(f"{count} x {kind}" for kind, count in kinds.most_common(3)) or "bad by their quality"
            raise HistorianError(f"no tag has a single usable value: {found}")
        return plant, True
    plant = load_plant(given)
    _same_units(plant, infos, given)
    names = {tag.name for tag in tags}
    if not any(signal.name in names for signal in plant.of(Modality.PROCESS)):
        raise ConfigError(
            f"{given}: none of its signals is among the {len(names)} imported tags, such as {sorted(names)[0]}"
        )
    return plant, False


def _own_plant(site: Path) -> Path | None:
    """The plant file of a site, once it has signals: one that was only begun says nothing yet."""
    file = site / PLANT
    return file if file.exists() and load_plant(file).signals else None


def _same_units(plant: Plant, infos: Mapping[str, TagInfo], given: Path) -> None:
    for signal in plant.of(Modality.PROCESS):
        unit = ucum(infos[signal.name].unit) if signal.name in infos and infos[signal.name].unit else signal.unit
        if unit != signal.unit:
            raise ConfigError(
                f"{given}: signal {signal.name} has unit {signal.unit!r}, the files say {unit!r}; "
                "correct the plant or convert the files"
            )


# --- the outcome


def _write_summary(aside: Path, found: Imported, digest: str) -> None:
    """What was imported, for programs; the report is for people."""
    summary = {
        "digest": digest,
        "rows": found.rows,
        "repeated": found.repeated,
        "conflicting": found.conflicting,
        "left_out": list(found.left_out),
        "losses": list(found.losses),
        "sentinels": {
            tag.name: {f"{n:.12g}": k for n, k in tag.sentinels.items()} for tag in found.tags if tag.sentinels
        },
        "proposed": found.proposed,
        "files": [_file_summary(report) for report in found.files],
        "states": {tag.name: dict(tag.states) for tag in found.tags if tag.states},
        "informative": list(INFORMATIVE),
        "missing": missing_tags(found.files),
        "digital": {name: dict(codes) for name, codes in found.states.items()},
        "recordings": [str(path.relative_to(aside)) for path in found.recordings],
    }
    (aside / SUMMARY).write_text(json.dumps(summary, indent=1))


def _file_summary(report: FileReport) -> dict[str, Any]:
    plain = {f.name: getattr(report, f.name) for f in fields(report)}
    return plain | {"tags": sorted(report.tags), "rejected": dict(report.rejected)}


# --- safety


@contextmanager
def _in_one_sentence(place: Path) -> Iterator[None]:
    """Say a full disk, or what else the system or a table could not do, in words for the user."""
    try:
        yield
    except (OSError, pl.exceptions.PolarsError) as error:
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
        number = getattr(error, "errno", None)
        if number in full or any(f"os error {n}" in str(error) for n in full):
            raise HistorianError(
                f"{place.parent}: the disk is full or its quota reached while importing; nothing was kept. An import "
                "needs about 60 bytes a row while it runs"
            ) from error
        raise HistorianError(f"{place}: {error}") from error


def _name(sources: Sequence[str]) -> str:
    """A name for an import: that of its one source, or of the folder in which its files are."""
    folders = {Path(source).resolve().parent for source in sources}
    together = len(sources) > 1 and len(folders) == 1 and not any("://" in source for source in sources)
    return _stem(str(folders.pop()) if together else sources[0])


def _stem(source: str) -> str:
    """The name of a file, a folder or a database, or the host of a server, as that of a folder."""
    bare = source.split("://", 1)[-1].split("?", 1)[0].rsplit("@", 1)[-1].rstrip("/")
    return (
        re.sub(r"[^\w-]+", "-", Path(bare).name.split(".")[0] if "opc.tcp" not in source else bare).strip("-")
        or "import"
    )


def _digest(sources: Sequence[str], config: ImportConfig) -> str:
    """What an import was made of: names, sizes and dates of files, and settings that change the outcome."""
    parts: list[Any] = [{k: str(v) for k, v in asdict(config).items() if k not in ("again", "accept_losses")}]
    for source in sources:
        file = Path(source)
        known = "://" not in source and file.is_file()
        unlike_any = datetime.now(UTC).isoformat()  # what a server answers may have grown
        parts.append([source, file.stat().st_size, file.stat().st_mtime_ns] if known else [source, unlike_any])
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()


def _digest_of(place: Path) -> str:
    try:
        return str(json.loads((place / SUMMARY).read_text())["digest"])
    except (OSError, ValueError, KeyError):
        return ""
