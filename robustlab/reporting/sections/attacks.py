"""The attack table: what each attack of the suite left, broke and cost."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill

NAME = "attacks"
TITLE = "Attacks"


def applies(runs: Sequence[PageRun]) -> bool:
    return any(model["attacks"] for run in runs for model in run.models)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = [run for run in runs if any(model["attacks"] for model in run.models)]
    return fill("sections/attacks.html", shown=shown)
