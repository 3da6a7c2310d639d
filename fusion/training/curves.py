"""The course of a training: one curve by name, kept with the state of the networks and shown as TensorBoard events.

The events are written afresh from the kept course when a training goes on, so that they hold every step once, whatever
was written before the kill and not kept.
"""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

import torch
from tensorboardX import SummaryWriter  # type: ignore[import-untyped]
from torch import Tensor

PREFIX = "course/"


@dataclass(slots=True)
class Curve:
    """Values by increasing step."""

    steps: list[int] = field(default_factory=list)
    values: list[float] = field(default_factory=list)


@dataclass(slots=True)
class Curves:
    """Curves by name: ``loss/total`` and its terms, ``rate/learning``, ``gauge/score`` and the other gauges."""

    curves: dict[str, Curve] = field(default_factory=dict)

    def note(self, step: int, values: Mapping[str, float]) -> dict[str, float]:
        """Append what happened at a step; returns what was not known of it yet."""
        new = {n: v for n, v in values.items() if n not in self.curves or self.curves[n].steps[-1] < step}
        for name, value in new.items():
            curve = self.curves.setdefault(name, Curve())
            curve.steps.append(step)
            curve.values.append(value)
        return new

    def group(self, name: str) -> dict[str, Curve]:
        """Curves of a group such as ``loss`` by the rest of their name."""
        start = f"{name}/"
        return {n.removeprefix(start): curve for n, curve in self.curves.items() if n.startswith(start)}

    def arrays(self) -> dict[str, Tensor]:
        """Tensors to keep; the inverse of ``load``."""
        made = {}
        for name, curve in self.curves.items():
            made[f"{PREFIX}{name}/steps"] = torch.tensor(curve.steps, dtype=torch.int64)
            made[f"{PREFIX}{name}/values"] = torch.tensor(curve.values, dtype=torch.float64)
        return made

    def load(self, arrays: Mapping[str, Tensor]) -> None:
        """Take the place of another course."""
        names = [n.removeprefix(PREFIX).removesuffix("/steps") for n in arrays if n.endswith("/steps")]
        self.curves = {
            name: Curve(*(arrays[f"{PREFIX}{name}/{part}"].tolist() for part in ("steps", "values"))) for name in names
        }


class Log:
    """A course and its events in a folder that TensorBoard reads, side by side; without a folder the course alone.

    Use as a context manager.
    """

    def __init__(self, folder: Path | None, course: Curves) -> None:
        self.course = course
        if folder is not None:
            shutil.rmtree(folder, ignore_errors=True)
        self._writer = SummaryWriter(str(folder), write_to_disk=folder is not None)
        for name, curve in course.curves.items():
            for step, value in zip(curve.steps, curve.values, strict=True):
                self._writer.add_scalar(name, value, step)

    def note(self, step: int, values: Mapping[str, float]) -> None:
        """What happened at a step, into both."""
        for name, value in self.course.note(step, values).items():
            self._writer.add_scalar(name, value, step)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._writer.close()
