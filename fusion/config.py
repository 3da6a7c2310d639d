"""Configuration: the one file that knows hydra; composes YAML and overrides into plain values.

Schema and defaults travel with the code (each component owns its dataclass, see ``fusion.plain.decode``), YAML travels
with the plant.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml
from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.errors import HydraException
from omegaconf import DictConfig, ListConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from fusion.credentials import is_secret, quoted
from fusion.errors import ConfigError
from fusion.plain import yaml_fault


def register(schema: str, groups: Mapping[str, Sequence[str]]) -> None:
    """Make ``GROUP/KIND@place`` of a defaults list mean ``place.kind: KIND``; ``schema`` may head such a list."""
    store = ConfigStore.instance()
    store.store(name=schema, node={})
    for group, kinds in groups.items():
        for kind in kinds:
            store.store(group=group, name=kind, node={"kind": kind})


def compose(file: Path, overrides: Sequence[str]) -> dict[str, Any]:
    """What a YAML file says with its defaults list, if it has one, and with overrides.

    An override with ``/`` or ``@`` chooses within the defaults list; any other is of a key, also where a folder of the
    same name lies beside the file. What exists is for the schema to say: a plain ``key=value`` may add.

    Raises:
        ConfigError: naming the file, and the key where it is one that hydra refuses.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such configuration; expected a YAML file such as configs/demo.yaml")
    if file.suffix != ".yaml":
        raise ConfigError(f"{file}: not accepted as a configuration; expected a name that ends in .yaml")
    given = parse(overrides)
    choices = [str(override.input_line) for override in given if _chooses(override)]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(file.resolve().parent), version_base="1.3"):
            composed = hydra_compose(file.stem, overrides=choices)
        for override in given:
            if not _chooses(override):
                _apply(composed, override)
        return _values(composed)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)  # tells which, where a defaults list names others
        raise ConfigError(f"{mark.name if mark else file}: not YAML ({yaml_fault(error)})") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file}: not YAML ({error})") from error
    except (HydraException, OmegaConfBaseException, OSError, ValueError) as error:
        raise ConfigError(f"{file}: {explain(error)}") from error


def settings(overrides: Sequence[str], short: Mapping[str, str] | None = None) -> dict[str, Any]:
    """What ``key=value`` overrides say, as typed on the command line; a dotted key is one within another.

    ``short`` has full keys by what may be typed instead.

    Raises:
        ConfigError: on what is not hydra's grammar, stands for several values, or refers to what is not there.
    """
    config = OmegaConf.create()
    for override in parse(overrides):
        if override.type is not OverrideType.CHANGE:
            raise ConfigError(f"{quoted(str(override.input_line))}: expected KEY=VALUE, without + or ~")
        if override.is_sweep_override():
            raise ConfigError(f"{quoted(str(override.input_line))}: several values need --multirun")
        try:
            OmegaConf.update(config, (short or {}).get(override.key_or_group, override.key_or_group), override.value())
            _values(config)
        except OmegaConfBaseException as error:
            raise ConfigError(f"{quoted(str(override.input_line))}: {explain(error)}") from error
    return _values(config)


def merged(defaults: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Defaults with what was given in their place, key by key at every depth."""
    return _values(OmegaConf.merge(defaults, given))


def sweep_overrides(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of overrides such as ``seed=0,1,2 batch=16,32`` or ``seed=range(3)``, as in hydra's multirun.

    Raises:
        ConfigError: on what is not hydra's grammar.
    """
    return [list(job) for job in itertools.product(*(_expanded(override) for override in parse(overrides)))]


def parse(overrides: Sequence[str]) -> list[Override]:
    """Overrides in hydra's grammar.

    Raises:
        ConfigError: naming one that is not.
    """
    parser = OverridesParser.create()
    found = []
    for override in overrides:
        try:
            found.append(parser.parse_override(override))
        except HydraException as error:
            why = explain(error) if quoted(override) == override else "cannot be read"
            raise ConfigError(f"{quoted(override)}: {why}; expected KEY=VALUE") from error
    return found


def explain(error: BaseException) -> str:
    """One sentence a user can act on, with the full key where there is one."""
    while error.__cause__ is not None:
        error = error.__cause__
    text = str(error).strip().splitlines()[0]
    key = getattr(error, "full_key", None)
    if key and is_secret(str(key)):
        return f"{key}: cannot be read; a secret with special signs in it belongs in a file of its own ({key}_file)"
    return f"{key}: {text}" if key else text


def _chooses(override: Override) -> bool:
    """Whether an override is of a group in the defaults list, and no key."""
    return override.package is not None or "/" in override.key_or_group


def _apply(config: DictConfig, override: Override) -> None:
    """Set a key, or leave it out (``~key``)."""
    key = override.key_or_group
    if override.is_sweep_override():
        raise ConfigError(f"{quoted(str(override.input_line))}: several values; expected one, or a list: {key}=[A,B]")
    if override.type is not OverrideType.DEL:
        OmegaConf.update(config, key, override.value(), force_add=True)
        return
    within, _, name = key.rpartition(".")
    parent = OmegaConf.select(config, within) if within else config
    if not isinstance(parent, DictConfig) or name not in parent or override.value() not in (None, parent[name]):
        raise ConfigError(f"{quoted(str(override.input_line))}: there is no such key or value")
    with open_dict(parent):
        del parent[name]


def _expanded(override: Override) -> list[str]:
    key = override.get_key_element()
    if not override.is_sweep_override():
        return [f"{key}={override.get_value_element_as_str()}"]
    try:
        return [f"{key}={value}" for value in override.sweep_string_iterator()]
    except HydraException as error:
        raise ConfigError(
            f"{quoted(str(override.input_line))}: {explain(error)}; expected KEY=A,B,C or KEY=range(N)"
        ) from error


def _values(config: DictConfig | ListConfig) -> dict[str, Any]:
    values: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    return {str(key): value for key, value in values.items()}
