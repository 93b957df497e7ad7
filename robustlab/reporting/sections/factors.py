"""Accuracy by factor: clean and robust accuracy where it is known how each image came about."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from robustlab.reporting.panels import Profile, factor_panel
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.reporting.text import bin_labels
from robustlab.runs.factors import by_factor, varying

NAME = "factors"
TITLE = "Accuracy by factor"

Json = dict[str, Any]
FIRST = 3  # factors that are shown at once


def applies(runs: Sequence[PageRun]) -> bool:
    return any(any(run.answers.values()) and varying(run.data_lines) for run in runs)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = []
    for run in runs:
        numbers = {
            model["name"]: by_factor(answers, run.data_lines, attacked=bool(model["attacks"]))
            for model in run.models
            if (answers := run.answers[model["name"]])
        }
        names = list(next(iter(numbers.values()), {}))
        order = [name for name in run.data.get("factors", {}) if name in names]
        names = [*order, *(name for name in names if name not in order)]
        factors = [_factor(run, name, {model: found[name] for model, found in numbers.items()}) for name in names]
        if factors:
            shown.append(
                {
                    "run": run,
                    "first": factors[:FIRST],
                    "others": factors[FIRST:],
                    "bins": sum(len(f["labels"]) for f in factors),
                    "attacked": any(b["robust"] for found in numbers.values() for b in found[names[0]]),
                }
            )
    return fill("sections/factors.html", shown=shown)


def _factor(run: PageRun, name: str, bins_of: dict[str, list[Json]]) -> Json:
    """A factor's words, chart and table. bins_of: for each model the same bins, with its shares."""
    bins = next(iter(bins_of.values()))
    labels = bin_labels([(b["low"], b["high"]) for b in bins])
    single = [b["low"] is not None and b["low"] == b["high"] for b in bins]
    factor = {"label": name, "unit": "", "kind": "number", "categories": []} | run.data.get("factors", {}).get(name, {})
    categories = factor["categories"]
    if all(single) and all(b["low"] in range(len(categories)) for b in bins):
        labels = [categories[int(b["low"])] for b in bins]
    title = factor["label"] + (f" ({factor['unit']})" if factor["unit"] else "")
    edges = [(at + 0.5, label) for at, label in enumerate(labels) if single[at]]
    edges += [(float(at), _edge(b["low"])) for at, b in enumerate(bins) if not single[at] and b["low"] is not None]
    profiles = [
        Profile(model, [b["clean"] for b in found], [b["robust"] for b in found if b["robust"]])
        for model, found in bins_of.items()
    ]
    return {
        "label": factor["label"],
        "title": title,
        "labels": labels,
        "figure": factor_panel(title, edges, labels, profiles, ordered=factor["kind"] != "category"),
        "rows": list(zip(labels, *bins_of.values(), strict=True)),
    }


def _edge(value: float) -> str:
    return bin_labels([(value, value)])[0]
