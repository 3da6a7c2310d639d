import shutil

import pytest

from fusion.cli import main
from fusion.recordings.recording import MEDIA, PROCESS


def flip(file):
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)


@pytest.fixture
def damaged(slipping, tmp_path):
    shutil.copytree(slipping, tmp_path / "damaged")
    flip(tmp_path / "damaged" / PROCESS)
    return tmp_path / "damaged"


VERBS = {
    "evaluate": ("evaluate", "--model", "MODEL", "--recording", "DAMAGED"),
    "replay": ("replay", "DAMAGED", "--model", "MODEL"),
    "whatif": ("whatif", "--model", "MODEL", "--recording", "DAMAGED", "--at", "100", "--set", "TIC101.SP=84"),
}


@pytest.mark.parametrize("verb", VERBS)
def test_a_damaged_recording_is_named_before_it_is_used(verb, damaged, model, capfd):
    places = {"MODEL": str(model), "DAMAGED": str(damaged)}
    assert main([places.get(word, word) for word in VERBS[verb]]) == 1
    assert f"{damaged / PROCESS}: damaged" in capfd.readouterr().err


def test_a_training_names_the_damaged_recording_among_many(recordings, tmp_path, capfd):
    shutil.copytree(recordings[-1], tmp_path / "damaged")
    flip(tmp_path / "damaged" / MEDIA)
    given = [str(path) for path in (*recordings[:2], tmp_path / "damaged")]
    assert main(["train", "--recording", *given, "--out", str(tmp_path / "model"), "threads=1"]) == 1
    assert f"{tmp_path / 'damaged' / MEDIA}: damaged" in capfd.readouterr().err
    assert not (tmp_path / "model").exists()
