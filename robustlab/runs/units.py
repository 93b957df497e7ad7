"""A unit: the smallest piece of work that is finished or not, (model, attack, eps, chunk), as one file in parts/."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import msgspec

from robustlab.base.errors import UserError
from robustlab.base.files import slug
from robustlab.base.reading import decoded
from robustlab.runs.aggregates import CLEAN, Line
from robustlab.runs.defended import suite_of
from robustlab.runs.schema import Count, Eps, Name

Json = dict[str, Any]
_decode = msgspec.json.Decoder(Line).decode
UNIT_BYTES = 1 << 30  # of a unit's file


class _Unit(msgspec.Struct, forbid_unknown_fields=True):
    model: Name
    attack: Name
    eps: Eps
    chunk: Count


class _Head(msgspec.Struct):
    unit: _Unit
    lines: Count
    info: Json


def unit_name(model: str, attack: str, eps: float, chunk: int) -> str:
    """The stem of the unit's files.

    >>> unit_name("road-signs/cnn", "pgd", 0.125, 3)
    'road-signs_cnn--pgd--0.125--00003'
    """
    return f"{slug(model)}--{slug(attack)}--{float(eps)!r}--{chunk:05d}"


def encode_unit(model: str, attack: str, eps: float, chunk: int, lines: Sequence[Line], info: Json) -> bytes:
    """The unit's file: a head that says which unit it is and how many lines follow, then the lines by id."""
    unit = {"model": model, "attack": attack, "eps": float(eps), "chunk": chunk}
    head = {"unit": unit, "lines": len(lines), "info": info}
    rows = (head, *sorted(lines, key=lambda line: line.id))
    return b"".join(msgspec.json.encode(row) + b"\n" for row in rows)


def read_unit(name: str, content: bytes | None) -> tuple[Json, list[Line]] | None:
    """A unit's head and lines, from the file of this stem, or None where it is not there or not whole."""
    if content is None:
        return None
    try:
        first, *rest = content.splitlines()
        head = decoded(first)
        msgspec.convert(head, _Head)
        lines = [_decode(row) for row in rest]
        return (head, lines) if len(lines) == head["lines"] and unit_name(**head["unit"]) == name else None
    except ValueError:  # msgspec's errors are ValueErrors
        return None


def in_order(config: Mapping[str, Any], heads: Iterable[Json]) -> list[Json]:
    """Heads by model (as in the configuration), eps, attack (as in the suite, the clean pass first) and chunk."""
    models = [model["name"] for model in config["models"]]
    attacks = {name: [CLEAN, *suite_of(config, name)] for name in models}

    def place(head: Json) -> tuple[int, float, int, int]:
        unit = head["unit"]
        return models.index(unit["model"]), unit["eps"], attacks[unit["model"]].index(unit["attack"]), unit["chunk"]

    try:
        return sorted(heads, key=place)
    except ValueError:
        raise UserError("parts/ holds a unit of a model or an attack that run.json does not name.") from None


def summed(heads: Iterable[Json]) -> list[Json]:
    """The numbers of the units' infos, added up for each (model, attack, eps)."""
    passes: dict[tuple[str, str, float], Json] = {}
    for head in heads:
        unit = head["unit"]
        key = (unit["model"], unit["attack"], unit["eps"])
        total = passes.setdefault(key, {"model": key[0], "attack": key[1], "eps": key[2], "units": 0, "lines": 0})
        total["units"] += 1
        total["lines"] += head["lines"]
        for name, value in head["info"].items():
            if isinstance(value, int | float):
                total[name] = total.get(name, 0) + value
    return list(passes.values())
