"""What documents and packaging say exists, exists."""

import re
import tomllib
from itertools import product
from pathlib import Path

import pytest

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


def module(name):
    """Whether a dotted name begins with a module and goes on with at most a name within it."""
    return any(
        (ROOT.joinpath(*part).with_suffix(".py")).is_file() or ROOT.joinpath(*part).is_dir()
        for part in (name, name[:-1], name[:-2])
        if part
    )


def test_every_folder_with_code_is_packaged():
    listed = set(tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"])
    packages = ("fusion", "connectors", "models", "control")
    found = {".".join(f.parent.relative_to(ROOT).parts) for top in packages for f in (ROOT / top).rglob("__init__.py")}
    assert listed == found
