"""Models behind a defense: under an attack that does not know of it, and under one that does."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from robustlab.base.words import interval, percent
from robustlab.reporting.figures import share_bar
from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill
from robustlab.reporting.text import points
from robustlab.runs.defended import bare_models

NAME = "defense"
TITLE = "The defense: what it seems to do and what it does"

Json = dict[str, Any]


def applies(runs: Sequence[PageRun]) -> bool:
    return any(_rows(run) for run in runs)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = [{"run": run, "rows": rows} for run in runs if (rows := _rows(run))]
    return fill("sections/defense.html", shown=shown, share_bar=share_bar)


def _rows(run: PageRun) -> list[Json]:
    """Each model behind a defense, beside the bare one."""
    of, found = {model["name"]: at for at, model in enumerate(run.models)}, []
    settings = {model["name"]: model for model in run.info["config"].get("models", [])}
    for name, bare in bare_models(run.info["config"]).items():
        if name not in of or bare not in of:
            continue
        model, alone = run.models[of[name]], run.models[of[bare]]
        row = {"model": model, "bare": alone, "shades": (of[bare] % 6, of[name] % 6), **model["defense"]}
        row |= {"eot": settings[name].get("eot"), "front": name.removeprefix(f"{bare}+")}
        found.append(row | {"sentences": sentences(name, alone, model)})
    return found


def sentences(name: str, bare: Json, model: Json) -> list[str]:
    """What the numbers are, and what their difference means."""
    known, gap = model["defense"], model["defense"]["gap"]
    said = [
        f"{name} seems to withstand on {_share(known['unaware'])} of {model['n']:,} images: those are right where the"
        f" attack was made for the bare model. Under the attack that knows the defense {_share(known['aware'])} are"
        f" right, under both {_share(model['robust_accuracy'])}. The bare model is left with"
        f" {_share(bare['robust_accuracy'])}."
    ]
    if gap["value"] is None or gap["low"] <= 0 <= gap["high"]:
        return [
            *said,
            f"On these {gap['n']:,} images it makes no clear difference whether the attack knows the defense.",
        ]
    size = points(abs(gap["value"])).lstrip("+")
    if gap["value"] < 0:
        return [
            *said,
            f"The difference, {size} points, is no robustness: the images did not fit the defense, and an attacker who"
            " knows of it makes some that do.",
        ]
    return [
        *said,
        f"The attack that knows the defense is the weaker one, by {size} points: its gradient through the defense is of"
        " little use. An attack with a better one may lower the last number further.",
    ]


def _share(share: Json) -> str:
    return f"{percent(share)} ({interval(share)})"
