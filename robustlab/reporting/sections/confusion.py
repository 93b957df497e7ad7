"""Confusion: which classes are taken for which, on clean images, under attack, and what the attack moved."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.reporting.text import MINUS
from robustlab.runs.breakdowns import confusion

NAME = "confusion"
TITLE = "Confusion"

WHOLE = 50  # classes that are shown in one table
SHOWN = 30  # classes of a larger set: those with the most confusion
NARROW = 16  # more classes than this get small cells
FLOWS = 5
STEPS = 9  # of the colour scale

Json = dict[str, Any]
VIEWS = {"clean": "Clean images", "attacked": "Under attack", "difference": "Difference"}


def applies(runs: Sequence[PageRun]) -> bool:
    return any(any(run.answers.values()) for run in runs)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = []
    for run in runs:
        models = [
            {"name": model["name"], "shade": at % 6} | _model(run, confusion(answers), attacked=bool(model["attacks"]))
            for at, model in enumerate(run.models)
            if (answers := run.answers[model["name"]])
        ]
        if models:
            shown.append({"run": run, "models": models})
    return fill("sections/confusion.html", shown=shown, several=len(runs) > 1, whole=WHOLE)


def _model(run: PageRun, counts: Json, *, attacked: bool) -> Json:
    seen = {cell[key] for cell in counts["cells"] for key in ("true", "predicted")} | set(counts["members"])
    every = sorted(seen | set(range(len(run.data["classes"]))))
    classes = every if len(every) <= WHOLE else most_confused(counts["cells"], sorted(seen))
    views = [view for view in VIEWS if view == "clean" or attacked]
    return {
        "classes": [{"label": label, "name": run.class_name(label)} for label in classes],
        "of": len(every),
        "narrow": len(classes) > NARROW,
        "views": [
            {"name": VIEWS[view], "filters": view != "clean", "rows": rows(counts, classes, view)} for view in views
        ],
        "flows": [
            flow | {"from": run.class_name(flow["true"]), "into": run.class_name(flow["predicted"])}
            for flow in counts["flows"][:FLOWS]
        ],
        "other_flows": len(counts["flows"][FLOWS:]),
        "unknown": counts["unknown"] if len(views) > 1 else 0,
    }


def most_confused(cells: Sequence[Json], classes: Sequence[int], most: int = SHOWN) -> list[int]:
    """The classes that are taken for another, or another for them, most often, in their own order.

    >>> most_confused([{"true": 0, "predicted": 7, "clean": 1, "attacked": 2}], range(9), 2)
    [0, 7]
    """
    wrong: Counter[int] = Counter()
    for cell in cells:
        if cell["true"] != cell["predicted"]:
            for label in (cell["true"], cell["predicted"]):
                wrong[label] += cell["clean"] + cell["attacked"]
    return sorted(sorted(classes, key=lambda label: (-wrong[label], label))[:most])


def rows(counts: Json, classes: Sequence[int], view: str) -> list[list[Json]]:
    """The cells of a view, row by row (true class): label of the column, text and colour, the last two "" for zero.

    The colour is the square root of the cell's share of its row, so that single images can be seen.
    """
    count = {(cell["true"], cell["predicted"]): cell[view] for cell in counts["cells"]}
    table = []
    for true in classes:
        row = []
        for predicted in classes:
            value = count.get((true, predicted), 0)
            step = math.ceil(STEPS * math.sqrt(abs(value) / counts["members"][true])) if value else 0
            kind = "less" if value < 0 else "more" if view == "difference" else "heat"
            sign = (MINUS if value < 0 else "+") if view == "difference" else ""
            row.append({"label": predicted, "text": f"{sign}{abs(value)}" if value else "", "colour": f"{kind}{step}"})
        table.append(row)
    return table
