"""The record of who did what: whole after a restart, and nobody changes it unseen."""

import json

import pytest

from fusion.cli import main
from fusion.daemon.audit import AUDIT, Audit, check_audit
from fusion.errors import ConfigError


@pytest.fixture
def file(tmp_path):
    for life in range(3):
        audit = Audit(tmp_path / AUDIT)
        audit.note("started", model="m")
        audit.note("order", id=f"kiln-{life}", order="acknowledge", by="kim")
    return tmp_path / AUDIT


def test_the_chain_goes_on_over_restarts(file, capsys):
    found = check_audit(file)
    assert (found.lines, found.torn, found.broken) == (6, 0, None)
    assert main(["audit", str(file.parent)]) == 0
    assert f"6 lines as they were written; last hash {found.last}" in capsys.readouterr().out
    assert [json.loads(line)["by"] for line in file.read_text().splitlines()[1::2]] == ["kim"] * 3


@pytest.mark.parametrize(
    ("change", "line"),
    [
        (lambda lines: [lines[0], lines[1].replace("kim", "lee"), *lines[2:]], 2),
        (lambda lines: [*lines[:2], *lines[3:]], 3),
        (lambda lines: [*lines[:3], lines[2], *lines[3:]], 4),
        (lambda lines: [lines[1], lines[0], *lines[2:]], 1),
    ],
)
def test_a_line_that_was_changed_taken_out_or_put_in_is_found(file, change, line, capsys):
    file.write_text("".join(change(file.read_text().splitlines(keepends=True))))
    assert check_audit(file).broken == line
    assert main(["audit", str(file.parent)]) == 1
    assert f"was changed at line {line}" in capsys.readouterr().err


def test_a_line_cut_short_by_a_loss_of_power_is_counted_and_the_chain_goes_on(file):
    file.write_bytes(file.read_bytes() + b'{"time": "2026')
    Audit(file).note("started", model="m")
    found = check_audit(file)
    assert (found.lines, found.torn, found.broken) == (8, 1, None)


def test_what_the_disk_does_not_take_is_said_and_written_with_the_next(tmp_path, monkeypatch):
    audit = Audit(tmp_path / "state" / AUDIT)
    audit.note("order", id="a")
    assert "is not written" in audit.trouble
    (tmp_path / "state").mkdir()
    audit.note("order", id="b")
    assert audit.trouble == ""
    assert [json.loads(line)["id"] for line in (tmp_path / "state" / AUDIT).read_text().splitlines()] == ["a", "b"]
    assert check_audit(tmp_path / "state" / AUDIT).broken is None


def test_without_a_file_nothing_is_kept_and_one_that_is_not_there_is_named(tmp_path):
    Audit().note("started")
    with pytest.raises(ConfigError, match=r"audit\.jsonl: cannot be read"):
        check_audit(tmp_path / AUDIT)
