"""Models side by side: what each attack leaves of each, clean against robust accuracy, and where they disagree."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from itertools import permutations

from markupsafe import Markup

from robustlab.base.words import interval, percent
from robustlab.reporting.scatter import Spot, scatter
from robustlab.reporting.sections.confusion import STEPS
from robustlab.reporting.sections.verdict import trained
from robustlab.reporting.source import Json, PageRun
from robustlab.reporting.templates import render as fill
from robustlab.runs.aggregates import ModelLines

NAME = "side-by-side"
TITLE = "Models side by side"
SHOWN = 12  # disagreements of a group of runs


def applies(runs: Sequence[PageRun]) -> bool:
    return any(_compared(run) for run in runs)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = []
    for run in filter(_compared, runs):
        attacks = list(dict.fromkeys(attack["name"] for model in run.models for attack in model["attacks"]))
        costs = {name: ", ".join(part for part in told if part) for name, told in trained(run).items()}
        rows = [
            {"name": model["name"], "cost": costs.get(model["name"], ""), "cells": list(_cells(model, attacks))}
            for model in run.models
        ]
        spots = [_spot(model, costs.get(model["name"], "")) for model in run.models]
        examples, many = disagreements(run)
        item = {"run": run, "attacks": attacks, "rows": rows, "cost": any(costs.values()), "examples": examples}
        shown.append(item | {"scatter": scatter(spots), "many": many})
    return fill("sections/side_by_side.html", shown=shown)


def disagreements(run: PageRun) -> tuple[list[Json], int]:
    """Kept examples on which one model stays right and another falls, and how many such (pair, image) there are.

    They take turns over the pairs, by sample id; at most SHOWN have a picture.
    """
    suite = [attack["name"] for attack in run.info["config"]["attacks"]]
    views = {m["name"]: ModelLines(run.tables.get(m["name"], {}), suite, run.numbers["eps"]) for m in run.models}
    fallen = {(image["model"], image["id"]): image for image in run.info.get("images", []) if image["success"]}
    queues, many = [], 0
    for right, wrong in permutations(views, 2):
        ids = sorted((views[right].robust & views[wrong].right) - views[wrong].robust)
        many += len(ids)
        queues.append([(right, fallen[wrong, i]) for i in ids if (wrong, i) in fallen])
    found: list[Json] = []
    while any(queues) and len(found) < SHOWN:
        for queue in queues:
            if queue and len(found) < SHOWN:
                right, image = queue.pop(0)
                clean, adv = run.picture(image.get("clean")), run.picture(image.get("adv"))
                if clean and adv:
                    found.append(
                        {"right": right, "wrong": image["model"], "clean": clean, "adv": adv, **_said(run, image)}
                    )
    return found, many


def _said(run: PageRun, image: Json) -> Json:
    return {
        "id": image["id"],
        "attack": image["attack"],
        "truth": run.class_name(image["label"]),
        "after": run.class_name(image["prediction"]),
    }


def _compared(run: PageRun) -> bool:
    return sum(bool(model["attacks"]) for model in run.models) > 1


def _cells(model: Json, attacks: Sequence[str]) -> Iterator[Json]:
    """Clean, then each attack, then the worst case; a step of the colour scale for what is lost."""
    left = {attack["name"]: attack["left"] for attack in model["attacks"]}
    for share in (model["clean_accuracy"], *(left.get(name) for name in attacks), model["robust_accuracy"]):
        known = share and share["value"] is not None
        yield {"share": share if known else None, "step": math.ceil(STEPS * (1 - share["value"])) if known else 0}


def _spot(model: Json, cost: str) -> Spot:
    clean, robust = model["clean_accuracy"], model["robust_accuracy"]
    told = f"{model['name']}: clean {percent(clean)} ({interval(clean)}), robust {percent(robust)} ({interval(robust)})"
    return Spot(model["name"], clean, robust, f"{told}, trained by {cost}" if cost else told)
