"""A sticker on photographs: how often it succeeds beside its controls."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from robustlab.reporting.fitted import is_of, sections_of
from robustlab.reporting.fitted import shown as shared
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill

NAME = "photo"
TITLE = "The sticker on photographs"
SHOWN = ("fit", "success")  # the sections of run.json that are shown here


def applies(runs: Sequence[PageRun]) -> bool:
    return any(map(is_one, runs))


def is_one(run: PageRun) -> bool:
    """Is it the run of a sticker on photographs?"""
    return is_of(run, NAME)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = []
    for run in filter(is_one, runs):
        found = sections_of(run)
        shown.append(shared(run, found) | {"note": found.get("success", {}).get("note", "")})
    return fill("sections/photo.html", shown=shown, several=len(shown) > 1)
