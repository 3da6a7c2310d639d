import argparse
import os
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from fusion import cli
from fusion.checkpoint import load_checkpoint, save_checkpoint
from fusion.cli import build_parser, main
from fusion.demo import Demo, Ports
from fusion.errors import ConfigError
from fusion.model_store import ModelStore
from fusion.plant_file import load_plant
from fusion.verbs.operation import write_report

WHATIF = ["whatif", "--model", "x", "--recording", "x", "--at"]
PLANT = load_plant(Path(__file__).parent.parent / "configs" / "plant" / "lime.yaml")
GOLDEN = Path(__file__).parent / "golden" / "cli.txt"


def surface():
    """What `fusion --help` and `fusion VERB --help` say."""
    parser = build_parser()
    (verbs,) = (action for action in parser._actions if isinstance(action, argparse._SubParsersAction))
    with mock.patch.dict(os.environ, COLUMNS="100", NO_COLOR="1"):
        return "\n".join(p.format_help() for p in (parser, *verbs.choices.values()))


def test_the_command_line_is_what_it_was():
    assert surface() == GOLDEN.read_text(), "if that is meant: python -m tests.test_cli"


def run(*arguments):
    return subprocess.run(
        [sys.executable, "-m", "fusion.cli", *map(str, arguments)], capture_output=True, text=True, timeout=120
    )


def test_a_typo_in_a_key_exits_2_and_names_the_accepted_ones(tmp_path):
    done = run("run", "publish.prot=1883")
    assert done.returncode == 2
    assert "publish.prot: unknown key; accepted: host, port" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_missing_model_exits_2_and_says_what_was_expected(tmp_path, capsys):
    assert main(["run", f"model={tmp_path / 'nowhere'}"]) == 2
    assert "fusion train --out" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["record", "--scenario", "nowhere.yaml", "--out", "x"], "nowhere.yaml: cannot be read"),
        (["replay", "nowhere", "--model", "x"], "manifest.json: missing"),
        (["train", "--recording", "nowhere", "--out", "x"], "manifest.json: missing"),
        (["evaluate", "--recording", "nowhere", "--model", "x"], "missing"),
        (["fault", "gremlins"], "'gremlins' is not known; accepted: clear, list, rat_hole"),
        (["fault", "belt_slip", "--broker", "127.0.0.1:1"], "broker 127.0.0.1:1 cannot be reached"),
        (["plant", "--scenario", "nowhere.yaml"], "nowhere.yaml: cannot be read"),
        (["replay", "x", "--model", "x", "--json", "no/dir/x.json"], "--json no/dir/x.json: there is no folder no/dir"),
        (["evaluate", "--model", "x", "--json", "no/x.json"], "--json no/x.json: there is no folder no"),
        (["evaluate", "--model", "x", "--json", "."], "--json .: is a folder; expected the name of a file"),
        (["whatif", "--model", "x"], "whatif: --recording, --at missing; or --broker HOST:PORT asks a running daemon"),
        (["whatif", "--broker", "127.0.0.1:1", "--at", "3"], "whatif takes --broker or --at, not both"),
        (["whatif", "--broker", "127.0.0.1:1"], "broker 127.0.0.1:1 cannot be reached"),
        ([*WHATIF, "60", "--json", "no/x.json"], "--json no/x.json: there is no folder no"),
    ],
)
def test_bad_input_is_one_sentence_without_a_traceback(arguments, message, capsys):
    assert main(arguments) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


@pytest.mark.parametrize("text", ["nan", "inf", "-inf", "soon"])
@pytest.mark.parametrize(
    ("arguments", "key"),
    [
        (WHATIF, "--at"),
        ([*WHATIF, "60", "--horizon"], "--horizon"),
        (["replay", "x", "--model", "x", "--speed"], "--speed"),
        (["fault", "belt_slip", "--severity"], "--severity"),
        (["import", "x", "--site", "x", "--step"], "--step"),
    ],
)
def test_a_number_that_is_not_finite_is_refused_by_name(arguments, key, text, capsys):
    with pytest.raises(SystemExit, match="2"):
        main([*arguments[:-1], f"{arguments[-1]}={text}"])
    assert f"argument {key}: '{text}' is not accepted; expected a finite number" in capsys.readouterr().err


def test_a_report_takes_its_place_when_it_is_whole(tmp_path, monkeypatch, capsys):
    place = tmp_path / "report.json"
    place.write_text("old")
    monkeypatch.setattr(Path, "replace", lambda *_: (_ for _ in ()).throw(OSError("full")))
    with pytest.raises(OSError, match="full"):
        write_report({"a": float("nan")}, place)
    assert [place.read_text(), *tmp_path.iterdir()] == ["old", place]
    write_report({"a": 1}, Path(os.devnull))
    assert Path(os.devnull).is_char_device()


def test_faults_can_be_listed(capsys):
    assert main(["fault", "list"]) == 0
    assert "belt_slip" in capsys.readouterr().out


def test_the_demo_starts_its_processes_with_arguments_that_exist(tmp_path):
    ports = Ports(opcua=1, mqtt=2, rtsp=3, lidar=4, page=5)
    processes = {name: build_parser().parse_args(words) for name, words, _ in Demo(tmp_path)._processes(ports)}
    assert processes["plant"].broker == processes["page"].broker == "127.0.0.1:2"


def test_the_demo_looks_at_its_scenario_before_it_commissions(tmp_path, capsys):
    assert main(["demo", "--dir", str(tmp_path / "demo"), "--scenario", str(tmp_path / "nope.yaml")]) == 2
    assert "nope.yaml: cannot be read" in capsys.readouterr().err
    assert not (tmp_path / "demo").exists()


def test_the_demo_trains_anew_where_no_engine_can_be_made_of_its_model(tmp_path, model):
    store = ModelStore(tmp_path / "models")
    assert not Demo(tmp_path)._commissioned(PLANT)
    for name in ("0001", "0002", "0003"):
        assert not Demo(tmp_path)._commissioned(PLANT)  # it was interrupted
        shutil.copytree(model, store.folder / name)
        store.choose(name, "test")
    assert Demo(tmp_path)._commissioned(PLANT)
    found = load_checkpoint(store.current)
    other = {key: value for key, value in found.meta.items() if key != "licence"}
    save_checkpoint(store.current, found.plant, found.arrays, other)
    assert not Demo(tmp_path)._commissioned(PLANT)


def test_a_foreign_package_of_our_name_is_noticed(monkeypatch):
    import control

    monkeypatch.delattr(control, "MARKER")
    with pytest.raises(ConfigError, match="another distribution shadows it"):
        cli._check_names()


def test_sources_and_simulator_leave_torch_alone():
    modules = "connectors.kinds, fusion.simulator.live"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


if __name__ == "__main__":
    GOLDEN.write_text(surface())
