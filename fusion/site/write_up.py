"""What was found into the files of a site: new signals and connectors are added, what a person wrote stays."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

from connectors.mqtt.config import MqttConfig
from connectors.opcua.config import OpcUaConfig
from fusion.clock import CLOCK
from fusion.daemon.settings import DaemonConfig, load_daemon_config
from fusion.errors import ConfigError
from fusion.plain import LOADER, plain, read_yaml
from fusion.plant import Gain, Modality, Plant, plant_to_dict
from fusion.plant_file import load_plant, plant_from_dict
from fusion.records import NS_PER_S
from fusion.site.folder import DAEMON, PLANT, skeleton, write
from fusion.site.found import Found, FoundSignal
from fusion.site.naming import name_tags
from fusion.site.proposal import propose, step_of
from fusion.site.yaml_text import block, flow, insert, signal_lines, signal_values

PROPOSED = ".proposed.yaml"


@dataclass(slots=True)
class Site:
    """A site's files as they are: their text, and what it says."""

    folder: Path
    plant_text: str
    daemon_text: str
    plant: Plant
    daemon: DaemonConfig

    @classmethod
    def read(cls, folder: Path) -> Site:
        """Both files.

        Raises:
            ConfigError: one of them cannot be read.
        """
        plant, daemon = folder / PLANT, folder / DAEMON
        config = load_daemon_config(daemon)
        return cls(folder, plant.read_text("utf-8"), daemon.read_text("utf-8"), load_plant(plant), config)

    @property
    def fresh(self) -> bool:
        """Whether nobody has changed the plant file since it was begun."""
        return self.plant_text == skeleton(PLANT, self.folder)

    def connector_of(self, found: Found) -> str:
        """The connector that has the same address already; empty where there is none."""
        for name, settings in self.daemon.connectors.items():
            if _where(plain(settings)) == _where(found.settings):
                return str(name)
        return ""

    def addresses(self) -> set[tuple[str, str]]:
        """Connector and address of every tag that is taken already."""
        known = set()
        for name, settings in self.daemon.connectors.items():
            if isinstance(settings, OpcUaConfig):
                known |= {(name, f"nsu={a.uri};{a.kind}={a.identifier}") for a in settings.addresses().values()}
            elif isinstance(settings, MqttConfig):
                for topic in settings.topics:
                    path = "" if topic.format == "plain" else topic.value_path
                    known |= {(name, f"{place} {path}".strip()) for place, _ in topic.expanded()}
        return known


def _where(settings: Mapping[str, Any]) -> tuple[Any, ...]:
    """By what a connector's peer is known."""
    return tuple(settings.get(key) for key in ("url", "host", "port"))


@dataclass(slots=True)
class Written:
    """What was proposed, by address, and the files it went to."""

    signals: dict[str, list[FoundSignal]] = field(default_factory=dict)
    known: int = 0
    files: list[Path] = field(default_factory=list)
    aside: list[Path] = field(default_factory=list)


def write_up(site: Site, found: Sequence[Found], seconds: float) -> Written:
    """Propose signals for what is new at a site; write them into its files, or beside one that cannot take them."""
    written = Written()
    written.known = _drop_known(site, found)
    tags = [tag for one in found for tag in one.tags]
    name_tags(tags, site.plant.by_name)
    _name_media(found, {*site.plant.by_name, *(tag.name for tag in tags)})
    step_s = step_of(tags) if site.fresh else site.plant.step_s
    signals, gains = propose(tags, step_s, seconds)
    by_name = {s.signal.name: s for s in signals}
    for one in found:
        written.signals[one.url] = [*(by_name[tag.name] for tag in one.tags), *one.media]
    if any(written.signals.values()):
        _put(site.folder / PLANT, _plant_text(site, written.signals, gains, step_s), written)
        _put(site.folder / DAEMON, _daemon_text(site, found), written)
    return written


def _put(file: Path, text: tuple[str, bool], written: Written) -> None:
    content, in_place = text
    place = file if in_place else file.with_suffix(PROPOSED)
    write(place, content)
    (written.files if in_place else written.aside).append(place)


def _drop_known(site: Site, found: Sequence[Found]) -> int:
    """Leave out what a connector of the site takes already; returns how much that is."""
    known, count = site.addresses(), 0
    for one in found:
        connector = site.connector_of(one)
        new = [tag for tag in one.tags if (connector, tag.address) not in known]
        count += len(one.tags) - len(new)
        one.tags = new
        if one.media and connector:
            count += len(one.media)
            one.media = []
    return count


def _name_media(found: Sequence[Found], taken: set[str]) -> None:
    for one in found:
        for i, medium in enumerate(one.media):
            name, number = medium.signal.name, 1
            while name in taken:
                number += 1
                name = f"{medium.signal.name}_{number}"
            taken.add(name)
            one.media[i] = replace(medium, signal=replace(medium.signal, name=name))


# --- the plant


