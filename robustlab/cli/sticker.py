"""`robustlab attack --suite sticker`: what of the command's flags a sticker takes, and what is printed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from robustlab.base.cards import convert, find_card, read_toml
from robustlab.base.errors import UserError
from robustlab.base.words import visible, visible_json

if TYPE_CHECKING:
    from robustlab.evaluation.listener import Listener

DEFAULT_SOURCE, DEFAULT_TARGET, ANY = "stop", "speed limit 45", "any"


def sticker_card(suite: str | None) -> dict[str, Any] | None:
    """The `[sticker]` table of a card; None where it is a card of another kind."""
    if suite is None:
        return None
    table = read_toml(find_card("attacks", suite)).get("sticker")
    return dict(table) if isinstance(table, dict) else None


def attack_sign(
    models: Sequence[str],
    card: dict[str, Any],
    *,
    source: str | None,
    target: str | None,
    n: int,
    seed: int,
    output: Path | None,
    resume: bool,
    overwrite: bool,
    command: str,
    listener: Listener,
    json: bool,
    fail_under: float | None,
) -> int:
    """Fit, judge, write the page, print; returns the exit code. n: scenes; fail_under: share that is not a success."""
    import msgspec

    from robustlab.models import load_model
    from robustlab.physical.evaluate import evaluate_sticker, in_words, summary
    from robustlab.physical.rp2 import RP2
    from robustlab.reporting import report

    if not {"source", "target", "ranges"}.isdisjoint(card):
        raise UserError("A card's [sticker] table says how, not what: give --source and --target instead.")
    given = {"source": source or DEFAULT_SOURCE, "target": "" if target == ANY else target or DEFAULT_TARGET}
    attack = convert({**card, **given}, RP2, "the [sticker] table")
    run = evaluate_sticker(
        [load_model(name) for name in models],
        attack,
        n=n,
        seed=seed,
        output=output,
        resume=resume,
        overwrite=overwrite,
        command=command,
        listener=listener,
    )
    page, rows = report([run.folder], run.folder / "report.html"), summary(run)
    if json:
        sections = {section["name"]: section["rows"] for section in run.info["sections"]}
        told = {"run": str(run.folder), "results": rows, "grid": sections["grid"], "drive_by": sections["drive-by"]}
        text = msgspec.json.format(msgspec.json.encode(told), indent=2).decode()
        sys.stdout.buffer.write(visible_json(text).encode() + b"\n")
    stream = sys.stderr if json else sys.stdout
    print(*map(visible, in_words(run, rows)), f"Page: {visible(page)}", sep="\n", file=stream)
    missed = 0
    for row in rows:
        if row["sticker"] == "sticker" and fail_under is not None and row["success"]["value"] is not None:
            left = 1 - row["success"]["value"]
            if left < fail_under:
                missed = 1
                what = f"{visible(row['model'])}: the sticker fails in {left:.4f} of the scenes"
                print(f"{what}, under {fail_under:g}.", file=sys.stderr)
    return missed
