"""`fusion status` and `fusion export`, completion and progress of the command line."""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import polars as pl
import pytest
from page_rig import MOSQUITTO, Rig, Talker
from rich.console import Console
from small_plants import SMALL, small_values, write_recording
from wire_examples import PLANT, T0, free_port, until

from fusion.alarms import MarkKind
from fusion.cli import EPILOG, build_parser, main
from fusion.daemon.audit import AUDIT, Audit
from fusion.health import PlantState
from fusion.plant_file import dump_plant
from fusion.progress import EVERY_S, Bars, working
from fusion.recordings.marks import Journal, Mark
from fusion.recordings.recorder import MARKS
from fusion.records import NS_PER_S


@pytest.fixture(scope="module")
def talker(tmp_path_factory):
    if not MOSQUITTO:
        pytest.skip("mosquitto is not installed")
    rig = Rig(tmp_path_factory.mktemp("status"))
    rig.start_broker()
    made = Talker(rig.broker_port)
    try:
        yield made
    finally:
        made.leave()
        rig.kill("broker")


def status(talker, tmp_path, *more):
    dump_plant(PLANT, tmp_path / "plant.yaml")
    broker = f"127.0.0.1:{talker.out._config.port}"
    return main(["status", "--plant", str(tmp_path / "plant.yaml"), "--broker", broker, *more])


def test_status_is_one_screen_of_what_the_daemon_says(talker, tmp_path, capsys):
    story = talker.story
    talker.say(story.anomaly(talker.s), story.frame(talker.s))
    assert status(talker, tmp_path, "--wait", "3") == 0
    said = capsys.readouterr().out
    for text in (
        "lime: ALARM 1 - IT103 agitator current reads 15.45 A, expected 12.03 A",
        "unacknowledged, since",
        "-> Look on the plant at IT103",
        "silo_lidar       stale",
        "no packet on UDP 2368",
        "Model: m-4711, may advise",
        "Advice: none yet",
    ):
        assert text in said
    assert len(said.splitlines()) <= 24


def test_status_as_json_is_the_message_itself(talker, tmp_path, capsys):
    assert status(talker, tmp_path, "--wait", "3", "--json") == 0
    assert json.loads(capsys.readouterr().out)["plant"] == "lime"


def test_status_fails_where_nothing_is_known(talker, tmp_path, capsys):
    talker.state = PlantState.NO_DATA
    talker.alarms = ()
    try:
        talker.say()
        assert status(talker, tmp_path, "--wait", "2") == 1
    finally:
        talker.state = PlantState.NORMAL
    assert "lime: NO DATA" in capsys.readouterr().out
    dump_plant(SMALL, tmp_path / "other.yaml")
    broker = f"127.0.0.1:{talker.out._config.port}"
    assert main(["status", "--plant", str(tmp_path / "other.yaml"), "--broker", broker, "--wait", "0.5"]) == 1
    assert "small: NO DATA - no message from the daemon yet" in capsys.readouterr().out


def test_status_without_a_broker_says_so(tmp_path, capsys):
    assert main(["status", "--broker", f"127.0.0.1:{free_port()}", "--wait", "1"]) == 1
    assert "expected the broker of a daemon" in capsys.readouterr().err


# -- tables


def read(file):
    return pl.read_csv(file) if file.suffix == ".csv" else pl.read_parquet(file)


@pytest.mark.parametrize("end", [".csv", ".parquet"])
def test_alarms_are_exported_with_what_people_said_of_them(tmp_path, end):
    journal = Journal(tmp_path / MARKS)
    alarm = Mark(
        name="lime-1", kind=MarkKind.ALARM, onset_ns=T0, end_ns=T0 + NS_PER_S, verdict="process", signals=("A", "B")
    )
    journal.add(alarm)
    journal.add(Mark(name="jam", kind=MarkKind.FAULT, onset_ns=T0, by="kim"))
    file = tmp_path / f"alarms{end}"
    assert main(["export", "alarms", "--records", str(tmp_path), "--out", str(file)]) == 0
    row = read(file).row(0, named=True)
    assert (row["id"], row["verdict"], row["signals"], row["marked"]) == ("lime-1", "process", "A B", "fault: jam")


