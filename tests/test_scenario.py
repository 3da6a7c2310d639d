import json
from dataclasses import replace
from pathlib import Path

import pytest

from fusion.errors import ConfigError
from fusion.simulator.scenario import (
    FaultEvent,
    Scenario,
    json_schema,
    load_scenario,
    scenario_from_dict,
    scenario_text,
)

DOCS = Path(__file__).parent.parent / "docs"


def test_the_published_schema_is_current():
    assert json.loads((DOCS / "scenario.schema.json").read_text()) == json_schema()


def test_a_scenario_survives_yaml(tmp_path):
    scenario = Scenario(name="x", seed=3, faults=(FaultEvent(name="leak", onset_s=5.0, severity=0.4),))
    (tmp_path / "x.yaml").write_text(scenario_text(scenario))
    assert load_scenario(tmp_path / "x.yaml") == scenario
    (tmp_path / "x.yaml").write_text("start: 2026-02-03T04:05:06Z\n")
    assert load_scenario(tmp_path / "x.yaml").start == "2026-02-03T04:05:06Z"


def test_a_file_takes_its_name_where_it_gives_none(tmp_path):
    (tmp_path / "calm.yaml").write_text("duration_s: 60\n")
    assert load_scenario(tmp_path / "calm.yaml").name == "calm"


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"durations": 3}, "scenario.durations: unknown key; accepted: name, seed, start, plant_seed, plant_spread"),
        ({"seed": "many"}, "scenario.seed: 'many' is not accepted; expected a whole number"),
        ({"faults": [{"name": "gremlins"}]}, "'gremlins' is not known; accepted: rat_hole"),
        ({"faults": [{"name": "leak", "severty": 1}]}, r"faults\[0\].severty: unknown key; accepted: name, onset_s"),
        ({"faults": [{"name": "leak", "severity": 2.0}]}, "severity must lie in 0..1"),
        ({"faults": [{}]}, r"faults\[0\].*name"),
        ({"nuisances": [{"name": "elephant"}]}, "accepted: fill"),
        ({"duration_s": 0}, "duration_s must be positive"),
        ({"faults": [{"name": "leak", "onset_s": "soon"}]}, r"scenario.faults\[0\].onset_s: 'soon' is not accepted"),
        (
            {"excitation": {"ranges": {"SP": [1, "x"]}}},
            r"scenario.excitation.ranges.* is not accepted; expected a number",
        ),
        ({"sensors": 3}, "expected a mapping with camera_hz"),
        ({"media": "yes"}, "scenario.media: 'yes' is not accepted; expected true or false"),
    ],
)
def test_bad_input_names_the_key(data, message):
    with pytest.raises(ConfigError, match=message):
        scenario_from_dict(data)


def test_a_broken_file_is_named(tmp_path):
    (tmp_path / "bad.yaml").write_text("faults: [")
    with pytest.raises(ConfigError, match="bad.yaml: not YAML"):
        load_scenario(tmp_path / "bad.yaml")


def test_a_start_that_is_no_time_is_named():
    with pytest.raises(ConfigError, match=r"scenario.start: 'soon' is not an ISO time"):
        _ = replace(Scenario(), start="soon").start_ns
