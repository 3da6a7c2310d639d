"""The folder of a site: its plant and its daemon configuration, begun from skeletons and never overwritten."""

from __future__ import annotations

from pathlib import Path

from fusion.errors import ConfigError
from fusion.files import whole_file
from fusion.plant_file import plant_name

PLANT, DAEMON = "plant.yaml", "daemon.yaml"
SKELETONS = Path(__file__).parent


def skeleton(file: str, site: Path, step_s: float = 1.0) -> str:
    """What a file of a new site says."""
    return (SKELETONS / file).read_text().format(name=plant_name(site), step_s=step_s)


def begin(site: Path) -> list[Path]:
    """Make the folder and the files that are missing; returns what was written.

    Raises:
        ConfigError: the place cannot be a folder.
    """
    try:
        site.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"{site}: cannot be a folder ({error.strerror})") from error
    missing = [site / file for file in (PLANT, DAEMON) if not (site / file).exists()]
    for file in missing:
        write(file, skeleton(file.name, site))
    return missing


def write(file: Path, text: str) -> None:
    """Put a file in its place when it is whole."""
    with whole_file(file) as aside:
        aside.write_text(text, encoding="utf-8")
