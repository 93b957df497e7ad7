"""Which examples are kept as images, and what their files are called.

Within each stratum (model, attack, class, success) the k ids with the smallest keyed hash are chosen, and of these at
most `MOST` for each model, attack and outcome, again those with the smallest hash: data with 1,000 classes would keep
every sample otherwise. The key is (seed, id), so no one chooses by eye, and models tend to show the same samples.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal

from robustlab.base.files import slug
from robustlab.runs.aggregates import CLEAN, Line, ModelLines, by_unit
from robustlab.runs.defended import suite_of

MOST = 64
Heat = Literal["heat_clean", "heat_adv", "heat_same"]
HEATMAPS: tuple[Heat, ...] = ("heat_clean", "heat_adv", "heat_same")


def image_name(kind: Literal["clean", "adv", "delta"] | Heat, id: int, model: str = "", attack: str = "") -> str:
    """The file of a kept image, under images/; a clean image belongs to no model.

    >>> image_name("adv", 17, "road-signs/cnn", "pgd")
    'road-signs_cnn--pgd--17-adv.png'
    """
    return f"clean-{id}.png" if kind == "clean" else f"{slug(model)}--{slug(attack)}--{id}-{kind}.png"


def rank_of(seed: int, id: int) -> bytes:
    """The keyed hash that decides which ids come first."""
    return hashlib.blake2b(f"{seed}:{id}".encode(), digest_size=8).digest()


def keep_candidates(seed: int, k: int, ids: Sequence[int], labels: Sequence[int], success: Sequence[bool]) -> list[int]:
    """The ids of one unit (one model, attack and eps) whose images to store; the merge prunes them to the chosen ones.

    success: fooled and verified, as `Line.succeeded`.

    >>> sorted(keep_candidates(0, 1, [1, 2, 3], [0, 0, 1], [True, True, True]))
    [2, 3]
    """
    return sorted(_chosen(seed, k, zip(labels, success, ids, strict=True)))


def _chosen(seed: int, k: int, members: Iterable[tuple[int, bool, int]]) -> set[int]:
    """The ids that the rule keeps, of members (label, success, id) of one model and attack.

    What is chosen of all members is chosen of every part that holds it, so units may choose for themselves. For an
    id e that is chosen of all: its stratum has fewer than k smaller ids, in a part no more. And if a part chooses j
    ids before e in some stratum, then j <= k, and that stratum has at least j ids before e in all, so j of them are
    chosen of all too: in a part no more ids come before e than in all, which are fewer than MOST.
    """
    strata: dict[tuple[int, bool], list[int]] = defaultdict(list)
    for label, success, id in members:
        strata[label, success].append(id)
    outcomes: dict[bool, list[int]] = defaultdict(list)
    for (_, success), ids in strata.items():
        outcomes[success] += sorted(ids, key=lambda i: rank_of(seed, i))[:k]
    return {id for ids in outcomes.values() for id in sorted(ids, key=lambda i: rank_of(seed, i))[:MOST]}


def chosen_images(config: Mapping[str, Any], lines: Sequence[Line]) -> list[dict[str, Any]]:
    """The kept examples at the headline eps by the rule alone, by model, attack and keyed hash; files as in run.json.

    success: of this attack on the sample; robust: right, tried by all of the suite, without success.
    """
    seed, eps, k = int(config["seed"]), float(config["threat"]["eps"]), int(config.get("keep", 1))
    clean = {(line.model, line.id): line for line in lines if line.attack == CLEAN}
    units: dict[tuple[str, str], list[Line]] = defaultdict(list)
    for line in lines:
        if line.attack != CLEAN and line.eps == eps and line.error is None:
            units[line.model, line.attack].append(line)
    tables = by_unit(lines)
    images = []
    for model in (m["name"] for m in config["models"]):
        suite = suite_of(config, model)
        robust = ModelLines(tables.get(model, {}), suite, eps).robust
        for attack in suite:
            unit = {line.id: line for line in units[model, attack]}
            chosen = _chosen(seed, k, ((line.label, line.succeeded, line.id) for line in unit.values()))
            for id in sorted(chosen, key=lambda i: rank_of(seed, i)):
                line, before = unit[id], clean.get((model, id))
                images.append(
                    {
                        "model": model,
                        "attack": attack,
                        "id": id,
                        "label": line.label,
                        "success": line.succeeded,
                        "robust": id in robust,
                        "clean_prediction": line.clean,
                        "clean_confidence": before.confidence if before else None,
                        "prediction": line.adv,
                        "confidence": line.confidence,
                        "clean": f"images/{image_name('clean', id)}",
                        "adv": f"images/{image_name('adv', id, model, attack)}",
                        "delta": f"images/{image_name('delta', id, model, attack)}",
                    }
                )
    return images


def with_files(images: Iterable[Mapping[str, Any]], whole: Callable[[str], bool]) -> list[dict[str, Any]]:
    """run.json's `images`: those of `chosen_images` whose files are there. whole: is this file there and not empty?"""
    there = [image for image in images if whole(image["clean"]) and whole(image["adv"])]
    return [{key: value for key, value in image.items() if key != "delta" or whole(value)} for image in there]
