import asyncio
import dataclasses
import json
import shutil
from concurrent.futures import Future
from pathlib import Path

import numpy as np
import pytest
import torch
from grid_runs import frame_of
from small_plants import SMALL, small_values, write_recording
from test_clock import Listening

from connectors.replay import ReplayConfig, replay_source
from fusion.cli import main
from fusion.daemon import start
from fusion.daemon.fleet import FleetForecastConfig, FleetForecaster, fleet_forecaster
from fusion.daemon.seat import Seat
from fusion.daemon.service import Daemon
from fusion.daemon.settings import load_daemon_config
from fusion.errors import ConfigError
from fusion.fleet.command import UNSEEN, fleet_config, judged_plants
from fusion.fleet.evaluation import ARMS, FLEET, FLEET_RIDGE, crossing, judge, table
from fusion.fleet.plants import Simulated, simulated, ticks_of
from fusion.plant import Plant, Signal
from fusion.plant_file import dump_plant, load_plant
from fusion.publish.encoding import to_message
from fusion.records import Forecast
from fusion.simulator.instruments import other_instruments
from fusion.timeline.timeline import Timeline
from models.actions import HORIZONS
from models.fleet.fit import FleetFit
from models.fleet.kinds import Kinds
from models.fleet.model import PRETRAINED, FleetModel
from models.fleet.network import FleetNetwork, FleetSize
from models.fleet.ridge import recorded, rows
from models.fleet.rows import plant_rows, stacked
from models.fleet.training import FleetTraining, Member, train_fleet, with_fewer_tags
from models.fleet.view import range_scaling, view

LINE = load_plant(Path("configs/plant/lime.yaml"))
NAMES = {"TT1": "TI-{n}", "FT1": "FIT{n}", "PT1": "PI{n}", "FT1.SP": "FIC{n}.SP"}
QUICK = FleetTraining(
    size=FleetSize(slots=6, token=8, trunk=24, reading=24, described=16, embedding=8, paths=8),
    fit=FleetFit(steps=60, plants=4, rows=16, context_rows=8),
)


def small_plant(seed):
    """The small plant as another one calls it, with the range of its flow declared."""
    signals = []
    for s in SMALL.signals:
        low, high = {"TT1": (0.0, 100.0), "FT1": (0.0, 10.0), "PT1": (0.0, 5.0)}.get(s.name, (s.low, s.high))
        signals.append(dataclasses.replace(s, name=NAMES[s.name].format(n=100 + seed), low=low, high=high))
    return Plant(name=f"small-{seed}", signals=tuple(signals))


def small_member(seed, ticks=1500):
    values = small_values(seed, ticks)
    plant = small_plant(seed)
    columns = np.stack([values[s.name] for s in SMALL.signals], 1)
    return Member(plant=plant, runs=(ticks_of(plant, columns),))


@pytest.fixture(scope="module")
def fleet():
    made = train_fleet([small_member(seed) for seed in range(8)], QUICK, torch.device("cpu"), lambda text: None)
    return dataclasses.replace(made, model_id="fleet-0")


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
    judged = [judged_plants(fleet, [stranger], 600.0)[0]]
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


def test_the_crossing_is_told_by_hours_of_own_data(fleet):
    member = small_member(78, 3000)
    found = crossing(fleet, [member], [0.2, 0.4], 1000.0)
    assert [one.horizon_s for one in found] == [8.0, 32.0, 64.0, 128.0, 256.0]
    assert set(found[0].ratio) == {0.2, 0.4}


# --- in the daemon


def seated(fleet, own=None, **settings):
    plant = small_plant(77)
    forecaster = FleetForecaster(fleet, plant, FleetForecastConfig(**settings))
    return plant, forecaster, Seat(plant, own, fleet=forecaster)


def frames_of(plant, ticks):
    values = small_values(77, ticks)
    named = {other.name: values[s.name] for s, other in zip(SMALL.signals, plant.signals, strict=True)}
    return [frame_of(plant, (t + 1) * 10**9, {n: v[t] for n, v in named.items()}) for t in range(ticks)]


def test_a_plant_without_a_model_has_forecasts_from_its_first_minutes_on(fleet):
    plant, forecaster, seat = seated(fleet, first_min=5.0)
    made = []
    for i, frame in enumerate(frames_of(plant, 420)):
        outcome = seat.step(frame)
        if i == 299 and forecaster._fitting is not None:
            forecaster._fitting.result(60)
        made.append(outcome)
    seat.close()
    first = next(i for i, outcome in enumerate(made) if outcome.forecast is not None)
    assert 299 <= first <= 301
    forecast = made[first].forecast
    assert forecast.model_id == fleet.model_id
    assert np.isfinite(forecast.mean).all()
    assert (forecast.low < forecast.mean).all()
    assert len([o for o in made[first:] if o.forecast is not None]) == pytest.approx((420 - first) / 5, abs=2)
    assert {"forecast:fleet", "no model"} <= set(seat.flags)
    assert seat.model_id == ""
    assert to_message(forecast, plant, "another").model_id == fleet.model_id


def own_forecast(plant, frame, tags):
    mean = np.repeat(tags[None], len(HORIZONS), 0)
    names = tuple(s.name for s in plant.tags)
    return Forecast(
        t_ns=frame.t_ns, horizon_s=tuple(map(float, HORIZONS)), signals=names, mean=mean, low=mean - 1, high=mean + 1
    )


