import dataclasses
import json

import numpy as np
import pytest
import torch
from fleet_members import QUICK, small_fleet, small_member, small_plant
from small_plants import small_values, write_recording

from fusion.cli import main
from fusion.command import CONFIGS
from fusion.errors import ConfigError
from fusion.fleet.command import UNSEEN, fleet_config, judged_plants
from fusion.fleet.evaluation import ARMS, FLEET, FLEET_RIDGE, crossing, judge, table
from fusion.fleet.plants import Simulated, flowsheets, simulated, ticks_of
from fusion.plant import Plant, Signal
from fusion.plant_file import load_plant
from fusion.simulator.instruments import other_instruments
from models.actions import HORIZONS
from models.fleet.kinds import Kinds
from models.fleet.model import SHIPPED, FleetModel, host, shipped
from models.fleet.network import FleetNetwork
from models.fleet.ridge import recorded, rows
from models.fleet.rows import plant_rows, stacked
from models.fleet.training import train_fleet, with_fewer_tags
from models.fleet.view import range_scaling, view
from tests.benchmarks import fleet_gains
from tests.benchmarks.control_whatif import counterfactual

LINE = load_plant(CONFIGS / "plant" / "lime.yaml")


@pytest.fixture(scope="module")
def fleet():
    return small_fleet()


@pytest.fixture(scope="module")
def stranger():
    return small_member(77, 2600)


# --- what is alike


def test_a_plant_of_other_names_units_and_order_has_the_same_kinds():
    fitted = [other_instruments(LINE, seed) for seed in range(12)]
    kinds = Kinds.of([one.plant for one in fitted])
    described = [one for one in (other_instruments(LINE, s) for s in range(100, 130)) if one.plant.tags[0].description]
    source = {}
    for one in fitted:
        for signal, place in zip(one.plant.tags, kinds.tags.places(one.plant.tags), strict=True):
            if signal.description:
                source.setdefault(int(place), []).append(origin(one, signal))
    usual = {place: max(set(names), key=names.count) for place, names in source.items()}
    right = [
        usual[int(place)] == origin(one, signal)
        for one in described
        for signal, place in zip(one.plant.tags, kinds.tags.places(one.plant.tags), strict=True)
    ]
    assert np.mean(right) > 0.95


def origin(instruments, signal):
    column = [s.name for s in instruments.plant.signals].index(signal.name)
    return LINE.of("process")[instruments.source[column]].name


def test_other_instruments_read_the_same_values_in_their_units():
    made = other_instruments(LINE, 5, share=0.5)
    values = np.random.default_rng(0).uniform(0.2, 0.8, (4, len(LINE.of("process"))))
    read = made.read(values)
    assert len(made.plant.tags) < len(LINE.tags)
    assert {s.name for s in made.plant.actions}.isdisjoint({s.name for s in LINE.actions})
    for i, signal in enumerate(made.plant.signals):
        ours = LINE.of("process")[made.source[i]]
        back = (read[:, i] - made.offset[i]) / made.gain[i]
        assert np.allclose(back, values[:, made.source[i]])
        assert signal.low == pytest.approx(ours.low * made.gain[i] + made.offset[i])


def test_units_of_one_quantity_are_scaled_alike(fleet):
    plant = small_plant(3)
    kelvin = dataclasses.replace(plant.signals[0], unit="K", low=273.15, high=373.15)
    other = dataclasses.replace(plant, signals=(kelvin, *plant.signals[1:]))
    one, two = (range_scaling(fleet.ridge.kinds, p) for p in (plant, other))
    assert two.tags.scaled(np.full(3, 313.15))[0] == pytest.approx(one.tags.scaled(np.full(3, 40.0))[0])


# --- what is seen


def test_a_stream_in_pieces_is_seen_as_all_at_once(fleet):
    member = small_member(1)
    scaling = range_scaling(fleet.ridge.kinds, member.plant)
    whole, _ = view(member.runs[0], scaling)
    carry, parts = None, []
    for begin in range(0, len(member.runs[0]), 333):
        part, carry = view(member.runs[0][begin : begin + 333], scaling, carry)
        parts.append(part.past)
    assert np.allclose(np.concatenate(parts), whole.past, atol=1e-10)


