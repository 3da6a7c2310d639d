import argparse
import os
import subprocess
import sys
from pathlib import Path
from unittest import mock

import pytest

from fusion.cli import build_parser, main
from fusion.demo import Demo, Ports
from fusion.errors import ConfigError

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
    ],
)
def test_bad_input_is_one_sentence_without_a_traceback(arguments, message, capsys):
    assert main(arguments) in (1, 2)
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_faults_can_be_listed(capsys):
    assert main(["fault", "list"]) == 0
    assert "belt_slip" in capsys.readouterr().out


def test_the_demo_starts_its_processes_with_arguments_that_exist(tmp_path):
    ports = Ports(opcua=1, mqtt=2, rtsp=3, lidar=4, page=5)
    processes = {name: build_parser().parse_args(words) for name, words, _ in Demo(tmp_path)._processes(ports)}
    assert processes["plant"].broker == processes["page"].broker == "127.0.0.1:2"


def test_a_foreign_package_of_our_name_is_noticed(monkeypatch):
    import control
    from fusion import cli

    monkeypatch.delattr(control, "MARKER")
    with pytest.raises(ConfigError, match="another distribution shadows it"):
        cli._check_names()


def test_sources_and_simulator_leave_torch_alone():
    modules = "connectors.kinds, fusion.simulator.live"
    code = f"import sys, {modules}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0


if __name__ == "__main__":
    GOLDEN.write_text(surface())
