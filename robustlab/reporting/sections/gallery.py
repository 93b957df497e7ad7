"""The gallery: clean image, perturbation, adversarial image, and what the model said before and after."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from markupsafe import Markup

from robustlab.reporting.source import PageRun
from robustlab.reporting.templates import render as fill

NAME = "gallery"
TITLE = "Gallery"

SHOWN = 24  # of a model: enough to see a pattern, few enough for a light page


def applies(runs: Sequence[PageRun]) -> bool:
    return any(run.info.get("images") for run in runs)


def render(runs: Sequence[PageRun]) -> Markup:
    shown = []
    for run in runs:
        groups = []
        for at, model in enumerate(run.models):
            kept = [image for image in run.info.get("images", []) if image["model"] == model["name"]]
            items = [item for image in in_turns(kept) if (item := _item(run, image))]
            groups.append({"model": model["name"], "shade": at % 6, "items": items, "kept": len(kept)})
        if any(group["items"] for group in groups):
            shown.append({"run": run, "groups": groups, "keep": run.info["config"].get("keep", 1)})
    return fill("sections/gallery.html", shown=shown)


def in_turns(images: Sequence[dict[str, Any]], most: int = SHOWN) -> list[dict[str, Any]]:
    """At most `most` images: the successes of each attack and the samples that withstood all, in turn.

    A sample that withstood the suite is shown once, with the last attack on it.

    >>> kept = [(0, True, "fgsm"), (1, False, "fgsm"), (2, True, "pgd"), (3, True, "pgd"), (1, False, "pgd")]
    >>> images = [{"id": i, "success": hit, "robust": not hit, "attack": a} for i, hit, a in kept]
    >>> [(image["id"], image["attack"]) for image in in_turns(images, 3)]
    [(0, 'fgsm'), (2, 'pgd'), (1, 'pgd')]
    """
    strata: dict[str | None, dict[Any, dict[str, Any]]] = defaultdict(dict)
    for at, image in enumerate(images):
        if image["success"]:
            strata[image["attack"]][at] = image
        elif image["robust"]:
            strata[None].pop(image["id"], None)
            strata[None][image["id"]] = image
    turns = zip_longest(*(stratum.values() for stratum in strata.values()))
    chosen = [image for turn in turns for image in turn if image is not None][:most]
    place = {id(image): at for at, image in enumerate(images)}
    return sorted(chosen, key=lambda image: (not image["success"], place[id(image)]))


def _item(run: PageRun, image: dict[str, Any]) -> dict[str, Any] | None:
    clean, adv = run.picture(image.get("clean")), run.picture(image.get("adv"))
    if clean is None or adv is None:
        return None
    return {
        **image,
        "pictures": (clean, run.picture(image.get("delta")), adv),
        "truth": run.class_name(image["label"]),
        "before": run.class_name(image["clean_prediction"]),
        "after": run.class_name(image["prediction"]),
    }
