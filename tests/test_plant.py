import re

import pytest

from fusion.errors import ConfigError
from fusion.plant import Modality, Plant, Role, Signal, plant_to_dict
from fusion.plant_difference import difference, differences
from fusion.plant_file import load_plant, plant_from_dict

DATA = {
    "name": "two",
    "signals": [
        {"name": "T", "unit": "Cel", "role": "controlled", "low": 0, "high": 100},
        {"name": "SP", "unit": "Cel", "role": "manipulated", "low": 10, "high": 90, "max_rate": 0.1},
        {"name": "mic", "modality": "audio", "shape": [1600], "period_s": 0.1},
    ],
    "gains": [{"manipulated": "SP", "controlled": "T", "sign": 1}],
    "balances": [{"name": "heat", "flows": {"T": 1.0}, "window_s": [60, 600]}],
    "edges": [["SP", "T"]],
}


def test_the_plant_survives_the_round_trip_with_its_fingerprint():
    plant = plant_from_dict(DATA)
    again = plant_from_dict(plant_to_dict(plant))
    assert again == plant
    assert again.fingerprint == plant.fingerprint


def test_views_keep_plant_order():
    plant = plant_from_dict(DATA)
    assert [s.name for s in plant.tags] == ["T"]
    assert [s.name for s in plant.actions] == ["SP"]
    assert [s.name for s in plant.media] == ["mic"]
    assert plant.by_name["mic"].rate_hz == pytest.approx(16_000)
    assert plant.roles(Role.CONTROLLED)[0].modality is Modality.PROCESS


def test_signals_are_a_set_by_name():
    turned = {**DATA, "signals": DATA["signals"][::-1]}
    assert plant_from_dict(turned).fingerprint == plant_from_dict(DATA).fingerprint


def changed(part, **values):
    """The plant with other values in the first entry of a part, or of itself."""
    data = {**DATA, part: [{**DATA[part][0], **values}, *DATA[part][1:]]} if part else {**DATA, **values}
    return plant_from_dict(data)


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        ("", {"name": "other"}, "name: other, not two"),
        ("", {"step_s": 2.0}, "step_s: 2.0, not 1.0"),
        ("", {"edges": []}, "edge SP-T is missing"),
        ("signals", {"unit": "K"}, "signal T: unit K, not Cel"),
        ("signals", {"role": "measured"}, "signal T: role measured, not controlled"),
        ("gains", {"sign": -1}, "gain SP->T: sign -1, not 1"),
        ("balances", {"flows": {"T": 2.0}}, "balance heat: flows {'T': 2.0}, not {'T': 1.0}"),
    ],
)
def test_what_a_model_depends_on_changes_the_fingerprint_and_is_named(part, values, said):
    plant, other = plant_from_dict(DATA), changed(part, **values)
    assert other.fingerprint != plant.fingerprint
    assert differences(plant, other) == [said]


@pytest.mark.parametrize(
    ("part", "values"),
    [
        ("", {"edges": [["T", "SP"]]}),
        ("", {"targets": [{"signal": "T", "price": 3.0}]}),
        ("signals", {"description": "Kiln, top"}),
        ("signals", {"low": -10, "high": 250}),
        ("signals", {"device": "skid", "machine": True, "stale_after_s": 60, "period_s": 5}),
    ],
)
def test_what_is_the_sites_to_change_does_not(part, values):
    assert changed(part, **values).fingerprint == plant_from_dict(DATA).fingerprint


def test_a_mediums_sampling_and_a_new_signal_change_the_fingerprint():
    *others, medium = DATA["signals"]
    plant = plant_from_dict(DATA)
    slower = plant_from_dict({**DATA, "signals": [*others, {**medium, "period_s": 0.2}]})
    more = plant_from_dict({**DATA, "signals": [*DATA["signals"], {"name": "P"}]})
    assert differences(plant, slower) == ["signal mic: period_s 0.2, not 0.1"]
    assert differences(plant, more) == ["signal P is new"]
    assert len({plant.fingerprint, slower.fingerprint, more.fingerprint}) == 3


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"signal": []}, "^plant: signal: unknown key; accepted: name, step_s, signals"),
        ({"signals": [{"name": "T", "untis": "K"}]}, r"^plant: signals\[0\].untis: unknown key; accepted: name"),
        ({"signals": [{"name": "T", "role": "king"}]}, r"role: 'king' is not accepted; expected one of measured"),
        ({"signals": [{"name": "T", "low": "warm"}]}, r"signals\[0\].low: 'warm' is not accepted"),
        ({"signals": [{"name": "T", "low": 3, "high": 2}]}, "low 3.0 must be below high 2.0"),
        ({"signals": [{"name": "T", "low": float("nan")}]}, "low"),
        ({"signals": [{}]}, r"signals\[0\].*name"),
        ({"edges": [["SP", "ghost"]]}, "edges names unknown signal 'ghost'"),
        (
            {"signals": [DATA["signals"][0], {**DATA["signals"][1], "auto_tag": "mic"}, DATA["signals"][2]]},
            "auto_tag names 'mic'; expected a process tag",
        ),
        ({"gains": [{"manipulated": "SP", "controlled": "T", "sign": 2}]}, "sign must be"),
        ({"name": ["two"]}, "^plant: name: .* expected a text"),
    ],
)
def test_bad_input_names_the_key(change, message):
    with pytest.raises(ConfigError, match=message):
        plant_from_dict({**DATA, **change})


