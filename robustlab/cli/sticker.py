"""`robustlab attack --suite sticker`: what of the command's flags a sticker takes, and what is printed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from robustlab.base.cards import convert
from robustlab.base.errors import UserError
from robustlab.cli.fitted import ANY, Found

DEFAULT_SOURCE, DEFAULT_TARGET = "stop", "speed limit 45"


def attack_sign(
    models: Sequence[str],
    card: dict[str, Any],
    *,
    source: str | None,
    target: str | None,
    n: int,
    seeds: int,
    running: dict[str, Any],
) -> Found:
    """Fit and judge. n: scenes. running: how the run is made, seed, output and the like."""
    from robustlab.models import load_model
    from robustlab.physical.evaluate import evaluate_sticker, in_words
    from robustlab.physical.rp2 import RP2

    if not {"source", "target", "ranges"}.isdisjoint(card):
        raise UserError("A card's [sticker] table says how, not what: give --source and --target instead.")
    given = {"source": source or DEFAULT_SOURCE, "target": "" if target == ANY else target or DEFAULT_TARGET}
    attack = convert({**card, **given}, RP2, "the [sticker] table")
    run = evaluate_sticker(
        [load_model(name) for name in models],
        attack,
        n=n,
        seeds=seeds,
        **running,
    )
    sections = {section["name"]: section["rows"] for section in run.info["sections"]}
    told = {"results": sections["success"], "grid": sections["grid"], "drive_by": sections["drive-by"]}
    return Found(run, told, in_words(run))
