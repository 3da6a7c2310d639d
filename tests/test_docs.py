"""What documents and packaging say exists, exists."""

import dataclasses
import re
import shlex
import tomllib
from itertools import product
from pathlib import Path

import pytest
import yaml

from fusion.cli import build_parser
from fusion.plant import Balance, Gain, Plant, Signal
from fusion.plant_file import plant_from_dict
from fusion.targets import Target

ROOT = Path(__file__).parents[1]
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md")])
FOLDERS = ("fusion", "connectors", "models", "control", "tests", "configs", "deploy", "docs")
PLACE = re.compile(rf"`((?:{'|'.join(FOLDERS)})/[\w./{{}},*-]+)`")
MODULE = re.compile(r"(?:`|-m )((?:fusion|connectors|models|control)(?:\.[a-z_]\w*)+)")
LINK = re.compile(r"\]\((?!https?:)([^)#]+)(?:#[^)]*)?\)")


def spelled_out(place):
    """`models/{a,b}.py` as two places."""
    parts = [part.strip("{}").split(",") for part in re.split(r"(\{[^}]*\})", place)]
    return ["".join(choice) for choice in product(*parts)]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_files_and_modules_that_a_page_names_are_there(page):
    text = page.read_text()
    places = [place for found in PLACE.findall(text) for place in spelled_out(found)]
    missing = [place for place in places if not list(ROOT.glob(place.rstrip("/")))]
    modules = [name.split(".") for name in MODULE.findall(text)]
    missing += [".".join(name) for name in modules if not module(name)]
    missing += [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    assert missing == []


def test_each_word_of_the_glossary_is_used_and_explained_once():
    """In order of the alphabet, so that a word is found; and no other page has a table of words of its own."""
    words = re.findall(r"^\| ([^|]+?) \|", (ROOT / "docs/glossary.md").read_text(), re.MULTILINE)[1:]
    assert len(words) > 40
    assert words == sorted(set(words))
    others = {page.name: page.read_text() for page in PAGES if page.name != "glossary.md"}
    used = "\n".join(others.values())
    assert [word for word in words if not re.search(rf"\b{re.escape(word)}", used, re.IGNORECASE)] == []
    assert [name for name, text in others.items() if "| word | meaning |" in text] == []


def module(name):
    """Whether a dotted name begins with a module and goes on with at most a name within it."""
    return any(
        (ROOT.joinpath(*part).with_suffix(".py")).is_file() or ROOT.joinpath(*part).is_dir()
        for part in (name, name[:-1], name[:-2])
        if part
    )


def commands(page):
    """What a page tells people to type at our command line."""
    for block in re.findall(r"^```sh\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
        for line in block.replace("\\\n", " ").splitlines():
            if line.removeprefix(".venv/bin/").startswith("fusion "):
                yield shlex.split(line, comments=True)[1:]


@pytest.mark.parametrize("page", [page for page in PAGES if next(commands(page), None)], ids=lambda page: page.name)
def test_commands_that_a_page_prints_are_accepted(page):
    for words in commands(page):
        build_parser().parse_args(words)


def test_the_pages_for_newcomers_print_commands():
    for name in ("README.md", "docs/connect-your-plant.md", "docs/operate.md"):
        assert len(list(commands(ROOT / name))) >= 6


def test_every_folder_with_code_is_packaged():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    packages = ("fusion", "connectors", "models", "control")
    found = {".".join(f.parent.relative_to(ROOT).parts) for top in packages for f in (ROOT / top).rglob("__init__.py")}
    assert listed == found


def keys_of(page, heading):
    """The keys that the first table below a heading lists."""
    section = page.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line.split("|")[1] for line in section.splitlines() if line.startswith("| `")]
    return {key for row in rows for key in re.findall(r"`(\w+)`", row)}


@pytest.mark.parametrize(
    ("heading", "record"),
    [("The plant", Plant), ("`signals`", Signal), ("`gains`", Gain), ("`balances`", Balance), ("`targets`", Target)],
)
def test_the_page_of_the_plant_file_has_every_key_and_no_other(heading, record):
    page = (ROOT / "docs" / "plant-file.md").read_text()
    assert keys_of(page, heading) == {field.name for field in dataclasses.fields(record)}


def test_the_plant_of_that_page_loads_and_uses_every_key():
    text = (ROOT / "docs" / "plant-file.md").read_text().split("```yaml\n")[1].split("```")[0]
    plant = plant_from_dict(yaml.safe_load(text))
    unused = {
        (record.__name__, field.name)
        for record, items in (
            (Signal, plant.signals),
            (Gain, plant.gains),
            (Balance, plant.balances),
            (Target, plant.targets),
        )
        for field in dataclasses.fields(record)
        if all(getattr(item, field.name) == field.default for item in items)
    }
    assert unused == set()


def test_every_command_of_the_path_to_a_plant_is_one():
    text = (ROOT / "docs" / "connect-your-plant.md").read_text().split("```sh\n")[1].split("```")[0]
    commands = [line.partition("#")[0].split() for line in text.splitlines()]
    assert len(commands) <= 10
    for command in commands:
        if command[0] == "fusion":
            build_parser().parse_args([part.strip("'") for part in command[1:]])
