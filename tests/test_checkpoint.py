import json

import numpy as np
import pytest

from fusion.checkpoint import DESCRIPTION, FORMAT, WEIGHTS, flatten, load_checkpoint, save_checkpoint
from fusion.cli import main
from fusion.errors import ConfigError, PlantMismatch
from fusion.plant import Plant, Signal

PLANT = Plant(name="two", signals=(Signal(name="T", unit="Cel"), Signal(name="L")))


@pytest.fixture
def model(tmp_path):
    arrays = flatten({"linear": {"w": np.arange(6.0).reshape(2, 3)}, "net": {"b": np.ones(2, np.float32)}})
    save_checkpoint(tmp_path / "model", PLANT, arrays, {"threshold": 1.5})
    return tmp_path / "model"


def test_a_checkpoint_comes_back_as_it_was_saved(model):
    loaded = load_checkpoint(model, PLANT)
    np.testing.assert_array_equal(loaded.part("linear")["w"], np.arange(6.0).reshape(2, 3))
    assert loaded.part("net")["b"].dtype == np.float32
    assert loaded.meta == {"threshold": 1.5}
    assert load_checkpoint(model).plant.fingerprint == PLANT.fingerprint


def test_saving_again_replaces_and_leaves_nothing_behind(model):
    save_checkpoint(model, PLANT, {"a": np.zeros(1)}, {})
    assert set(load_checkpoint(model).arrays) == {"a"}
    assert [p.name for p in model.parent.iterdir()] == ["model"]


def test_a_foreign_plant_is_refused_by_name(model):
    other = Plant(name="two", signals=(Signal(name="T", unit="K"), Signal(name="L")))
    with pytest.raises(PlantMismatch, match="trained on plant 'two' .*: signal T: unit K, not Cel; train on this"):
        load_checkpoint(model, other)


def test_the_sites_words_and_limits_are_taken_and_the_networks_keep_their_own_words(model):
    site = Plant(name="two", signals=(Signal(name="L", low=0, high=5), Signal(name="T", unit="Cel", description="new")))
    loaded = load_checkpoint(model, site)
    assert [s.name for s in loaded.plant.signals] == ["T", "L"]
    assert (loaded.plant.by_name["L"].high, loaded.plant.by_name["T"].description) == (5, "new")
    assert (loaded.learned.plant.by_name["L"].high, loaded.learned.plant.by_name["T"].description) == (5, "")


def test_damage_names_the_file(model):
    data = bytearray((model / WEIGHTS).read_bytes())
    data[-1] ^= 1
    (model / WEIGHTS).write_bytes(data)
    with pytest.raises(ConfigError, match=WEIGHTS):
        load_checkpoint(model)


def test_a_model_of_an_older_version_is_refused_in_one_sentence(model):
    text = (model / DESCRIPTION).read_text()
    (model / DESCRIPTION).write_text(text.replace(FORMAT, "fusion-model/2"))
    with pytest.raises(ConfigError, match="'fusion-model/2' is not 'fusion-model/3': .*another version; train again"):
        load_checkpoint(model)


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": "other/9"}'])
def test_a_foreign_description_is_refused(model, text):
    (model / DESCRIPTION).write_text(text)
    with pytest.raises(ConfigError, match=DESCRIPTION):
        load_checkpoint(model)


def test_a_missing_model_says_what_was_expected(tmp_path):
    with pytest.raises(ConfigError, match="fusion train --out"):
        load_checkpoint(tmp_path / "nowhere")


def test_the_description_is_readable_json(model):
    assert json.loads((model / DESCRIPTION).read_text())["fingerprint"] == PLANT.fingerprint


# --- what was edited, what lies elsewhere, who made it


def edit(model, change):
    description = json.loads((model / DESCRIPTION).read_text())
    change(description)
    (model / DESCRIPTION).write_text(json.dumps(description))


@pytest.mark.parametrize(
    "change",
    [
        lambda d: d["meta"].update(threshold=9.9),
        lambda d: d["meta"].update(licence={"level": "advise"}),
        lambda d: d["plant"]["signals"][0].update(high=1e9),
        lambda d: d.update(model_id="two-ffffffffffff"),
        lambda d: d.update(fingerprint="0"),
        lambda d: d.update(sha256="0"),
        lambda d: d.update(sha256=None),
    ],
)
def test_an_edited_description_is_refused_with_its_name(model, change):
    edit(model, change)
    with pytest.raises(ConfigError, match=rf"{DESCRIPTION}: edited or damaged"):
        load_checkpoint(model)


def test_a_description_that_was_only_laid_out_anew_is_the_same(model):
    edit(model, lambda d: None)
    assert load_checkpoint(model).meta == {"threshold": 1.5}


def test_weights_that_lie_elsewhere_are_refused_and_a_linked_folder_is_not(model, tmp_path):
    (tmp_path / "current").symlink_to(model)
    assert load_checkpoint(tmp_path / "current").meta == {"threshold": 1.5}
    (model / WEIGHTS).rename(tmp_path / WEIGHTS)
    (model / WEIGHTS).symlink_to(tmp_path / WEIGHTS)
    with pytest.raises(ConfigError, match=rf"{WEIGHTS}: leads out of"):
        load_checkpoint(model)


def test_a_signature_says_whose_a_model_is(model, tmp_path, capsys):
    key, public, other = tmp_path / "site", tmp_path / "site.pub", tmp_path / "other"
    assert main(["sign", "--new-key", str(key), str(model)]) == 0
    assert main(["sign", "--new-key", str(other)]) == 0
    assert key.stat().st_mode & 0o077 == 0
    assert load_checkpoint(model, PLANT, public).meta == {"threshold": 1.5}
    assert main(["sign", "--check", str(public), str(model)]) == 0
    assert main(["sign", "--check", str(other.with_suffix(".pub")), str(model)]) == 2
    with pytest.raises(ConfigError, match="not signed by the owner of .*other.pub"):
        load_checkpoint(model, PLANT, other.with_suffix(".pub"))
    save_checkpoint(model, PLANT, {"a": np.zeros(1)}, {})
    with pytest.raises(ConfigError, match=r"model\.json\.sig: missing; `fusion sign` writes it"):
        load_checkpoint(model, PLANT, public)
    assert main(["sign", "--key", str(public), str(model)]) == 2
    assert main(["sign", "--new-key", str(key)]) == 2
    assert "a key is there already" in capsys.readouterr().err
