"""Models side by side: what each attack leaves of each, clean against robust accuracy, and where they disagree."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import permutations
from typing import TypeVar

from markupsafe import Markup

from robustlab.base.words import interval, percent
from robustlab.reporting.scatter import Spot, scatter
from robustlab.reporting.sections.confusion import STEPS
from robustlab.reporting.sections.gallery import CRISP, averaged, one_of_each
from robustlab.reporting.sections.verdict import trained
from robustlab.reporting.source import Json, PageRun
from robustlab.reporting.templates import render as fill

T = TypeVar("T")
NAME = "side-by-side"
TITLE = "Models side by side"
SHOWN = 12  # disagreements of a group of runs
BYTES = 1_500_000  # of the pictures of a section, so that the page stays below 10 MB


def applies(runs: Sequence[PageRun]) -> bool:
    return any(_compared(run) for run in runs)


def render(runs: Sequence[PageRun]) -> Markup:
    shown: list[Json] = []
    compared = list(filter(_compared, runs))
    for run in compared:
        attacks = list(dict.fromkeys(attack["name"] for model in run.models for attack in model["attacks"]))
        costs = {name: ", ".join(part for part in told if part) for name, told in trained(run).items()}
        rows = [
            {"name": model["name"], "cost": costs.get(model["name"], ""), "cells": list(_cells(model, attacks))}
            for model in run.models
        ]
        spots = [_spot(model, costs.get(model["name"], "")) for model in run.models]
        examples, many = disagreements(run, BYTES // len(compared))
        item = {"run": run, "attacks": attacks, "rows": rows, "cost": any(costs.values()), "examples": examples}
        shown.append(item | {"scatter": scatter(spots), "many": many, "heat": _heat(run), **canvas(run)})
    return fill("sections/side_by_side.html", shown=shown)


def disagreements(run: PageRun, left: int = BYTES) -> tuple[list[Json], int]:
    """Kept examples on which one model stays right and another falls, and how many such (pair, image) there are.

    They take turns over the pairs, by sample id.
    """
    answers = {model["name"]: {a.id: a for a in run.answers[model["name"]]} for model in run.models}
    fallen = {(image["model"], image["id"]): image for image in run.info.get("images", []) if image["success"]}
    queues, many = [], 0
    for right, wrong in permutations(answers, 2):
        stays = {i for i, a in answers[right].items() if a.robust}
        ids = [i for i, a in answers[wrong].items() if i in stays and a.right and not a.robust]
        many += len(ids)
        queues.append([(right, fallen[wrong, i]) for i in ids if (wrong, i) in fallen])
    return pictures(queues, lambda each: _disagreement(run, *each), SHOWN, left), many


def pictures(
    queues: Sequence[Sequence[T]], draw: Callable[[T], Json | None], most: int = SHOWN, left: int = BYTES
) -> list[Json]:
    """What `draw` makes of the first of each queue, then of the second of each ...: at most `most`, of `left` bytes.

    draw: an example with `tiles` of pictures, or None where one of them is not there.
    """
    found: list[Json] = []
    for _, each in one_of_each(queues):
        if (item := draw(each)) is None:
            continue
        left -= sum(len(tile["uri"]) for tile in item["tiles"])
        if left < 0 or len(found) == most:
            break
        found.append(item)
    return found


def tiles(*shown: tuple[str | None, str, str]) -> list[Json] | None:
    """Pictures beside each other, each (data URI, what it shows, what a model says); None where one is not there."""
    found = [{"uri": uri, "label": label, "said": said} for uri, label, said in shown if uri]
    return found if len(found) == len(shown) else None


def canvas(run: PageRun) -> Json:
    """How large the run's images are drawn, and whether with their pixels."""
    size = (run.data.get("shape") or [1, 1, 1])[1:]
    return {"size": size, "crisp": max(size) <= CRISP}


def _disagreement(run: PageRun, right: str, image: Json) -> Json | None:
    wrong, attack = image["model"], image["attack"]
    drawn = tiles(
        (run.picture(image["clean"]), "clean image", ""),
        (run.picture(image["adv"]), f"image after {attack} on {wrong}", ""),
    )
    if drawn is None:
        return None
    said = {"truth": run.class_name(image["label"]), "after": run.class_name(image["prediction"])}
    return {"right": right, "wrong": wrong, "id": image["id"], "attack": attack, "tiles": drawn, **said}


def _heat(run: PageRun) -> list[Json]:
    """How far the heat of each model moves under attack, beside both controls; of those where an attack succeeded."""
    made = run.info.get("heatmaps") or {}
    shifts = [(model["name"], made.get(model["name"], {}).get("shift") or {}) for model in run.models]
    return [
        {"name": name, "at": at} | {kind: averaged(shift[kind]) for kind in ("adv", "same", "noise")}
        for at, (name, shift) in enumerate(shifts)
        if any(each["mean"] is not None for each in shift.values())
    ]


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
