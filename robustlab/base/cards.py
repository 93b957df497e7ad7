"""Cards: the TOML files in `attacks/` and `defenses/` that say what to run and how to defend. Imports no torch."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any, TypeVar, get_args, get_type_hints

import msgspec

from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.reading import read_bounded

CARD_BYTES = 4 << 20  # of a card; the names of 20,000 classes take a tenth of that

# what takes a card with this table
COMMANDS = {
    "attack": "robustlab attack --suite",
    "sticker": "robustlab attack --suite",
    "patch": "robustlab attack --suite",
    "backdoor": "robustlab backdoor --card",
    "recipe": "robustlab train --recipe",
    "filter": "robustlab backdoor --filter",
    "defense": "robustlab attack MODEL --defense",
}

T = TypeVar("T")

_PACKAGE = Path(__file__).resolve().parents[1]


def card_folder(kind: str) -> Path:
    """The folder that holds the cards of a kind (`attacks` or `defenses`), in a wheel or in a checkout."""
    shipped = _PACKAGE / "recipes" / kind
    return shipped if shipped.is_dir() else _PACKAGE.parent / kind


def card_names(kind: str, *tables: str) -> list[str]:
    """The names of the cards of a kind, sorted. tables: only those that have one of these tables (see `COMMANDS`).

    >>> "trades" in card_names("defenses", "recipe"), "spectral" in card_names("defenses", "recipe")
    (True, False)
    """
    paths = card_folder(kind).glob("*.toml")
    return sorted(path.stem for path in paths if not tables or not read_toml(path).keys().isdisjoint(tables))


def find_card(kind: str, name: str, *tables: str) -> Path:
    """The file of a card, found by name (`linf-standard`) or by path (`my/suite.toml`).

    tables: what the caller takes; a card for another command is a `UserError` that names it.
    """
    if name.endswith(".toml") or "/" in name or "\\" in name:
        path = Path(name)
        if not path.is_file():
            known = _known(kind, tables)
            raise UserError(f"There is no card {name!r}. Give the path of a .toml file, or one of: {known}.")
    elif name not in card_names(kind):
        raise UserError(
            f"There is no card {name!r} in {kind}.{did_you_mean(name, card_names(kind, *tables))}"
            f" Known: {_known(kind, tables)}; a path that ends in .toml works too."
        )
    else:
        path = card_folder(kind) / f"{name}.toml"
    if tables and (content := read_toml(path).keys()).isdisjoint(tables):
        for table, command in COMMANDS.items():
            if table in content:
                raise UserError(f"The card {name!r} is for another command: {command} {name}.")
    return path


def _known(kind: str, tables: Sequence[str]) -> str:
    return ", ".join(card_names(kind, *tables)) or "none"


def read_toml(path: Path) -> dict[str, Any]:
    """The content of a TOML file; a file that cannot be read or parsed is a `UserError` that names it."""
    try:
        return tomllib.loads(read_bounded(path, CARD_BYTES).decode())
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"{path} cannot be read: {error}.") from error
    except (tomllib.TOMLDecodeError, RecursionError) as error:  # RecursionError: brackets without end
        raise UserError(f"{path} is not valid TOML: {error}.") from error


def parse_value(text: str) -> Any:
    """The value of `key=value` as somebody typed it: read as TOML; words and fractions stay text.

    >>> parse_value("0.05"), parse_value("4/255"), parse_value("true")
    (0.05, '4/255', True)
    """
    try:
        return tomllib.loads(f"v = {text}")["v"]
    except ValueError:  # no TOML, or a number of more digits than Python reads
        return text


def parse_call(text: str, flag: str) -> dict[str, Any]:
    """`name:key=value,key=value` as a table with a `method`; values are TOML, words need no quotes. flag: for errors.

    >>> parse_call("jpeg:quality=50", "--defense")
    {'method': 'jpeg', 'quality': 50}
    """
    method, colon, rest = text.partition(":")
    table: dict[str, Any] = {"method": method.strip()}
    if colon and not rest.strip():
        raise UserError(f"{flag} {text}: no parameter follows the colon. Leave it out, or write {text}key=value.")
    for pair in filter(None, (part.strip() for part in rest.split(","))):
        key, equals, value = pair.partition("=")
        if not equals or not value.strip():
            raise UserError(f"{flag} expects name:key=value,key=value; {pair!r} in {text!r} is no key=value.")
        if (key := key.strip()) in table:
            raise UserError(f"{flag} {text} says {key} twice. Say it once.")
        table[key] = parse_value(value.strip())
    return table


def convert(content: Any, kind: type[T], where: str) -> T:
    """Content (from TOML or flags) as a checked dataclass; unknown keys and wrong types are a `UserError`.

    >>> from robustlab.threat.model import ThreatModel
    >>> convert({"norm": "l2", "eps": 0.5}, ThreatModel, "the card").eps
    0.5
    """
    if isinstance(content, dict) and is_dataclass(kind):
        known = [f.name for f in fields(kind) if f.init]
        for key in content:
            if key not in known:
                raise UserError(
                    f"{where} has the unknown key {key!r}.{did_you_mean(key, known)} Known keys: {', '.join(known)}."
                )
    try:
        return msgspec.convert(content, kind, strict=True)
    except msgspec.ValidationError as error:
        raise UserError(f"{where}: {_choices(str(error), content, kind) or _mistake(str(error))}") from error


def _choices(text: str, content: Any, kind: type[Any]) -> str:
    """A sentence about a key of the content whose value is none of a few words."""
    found = re.fullmatch(r"Invalid enum value .+ - at `\$\.(\w+)`", text)
    if not found or not isinstance(content, dict):
        return ""
    known = [str(each) for each in get_args(get_type_hints(kind)[found[1]])]
    value = content[found[1]]
    return f"{found[1]} is one of {', '.join(known)}, got {value!r}.{did_you_mean(str(value), known)}"


def _mistake(text: str) -> str:
    """msgspec's message as a sentence about the key."""
    if found := re.fullmatch(r"Expected `(.+)`, got `(.+)` - at `\$\.(.+)`", text):
        return f"{found[3]} must be of the type {found[1]}, got {found[2]}."
    if found := re.fullmatch(r"Object missing required field `(.+)`", text):
        return f"the key '{found[1]}' is missing."
    return text if text.endswith(("?", ".")) else f"{text}."


def read_card(path: Path, kind: type[T]) -> T:
    """A card as a checked dataclass; see `convert`."""
    return convert(read_toml(path), kind, str(path))
