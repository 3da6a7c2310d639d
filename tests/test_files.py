import os
from pathlib import Path

import pytest

from fusion.errors import ConfigError
from fusion.files import check_place, whole_file, whole_folder


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_half(file):
    file.write_text("half")
    raise KeyError


def test_a_place_that_cannot_be_written_is_refused_with_its_folder(tmp_path, monkeypatch):
    check_place("--json", tmp_path / "new.json")
    check_place("--json", Path(os.devnull))
    with pytest.raises(ConfigError, match=rf"--json .*: there is no folder {tmp_path}/none"):
        check_place("--json", tmp_path / "none" / "x.json")
    with pytest.raises(ConfigError, match="is a folder"):
        check_place("--json", tmp_path)
    monkeypatch.setattr(os, "access", lambda *_: False)
    with pytest.raises(ConfigError, match="cannot be written here"):
        check_place("--json", tmp_path / "new.json")


def test_a_file_takes_its_place_when_it_is_whole(tmp_path):
    place = tmp_path / "state"
    place.write_text("old")
    with whole_file(place) as aside:
        aside.write_text("new")
        assert place.read_text() == "old"
    assert place.read_text() == "new"
    assert names(tmp_path) == ["state"]


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path):
    place = tmp_path / "state"
    place.write_text("old")
    with pytest.raises(KeyError), whole_file(place) as aside:
        write_half(aside)
    assert place.read_text() == "old"
    assert names(tmp_path) == ["state"]


def test_a_folder_takes_its_place_when_it_is_whole(tmp_path):
    place = tmp_path / "deep" / "model"
    with whole_folder(place) as aside:
        (aside / "inner").mkdir()
        (aside / "inner" / "a").write_text("1")
        assert not place.exists()
    with whole_folder(place, overwrite=True) as aside:
        assert names(aside) == []
        (aside / "b").write_text("2")
        assert names(place) == ["inner"]
    assert names(place) == ["b"]
    assert names(place.parent) == ["model"]


def test_an_exception_leaves_the_old_folder_and_nothing_else(tmp_path):
    with whole_folder(tmp_path / "model") as aside:
        (aside / "a").write_text("1")
    with pytest.raises(KeyError), whole_folder(tmp_path / "model", overwrite=True) as aside:
        write_half(aside / "b")
    assert names(tmp_path / "model") == ["a"]
    assert names(tmp_path) == ["model"]


def test_a_folder_that_is_there_already_or_appears_meanwhile_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="exists already"), whole_folder(tmp_path / "model"):
        (tmp_path / "model").mkdir()
    with pytest.raises(ConfigError, match="exists already"), whole_folder(tmp_path / "model"):
        pass
    assert names(tmp_path) == ["model"]


def test_what_a_killed_process_left_is_cleared(tmp_path):
    (tmp_path / "model.partial").mkdir()
    (tmp_path / "model.partial" / "half").write_text("")
    with whole_folder(tmp_path / "model") as aside:
        assert names(aside) == []
    assert names(tmp_path) == ["model"]