@pytest.mark.parametrize("good", [True, False])
def test_the_own_model_takes_over_once_it_foretells_better(fleet, good, caplog):
    caplog.set_level("INFO")
    plant, forecaster, _ = seated(fleet, first_min=5.0)
    known = frames_of(plant, 900)
    told = []
    for i, frame in enumerate(known[:800]):
        own = None
        if i > 320 and i % 5 == 0:
            own = own_forecast(plant, frame, frame.value_S[:3] + (0.0 if good else 50.0))
            for row, horizon in enumerate(HORIZONS):
                if good and i + horizon < len(known):
                    own.mean[row] = known[i + horizon].value_S[:3]
        made = forecaster.step(frame, own, newest=True)
        if forecaster._fitting is not None:
            forecaster._fitting.result(60)
        if own is not None:
            told.append(made is own)
    forecaster.close()
    assert not told[0]
    assert told[-1] is good
    assert (forecaster.crossing_h is not None) is good
    assert ("own model forecasts better" in caplog.text) is good


def test_a_model_that_was_there_first_keeps_its_word(fleet):
    plant, forecaster, _ = seated(fleet)
    frame = frames_of(plant, 1)[0]
    own = own_forecast(plant, frame, frame.value_S[:3])
    assert forecaster.step(frame, own, newest=True) is own
    assert not forecaster.leads
    forecaster.close()


def test_the_fleet_is_off_by_a_setting_and_where_it_has_nothing_to_say(fleet, tmp_path, caplog):
    fleet.save(tmp_path / "m")
    config = FleetForecastConfig(model=str(tmp_path / "m"))
    assert fleet_forecaster(FleetForecastConfig(enabled=False), small_plant(1), 5.0) is None
    assert fleet_forecaster(config, dataclasses.replace(small_plant(1), step_s=60.0), 5.0) is None
    assert "its step is 60 s" in caplog.text
    forecaster = fleet_forecaster(config, small_plant(1), 5.0)
    assert forecaster.model_id.startswith("fleet-")
    forecaster.close()
    shutil.rmtree(tmp_path / "m")
    with pytest.raises(ConfigError, match=r"missing; expected a model folder"):
        fleet_forecaster(config, small_plant(1), 5.0)
    with pytest.raises(ConfigError, match=r"first_min must be positive"):
        FleetForecastConfig(first_min=0)


class AtOnce:
    """An executor that has done its work when it returns."""

    def submit(self, work, *given):
        done = Future()
        done.set_result(work(*given))
        return done

    def shutdown(self, **_):
        pass


class Collecting(Listening):
    """Keeps what is published of forecasts."""

    def __init__(self):
        super().__init__()
        self.forecasts = []

    def outcome(self, outcome):
        if outcome.forecast is not None:
            self.forecasts.append(outcome.forecast)


def test_a_daemon_without_a_model_publishes_the_fleets_forecasts(fleet, tmp_path):
    plant, forecaster, seat = seated(fleet, first_min=5.0)
    forecaster._fitter = AtOnce()
    named = zip(plant.signals, SMALL.signals, strict=True)
    values = small_values(77, 400)
    recording = write_recording(tmp_path / "r", plant, {one.name: values[other.name] for one, other in named})
    player, outlet = replay_source(ReplayConfig(path=str(recording)), plant), Collecting()

    async def life():
        await Daemon([player], Timeline(plant), seat, outlet, lossless=True).run(asyncio.Event())

    asyncio.run(life())
    assert outlet.forecasts  # a replay in one go has few newest ticks
    assert {f.model_id for f in outlet.forecasts} == {fleet.model_id}
    assert all(np.isfinite(f.mean).all() for f in outlet.forecasts)


@pytest.mark.parametrize("enabled", [True, False])
def test_fusion_run_gives_the_seat_to_the_fleet_where_there_is_no_model(fleet, tmp_path, monkeypatch, enabled):
    fleet.save(tmp_path / "m")
    dump_plant(small_plant(1), tmp_path / "plant.yaml")
    settings = {
        "plant": "plant.yaml",
        "record": {"folder": "records"},
        "learn": {"models": "models"},
        "fleet": {"enabled": enabled, "model": "m"},
        "publish": {"outbox": ""},
    }
    (tmp_path / "daemon.yaml").write_text(json.dumps(settings))
    seats = []

    class Built:
        def __init__(self, sources, timeline, seat, outlet, **_):
            seats.append(seat)
            outlet.close()

        async def run(self, stop):
            seats[0].close()

    monkeypatch.setattr(start, "Daemon", Built)
    start.run(load_daemon_config(tmp_path / "daemon.yaml"))
    assert (seats[0]._fleet is not None) is enabled


def test_what_an_earlier_run_has_seen_counts(fleet):
    plant, forecaster, seat = seated(fleet, first_min=5.0)
    forecaster._fitter = AtOnce()
    forecaster.recall(small_member(77, 300).runs[0])
    made = [seat.step(frame).forecast for frame in frames_of(plant, 3)]
    assert made[1] is not None


# --- the one that is shipped


def test_the_shipped_model_is_small_loads_and_knows_the_line():
    assert sum(file.stat().st_size for file in PRETRAINED.iterdir()) < 20e6
    model = FleetModel.load()
    assert model.model_id in (PRETRAINED / "MODEL_CARD.md").read_text()
    (member,) = simulated(LINE, Simulated(plants=1, minutes=16.0, first=UNSEEN - 1), lambda text: None)
    judged = judge(model, member, 600.0, (600.0, 960.0))
    row = HORIZONS.index(32)
    assert judged.error[FLEET][row] < 0.8 * judged.error["persistence"][row]