def test_an_absurd_value_is_masked_and_the_last_sane_one_holds(fleet):
    member = small_member(1)
    run, scaling = member.runs[0], range_scaling(fleet.ridge.kinds, member.plant)
    for absurd in (1e30, -1e9, np.inf, np.nan):
        tags = run.tags.copy()
        tags[700:705, 1] = absurd
        seen, _ = view(dataclasses.replace(run, tags=tags), scaling)
        assert np.isfinite(seen.past).all()
        assert not seen.observed[700:705, 1].any()
        assert np.allclose(seen.tags[700:705, 1], seen.tags[699, 1])
        assert seen.masked == 5


# --- ridge and network


def test_the_ridge_of_fewer_tags_is_that_of_the_moments_without_them(fleet):
    member = with_fewer_tags(small_member(2), 0.4, np.random.default_rng(1))
    seen = view(member.runs[0], range_scaling(fleet.ridge.kinds, member.plant))[0][60:]
    fitted = fleet.ridge.of_plant(member.plant)
    x, y = rows(seen, 8, 1.0)
    left = y - x @ fitted.weights[HORIZONS.index(8)]
    assert 1 <= len(member.plant.tags) < 3
    assert (left**2).mean() < (y**2).mean()


def test_the_network_adds_nothing_before_it_is_trained_and_padding_counts_nothing(fleet):
    torch.manual_seed(0)
    network, device = FleetNetwork(QUICK.size).eval(), torch.device("cpu")
    made = []
    for member in (small_member(3), with_fewer_tags(small_member(4), 0.5, np.random.default_rng(0))):
        seen = view(member.runs[0], range_scaling(fleet.ridge.kinds, member.plant))[0][60:]
        made.append(plant_rows(member.plant, seen, fleet.ridge.of_plant(member.plant), np.arange(0, 400, 20)))
    both, described = stacked(made, device)
    embedding = torch.zeros(2, QUICK.size.embedding)
    assert not network(both, described, embedding).any()
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)
    alone = network(*stacked(made[1:], device), embedding[:1])
    padded = network(both, described, embedding)[1:, :, : alone.shape[2]]
    assert torch.allclose(alone, padded, atol=1e-4)
    assert torch.allclose(
        network.embedding(both, described)[1], network.embedding(*stacked(made[1:], device))[0], atol=1e-5
    )


def test_ten_minutes_of_a_new_plant_are_enough_to_forecast(fleet, stranger):
    judged = [judged_plants([fleet], [stranger], 600.0)[0]]
    row = HORIZONS.index(32)
    assert judged[0].skill[FLEET][row] > 0.3
    assert judged[0].error[FLEET][row] < judged[0].error["persistence"][row]
    assert judged[0].coverage[row] > 0.7
    assert {r.arm for r in table(judged, 1.0)} == set(ARMS)
    assert all(r.error == 1.0 for r in table(judged, 1.0) if r.arm == FLEET_RIDGE)


def test_where_the_fleet_is_wrong_its_word_is_gated(fleet):
    rng = np.random.default_rng(0)
    plant = small_plant(9)
    noise = ticks_of(
        plant,
        np.stack(
            [
                50 + rng.normal(0, 5, 1500),
                5 + rng.normal(0, 1, 1500),
                2.5 + rng.normal(0, 0.5, 1500),
                rng.uniform(0, 10, 1500),
            ],
            1,
        ),
    )
    guest = fleet.welcome(plant, [noise])
    wrong = fleet.welcome(plant, [noise], bend=False)
    seen = view(noise, guest.scaling)[0][60:]
    at = np.arange(0, 1000, 5)
    came = recorded(seen, at, 1.0)[1]
    row = HORIZONS.index(64)
    errors = [np.nanmean((came[:, row] - one.change(seen, at)[:, row]) ** 2) for one in (guest, wrong)]
    assert errors[0] <= errors[1]
    assert ((guest.gates >= 0) & (guest.gates <= 1)).all()


def test_own_minutes_say_whether_a_plant_is_of_the_fleets_kind(fleet, stranger):
    rng = np.random.default_rng(0)
    plant = small_plant(9)
    walk = np.cumsum(rng.normal(0, 0.02, (900, 4)), 0) + np.array([50, 5, 2.5, 5])
    assert fleet.welcome(stranger.plant, [stranger.runs[0][:900]]).fits
    assert not fleet.welcome(plant, [ticks_of(plant, walk)]).fits


