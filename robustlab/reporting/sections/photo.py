"""A sticker on photographs: how often it succeeds beside its controls."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill

NAME = "photo"
TITLE = "The sticker on photographs"
SHOWN = ("fit", "success")  # the sections of run.json that are shown here


def applies(runs: Sequence[PageRun]) -> bool:
    return any(map(is_one, runs))


def is_one(run: PageRun) -> bool:
    """Is it the run of a sticker on photographs?"""
    return run.info.get("kind") == "physical" and run.info.get("suite") == "photo"


def render(runs: Sequence[PageRun]) -> Markup:
    shown = []
    for run in filter(is_one, runs):
        found = {section["name"]: section for section in run.info.get("sections", [])}
        fit, success = (found.get(name, {"rows": [], "columns": [], "note": ""}) for name in SHOWN)
        shown.append(
            {
                "run": run,
                "labels": {column["key"]: column["label"] for column in success["columns"]},
                "fitted_on": run.info["config"]["models"][0]["name"],
                "pictures": [picture for file in fit.get("images", []) if (picture := run.picture(file))],
                "fit": next(iter(fit["rows"]), {}),
                "rows": success["rows"],
                "note": success["note"],
            }
        )
    return fill("sections/photo.html", shown=shown, several=len(shown) > 1)
