"""The transfer matrix: what images that were crafted on one model do to another, as a table and a heat map in one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from robustlab.reporting.sections.confusion import STEPS
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.runs.transfer import matrix

NAME = "transfer"
TITLE = "Transfer"


def applies(runs: Sequence[PageRun]) -> bool:
    return any(matrix(run.info) for run in runs)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = [{"run": run, "attack": board["attack"], **_table(board)} for run in runs if (board := matrix(run.info))]
    return fill("sections/transfer.html", shown=shown, several=len(runs) > 1)


def _table(board: dict[str, Any]) -> dict[str, Any]:
    """The cells by source (rows) and target (columns), with a step of the colour scale that is linear in the share."""
    targets = list(dict.fromkeys(row["target"] for row in board["rows"]))
    rows: dict[str, list[dict[str, Any]]] = {}
    for row in board["rows"]:
        value = row["turned"]["value"] if row["turned"] else None
        rows.setdefault(row["source"], []).append(row | {"step": math.ceil(STEPS * (value or 0))})
    reasons = {row["source"]: row["reason"] for row in board["rows"] if row["reason"]}
    return {"targets": targets, "rows": rows, "reasons": reasons, "errors": sum(row["errors"] for row in board["rows"])}