def test_a_foreign_plant_is_never_an_exception(fleet):
    rng = np.random.default_rng(0)
    odd = Plant(
        name="odd",
        signals=(
            Signal(name="温度", unit="??", description=""),
            Signal(name="X" * 300, unit="1"),
            Signal(name="constant", unit="Cel", low=0.0, high=1e-9),
            Signal(name="huge", low=-1e30, high=1e30),
        ),
    )
    values = np.stack([rng.normal(1e6, 1, 900), rng.normal(0, 1e-9, 900), np.zeros(900), rng.normal(0, 1e29, 900)], 1)
    for runs in ([], [ticks_of(odd, values)]):
        guest = fleet.welcome(odd, runs)
        seen, _ = view(ticks_of(odd, values), guest.scaling)
        assert np.isfinite(guest.ahead(seen)).all()
        assert np.isfinite(guest.band()).all()


def test_what_cannot_be_served_is_said_in_one_sentence(fleet):
    with pytest.raises(ConfigError, match=r"plant 'slow': its step is 10 s, that of the fleet model 1 s"):
        fleet.welcome(dataclasses.replace(small_plant(1), name="slow", step_s=10.0))
    with pytest.raises(ConfigError, match=r"it has no process tags"):
        fleet.welcome(Plant(name="empty", signals=()))
    with pytest.raises(
        ConfigError, match=r"a fleet needs at least 4 plants with process tags and 600 ticks each; of 2"
    ):
        train_fleet([small_member(0), small_member(1)], QUICK, torch.device("cpu"), print)
    slow = dataclasses.replace(small_member(0), plant=dataclasses.replace(small_plant(0), step_s=2.0))
    with pytest.raises(ConfigError, match=r"must tick alike; found steps of 1 s, 2 s"):
        train_fleet([small_member(i) for i in range(4)] + [slow], QUICK, torch.device("cpu"), print)
    with pytest.raises(ConfigError, match=r"first: 900000 is not accepted"):
        fleet_config([f"first={UNSEEN}"])


# --- at rest


def test_a_fleet_model_is_the_same_after_it_was_at_rest(fleet, stranger, tmp_path):
    model_id = fleet.save(tmp_path / "m")
    again = FleetModel.load(tmp_path / "m")
    run = stranger.runs[0][:700]
    one, two = (m.welcome(stranger.plant, [run]) for m in (fleet, again))
    seen, _ = view(run, one.scaling)
    assert again.model_id == model_id
    assert model_id.startswith("fleet-")
    assert np.allclose(one.ahead(seen), two.ahead(seen), atol=1e-9)
    assert np.allclose(one.band(), two.band())


def test_what_is_damaged_or_no_fleet_model_is_refused(fleet, tmp_path, capsys):
    fleet.save(tmp_path / "m")
    file = tmp_path / "m" / "model.json"
    told = json.loads(file.read_text())
    file.write_text(json.dumps(told | {"format": "fusion-model/1"}))
    assert main(["fleet", "evaluate", "--model", str(tmp_path / "m")]) == 2
    said = capsys.readouterr().err
    assert "written by another version; train again" in said
    assert said.count("\n") == 1
    file.write_text(json.dumps(told))
    (tmp_path / "m" / "weights.safetensors").write_bytes(b"half")
    assert main(["fleet", "evaluate", "--model", str(tmp_path / "m")]) == 2
    assert "damaged, its hash is not the one in model.json" in capsys.readouterr().err


# --- by command


def test_recordings_of_many_plants_make_a_model_and_judge_it(tmp_path, capsys, caplog):
    places = []
    for seed in range(5):
        plant = small_plant(seed)
        if seed == 4:
            plant = dataclasses.replace(
                plant,
                signals=(
                    dataclasses.replace(plant.signals[0], low=None, high=None, description=""),
                    *plant.signals[1:],
                ),
            )
        values = {named.name: v for named, v in zip(plant.signals, small_values(seed, 1400).values(), strict=True)}
        places.append(str(write_recording(tmp_path / str(seed), plant, values)))
    out = tmp_path / "model"
    size = [f"training.size.{k}={v}" for k, v in dataclasses.asdict(QUICK.size).items()]
    given = ["fleet", "train", "--recordings", *places, "--out", str(out), "steps=5", "training.fit.plants=3", *size]
    assert main(given) == 0
    assert "plant 'small-4': no range of 1 tags (TI-104 ..); no description of 1 tags (TI-104 ..)" in caplog.text
    said = capsys.readouterr().out
    assert "network: step 5 of 5" in said
    assert json.loads((out / "model.json").read_text())["meta"]["card"]["plants"] == 5
    found = tmp_path / "found.json"
    assert main(["fleet", "evaluate", "--model", str(out), "--recordings", *places[:2], "--json", str(found)]) == 0
    assert {row["arm"] for row in json.loads(found.read_text())["rows"]} == set(ARMS)
    assert main(given) == 2
    assert "exists already" in capsys.readouterr().err


