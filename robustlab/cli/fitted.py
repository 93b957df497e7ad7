"""What `robustlab attack` shares between its fitted attacks, the sticker and the patch: cards, and what is printed."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from robustlab.base.cards import find_card, read_toml
from robustlab.base.words import visible
from robustlab.cli.streams import print_json

if TYPE_CHECKING:
    from robustlab.runs import StoredRun

ANY = "any"
KINDS = ("sticker", "patch")
SUITES = ("attack", *KINDS)  # the tables of the cards that --suite takes


class Found(NamedTuple):
    """What a fitted attack found. told: for --json; its `results` have the success of each model. said: in words."""

    run: StoredRun
    told: dict[str, Any]
    said: Sequence[str]


def fitted_card(suite: str | None) -> tuple[str, dict[str, Any]] | None:
    """The kind of a card of a fitted attack, and its table; None for a card of another kind."""
    if suite is None:
        return None
    card = read_toml(find_card("attacks", suite, *SUITES))
    return next(((kind, dict(card[kind])) for kind in KINDS if isinstance(card.get(kind), dict)), None)


def class_of(text: str, classes: Sequence[str]) -> int | str:
    """A class as a flag gives it: by name, or by number where no class is called so."""
    return int(text) if text not in classes and text.isascii() and text.isdecimal() else text


def show(found: Found, what: str, *, json: bool, fail_under: float | None) -> int:
    """Write the page of a run, and print what was found; returns the exit code.

    what: `sticker` or `patch`, the row of the fitted one. fail_under: the share in which it must fail.
    """
    from robustlab.reporting import report

    folder = found.run.folder
    page = report([folder], folder / "report.html")
    if json:
        print_json({"run": str(folder), **found.told})
    print(*map(visible, found.said), f"Page: {visible(page)}", sep="\n", file=sys.stderr if json else sys.stdout)
    missed = 0
    for row in found.told["results"]:
        if row[what] == what and fail_under is not None and row["success"]["value"] is not None:
            left = 1 - row["success"]["value"]
            if left < fail_under:
                missed = 1
                of = "scenes" if what == "sticker" else "images"
                said_of = f"{visible(row['model'])}: the {what} fails in {left:.4f} of the {of}"
                print(f"{said_of}, under {fail_under:g}.", file=sys.stderr)
    return missed
