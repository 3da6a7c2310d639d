"""Forecasts by the fleet in a daemon that has no model of its own, or a new one."""

import asyncio
import dataclasses
import json
import shutil
from concurrent.futures import Future

import numpy as np
import pytest
from fleet_members import small_fleet, small_member, small_plant
from grid_runs import frame_of
from small_plants import SMALL, small_values, write_recording
from test_clock import Listening

from connectors.replay import ReplayConfig, replay_source
from fusion.daemon import start
from fusion.daemon.fleet import FleetForecastConfig, FleetForecaster, fleet_forecaster
from fusion.daemon.outlet import shown
from fusion.daemon.seat import Seat
from fusion.daemon.service import Daemon
from fusion.daemon.settings import load_daemon_config
from fusion.errors import ConfigError
from fusion.plant_file import dump_plant
from fusion.publish.encoding import to_message
from fusion.records import Forecast
from fusion.timeline.timeline import Timeline
from models.actions import HORIZONS
from models.fleet import guest


@pytest.fixture(scope="module")
def fleet():
    return small_fleet()


# --- in the daemon


class AtOnce:
    """An executor that has done its work when it returns."""

    def submit(self, work, *given):
        done = Future()
        done.set_result(work(*given))
        return done

    def shutdown(self, **_):
        pass


@pytest.fixture
def believed(monkeypatch):
    """A fleet of seconds is not always borne out by a plant's first minutes."""
    monkeypatch.setattr(guest, "LEAST_WORTH", -np.inf)


def seated(fleet, own=None, **settings):
    plant = small_plant(77)
    forecaster = FleetForecaster([fleet], plant, FleetForecastConfig(**settings))
    return plant, forecaster, Seat(plant, own, fleet=forecaster)


def frames_of(plant, ticks):
    values = small_values(77, ticks)
    named = {other.name: values[s.name] for s, other in zip(SMALL.signals, plant.signals, strict=True)}
    return [frame_of(plant, (t + 1) * 10**9, {n: v[t] for n, v in named.items()}) for t in range(ticks)]


def test_a_plant_without_a_model_has_forecasts_from_its_first_minutes_on(believed, fleet):
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
    assert to_message(shown(forecast, plant), plant, "another").model_id == fleet.model_id


def own_forecast(plant, frame, tags):
    mean = np.repeat(tags[None], len(HORIZONS), 0)
    names = tuple(s.name for s in plant.tags)
    return Forecast(
        t_ns=frame.t_ns, horizon_s=tuple(map(float, HORIZONS)), signals=names, mean=mean, low=mean - 1, high=mean + 1
    )


@pytest.mark.parametrize("good", [True, False])
def test_the_own_model_takes_over_once_it_foretells_better(believed, fleet, good, caplog):
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


def test_of_a_plant_of_another_kind_nothing_is_foretold(fleet, caplog):
    caplog.set_level("INFO")
    plant, forecaster, seat = seated(fleet, first_min=5.0)
    forecaster._fitter = AtOnce()
    walk = np.cumsum(np.random.default_rng(0).normal(0, 0.02, (330, 4)), 0) + np.array([50, 5, 2.5, 5])
    made = [
        seat.step(frame_of(plant, (t + 1) * 10**9, dict(zip([s.name for s in plant.signals], row, strict=True))))
        for t, row in enumerate(walk)
    ]
    assert not [outcome for outcome in made if outcome.forecast is not None]
    assert "is silent: this plant is of another kind" in caplog.text
    assert seat.flags == ("no model",)


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
    assert isinstance(forecaster, FleetForecaster)
    assert not forecaster.model_id
    forecaster.close()
    shutil.rmtree(tmp_path / "m")
    with pytest.raises(ConfigError, match=r"missing; expected a model folder"):
        fleet_forecaster(config, small_plant(1), 5.0)
    with pytest.raises(ConfigError, match=r"first_min must be positive"):
        FleetForecastConfig(first_min=0)


class Collecting(Listening):
    """Keeps what is published of forecasts."""

    def __init__(self):
        super().__init__()
        self.forecasts = []

    def outcome(self, outcome):
        if outcome.forecast is not None:
            self.forecasts.append(outcome.forecast)


def test_a_daemon_without_a_model_publishes_the_fleets_forecasts(believed, fleet, tmp_path):
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


def test_what_an_earlier_run_has_seen_counts(believed, fleet):
    plant, forecaster, seat = seated(fleet, first_min=5.0)
    forecaster._fitter = AtOnce()
    forecaster.recall(small_member(77, 300).runs[0])
    made = [seat.step(frame).forecast for frame in frames_of(plant, 3)]
    assert made[1] is not None
