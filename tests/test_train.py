import json
import os
import signal
import struct
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from tensorboardX.proto.event_pb2 import Event

from fusion.checkpoint import load_checkpoint
from fusion.errors import ConfigError
from fusion.training.curves import Curves, Log
from fusion.training.settings import TrainConfig
from fusion.training.train import train
from tests.small_plants import SMALL, small_values, write_recording

ROOT = Path(__file__).parent.parent
COMMAND = ("-m", "fusion.cli")
STEPS = 12
SETTINGS = (f"steps={STEPS}", "seconds=inf", "batch=4", "validate_every=3", "threads=1", "checkpoint_every_s=1e-6")


@pytest.fixture(scope="module")
def recording(tmp_path_factory):
    return write_recording(tmp_path_factory.mktemp("small") / "run", SMALL, small_values(0, 3600))


def trained(recording, out, *program, code=0):
    """A training in a process of its own, which ends with ``code``."""
    command = [sys.executable, *program, "train", "--recording", str(recording), "--out", str(out), *SETTINGS]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    ended = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert ended.returncode == code, ended.stderr


def kept_step(out):
    """The step of the state that a training has written."""
    with safe_open(out.with_name(out.name + ".work") / "state.safetensors", "pt") as opened:
        return json.loads(opened.metadata()["meta"])["step"]


KILLED = """
import os, signal, sys
from fusion.cli import main
from models.training.fitter import Fitter
step = Fitter.train_step
def once_too_often(fitter):
    if fitter.step == 7:
        os.kill(os.getpid(), signal.SIGKILL)
    return step(fitter)
Fitter.train_step = once_too_often
main(sys.argv[1:])
"""


def events(folder):
    """Every scalar of the event files as TensorBoard reads them: name, step and value."""
    found = []
    for file in sorted(folder.glob("events.out.tfevents.*")):
        data, at = file.read_bytes(), 0
        while at < len(data):
            (length,) = struct.unpack_from("<Q", data, at)
            event = Event.FromString(data[at + 12 : at + 12 + length])
            found += [(value.tag, event.step, value.simple_value) for value in event.summary.value]
            at += 16 + length
    return found


def test_a_killed_training_has_the_loss_curve_and_the_weights_of_one_that_was_not(recording, tmp_path):
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    trained(recording, whole, *COMMAND)
    trained(recording, broken, "-c", KILLED, code=-signal.SIGKILL)
    assert not broken.exists()
    assert kept_step(broken) == 7
    trained(recording, broken, *COMMAND)
    curve = sorted(events(whole / "logs"))
    assert sorted(events(broken / "logs")) == curve
    for name in ("loss/total", "rate/learning"):
        assert [step for tag, step, _ in curve if tag == name] == list(range(1, STEPS + 1))
    assert [step for tag, step, _ in curve if tag == "gauge/epps_pulley"] == [6, 9, 12]
    assert load_checkpoint(broken).model_id == load_checkpoint(whole).model_id
    assert not broken.with_name("broken.work").exists()


def test_a_course_is_kept_whole_and_notes_a_step_once(tmp_path):
    course = Curves()
    for step in (1, 2, 3):
        course.note(step, {"loss/total": 1 / step} | ({"loss/late": 0.5} if step == 3 else {}))
    assert course.note(3, {"loss/total": 9.0}) == {}
    again = Curves()
    again.load(course.arrays())
    assert again == course
    assert again.group("loss")["late"].steps == [3]


def test_events_go_on_after_a_kill_without_steps_that_were_lost(tmp_path):
    course = Curves()
    with Log(tmp_path, course) as log:
        for step in (1, 2, 3):
            log.note(step, {"loss/total": float(step)})
    kept = Curves()
    kept.load({n: a[:2] for n, a in course.arrays().items()})
    with Log(tmp_path, kept) as log:
        log.note(3, {"loss/total": 30.0})
    assert events(tmp_path) == [("loss/total", 1, 1.0), ("loss/total", 2, 2.0), ("loss/total", 3, 30.0)]


def test_too_little_is_refused_with_what_is_needed(tmp_path):
    short = write_recording(tmp_path / "short", SMALL, small_values(0, 600))
    with pytest.raises(ConfigError, match=r"0\.17 h of normal operation in 1 recordings.*0\.97 h"):
        train([short], tmp_path / "model", TrainConfig(threads=torch.get_num_threads()))


def test_recordings_of_faults_alone_are_refused(tmp_path):
    fault = write_recording(tmp_path / "fault", SMALL, small_values(0, 600), kind="fault")
    with pytest.raises(ConfigError, match="hold faults"):
        train([fault], tmp_path / "model", TrainConfig(threads=torch.get_num_threads()))
