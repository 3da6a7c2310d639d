"""Configuration: the one file that knows hydra; composes YAML and overrides into the dataclass that a wing hands in.

Schema and defaults travel with the code (each component owns its dataclass), YAML travels with the plant.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from hydra import compose as hydra_compose
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from fusion.errors import ConfigError

Schema = TypeVar("Schema")


def register(name: str, schema: type, groups: Mapping[str, Mapping[str, type]]) -> None:
    """Make a dataclass known to hydra as ``NAME_schema``, and those of its groups as ``GROUP/KIND``."""
    store = ConfigStore.instance()
    store.store(name=f"{name}_schema", node=schema)
    for group, kinds in groups.items():
        for kind, config in kinds.items():
            store.store(group=group, name=kind, node=config)


def compose(
    file: Path, overrides: Sequence[str], schema: type[Schema], name: str, groups: Mapping[str, Mapping[str, type]]
) -> Schema:
    """A YAML file with its defaults list and overrides as a ``schema``.

    Raises:
        ConfigError: naming the file, the key and what would be accepted.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such configuration; expected a YAML file such as configs/demo.yaml")
    register(name, schema, groups)
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(file.resolve().parent), version_base="1.3"):
            composed = hydra_compose(file.stem, overrides=list(overrides))
        config = OmegaConf.to_object(composed)
    except (HydraException, OmegaConfBaseException) as error:
        raise ConfigError(f"{file}: {explain(error)}") from error
    except ConfigError as error:
        raise ConfigError(f"{file}: {error}") from error
    if not isinstance(config, schema):
        raise ConfigError(f"{file}: its defaults list must begin with {name}_schema")
    return config


def merged(schema: type[Schema], overrides: Sequence[str]) -> Schema:
    """The defaults of a ``schema`` with ``key=value`` overrides, as typed on the command line.

    Raises:
        ConfigError: naming the key and what would be accepted.
    """
    try:
        config: Any = OmegaConf.to_object(
            OmegaConf.merge(OmegaConf.structured(schema), OmegaConf.from_dotlist(list(overrides)))
        )
    except OmegaConfBaseException as error:
        raise ConfigError(explain(error)) from error
    assert isinstance(config, schema)  # noqa: S101 - to_object returns the schema's type
    return config


def sweep_overrides(overrides: Sequence[str]) -> list[list[str]]:
    """Every combination of overrides such as ``seed=0,1,2 batch=16,32`` or ``seed=range(3)``, as in hydra's multirun.

    Raises:
        ConfigError: on what is not hydra's grammar.
    """
    try:
        parsed = OverridesParser.create().parse_overrides(list(overrides))
        batches = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    except HydraException as error:
        raise ConfigError(f"--multirun: {str(error).splitlines()[0]}") from error
    return [list(job) for batch in batches for job in batch]


def explain(error: Exception) -> str:
    """One sentence a user can act on: the full key and the accepted ones."""
    root: BaseException = error
    while not getattr(root, "full_key", None) and (inner := _inner(root)) is not None:
        root = inner
    text = str(root).strip().splitlines()[0]
    key = getattr(root, "full_key", None)
    schema = getattr(root, "object_type", None)
    if dataclasses.is_dataclass(schema) and re.search(r"not in", text):
        accepted = ", ".join(f.name for f in dataclasses.fields(schema))
        return f"{key}: unknown key; accepted: {accepted}"
    return f"{key}: {text}" if key else text


def _inner(error: BaseException) -> BaseException | None:
    """What an error came from; of a YAML file hydra does not say so, but was handling it."""
    handled = error.__context__ if isinstance(error.__context__, OmegaConfBaseException) else None
    return error.__cause__ or handled