def _plant_text(
    site: Site, signals: Mapping[str, list[FoundSignal]], gains: Sequence[Gain], step_s: float
) -> tuple[str, bool]:
    """The plant file with new signals, and whether it is the old text with lines added."""
    day = datetime.fromtimestamp(CLOCK.now_ns() / NS_PER_S, UTC).date()
    lines = []
    for url, found in signals.items():
        lines += [f"# found on {day} at {url}"] if found else []
        lines += [line for one in found for line in signal_lines(one)]
    text = skeleton(PLANT, site.folder, step_s) if site.fresh else site.plant_text
    merged = insert(text, ["signals"], lines)
    if site.fresh and merged is not None:
        merged += "".join(f"{line}\n" for line in _gain_lines(gains))
    wanted = [*(s.name for s in site.plant.signals), *(one.signal.name for found in signals.values() for one in found)]
    if merged is not None and _says(merged, site.plant, wanted):
        return merged, True
    values = plant_to_dict(site.plant)
    values.pop("signals")
    head = [f"# {PLANT} with what was found beside it", *block({k: v for k, v in values.items() if v}), "signals:"]
    old = [f"- {flow(signal_values(signal))}" for signal in site.plant.signals]
    return "\n".join([*head, *old, *lines]) + "\n", False


def _gain_lines(gains: Sequence[Gain]) -> list[str]:
    if not gains:
        return []
    head = ["", "# A loop follows its setpoint; take out the line of one that does not.", "gains:"]
    return [
        *head,
        *(f"  - {flow({'manipulated': g.manipulated, 'controlled': g.controlled, 'sign': g.sign})}" for g in gains),
    ]


def _says(text: str, before: Plant, names: list[str]) -> bool:
    """Whether a text is a plant of these signals, with those that were there as they were."""
    try:
        plant = plant_from_dict(yaml.load(text, LOADER))  # noqa: S506 - it is a safe one
    except (ConfigError, yaml.YAMLError):
        return False
    return [s.name for s in plant.signals] == names and all(plant.by_name[s.name] == s for s in before.signals)


# --- the daemon


def _daemon_text(site: Site, found: Sequence[Found]) -> tuple[str, bool]:
    """The daemon's configuration with new connectors and tags, and whether it is the old text with lines added."""
    text: str | None = site.daemon_text
    values = read_yaml(site.folder / DAEMON, "a daemon YAML")
    connectors = values["connectors"] = values.get("connectors") or {}
    for one in found:
        existing = site.connector_of(one)
        if existing and one.tags:
            key, new = _entries(one)
            own = connectors.setdefault(existing, {})
            own[key] = {**(own.get(key) or {}), **new} if isinstance(new, dict) else [*(own.get(key) or []), *new]
            text = text and _with_entries(text, existing, key, new)
        elif not existing:
            for name, settings in _connectors(one, connectors, site.folder):
                connectors[name] = settings
                text = text and insert(
                    text, ["connectors"], [f"{name}:", *(f"  {line}" for line in _settings_lines(settings))]
                )
    if text is not None and _loads(text, connectors):
        return text, True
    return "\n".join([f"# {DAEMON} with what was found beside it", *block(values)]) + "\n", False


def _with_entries(text: str, connector: str, key: str, new: Any) -> str | None:
    """The text with entries in a connector's list or mapping, which is begun where there is none."""
    found = insert(text, ["connectors", connector, key], _lines(new))
    return found or insert(text, ["connectors", connector], [f"{key}:", *(f"  {line}" for line in _lines(new))])


def _entries(found: Found) -> tuple[str, Any]:
    """What a connector's settings say of new tags, and under which key."""
    if found.settings["kind"] == "opcua":
        return "nodes", {tag.name: tag.address for tag in found.tags}
    return "topics", [{**tag.place, "signal": tag.name} for tag in found.tags]


def _from_folder(value: Any, folder: Path) -> Any:
    """The name of a file within a site as the site's files write it; anything else as it is."""
    start = f"{folder.resolve()}/"
    return value.removeprefix(start) if isinstance(value, str) else value


def _connectors(found: Found, taken: Iterable[str], folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """New connectors: one for the tags of an address, or one for each of its media."""
    made: list[tuple[str, dict[str, Any]]] = []
    settings = {key: _from_folder(value, folder) for key, value in found.settings.items()}
    if found.tags:
        key, new = _entries(found)
        made.append((found.connector, {**settings, key: new}))
    for medium in found.media:
        kind = found.settings["kind"] if medium.signal.modality is Modality.LIDAR else medium.signal.modality.value
        made.append((medium.signal.name, {**settings, "kind": kind, "signal": medium.signal.name}))
    used = set(taken)
    for i, (name, settings) in enumerate(made):
        number, own = 1, name
        while own in used:
            number += 1
            own = f"{name}_{number}"
        used.add(own)
        made[i] = (own, settings)
    return made


def _settings_lines(settings: Mapping[str, Any]) -> list[str]:
    plain_ones = {k: v for k, v in settings.items() if k not in ("nodes", "topics")}
    lines = block(plain_ones)
    for key in ("nodes", "topics"):
        if key in settings:
            lines += [f"{key}:", *(f"  {line}" for line in _lines(settings[key]))]
    return lines


def _lines(entries: Any) -> list[str]:
    """One line for each entry."""
    return block(entries) if isinstance(entries, dict) else [f"- {flow(entry)}" for entry in entries]


def _loads(text: str, connectors: Mapping[str, Any]) -> bool:
    """Whether a text is a configuration of the daemon with these connectors."""
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / DAEMON
        file.write_text(text, encoding="utf-8")
        try:
            config = load_daemon_config(file)
        except ConfigError:
            return False
    said = (yaml.load(text, LOADER) or {}).get("connectors")  # noqa: S506
    return set(config.connectors) == set(connectors) and said == connectors
