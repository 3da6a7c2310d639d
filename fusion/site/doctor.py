"""`fusion doctor`: whether everything of a site fits together now, one check at a time, each with what to do."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from enum import StrEnum
from pathlib import Path
from typing import Any

from connectors.kinds import source_of
from fusion.certificates import read_certificate
from fusion.clock import CLOCK, iso_time
from fusion.daemon.learning import first_hours, learnable_hours, too_early
from fusion.daemon.settings import DaemonConfig, load_daemon_config
from fusion.daemon.succession import first_model, learned, load_model
from fusion.errors import BrokerError, ConfigError, FusionError, PlantMismatch
from fusion.model_store import ModelStore
from fusion.mqtt.broker import Broker
from fusion.mqtt.connection import Connection
from fusion.plant import Plant, Signal
from fusion.plant_file import load_plant
from fusion.processes import accepts
from fusion.recordings.recorder import OPEN, closed_recordings
from fusion.recordings.recording import MANIFEST, Recording
from fusion.recordings.room import GIB
from fusion.records import NS_PER_S
from fusion.site.listening import Heard, listen
from fusion.site.up import may_run_own

DAYS_BEFORE_EXPIRY = 30
LEAST_FREE, SCARCE_FREE = 200e6, 5e9
CERTIFICATES = ("certificate", "server_certificate", "tls_certificate", "tls_ca")
CLOCK_OFF_S = 2.0
SLOW = 0.7
MOST_READ = 4e9  # bytes of recordings that are compared with their hashes
MOST_MARKED = 0.8  # of the budget
FEW_PERIODS = 5
NAMES_SHOWN = 5


class State(StrEnum):
    """How a check ended."""

    OK = "ok"
    WARN = "warn"
    FAIL = "fail"


@dataclass(frozen=True, slots=True)
class Check:
    """One check: ``advice`` says what to do, where there is something to do."""

    state: State
    what: str
    text: str
    advice: str = ""


def examine(file: Path, seconds: float) -> list[Check]:
    """Every check of the site that a daemon configuration describes; sources are heard for some seconds."""
    try:
        config = load_daemon_config(file)
        plant = load_plant(Path(config.plant))
    except ConfigError as error:
        return [Check(State.FAIL, "configuration", str(error), "correct that first: nothing else can be examined")]
    folder = file.resolve().parent
    checks = [Check(State.OK, "configuration", f"{file}; plant {plant.name}, {len(plant.signals)} signals")]
    checks += [*_certificates(config), *_sources(config, plant, seconds), _broker(config)]
    return [*checks, _model(config, plant), *_recordings(config, folder), *_budget(config), _disk(folder)]


# --- sources


def _sources(config: DaemonConfig, plant: Plant, seconds: float) -> Iterator[Check]:
    if not config.connectors:
        yield Check(State.FAIL, "connectors", "none", "fusion discover URL... --site FOLDER")
        return
    sources = {}
    for name, settings in config.connectors.items():
        try:
            sources[name] = source_of(_as_guest(settings), plant, name)
        except FusionError as error:
            yield Check(State.FAIL, f"connector {name}", str(error), f"correct connectors.{name}")
    heard = listen(sources, seconds)
    for name, own in heard.items():
        yield from _source(f"connector {name}", own, plant)
    carried = {signal for source in sources.values() for signal in source.signals}
    missing = [s.name for s in plant.signals if s.name not in carried]
    if missing:
        yield Check(State.WARN, "signals", f"no connector carries {_some(missing)}", "connect or delete them")


def _as_guest(settings: Any) -> Any:
    """Settings by which a broker does not take us for the daemon, and throw that out."""
    return replace(settings, client_id="") if isinstance(settings, Broker) else settings


def _source(what: str, heard: Heard, plant: Plant) -> Iterator[Check]:
    if not heard.live:
        yield Check(State.FAIL, what, heard.message, heard.advice)
        return
    yield Check(
        State.OK,
        what,
        f"{heard.values} values in {heard.seconds:.0f} s" + (f"; {heard.message}" if heard.message else ""),
    )
    silent = [name for name in heard.signals if not heard.count.get(name) and not heard.bad.get(name)]
    if silent:
        due = any(plant.by_name[name].stale_after_s <= heard.seconds for name in silent)
        text = f"none of {_some(silent)} in {heard.seconds:.0f} s"
        advice = "is its address right, does it still send?" if due else "listen longer: --seconds"
        yield Check(State.FAIL if due or heard.by_change else State.WARN, f"{what}, values", text, advice)
    bad = [name for name in heard.signals if heard.bad.get(name, 0) > heard.count.get(name, 0)]
    if bad:
        yield Check(
            State.WARN,
            f"{what}, quality",
            f"bad values of {_some(bad)}",
            "look at the instrument or its unit of conversion",
        )
    yield from _clocks(what, heard)
    yield from _rates(what, heard, plant)
    frozen = [n for n in heard.signals if heard.frozen(n) and _flutters(plant.by_name[n], heard.seconds)]
    if frozen:
        yield Check(
            State.WARN, f"{what}, frozen", f"always the same from {_some(frozen)}", "frozen, or a constant to delete?"
        )


def _flutters(signal: Signal, seconds: float) -> bool:
    """Whether a signal should have moved meanwhile: a measured one that is no state of a machine."""
    switch = (signal.low, signal.high) == (0.0, 1.0) and signal.unit == "1"
    long_enough = seconds >= FEW_PERIODS * signal.period_s
    return (
        long_enough
        and not signal.shape
        and signal.role.value in ("measured", "controlled")
        and not signal.machine
        and not switch
    )


def _clocks(what: str, heard: Heard) -> Iterator[Check]:
    for clock, offset_s in heard.offset_s.items():
        off = abs(offset_s) > CLOCK_OFF_S
        text = f"{clock} is {abs(offset_s):.1f} s {'behind' if offset_s > 0 else 'ahead of'} this machine"
        advice = "set the clocks by NTP: neither device nor this machine is right by itself" if off else ""
        yield Check(State.WARN if off else State.OK, f"{what}, clock", text, advice)
    if not heard.offset_s and heard.values:
        yield Check(State.OK, f"{what}, clock", "none is told: values are stamped by their arrival")


def _rates(what: str, heard: Heard, plant: Plant) -> Iterator[Check]:
    slow = []
    for name in heard.signals:
        wanted = heard.seconds / plant.by_name[name].period_s
        came = heard.count.get(name, 0)
        if wanted >= 5 and 0 < came < SLOW * wanted - 1 and not heard.by_change:
            slow.append(f"{name} ({came} in {heard.seconds:.0f} s, {wanted:.0f} expected)")
    if slow:
        yield Check(
            State.WARN, f"{what}, rate", f"too few from {_some(slow)}", "correct period_s, or see why so few arrive"
        )


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMES_SHOWN} more" if len(names) > NAMES_SHOWN else ""
    return ", ".join(names[:NAMES_SHOWN]) + more


# --- what lies on disk


def _certificates(config: DaemonConfig) -> Iterator[Check]:
    parts: Mapping[str, Any] = {
        **{f"connector {n}": c for n, c in config.connectors.items()},
        "publish": config.publish,
    }
    for what, part in parts.items():
        for key in CERTIFICATES:
            if file := getattr(part, key, None):
                yield _certificate(f"{what}, {key}", Path(file))


def _certificate(what: str, file: Path) -> Check:
    try:
        found = read_certificate(file)
    except ConfigError as error:
        return Check(State.FAIL, what, str(error), "put the certificate there, or correct its name")
    left = found.days_left(datetime.fromtimestamp(CLOCK.now_ns() / NS_PER_S, UTC))
    if left < 0:
        return Check(State.FAIL, what, f"{file.name} expired on {found.until:%Y-%m-%d}", "renew it")
    soon = left < DAYS_BEFORE_EXPIRY
    text = f"{file.name} is valid until {found.until:%Y-%m-%d}"
    return Check(State.WARN if soon else State.OK, what, text, f"renew it: {left:.0f} days are left" if soon else "")


def _broker(config: DaemonConfig) -> Check:
    what = "broker of the results"
    connection = Connection(_as_guest(config.publish))
    try:
        connection.open()
        connection.leave()
    except (BrokerError, ConfigError) as error:
        if may_run_own(config.publish) and not accepts(config.publish.host, config.publish.port):
            text = f"none answers at {config.publish.address}"
            return Check(State.WARN, what, text, "`fusion up` runs one of its own; `fusion run` needs one")
        return Check(State.FAIL, what, str(error), "start a broker, or correct publish.host and publish.port")
    finally:
        connection.close()
    return Check(State.OK, what, f"{config.publish.address}, MQTT {connection.version}")


def _model(config: DaemonConfig, plant: Plant) -> Check:
    try:
        place = first_model(config)
    except ConfigError as error:
        return Check(State.FAIL, "model", str(error), "let it be learned, or name one")
    if place is None:
        hours, needed_h = learnable_hours(kept(config), plant), first_hours(config.learn, plant)
        text = f"none yet: {hours:.2f} of {needed_h:.3g} h of normal operation recorded"
        said = "; ".join(filter(None, (text, too_early(config.learn, plant))))
        return Check(State.WARN, "model", said, "it comes by itself while `fusion up` or `fusion run` records")
    if not place.exists():
        advice = f"fusion train --recording DIR... --out {place}, or let it be learned: learn.models"
        return Check(State.WARN, "model", f"{place}: none yet", advice)
    try:
        checkpoint = load_model(config, place, plant)
    except PlantMismatch as error:
        if not learned(config, place):
            return Check(State.FAIL, "model", str(error), "train again, or undo the change of the plant")
        hours = learnable_hours(kept(config), plant)
        advice = f"another is learned from the {hours:.2f} h that are recorded, or undo the change of the plant"
        return Check(State.WARN, "model", str(error), advice)
    except ConfigError as error:
        return Check(State.FAIL, "model", str(error), "train again, or go back to another")
    return Check(State.OK, "model", f"{checkpoint.model_id} fits the plant{_chosen(config)}")


def _chosen(config: DaemonConfig) -> str:
    """How the model in use came to that, where models are learned."""
    if not config.learn.models:
        return ""
    store = ModelStore(Path(config.learn.models))
    history = store.history()
    if not history:
        return f"; no other of {len(store.names())} is in use"
    last = history[-1]
    why = f", {last.reason}" if last.reason else ""
    return f"; {last.model}, one of {len(store.names())}, in use since {iso_time(last.t_ns)} by {last.by}{why}"


def kept(config: DaemonConfig) -> list[Recording]:
    """What a daemon has recorded, oldest first."""
    return closed_recordings(Path(config.record.folder)) if config.record.folder else []


def _recordings(config: DaemonConfig, folder: Path) -> Iterator[Check]:
    """Hashes of what is there, the newest first, as far as reading them takes no longer than people wait."""
    own = [Path(config.record.folder)] if config.record.folder else []
    manifests = [file for part in ("recordings", "imports") for file in (folder / part).rglob(MANIFEST)]
    places = {file.parent for file in manifests if not any(file.is_relative_to(records) for records in own)}
    places |= {recording.path for recording in kept(config)}
    damaged = read = size = 0
    for place in sorted(places, key=lambda place: place.name, reverse=True):
        if size > MOST_READ:
            break
        read += 1
        try:
            size += Recording.verified(place).bytes
        except FusionError as error:
            damaged += 1
            yield Check(State.FAIL, "recordings", str(error), f"do not train on it; restore or delete {place}")
    if read and not damaged:
        older = f"; {len(places) - read} older were not read" if len(places) > read else ""
        yield Check(State.OK, "recordings", f"{read} are as they were written{older}")
    if torn := [part.name for records in own for part in (records / OPEN).glob("*.damaged")]:
        yield Check(
            State.WARN, "recordings, damaged", f"{_some(torn)} left out of {own[0]}", "look why, then delete them"
        )


def _budget(config: DaemonConfig) -> Iterator[Check]:
    """Whether what is recorded has room, and for how long."""
    record = config.record
    if not record.folder:
        return
    recordings = kept(config)
    used = sum(r.bytes for r in recordings) / GIB
    marked = sum(r.bytes for r in recordings if r.kind != "normal") / GIB
    hours = sum(r.span_ns[1] - r.span_ns[0] for r in recordings) / NS_PER_S / 3600
    here = next(place for place in (Path(record.folder), *Path(record.folder).parents) if place.exists())
    free = shutil.disk_usage(here).free / GIB - record.free_gib
    text = f"{used:.2f} of {record.budget_gib:g} GiB used"
    if hours:
        text += (
            f", {used / hours * 24:.2f} GiB a day: the last {record.budget_gib / (used / hours) / 24:.1f} days are kept"
        )
    if free < 0:
        advice = f"make room: record.free_gib keeps {record.free_gib:g} GiB free, and the oldest recordings go for that"
        yield Check(State.FAIL, "record", f"{text}; {-free:.1f} GiB too little is free", advice)
    elif marked > MOST_MARKED * record.budget_gib:
        advice = "move some of them away: what people have marked never goes by itself"
        yield Check(State.WARN, "record", f"{text}; {marked:.1f} GiB of it are marked", advice)
    elif free < record.budget_gib - used:
        advice = f"say record.budget_gib: {max(used + free, 0.1):.1f}, or make room"
        yield Check(State.WARN, "record", f"{text}; the disk has room for {free:.1f} GiB more only", advice)
    else:
        yield Check(State.OK, "record", text)


def _disk(folder: Path) -> Check:
    free = shutil.disk_usage(folder).free
    text = f"{free / 1e9:.1f} GB free at {folder}"
    if free < LEAST_FREE:
        return Check(State.FAIL, "disk", text, "make room: the daemon keeps its alarms and its outbox here")
    return Check(
        State.WARN if free < SCARCE_FREE else State.OK, "disk", text, "make room soon" if free < SCARCE_FREE else ""
    )
