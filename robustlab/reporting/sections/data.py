"""The data behind the page: run.json itself and what happened to each sample, to read and to download."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from robustlab.reporting.source import PageRun
from robustlab.reporting.tables import written
from robustlab.reporting.templates import render as fill
from robustlab.reporting.templates import script_json
from robustlab.runs.aggregates import CLEAN, Line

NAME = "data"
TITLE = "Data"

BYTES = 3_000_000  # of all runs' columns; larger ones stay in the run folder
OUTCOMES = {"-": "not tried", "w": "withstood", "f": "fooled", "r": "fooled, not after rounding", "e": "error"}

Json = dict[str, Any]


def applies(runs: Sequence[PageRun]) -> bool:
    return True


def render(runs: Sequence[PageRun]) -> Markup:
    left = BYTES
    own = any(run.own_labels for run in runs)
    shown = []
    for run in runs:
        stored = script_json(columns(run)) if run.models else None
        if stored is not None:
            left -= len(stored)
        shown.append(
            {
                "name": run.name,
                "json": script_json(run.info),
                "attacked": bool(run.models),
                "attacks": script_json(written(run, "attacks", "csv"))
                if any(m["attacks"] for m in run.models)
                else None,
                "columns": stored if left >= 0 else None,
            }
        )
    return fill("sections/data.html", shown=shown, outcomes=OUTCOMES, megabytes=BYTES / 1e6, own_labels=own)


def columns(run: PageRun) -> Json:
    """What happened to each sample at the headline eps, by columns; classes are numbers, confidences have 3 digits.

    Returns {id, label, models: [{name, prediction, confidence, attacks: [{name, outcome, prediction, confidence}]}],
    outcomes}. An attack's outcome has one letter for each sample (`outcomes` says which); its predictions and
    confidences are those of the samples that it tried, in the same order: few, in a cascade. Where the models' own
    answers were attacked, the label of the data, which nobody used, is None: it need not number the models' classes.
    """
    eps = run.numbers["eps"]
    units: dict[tuple[str, str], dict[int, Line]] = defaultdict(dict)
    for line in run.lines:
        if line.attack == CLEAN or line.eps == eps:
            units[line.model, line.attack][line.id] = line
    ids = [sample["id"] for sample in run.data_lines]
    models = []
    for model in run.models:
        clean = [units[model["name"], CLEAN].get(id) for id in ids]
        attacks = []
        for attack in model["attacks"]:
            unit = units[model["name"], attack["name"]]
            tried = [unit[id] for id in ids if id in unit]
            attacks.append(
                {
                    "name": attack["name"],
                    "outcome": "".join(_outcome(unit.get(id)) for id in ids),
                    "prediction": [line.adv for line in tried],
                    "confidence": [_short(line.confidence) for line in tried],
                }
            )
        models.append(
            {
                "name": model["name"],
                "prediction": [line.clean if line else None for line in clean],
                "confidence": [_short(line.confidence) if line else None for line in clean],
                "attacks": attacks,
            }
        )
    labels = [None if run.own_labels or sample["label"] < 0 else sample["label"] for sample in run.data_lines]
    return {"id": ids, "label": labels, "models": models, "outcomes": OUTCOMES}


def _outcome(line: Line | None) -> str:
    if line is None:
        return "-"
    if line.error is not None:
        return "e"
    if not line.succeeded:
        return "w"
    return "r" if line.success_8bit is False else "f"


def _short(value: float | None) -> float | None:
    return None if value is None else round(value, 3)
