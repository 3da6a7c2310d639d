"""In what two plants differ: what a model of one cannot be used for, and what recordings of one do not hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from fusion.plant import Modality, Plant, learned

DIFFERENCES_SHOWN = 3


def differences(plant: Plant, other: Plant) -> list[str]:
    """In which essentials ``other`` differs from ``plant``, one line each: ``signal TT101: unit K, not Cel``."""
    one, two = plant.essentials, other.essentials
    found = [f"{key} is missing" for key in one if key not in two]
    found += [f"{key} is new" for key in two if key not in one]
    for key in one:
        if key in two and one[key] != two[key]:
            found += _differing(key, one[key], two[key])
    return found


def difference(plant: Plant, other: Plant) -> str:
    """The first differences as one clause, for messages."""
    return clause(differences(plant, other))


def clause(found: Sequence[str]) -> str:
    """The first of some lines as one clause, for messages."""
    more = f" and {len(found) - DIFFERENCES_SHOWN} more" if len(found) > DIFFERENCES_SHOWN else ""
    return "; ".join(found[:DIFFERENCES_SHOWN]) + more


def unrecorded(plant: Plant, recorded: Plant) -> list[str]:
    """What of a plant recordings of another do not hold, one line each; empty where they hold all of it.

    Columns that the plant has no more do not matter, nor roles and what is declared of it. A medium that is missing is
    taken for one that was silent.
    """
    one, two = _streams(plant), _streams(recorded)
    tags = {f"signal {signal.name}" for signal in plant.of(Modality.PROCESS)}
    found = [f"{key} is missing" for key in one if key in tags and key not in two]
    for key in one:
        if key in two and one[key] != two[key]:
            found += _differing(key, one[key], two[key])
    return found


def _streams(plant: Plant) -> dict[str, Any]:
    """What makes recorded values those of a plant: its name and step, and of each signal what is read of it."""
    read = {f"signal {s.name}": {k: v for k, v in learned(s).items() if k != "role"} for s in plant.signals}
    return {"name": plant.name, "step_s": plant.step_s, **read}


def _differing(key: str, one: Any, two: Any) -> list[str]:
    if not isinstance(one, Mapping):
        return [f"{key}: {two}, not {one}"]
    return [f"{key}: {part} {two.get(part, 'none')}, not {one[part]}" for part in one if one[part] != two.get(part)]
