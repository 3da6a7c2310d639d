import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
import pytest
from numpy.typing import NDArray

from fusion.errors import CheckpointError
from fusion.state import dump_state, load_state


class Colour(StrEnum):
    RED = "red"


@dataclass(frozen=True)
class Inner:
    values: NDArray[np.float64]
    number: int


@dataclass(frozen=True)
class Other:
    colour: Colour


@dataclass(frozen=True)
class Outer:
    owner: object
    share: float
    maybe: NDArray[np.int64] | None
    part: Inner | None
    parts: tuple[Inner | Other, ...]
    pair: tuple[str, bool]
    by_name: Mapping[tuple[str, float], Inner]


def made(maybe=None):
    inner = Inner(np.arange(3.0), np.int64(4))
    parts = (Other(Colour.RED), inner)
    return Outer(object(), 1, maybe, None, parts, ("a", True), {("camera", 0.1): inner, ("x/y", 2.0): inner})


def through_json(value, **changes):
    arrays, tree = dump_state(value, ("owner",))
    return arrays, json.loads(json.dumps(tree | changes, allow_nan=False))


def read(arrays, tree):
    return load_state(Outer, arrays, tree, {"owner": 7})


def test_what_is_nested_comes_back_as_it_was():
    arrays, tree = through_json(made(np.array([1, 2])))
    again = read(arrays, tree)
    assert set(arrays) == {"maybe", "parts/1/values", "by_name/camera.0.1/values", "by_name/x/y.2.0/values"}
    assert again.owner == 7
    assert again.parts[0] == Other(Colour.RED)
    assert again.parts[1].number == 4
    assert again.pair == ("a", True)
    assert again.maybe.tolist() == [1, 2]
    assert list(again.by_name) == [("camera", 0.1), ("x/y", 2.0)]
    assert read(*through_json(made())).maybe is None


@pytest.mark.parametrize(
    "changes",
    [
        {"more": 1},
        {"share": None},
        {"share": "1"},
        {"share": True},
        {"pair": ["a"]},
        {"pair": "a"},
        {"part": {"is": "Inner"}},
        {"parts": [{"is": "Stranger"}]},
        {"parts": [{"is": "Other", "colour": "green"}]},
        {"is": "Inner"},
        {"maybe": "int64"},
        {"parts": []},
    ],
)
def test_a_state_of_another_version_is_refused_and_never_misread(changes):
    arrays, tree = through_json(made(), **changes)
    with pytest.raises(CheckpointError, match="this checkpoint was written by another version; train again"):
        read(arrays, tree)


def test_arrays_too_many_too_few_and_of_another_kind_are_refused_by_name():
    arrays, tree = through_json(made())
    name = "parts/1/values"
    for wrong in (arrays | {"late": np.zeros(1)}, arrays | {name: np.zeros(3, np.int64)}):
        with pytest.raises(CheckpointError, match="train again"):
            read(wrong, tree)
    with pytest.raises(CheckpointError, match=name):
        read({key: value for key, value in arrays.items() if key != name}, tree)
