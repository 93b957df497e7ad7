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
FIRST = ("distance", "yaw", "light")  # shown at once; without these, the first three
UNITS = {  # of the rendered data
    "road-signs": {
        "distance": "metres",
        "yaw": "degrees",
        "pitch": "degrees",
        "roll": "degrees",
        "light": "exposure, 1 is bright",
        "temperature": "kelvin",
        "haze": "share of the light",
        "occlusion": "half-width, share of half the image",
        "shadow": "share of the light taken",
        "noise": "standard deviation",
        "blur": "sigma, sensor pixels",
        "motion": "sigma, sensor pixels",
        "motion_angle": "degrees",
        "fill": "share of the image",
        "shift_x": "share of the image",
        "shift_y": "share of the image",
    }
}
KINDS = {"road-signs": {"background": ("foliage", "wall", "sky", "road", "brick")}}  # numbers that stand for kinds


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
        names = next(iter(numbers.values()), {})
        factors = [_factor(run, name, {model: found[name] for model, found in numbers.items()}) for name in names]
        first = [f for f in factors if f["name"] in FIRST] or factors[:3]
        if factors:
            shown.append(
                {
                    "run": run,
                    "first": sorted(first, key=lambda f: FIRST.index(f["name"]) if f["name"] in FIRST else 0),
                    "others": [f for f in factors if f not in first],
                    "bins": sum(len(f["labels"]) for f in factors),
                    "attacked": any(b["robust"] for found in numbers.values() for b in found[factors[0]["name"]]),
                }
            )
    return fill("sections/factors.html", shown=shown)


def _factor(run: PageRun, name: str, bins_of: dict[str, list[Json]]) -> Json:
    """A factor's words, chart and table. bins_of: for each model the same bins, with its shares."""
    bins = next(iter(bins_of.values()))
    kinds = KINDS.get(run.data["name"], {}).get(name, ())
    labels = bin_labels([(b["low"], b["high"]) for b in bins])
    single = [b["low"] is not None and b["low"] == b["high"] for b in bins]
    if kinds and all(single) and all(b["low"] in range(len(kinds)) for b in bins):
        labels = [kinds[int(b["low"])] for b in bins]
    unit = UNITS.get(run.data["name"], {}).get(name, "")
    title = name.replace("_", " ") + (f" ({unit})" if unit else "")
    edges = [(at + 0.5, label) for at, label in enumerate(labels) if single[at]]
    edges += [(float(at), _edge(b["low"])) for at, b in enumerate(bins) if not single[at] and b["low"] is not None]
    profiles = [
        Profile(model, [b["clean"] for b in found], [b["robust"] for b in found if b["robust"]])
        for model, found in bins_of.items()
    ]
    return {
        "name": name,
        "title": title,
        "labels": labels,
        "figure": factor_panel(title, edges, labels, profiles, ordered=not kinds),
        "rows": list(zip(labels, *bins_of.values(), strict=True)),
    }


def _edge(value: float) -> str:
    return bin_labels([(value, value)])[0]
