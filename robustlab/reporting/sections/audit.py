"""The audit: is the attack itself to be believed? Every check, with what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.runs.audits import audit_of, in_one_line, tally

NAME = "audit"
TITLE = "Audit"

Json = dict[str, Any]


def applies(runs: Sequence[PageRun]) -> bool:
    return any(model["attacks"] for run in runs for model in run.models)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = []
    for run in runs:
        models = [
            {"name": model["name"], "shade": at % 6, **_told(run, model["name"])}
            for at, model in enumerate(run.models)
            if model["attacks"]
        ]
        if models:
            tolerated = max((m["record"]["tolerated"] for m in models if m["record"]), default=0.0)
            shown.append({"run": run, "models": models, "tolerated": f"{100 * tolerated:g}"})
    return fill("sections/audit.html", shown=shown)


def _told(run: PageRun, name: str) -> Json:
    record = audit_of(run.info, name)
    return {"record": record, "counts": tally(record), "sentence": in_one_line(record)}
