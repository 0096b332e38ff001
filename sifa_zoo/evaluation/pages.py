"""Self-contained HTML pages, made of the templates beside this file."""

from __future__ import annotations

import base64
from typing import Any


def render(template: str, **values: Any) -> str:
    """A template with values filled in, all of them escaped: names of files and classes may hold anything."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    pages = Environment(
        loader=PackageLoader("sifa_zoo.evaluation"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    pages.filters["data_url"] = _data_url
    return pages.get_template(template).render(values)


def _data_url(picture: bytes, kind: str = "png") -> str:
    """A picture in place of its address."""
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"
