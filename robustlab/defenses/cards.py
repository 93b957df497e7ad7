"""Preprocessing as somebody names it: a card in `defenses/`, or a method with its parameters. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robustlab.base.cards import card_names, find_card, parse_call, read_card
from robustlab.base.errors import UserError, did_you_mean, spelled
from robustlab.defenses import DEFENSES, registered

TABLE = "defense"


@dataclass(frozen=True)
class PreprocessingCard:
    """What a TOML file with a `[defense]` table may hold: its `method`, a name in `DEFENSES`, and its parameters."""

    defense: dict[str, Any]
    name: str = ""
    summary: str = ""
    source: str = ""
    expected: str = ""


def read_defense(text: str) -> tuple[str, dict[str, Any]]:
    """What `--defense` says: a name, and the table for `make_defense`.

    text: a card's name or path, or `name:key=value,...`, whose values override those of the card of this name. A
    method of `DEFENSES` needs no card. UserError: no such card or method, or one that is for another command.

    >>> read_defense("jpeg:quality=50")
    ('jpeg:quality=50', {'method': 'jpeg', 'quality': 50})
    """
    if text.endswith(".toml"):
        path = find_card("defenses", text, TABLE)
        return path.stem, _table(read_card(path, PreprocessingCard), path.name)
    given = parse_call(text, spelled("defense"))
    name = given.pop("method")
    if name in DEFENSES and name not in card_names("defenses"):
        return text, {"method": name, **given}
    if name not in DEFENSES and name not in card_names("defenses"):
        known = card_names("defenses", TABLE)
        raise UserError(
            f"There is no defense {name!r}.{did_you_mean(name, known)} Known: {', '.join(known)}; or a card."
        )
    path = find_card("defenses", name, TABLE)
    return text, _table(read_card(path, PreprocessingCard), path.name) | given


def _table(card: PreprocessingCard, where: str) -> dict[str, Any]:
    registered(card.defense.get("method"), f"{where}: [defense]")
    return dict(card.defense)
