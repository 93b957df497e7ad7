"""`robustlab attack --suite sticker --face PHOTO`: a sticker on photographs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from robustlab.base.cards import convert
from robustlab.base.errors import UserError
from robustlab.cli.fitted import ANY, Found, class_of


def attack_photo(
    models: Sequence[Any],
    card: dict[str, Any],
    *,
    face: Path,
    corners: str | None,
    source: str | None,
    target: str | None,
    n: int,
    running: dict[str, Any],
) -> Found:
    """Fit and judge. models: loaded. n: views. running: how the run is made, seed, output and the like."""
    from robustlab.evaluation.running import section_of
    from robustlab.physical.evaluate_photo import evaluate_photo
    from robustlab.physical.photo import PhotoAttack
    from robustlab.physical.photo_input import FORM, photographs
    from robustlab.physical.running import in_words

    classes = models[0].classes or ()
    known = f" Classes of {models[0].name}: {', '.join(classes)}." if classes else ""
    if corners is None:
        raise UserError(f"--face needs --corners: {FORM}.")
    if source is None or target is None:
        missing = "--source, the class of the thing" if source is None else f"--target, a class, or {ANY}"
        raise UserError(f"--face needs {missing}.{known}")
    if "target" in card:
        raise UserError("A card's [sticker] table says how, not what: give --source and --target instead.")
    shapes = {model.shape for model in models if model.shape}
    if len(shapes) > 1:
        raise UserError(f"The models expect images of {sorted(shapes)}: give models of one size.")
    table = {"batch" if key == "scenes" else key: value for key, value in card.items()}
    table["target"] = None if target == ANY else class_of(target, classes)
    attack = convert(table, PhotoAttack, "the [sticker] table")
    size = next(iter(shapes))[1:] if shapes else 32
    run = evaluate_photo(
        models,
        photographs(face, corners, size),
        class_of(source, classes),
        attack,
        n=n,
        **running,
    )
    return Found(run, {"results": section_of(run, "success")["rows"]}, in_words(run, "sticker", "views"))
