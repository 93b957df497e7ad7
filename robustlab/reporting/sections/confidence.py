"""Confidence: is the model as often right as it says, on clean images and under attack?"""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from robustlab.reporting.panels import reliability_panel
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.runs.breakdowns import BINS, SURE, confidence

NAME = "confidence"
TITLE = "Confidence"


def applies(runs: Sequence[PageRun]) -> bool:
    return any(_models(run) for run in runs)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = []
    for run in runs:
        models = []
        for at in _models(run):
            name = run.models[at]["name"]
            found = confidence(run.answers[name])
            states = [(what, found[key]) for key, what in (("clean", "clean"), ("attacked", "under attack"))]
            attacked = found["attacked"] if found["attacked"]["n"] else None
            figure = reliability_panel(name, at % 6, found["clean"], attacked)
            unknown = found["clean"]["n"] - found["attacked"]["n"] if run.models[at]["attacks"] else 0
            states = [(what, state) for what, state in states if state["n"]]
            models.append({"name": name, "shade": at % 6, "figure": figure, "states": states, "unknown": unknown})
        if models:
            shown.append({"run": run, "models": models})
    return fill("sections/confidence.html", shown=shown, bins=BINS, sure=f"{100 * SURE:.0f}")


def _models(run: PageRun) -> list[int]:
    """The models whose confidence is known."""
    answers = [run.answers[model["name"]] for model in run.models]
    return [at for at, mine in enumerate(answers) if any(a.clean_confidence is not None for a in mine)]
