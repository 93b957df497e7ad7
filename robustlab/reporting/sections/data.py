"""The data behind the page: run.json itself, to read and to download."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.reporting.templates import script_json

NAME = "data"
TITLE = "Data"


def applies(runs: Sequence[PageRun]) -> bool:
    return True


def render(runs: Sequence[PageRun]) -> Markup:
    shown = [{"name": run.name, "json": script_json(run.info)} for run in runs]
    return fill("sections/data.html", shown=shown)