def test_plants_are_simulated_side_by_side_and_differ():
    plan = Simulated(plants=2, minutes=1.0, first=3, spread=3.0, share=0.7)
    one, two = simulated(LINE, plan, lambda text: None)
    assert one.plant.fingerprint != two.plant.fingerprint
    assert len(one.runs[0]) == 60
    assert np.isfinite(one.runs[0].tags).all()


def test_flowsheets_are_plants_with_instruments_of_their_own():
    one, two = flowsheets(Simulated(plants=2, minutes=2.0, first=3, share=0.8), lambda text: None)
    assert {s.name for s in one.plant.signals}.isdisjoint(s.name for s in two.plant.signals)
    assert len(one.runs[0]) == len(two.runs[0]) == 120
    assert np.isfinite(two.runs[0].tags).all()
    assert one.plant.actions or two.plant.actions


def test_what_flowsheets_have_not_is_refused(tmp_path, capsys):
    assert main(["fleet", "evaluate", "--flowsheets", "--alike"]) == 2
    assert "--flowsheets: no two are alike" in capsys.readouterr().err
    given = ["fleet", "train", "--flowsheets", "2", "--recordings", str(tmp_path), "--out", str(tmp_path / "fleet")]
    assert main(given) == 2
    assert "expected without --recordings" in capsys.readouterr().err


def test_the_crossing_is_told_by_hours_of_own_data(fleet):
    member = small_member(78, 3000)
    found = crossing([fleet], [member], [0.2, 0.4], 1000.0)
    assert [one.horizon_s for one in found] == [8.0, 32.0, 64.0, 128.0, 256.0]
    assert set(found[0].ratio) == {0.2, 0.4}


# --- the one that is shipped


def line_member():
    (member,) = simulated(LINE, Simulated(plants=1, minutes=16.0, first=UNSEEN - 1), lambda text: None)
    return member


def test_the_shipped_models_are_small_and_have_cards():
    assert sum(file.stat().st_size for file in SHIPPED.rglob("*")) < 20e6
    for folder in shipped():
        assert FleetModel.load(folder).model_id in (folder / "MODEL_CARD.md").read_text()


def test_the_shipped_models_know_the_line():
    judged = judge([FleetModel.load(folder) for folder in shipped()], line_member(), 600.0, (600.0, 960.0))
    row = HORIZONS.index(32)
    assert judged.error[FLEET][row] < 0.8 * judged.error["persistence"][row]


@pytest.mark.parametrize("first", [0, 1])
def test_of_several_models_the_own_minutes_choose(fleet, first):
    known = (dataclasses.replace(fleet, model_id="small plants"), FleetModel.load(SHIPPED / "lines"))
    models = known[first:] + known[:first]
    for member, expected in ((small_member(78, 900), known[0]), (line_member(), known[1])):
        runs = [member.runs[0][:600]]
        guest = host(models, member.plant, runs)
        assert guest.model_id == expected.model_id
        assert guest.worth >= max(model.welcome(member.plant, runs).worth for model in models)


def test_what_a_move_does_is_known_of_a_plant_that_no_training_saw():
    truth = counterfactual(LINE, fleet_gains.days(1))
    told = fleet_gains.ratios([FleetModel.load(folder) for folder in shipped()], LINE, truth, 0)
    found = {arm: fleet_gains.summed(ratios[None]) for arm, ratios in told.items()}
    assert found["fleet ridge"]["effects"] >= 8
    assert found["fleet ridge"]["signs"] > 0.9
    assert found["fleet model"]["signs"] > 0.9
    assert found["own core"]["signs"] < 0.9  # ten minutes do not tell
