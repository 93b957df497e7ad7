"""Verification: what became of the successes that the attacks claimed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.runs.breakdowns import verification

NAME = "verification"
TITLE = "Verification"

Json = dict[str, Any]


def applies(runs: Sequence[PageRun]) -> bool:
    return any(model["attacks"] for run in runs for model in run.models)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = []
    for run in runs:
        models = [
            {"name": model["name"], "shade": at % 6}
            | verification(model, run.tables.get(model["name"], {}), run.numbers["norm"], run.numbers["eps"])
            for at, model in enumerate(run.models)
            if model["attacks"]
        ]
        if models:
            shown.append({"run": run, "models": models, "total": total(models)})
    return fill("sections/verification.html", shown=shown)


def total(models: Sequence[Json]) -> Json:
    """The counts of all models and attacks together; `undone_8bit` is None where any of them was not judged."""
    rows = [row for model in models for row in model["attacks"]]
    undone = [row["undone_8bit"] for row in rows]
    counted = ("claimed", "unverified", "confirmed", "leaves_8bit", "outside", "errors", "missing")
    elsewhere = {key: sum(model["elsewhere"][key] for model in models) for key in ("confirmed", "outside")}
    return {
        **{key: sum(row[key] for row in rows) for key in counted},
        "undone_8bit": None if None in undone else sum(undone),
        "elsewhere": elsewhere,
        "any_outside": elsewhere["outside"] + sum(row["outside"] for row in rows),
    }
