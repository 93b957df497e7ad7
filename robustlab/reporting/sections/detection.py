"""Detectors of adversarial images: what they notice of an attacker who does not know them, and of one who does."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any

from markupsafe import Markup

from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.runs.detections import ATTACKERS, RANDOM, RATE, area, detections

NAME = "detectors"
TITLE = "Detectors"

Json = dict[str, Any]


def applies(runs: Sequence[PageRun]) -> bool:
    return any(detections(run.info) for run in runs)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = []
    for run in runs:
        if section := detections(run.info):
            models = {model["name"]: at % 6 for at, model in enumerate(run.models)}
            boards = [
                {"name": name, "shade": models.get(name, 0), "detectors": _by_detector(list(rows))}
                for name, rows in groupby(section["rows"], key=lambda row: row["model"])
            ]
            shown.append({"run": run, "section": section, "models": boards})
    return fill("sections/detection.html", shown=shown, several=len(runs) > 1, rate=f"{RATE:.0%}".rstrip("%"))


def _by_detector(rows: Sequence[Json]) -> list[Json]:
    """The rows of one model, one group for each detector."""
    return [
        {"name": name, "control": name == RANDOM, "rows": [_shown(row) for row in group]}
        for name, group in groupby(rows, key=lambda row: row["detector"])
    ]


def _shown(row: Json) -> Json:
    return row | {"who": ATTACKERS.get(row["attacker"], row["attacker"]), "area": area(row["auroc"])}