def test_acts_and_advice_are_exported_from_the_audit(tmp_path):
    audit = Audit(tmp_path / AUDIT, lambda: T0)
    audit.note("advice", id="r-1", moves={"TIC1.SP": 81.4, "LIC1.SP": 0.5})
    audit.note("answer", id="r-1", answer="rejected", reason="not now", by="kim")
    audit.note("order", id="lime-1", order="shelve", by="lee", for_s=60.0)
    with (tmp_path / AUDIT).open("a") as stream:
        stream.write('{"torn')
    for what in ("acts", "advice"):
        assert main(["export", what, "--state", str(tmp_path), "--out", str(tmp_path / f"{what}.parquet")]) == 0
    acts, advice = read(tmp_path / "acts.parquet"), read(tmp_path / "advice.parquet")
    assert acts["what"].to_list() == ["advice", "answer", "order"]
    assert acts["by"].to_list() == ["", "kim", "lee"]
    assert json.loads(acts["details"][2]) == {"order": "shelve", "for_s": 60.0}
    assert advice.select("signal", "recommended", "answer", "by").rows() == [
        ("TIC1.SP", 81.4, "rejected", "kim"),
        ("LIC1.SP", 0.5, "rejected", "kim"),
    ]
    assert acts["time"][0].timestamp() * NS_PER_S == T0


def test_tags_of_a_recording_are_exported(tmp_path):
    write_recording(tmp_path / "one", SMALL, small_values(1, 60))
    file = tmp_path / "tags.csv"
    assert main(["export", "tags", "--recording", str(tmp_path / "one"), "--out", str(file)]) == 0
    table = read(file)
    assert {"time", "TT1", "FT1.SP"} <= set(table.columns)
    assert len(table) >= 59


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["alarms", "--out", "x.csv"], "export alarms: --records is required"),
        (["energies", "--model", "x", "--out", "x.csv"], "export energies: --recording is required"),
        (["acts", "--state", "nowhere", "--out", "x.txt"], "expected a name that ends with .csv or .parquet"),
        (["acts", "--state", "nowhere", "--out", "x.csv"], "audit.jsonl: cannot be read"),
    ],
)
def test_an_export_that_cannot_be_says_what_is_needed(arguments, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["export", *arguments]) == 2
    assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# -- the command line itself


def test_help_says_what_exit_codes_mean():
    assert EPILOG in build_parser().format_help()


def test_a_shell_is_told_what_may_follow(tmp_path):
    said = tmp_path / "said"
    environment = {
        **os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "_ARGCOMPLETE": "1", "_ARGCOMPLETE_IFS": "\n",
        "COMP_LINE": "fusion ex", "COMP_POINT": "9", "_ARGCOMPLETE_STDOUT_FILENAME": str(said),
    }  # fmt: skip
    subprocess.run([sys.executable, "-m", "fusion.cli"], env=environment, timeout=60, check=False)
    assert said.read_text().split() == ["export"]


def test_progress_is_a_line_every_ten_seconds_without_a_terminal(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr("fusion.progress.time.monotonic", lambda: now[0])
    with Path(os.devnull).open("w") as nowhere, Bars(console=Console(file=nowhere)) as bars:
        task = bars.add_task("recording", total=100)
        for done in range(1, 31):
            now[0] += 1.0
            bars.update(task, completed=done) if done % 2 else bars.advance(task)
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 30 / EVERY_S
    assert lines[0].startswith("recording: 10 %")


def test_work_of_unknown_length_is_told_without_a_terminal(capsys):
    lines = []
    with working("replaying", every_s=0.05):
        until(lambda: lines.extend(capsys.readouterr().err.splitlines()) or len(lines) >= 2, "two lines")
    assert lines[0] == "replaying, 0 s"
    assert not [thread for thread in threading.enumerate() if thread.name == "progress"]
