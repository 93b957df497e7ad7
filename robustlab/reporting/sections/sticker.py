"""A sticker on a sign: how often it succeeds beside its controls, by distance and angle, and on the way up to it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from robustlab.reporting.fitted import is_of, pictures_of, sections_of
from robustlab.reporting.fitted import shown as shared
from robustlab.reporting.sections.confusion import STEPS
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill

NAME = "sticker"
TITLE = "The sticker"
SHOWN = ("fit", "success", "grid", "drive-by", "heat")  # the sections of run.json that are shown here

Json = dict[str, Any]


def applies(runs: Sequence[PageRun]) -> bool:
    return any(map(is_one, runs))


def is_one(run: PageRun) -> bool:
    """Is it the run of a sticker?"""
    return is_of(run, NAME)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = [_shown(run) for run in runs if is_one(run)]
    return fill("sections/sticker.html", shown=shown, several=len(shown) > 1)


def _shown(run: PageRun) -> Json:
    found, frames = sections_of(run), run.info.get("drive_by", {})
    attack = run.info["config"]["attacks"][0]["parameters"]
    return shared(run, found) | {
        "source": attack.get("source", ""),
        "target": attack.get("target", ""),
        "grids": _grids(found.get("grid", {}).get("rows", [])),
        "rides": [row | {"frames": frames.get(row["model"], [])} for row in found.get("drive-by", {}).get("rows", [])],
        "heat": {"rows": [], "note": ""} | found.get("heat", {}),
        "heat_pictures": pictures_of(run, found.get("heat", {})),
        "notes": [found[name]["note"] for name in ("success", "grid", "drive-by") if name in found],
    }


def _grids(rows: Sequence[Json]) -> dict[str, Json]:
    """For each model the angles and, by distance, the cells with a step of the colour scale."""
    grids: dict[str, Json] = {}
    for row in rows:
        grid = grids.setdefault(row["model"], {"yaws": [], "rows": {}})
        if row["yaw"] not in grid["yaws"]:
            grid["yaws"].append(row["yaw"])
        step = math.ceil(STEPS * (row["success"]["value"] or 0))
        grid["rows"].setdefault(row["distance"], []).append(row | {"step": step})
    return grids
