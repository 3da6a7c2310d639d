"""Pages from templates: the HTML of a report lies beside the code that fills it."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup


def render(template: Path, **values: Any) -> str:
    """A page of a template; every value is escaped unless it is ``Markup``, and one that is not given is an error."""
    environment = Environment(
        loader=FileSystemLoader(template.parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template.name).render(values)


def picture(png: bytes) -> Markup:
    """A PNG as an image inside the page."""
    return Markup('<img alt="" src="data:image/png;base64,{}">').format(base64.b64encode(png).decode())
