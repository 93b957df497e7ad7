"""The audit: is the attack itself to be believed? Every check, with what was measured."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.runs.audits import audit_of, in_one_line

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
    rows = _rows(record["checks"]) if record else []
    return {"record": record, "rows": rows, "sentence": in_one_line(record)}


def _rows(checks: Sequence[Json]) -> list[Json]:
    """The checks, those that one reason kept from being run as one row at the end."""
    idle: dict[str, list[Json]] = {}
    for check in checks:
        if check["status"] == "not run":
            idle.setdefault(check["measured"], []).append(check)
    together = {reason: group for reason, group in idle.items() if len(group) > 1}
    rows = [check for check in checks if check["measured"] not in together or check["status"] != "not run"]
    for reason, group in together.items():
        titles = "; ".join(check["title"] for check in group)
        rows.append({"title": f"{len(group)} more", "status": "not run", "measured": reason, "source": titles})
    return rows
