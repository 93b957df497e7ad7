"""The answer in one look: the lead of the verdict, and for each model its two numbers and one failure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustlab.base.words import interval, percent
from robustlab.reporting.source import PageRun

PAIRS = 3  # more sentences on pairs than this are folded away
MODELS = 6  # more models than this, and only the most and the least robust have a card

Json = dict[str, Any]


def lead(run: PageRun, of_models: Sequence[str], of_pairs: Sequence[str]) -> tuple[list[str], list[str]]:
    """The sentences that stand at the top, and those that are folded away."""
    if not of_pairs:
        return list(of_models), []
    if len(of_pairs) <= PAIRS:
        return list(of_pairs), list(of_models)
    most, least = _ends(run)
    said = f"Of {len(run.models)} models {most['name']} keeps the most images right under attack, {_robust(most)}, and"
    said += f" {least['name']} the fewest, {_robust(least)}."
    return [said], [*of_models, *of_pairs]


def cards(run: PageRun) -> list[Json]:
    """What the first screen shows of each model: `model`, `shade`, `failure` (see there) and `why` there is none."""
    chosen = run.models if len(run.models) <= MODELS else _ends(run) or run.models
    return [
        {"model": model, "shade": run.models.index(model) % 6, "failure": failure(run, model), "why": _why(model)}
        for model in chosen
    ]


def failure(run: PageRun, model: Json) -> Json | None:
    """Of the kept examples on which an attack succeeded the one with the smallest id, with its pictures; None without.

    Where several attacks succeeded on it: the first of the suite.
    """
    place = {attack["name"]: at for at, attack in enumerate(model["attacks"])}
    kept = [image for image in run.info.get("images", []) if image["model"] == model["name"] and image["success"]]
    for image in sorted(kept, key=lambda image: (image["id"], place.get(image["attack"], len(place)))):
        clean, adv = run.picture(image.get("clean")), run.picture(image.get("adv"))
        if clean and adv:
            names = {"before": run.class_name(image["label"]), "after": run.class_name(image["prediction"])}
            return {**image, **names, "pictures": (clean, adv)}
    return None


def _robust(model: Json) -> str:
    return f"{percent(model['robust_accuracy'])} ({interval(model['robust_accuracy'])})"


def _why(model: Json) -> str:
    if not model["attacks"]:
        return "No picture: the model was not attacked."
    if not any(attack["broken"] for attack in model["attacks"]):
        return "No picture: no attack of the suite succeeded on any image."
    return "No picture: the run kept no image of a failure."


def _ends(run: PageRun) -> list[Json]:
    """The model with the highest robust accuracy, and that with the lowest, of those that were attacked."""
    attacked = [model for model in run.models if model["robust_accuracy"]]
    order = sorted(attacked, key=lambda model: -(model["robust_accuracy"]["value"] or 0.0))
    return [order[0], order[-1]] if len(order) > 1 else order
