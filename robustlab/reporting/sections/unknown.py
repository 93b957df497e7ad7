"""Sections that the page does not know by name: each as a table."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from robustlab.base.words import interval, percent
from robustlab.reporting.sections import backdoor, patch, photo, sticker
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.reporting.text import quantity
from robustlab.runs.detections import DETECTION
from robustlab.runs.transfer import TRANSFER_MATRIX

NAME = "unknown"
TITLE = "Further sections"
KNOWN = {TRANSFER_MATRIX, DETECTION}  # those with a section of their own on the page

Json = dict[str, Any]


def applies(runs: Sequence[PageRun]) -> bool:
    return any(_unknown(run) for run in runs)


def _unknown(run: PageRun) -> list[Json]:
    known = KNOWN.union(*(kind.SHOWN for kind in (sticker, photo, patch, backdoor) if kind.is_one(run)))
    return [section for section in run.info.get("sections", []) if section.get("name") not in known]


def render(runs: Sequence[PageRun]) -> Markup:
    shown = []
    for run in runs:
        for section in _unknown(run):
            columns = section.get("columns", [])
            shown.append(
                {
                    "title": section.get("name", "unnamed"),
                    "run": run.name,
                    "columns": columns,
                    "rows": [[_cell(row.get(column["key"])) for column in columns] for row in section.get("rows", [])],
                    "note": section.get("note"),
                    "n": section.get("n"),
                    "interval": section.get("interval"),
                    "pictures": [p for file in section.get("images", []) if (p := run.picture(file))],
                }
            )
    return fill("sections/unknown.html", shown=shown, several=len(runs) > 1)


def _cell(value: Any) -> str:
    if isinstance(value, dict) and {"value", "low", "high", "n"} <= value.keys():
        return f"{percent(value)} ({interval(value)}; n = {value['n']})"
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "–"}[value]
    return quantity(value) if isinstance(value, int | float) else str(value)
