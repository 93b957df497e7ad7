"""What the page's sections of stickers and patches read from a run alike."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustlab.reporting.figures import loss_curve
from robustlab.reporting.source import PageRun

Json = dict[str, Any]


def is_of(run: PageRun, suite: str) -> bool:
    """Is it the run of a fitted attack, of this suite?"""
    return run.info.get("kind") == "physical" and run.info.get("suite") == suite


def by_model(rows: Sequence[Json]) -> dict[str, list[Json]]:
    """The rows of each model."""
    return {name: [row for row in rows if row["model"] == name] for name in dict.fromkeys(row["model"] for row in rows)}


def pictures_of(run: PageRun, section: Json) -> list[str]:
    """A section's pictures that are there."""
    return [picture for file in section.get("images", []) if (picture := run.picture(file))]


def shown(run: PageRun, found: dict[str, Json]) -> Json:
    """What every template gets. found: the sections of run.json by name, of which an unfinished run may have none."""
    fit, success = found.get("fit", {}), found.get("success", {"rows": [], "columns": []})
    first: Json = next(iter(fit.get("rows", [])), {})
    return {
        "run": run,
        "fitted_on": run.info["config"]["models"][0]["name"],
        "pictures": pictures_of(run, fit),
        "fit": first,
        "curve": loss_curve(next(iter(run.info.get("losses", {}).values()), []), first.get("steps", 0)),
        "labels": {column["key"]: column["label"] for column in success["columns"]},
        "models": by_model(success["rows"]),
    }


def sections_of(run: PageRun) -> dict[str, Json]:
    """The sections of run.json by name."""
    return {section["name"]: section for section in run.info.get("sections", [])}