def test_a_part_without_entries_is_empty(tmp_path):
    (tmp_path / "p.yaml").write_text("name: p\ngains:\nsignals:\n- {name: T, high: 1e-3}\n")
    plant = load_plant(tmp_path / "p.yaml")
    assert (plant.gains, plant.signals[0].high) == ((), 0.001)


def test_a_file_that_is_no_plant_is_named(tmp_path):
    for text, message in (
        ("- a", "['a'] is not accepted; expected a mapping with name"),
        ("{", "not YAML"),
        ("signals: []", "name: missing"),
    ):
        (tmp_path / "p.yaml").write_text(text)
        with pytest.raises(ConfigError, match=rf"p\.yaml: {re.escape(message)}"):
            load_plant(tmp_path / "p.yaml")


def test_names_are_unique():
    with pytest.raises(ConfigError, match="unique"):
        Plant(name="p", signals=(Signal(name="a"), Signal(name="a")))


def test_a_clause_names_the_first_differences_and_counts_the_rest():
    signals = [{**signal, "unit": "K"} for signal in DATA["signals"]]
    other = plant_from_dict({**DATA, "step_s": 5.0, "edges": [], "signals": signals})
    said = difference(plant_from_dict(DATA), other)
    assert said == "edge SP-T is missing; step_s: 5.0, not 1.0; signal T: unit K, not Cel and 2 more"


@pytest.mark.parametrize(
    ("part", "values", "said"),
    [
        ("signals", {"max_rate": 1.0}, "signal 'T': max_rate is for manipulated signals"),
        ("gains", {"low": 2.0, "high": 1.0}, "gain SP->T: low 2.0 and high 1.0"),
        ("gains", {"low": -2.0, "high": -1.0}, "gain SP->T: low -2.0"),
        ("gains", {"sign": 0, "low": 1.0}, "gain SP->T: sign 0"),
        ("gains", {"manipulated": "T"}, "gains: T->T: 'T' is controlled; expected manipulated"),
        ("gains", {"controlled": "SP"}, "gains: SP->SP: 'SP' is manipulated; expected a process tag"),
        ("gains", {"controlled": "mic"}, "gains: SP->mic: 'mic' is audio; expected a process tag"),
        ("", {"gains": DATA["gains"] * 2}, "gains: SP->T is declared twice"),
        ("", {"targets": [{"signal": "T", "low": 80}, {"signal": "T", "high": 70}]}, "low 80 and high 70"),
        ("", {"targets": [{"signal": "T", "low": 120, "high": 150}]}, "exclude its range, 0 to 100"),
        ("", {"targets": [{"signal": "SP", "high": 5}]}, "exclude its range, 10 to 90"),
        ("", {"targets": [{"signal": "T", "setpoint": 200, "weight": 1}]}, "setpoint 200 is outside its range"),
        ("", {"targets": [{"signal": "T", "setpoint": 80}, {"signal": "T", "setpoint": 85}]}, "setpoints 80, 85"),
        ("", {"targets": [{"signal": "T", "weight": 1}]}, "weight 1 without a setpoint"),
        ("", {"targets": [{"signal": "mic", "price": 1}]}, "targets: 'mic': 'mic' is audio"),
    ],
)
def test_what_nothing_can_meet_is_refused_with_its_key(part, values, said):
    with pytest.raises(ConfigError, match=re.escape(said)):
        changed(part, **values)


def test_prices_and_limits_of_one_signal_may_stand_apart_and_aims_beyond_a_limit():
    targets = [{"signal": "T", "setpoint": 96, "weight": 1, "high": 90}, {"signal": "T", "price": 1, "low": 10}]
    assert len(changed("", targets=targets).targets) == 2


@pytest.mark.parametrize(
    ("modality", "shape", "accepted"),
    [
        ("video", [96, 96, 4], r"shape \[96, 96, 4\] of video; expected \[height, width\] or \[height, width, 3\]"),
        ("video", [0, 96], "expected"),
        ("audio", [1600, 2], r"expected \[samples\]"),
        ("lidar", [5760, 3], r"expected \[points, 4\]"),
        ("process", [3], r"expected \[\]"),
    ],
)
def test_a_shape_that_no_sample_of_its_kind_has_is_refused_with_what_is_accepted(modality, shape, accepted):
    with pytest.raises(ConfigError, match=accepted) as told:
        plant_from_dict({"name": "p", "signals": [{"name": "odd", "modality": modality, "shape": shape}]})
    assert "'odd'" in str(told.value)


def test_a_tag_that_does_not_say_how_often_it_comes_is_stale_after_steps_of_its_plant():
    said = [{"name": "T"}, {"name": "slow", "period_s": 600}, {"name": "known", "stale_after_s": 7}]
    plant = plant_from_dict({"name": "p", "step_s": 60, "signals": said})
    assert [(s.period_s, s.stale_after_s) for s in plant.signals] == [(60, 150), (600, 1500), (60, 7)]
    quick = plant_from_dict({"name": "p", "signals": [{"name": "T"}]})
    assert quick.signals == (Signal(name="T"),)
    again = plant_from_dict(plant_to_dict(plant))
    assert again == plant
