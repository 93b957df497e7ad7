"""The attacks of a suite as a card or flags list them: checked as far as that needs no torch, each with its name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, make_dataclass
from itertools import count
from typing import Any

from robustlab.attacks.parameters import THREAT, Parameter, parameters, typed, wrong
from robustlab.base.cards import convert
from robustlab.base.errors import UserError, did_you_mean

_SHOWN = 24  # of a value in a name


@dataclass(frozen=True)
class Table:
    """An `[[attack]]` table under the name that lines and pages use. parameters: as the card or flag gave them."""

    name: str
    method: str
    parameters: dict[str, Any]


def named(tables: Sequence[Mapping[str, Any]], where: str) -> list[Table]:
    """The tables, checked. A given name stays. A missing one is the method; where several have the same method, the
    method and what differs between them.

    where: what errors call the card or the flag.

    >>> [each.name for each in named([{"method": "apgd"}, {"method": "apgd", "loss": "dlr"}], "--attack")]
    ['apgd-ce', 'apgd-dlr']
    """
    found = [_checked(table, where) for table in tables]
    taken: list[str] = []
    for table in found:
        if table.name in taken:
            raise UserError(f"{where} has two attacks named {table.name!r}; give one of them another name.")
        taken += [table.name] if table.name else []
    nameless = [table for table in found if not table.name]
    for i, table in enumerate(found):
        if not table.name:
            alike = [each.parameters for each in nameless if each.method == table.method]
            name = next(each for each in _candidates(table, alike) if each not in taken)
            found[i] = Table(name, table.method, table.parameters)
            taken.append(name)
    return found


def _checked(table: Mapping[str, Any], where: str) -> Table:
    """One table whose method, name, keys and types are right; without a name, its name is empty."""
    method, name = table.get("method"), table.get("name", "")
    if not isinstance(method, str):
        raise UserError(f'An [[attack]] table of {where} has no method. Write for example: method = "pgd".')
    known = parameters(method)
    if "name" in table and (not isinstance(name, str) or not re.fullmatch(r"[\w.+-]+", name) or name == "clean"):
        raise UserError(f"{where}: an attack's name is letters, digits and . + - _, and not 'clean'; got {name!r}.")
    given = {key: value for key, value in table.items() if key not in ("method", "name")}
    for key in given:
        if key in THREAT:
            said = repr(name or method)
            raise UserError(f"{where}: {key!r} belongs to the threat, not to attack {said}; use [threat] or --{key}.")
        if key not in known:
            allowed = ", ".join(known) or "none"
            raise UserError(f"{where}: {method} has no parameter {key!r}.{did_you_mean(key, known)} It has: {allowed}.")
    kinds = make_dataclass(method.replace("-", "_"), [(key, known[key].type) for key in given])
    convert({key: typed(key, value) for key, value in given.items()}, kinds, f"attack {name or method!r} of {where}")
    for key, value in given.items():
        if problem := wrong(method, key, value):
            raise UserError(f"attack {name or method!r} of {where}: {problem}")
    return Table(name, method, given)


def _candidates(table: Table, alike: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """Names for it, the best first. alike: the parameters of the tables that are to be told apart, its own too."""
    known = parameters(table.method)
    base = "-".join([table.method, *filter(None, (_part(key, known[key], table) for key in _telling(known, alike)))])
    yield base
    yield from (f"{base}-{number}" for number in count(2))


def _telling(known: Mapping[str, Parameter], alike: Sequence[Mapping[str, Any]]) -> list[str]:
    """The fewest keys, the loss before all others, whose values tell apart what can be told apart."""
    keys: list[str] = []
    apart = 1
    for key in sorted(known, key=lambda key: key != "loss"):
        values = {tuple(str(given.get(k, known[k].default)) for k in (*keys, key)) for given in alike}
        if len(values) > apart:
            keys.append(key)
            apart = len(values)
    return keys


def _part(key: str, parameter: Parameter, table: Table) -> str:
    """A parameter as part of a name: `dlr`, `steps100`, `rescale`; empty for a switch that has its default.

    >>> table = Table("", "pgd", {"step_size": "2/255", "random_start": False})
    >>> [_part(key, parameters("pgd")[key], table) for key in ("loss", "steps", "step_size", "random_start")]
    ['ce', 'steps20', 'step_size2-255', 'no-random_start']
    """
    value = table.parameters.get(key, parameter.default)
    if value is None or (isinstance(value, bool) and value == parameter.default):
        return ""
    if isinstance(value, bool):
        return key if value else f"no-{key}"
    text = re.sub(r"[^\w.+-]+", "-", f"{value:g}" if isinstance(value, float) else str(value))[:_SHOWN]
    return text if key == "loss" else key + text
