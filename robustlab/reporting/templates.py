"""The page's templates: everything that is put into them is escaped."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from pathlib import Path
from typing import Any

import msgspec
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from robustlab.base import words
from robustlab.base.words import visible, visible_json
from robustlab.reporting import text
from robustlab.reporting.glossary import with_terms


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        finalize=_shown,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=False,
    )
    for name in ("percent", "interval", "duration", "counted", "listed"):
        environment.filters[name] = getattr(words, name)
    for name in ("points", "p_value", "quantity"):
        environment.filters[name] = getattr(text, name)
    environment.filters["with_terms"] = with_terms
    environment.filters["zip"] = zip
    environment.filters["bare"] = lambda value: "" if value is None else value  # for a cell's data-value
    environment.filters["pretty"] = lambda value: msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    environment.globals |= {"source": source, "script": script, "script_hash": script_hash}
    return environment


def _shown(value: Any) -> Any:
    """What is put into a template, with what cannot be seen as an escape."""
    return visible(value, "\n") if isinstance(value, str) and not isinstance(value, Markup) else value


def render(template: str, **values: Any) -> Markup:
    """A template beside this file, filled in."""
    return Markup(_environment().get_template(template).render(**values))  # escaped by the environment


def source(name: str) -> Markup:
    """A style sheet or script of ours, as it is."""
    return Markup((Path(__file__).parent / name).read_text(encoding="utf-8"))


def script() -> Markup:
    """The page's script: the files in scripts/, each in a block of its own."""
    files = sorted((Path(__file__).parent / "scripts").glob("*.js"))
    return Markup("\n".join(['"use strict";', *(file.read_text(encoding="utf-8") for file in files)]))


def script_hash() -> str:
    """Its hash as a Content-Security-Policy names it: nothing else that gets into the page can run.

    >>> script_hash()[:7]
    'sha256-'
    """
    digest = hashlib.sha256(script().encode()).digest()
    return "sha256-" + base64.b64encode(digest).decode()


def script_json(value: Any) -> Markup:
    """JSON that may stand inside a script element: no `<` can close it, whatever the names in it are.

    >>> script_json({"class": "</script>"})
    Markup('{"class":"\\\\u003c/script>"}')
    """
    return Markup(visible_json(msgspec.json.encode(value).decode()).replace("<", "\\u003c"))
