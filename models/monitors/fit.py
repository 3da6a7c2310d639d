"""How the monitors are fitted on normal training runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from fusion.errors import ConfigError
from fusion.plant import Plant
from models.features.stem import FeatureRange, StemFacts
from models.linear.core import LinearCore
from models.linear.past import feature_names
from models.monitors.balance import BalanceMonitor
from models.monitors.crossmodal import PROCESS, CrossModal, blocks
from models.monitors.innovation import Innovations
from models.monitors.joint_variates import Joint
from models.monitors.monitors import WARM_UP_TICKS, Monitors, assembled, signals_of
from models.monitors.relations import Relations
from models.monitors.relief import Local
from models.monitors.steadiness import Steadiness
from models.monitors.two_ticks import Lagged
from models.scaling import Bools
from models.ticks import Ticks

RELATED_AVERAGES = (".ewma0.05", ".ewma0.01", ".ewma0.03")
NEVER_USUAL = ("health", "balance")
FEWEST_PRESENT = 300  # ticks before a medium is worth a monitor


def fit_monitors(
    runs: Sequence[Ticks], core: LinearCore, plant: Plant, stem: StemFacts, tag_runs: Sequence[Ticks] = ()
) -> Monitors:
    """From normal training runs with all the media there are; ``tag_runs`` add to the balances only.

    Raises:
        ConfigError: where no run is longer than the warm-up.
    """
    runs = [run for run in runs if len(run) > 2 * WARM_UP_TICKS]
    if not runs:
        raise ConfigError(f"monitors: no normal run has more than {2 * WARM_UP_TICKS} ticks")
    media = tuple(m for m in core.scaling.media if sum(int(_there(r, m).sum()) for r in runs) >= FEWEST_PRESENT)
    encodings = [core.encode(run)[0] for run in runs]
    there = [{m: _there(run, m) for m in media} for run in runs]
    made = [blocks(r, e.tags, e.action, core.scaling, {}, t) for r, e, t in zip(runs, encodings, there, strict=True)]
    observed = [run.observed for run in runs]
    known = [*zip(encodings, observed, strict=True), *((core.encode(run)[0], run.observed) for run in tag_runs)]
    cross = CrossModal.fit(made, media, _groups(core, plant, media), WARM_UP_TICKS)
    parts = {
        "plant": plant,
        "core": core,
        "cross": cross,
        "joint": Joint.fit(cross, list(zip(encodings, made, strict=True)), plant.step_s, WARM_UP_TICKS),
        "innovations": Innovations.fit(core, known, _past_groups(plant, core), _related(plant), WARM_UP_TICKS),
        "relations": Relations.fit(known, plant, core.past_scaler.scale, WARM_UP_TICKS),
        "lagged": Lagged.fit([encoding for encoding, _ in known], WARM_UP_TICKS),
        "balances": tuple(BalanceMonitor.fit(balance, [*runs, *tag_runs], plant) for balance in plant.balances),
        "steadiness": Steadiness.fit([*runs, *tag_runs]),
        "ranges": {
            m: FeatureRange.fit(np.concatenate([r.media[m][_there(r, m)] for r in runs if m in r.media])) for m in media
        },
        "stem": stem,
    }
    rough = assembled(**parts, local=Local.none(0))
    return replace(rough, local=_usual(replace(rough, local=Local.none(len(rough.infos))), [*runs, *tag_runs]))


def _usual(monitors: Monitors, runs: Sequence[Ticks]) -> Local:
    """What each energy of the process rises to on normal runs; dead sensors and broken balances are never usual."""
    relieved = [i.source == PROCESS and not i.name.startswith(NEVER_USUAL) for i in monitors.infos]
    values = [monitors.step(run, monitors.core.encode(run)[0])[0].values for run in runs]
    return Local.fit(np.concatenate(values), np.array(relieved, bool))


def _there(run: Ticks, medium: str) -> Bools:
    return run.present.get(medium, np.zeros(len(run), bool))


def _groups(core: LinearCore, plant: Plant, media: Sequence[str]) -> dict[str, NDArray[np.int64]]:
    """The blamed signal of each column a ridge predicts."""
    signals = signals_of(plant)
    groups = {m: np.full(len(core.scaling.media[m].centre), signals.index(m), np.int64) for m in media}
    return groups | {PROCESS: np.arange(len(plant.tags))}


def _related(plant: Plant) -> NDArray[np.int64]:
    """Past features that say how a signal is now and how it has moved over the last minutes."""
    names = feature_names(tuple(s.name for s in plant.tags), tuple(s.name for s in plant.actions))
    kept = [i for i, name in enumerate(names) if ".ewma" not in name or name.endswith(RELATED_AVERAGES)]
    return np.array(kept, np.int64)


def _past_groups(plant: Plant, core: LinearCore) -> NDArray[np.int64]:
    """The blamed signal of each past feature; none of what many tags share."""
    signals = signals_of(plant)
    tags, actions = (tuple(s.name for s in part) for part in (plant.tags, plant.actions))
    number = {f"{n}": i for i, n in enumerate(signals)}
    made = np.array([number.get(n.rsplit(".ewma", 1)[0], -1) for n in feature_names(tags, actions)], np.int64)
    rhythm = len(core.past_scaler.centre) - len(made)
    return np.concatenate([made, np.resize(np.arange(len(tags)), rhythm)])
