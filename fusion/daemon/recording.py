"""`fusion record --config`: what the sources of a configuration deliver, recorded; nothing is judged or published."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from connectors.base import Source
from connectors.kinds import made_sources
from fusion.daemon.settings import load_daemon_config
from fusion.ending import stop_on_signals
from fusion.errors import ConfigError, RecordingError
from fusion.garbage import set_apart
from fusion.plant_file import load_plant
from fusion.recordings.recorder import Recorder
from fusion.records import Item, Sample

log = logging.getLogger(__name__)

INTAKE_PERIOD_S = 0.1
TOLD_EVERY_S = 10.0


def record_sources(file: Path, out: Path | None = None, for_s: float | None = None) -> str:
    """Record until Ctrl-C, or for a time [s]; returns in a sentence what there is, and what to do next.

    ``out`` is the folder, else the configuration says it: ``record.folder``.

    Raises:
        ConfigError: naming the key of the configuration that is not accepted.
        RecordingError: not all that came was kept.
    """
    config = load_daemon_config(file)
    plant = load_plant(Path(config.plant))
    folder = str(out or config.record.folder)
    if not folder:
        raise ConfigError("--out: name a folder, or say record.folder in the configuration")
    recorder = Recorder(replace(config.record, folder=folder), plant)
    sources = made_sources(config.connectors, plant)
    set_apart()
    counted = asyncio.run(record(sources, recorder, for_s))
    missing = [s.name for s in plant.signals if s.name not in counted]
    said = f"{folder}: {len(recorder.segments())} recordings, {sum(counted.values())} values of {len(counted)} signals"
    said += f"; nothing came of {', '.join(missing)}" if missing else ""
    said += f"; {recorder.dropped} dropped ({recorder.trouble or 'the disk was too slow'})" if recorder.dropped else ""
    if recorder.trouble:
        raise RecordingError(f"{said}; {recorder.trouble}")
    return f"{said}\nnext: fusion train --recording {folder}/2* --out MODEL"


async def record(sources: Sequence[Source], recorder: Recorder, for_s: float | None = None) -> dict[str, int]:
    """Record until a signal asks to stop, or for a time [s]; returns how many values came of each signal."""
    stop, counted = asyncio.Event(), dict[str, int]()
    loop = asyncio.get_running_loop()
    end_s = None if for_s is None else loop.time() + for_s
    told_s = loop.time() + TOLD_EVERY_S
    recorder.start()
    told = recorder.told()
    with stop_on_signals(stop):
        try:
            for source in sources:
                source.resume(*told)
                await source.start()
            while not stop.is_set() and (end_s is None or loop.time() < end_s):
                _take(sources, recorder, counted)
                if loop.time() >= told_s:
                    told_s += TOLD_EVERY_S
                    _tell(sources, counted, recorder)
                await asyncio.sleep(INTAKE_PERIOD_S)
        finally:
            await asyncio.gather(*(source.stop() for source in sources), return_exceptions=True)
            _take(sources, recorder, counted)
            await asyncio.to_thread(recorder.close)
    return counted


def _take(sources: Sequence[Source], recorder: Recorder, counted: dict[str, int]) -> None:
    for source in sources:
        for item in source.drain():
            recorder.add(item)
            _count(item, counted)


def _count(item: Item, counted: dict[str, int]) -> None:
    if isinstance(item, Sample):
        counted[item.signal] = counted.get(item.signal, 0) + 1
        return
    for place, times in zip(*np.unique(item.index, return_counts=True), strict=True):
        counted[item.signals[place]] = counted.get(item.signals[place], 0) + int(times)


def _tell(sources: Sequence[Source], counted: dict[str, int], recorder: Recorder) -> None:
    """One line: how much has come, which sources are silent, and what is in the way."""
    silent = [health.name for source in sources if not (health := source.health()).alive]
    said = [f"{sum(counted.values())} values of {len(counted)} signals"]
    said += [f"silent: {', '.join(silent)}"] if silent else []
    said += [recorder.trouble] if recorder.trouble else []
    log.info("recording: %s", "; ".join(said))
