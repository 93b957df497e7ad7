"""A patch on images: how often it succeeds beside its controls, by size and by place."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from robustlab.reporting.fitted import by_model, is_of, pictures_of, sections_of
from robustlab.reporting.fitted import shown as shared
from robustlab.reporting.sections.confusion import STEPS
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill

NAME = "patch"
TITLE = "The patch"
SHOWN = ("fit", "success", "by size", "by place", "heat")  # the sections of run.json that are shown here
EDGES = {0.0: "at the upper edge", 0.5: "in the middle", 1.0: "at the lower edge"}
SIDES = {0.0: "left", 0.5: "middle", 1.0: "right"}

Json = dict[str, Any]


def applies(runs: Sequence[PageRun]) -> bool:
    return any(map(is_one, runs))


def is_one(run: PageRun) -> bool:
    """Is it the run of a patch?"""
    return is_of(run, NAME)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = [_shown(run) for run in runs if is_one(run)]
    return fill("sections/patch.html", shown=shown, several=len(shown) > 1)


def _shown(run: PageRun) -> Json:
    found = sections_of(run)
    places = by_model(found.get("by place", {}).get("rows", []))
    return shared(run, found) | {
        "sizes": found.get("by size", {}).get("rows", []),
        "places": {model: _places(rows) for model, rows in places.items()},
        "heat": {"rows": [], "note": ""} | found.get("heat", {}),
        "heat_pictures": pictures_of(run, found.get("heat", {})),
        "notes": [found[name]["note"] for name in SHOWN[1:4] if name in found],
    }


def _places(rows: Sequence[Json]) -> Json:
    """The sides, and by edge the cells with a step of the colour scale."""
    cells = [row | {"step": math.ceil(STEPS * (row["success"]["value"] or 0))} for row in rows]
    edges = dict.fromkeys(row["y"] for row in rows)
    return {
        "sides": [SIDES.get(x, x) for x in dict.fromkeys(row["x"] for row in rows)],
        "rows": {EDGES.get(y, y): [cell for cell in cells if cell["y"] == y] for y in edges},
    }
