"""The notebook of docs/python.md runs, on the first model of a site, and its frames hold what they say."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import polars as pl
import pytest

from fusion.cli import main
from fusion.daemon.learning import LearnConfig, first_hours
from fusion.errors import ConfigError, PlantMismatch
from fusion.frames import Model, values
from fusion.plant_file import dump_plant
from tests.small_plants import SMALL, small_values, write_recording

PAGE = Path(__file__).parents[1] / "docs" / "python.md"
START_S = 1_790_000_000
TICKS = round(first_hours(LearnConfig(first_h=0.1), SMALL) * 3600)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A site that has just recorded what the first model needs in two pieces, and learned it."""
    folder = tmp_path_factory.mktemp("site")
    dump_plant(SMALL, folder / "plant.yaml")
    all_values = small_values(3, TICKS)
    for name, part, start_s in (("1", slice(0, 1800), START_S), ("2", slice(1800, None), START_S + 1800)):
        some = {signal: column[part] for signal, column in all_values.items()}
        write_recording(folder / "records" / f"2{name}", SMALL, some, start_s)
    places = ["--records", str(folder / "records"), "--models", str(folder / "models")]
    assert main(["learn", *places, "--plant", str(folder / "plant.yaml"), "steps=0", "threads=1"]) == 0
    return folder


def test_the_notebook_runs_as_it_is_printed(site, monkeypatch):
    code = PAGE.read_text().split("```python\n")[1].split("```")[0]
    monkeypatch.chdir(site)
    said: dict = {}
    exec(compile(code, str(PAGE), "exec"), said)
    tags, latents, energies = said["tags"], said["latents"], said["energies"]
    assert tags.columns == ["time", "TT1", "FT1", "PT1", "FT1.SP"]
    assert tags["time"].dtype == pl.Datetime("ns", "UTC")
    truth = small_values(3, TICKS)["TT1"][1800:]
    assert tags["TT1"].drop_nulls().to_numpy()[-60:] == pytest.approx(truth[-61:-1])  # the last tick is not over
    assert len(latents) == len(energies) >= 1790
    assert all(name == "time" or name.startswith(("core.", "net.")) for name in latents.columns)
    assert np.isfinite(latents.drop("time").to_numpy()).all()
    assert set(energies.columns[1:]) == set(said["worst"]["column"])
    assert len(energies.columns) > 5
    assert said["forecast"].columns == ["horizon_s", "signal", "unit", "expected", "low", "high"]
    assert set(said["forecast"]["unit"]) == {"Cel", "kg/s", "bar"}
    nothing = said["answer"].filter(pl.col("signal") == "TT1")["do_nothing"]
    assert nothing.to_list() == said["forecast"].filter(pl.col("signal") == "TT1")["expected"].to_list()


def test_a_disturbed_tag_stands_out_by_name(site, tmp_path):
    broken = small_values(9, 900)
    broken["PT1"][600:] += 1.0
    recording = write_recording(tmp_path / "fault", SMALL, broken, kind="fault")
    model = Model(site / "models" / "0001")
    peak = model.energies(recording).drop("time").max_horizontal()
    assert peak[650:880].max() > 3 * max(peak[120:590].max(), model.limit)


def test_a_recording_of_another_plant_and_a_move_that_cannot_be_are_refused(site, tmp_path):
    model, other = Model(site / "models" / "0001"), replace(SMALL, name="other")
    recording = write_recording(tmp_path / "other", other, small_values(0, 100))
    with pytest.raises(PlantMismatch, match="recorded on plant 'other' .* than 'small' .*: name: other, not small"):
        model.latents(recording)
    with pytest.raises(ConfigError, match="'TT1' cannot be moved; accepted: FT1.SP"):
        model.what_if(site / "records" / "21", 600, {"TT1": 1.0})
    assert values(recording).height >= 99
