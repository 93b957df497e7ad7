"""`robustlab attack --suite patch`: what of the command's flags a patch takes, and what is printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustlab.base.cards import convert
from robustlab.base.errors import UserError
from robustlab.cli.fitted import ANY, Found, class_of


def attack_with_patch(
    models: Sequence[Any],
    card: dict[str, Any],
    *,
    data: str,
    reading: dict[str, Any],
    target: str | None,
    n: int | None,
    running: dict[str, Any],
) -> Found:
    """Fit and judge. models: loaded. reading: as `load_data` takes it.

    running: how the run is made, seed, output and the like.
    """
    from robustlab.data import load_data
    from robustlab.models.suitable import suitable
    from robustlab.physical.evaluate_patch import FITTED, evaluate_patch
    from robustlab.physical.patch import PatchAttack
    from robustlab.physical.running import in_words

    if "target" in card:
        raise UserError("A card's [patch] table says how, not what: give --target instead.")
    reading = suitable(data, models) | reading
    judged = load_data(data, "test", n, **{**reading, "divided": True})
    if target is None:
        raise UserError(f"--suite patch needs --target: {ANY}, or a class of {data}: {', '.join(judged.classes)}.")
    given = None if target == ANY else class_of(target, judged.classes)
    attack = convert({**card, "target": given}, PatchAttack, "the [patch] table")
    attack.number(judged.classes)
    fitted = load_data(data, "train", FITTED if data == "road-signs" else None, **reading)
    run = evaluate_patch(
        models,
        fitted,
        judged,
        attack,
        **running,
    )
    sections = {section["name"]: section["rows"] for section in run.info["sections"]}
    told = {"results": sections["success"], "by_size": sections["by size"]}
    told["by_place"] = sections.get("by place", [])
    return Found(run, told, in_words(run, "patch", "images"))
