"""The parameters of an attack, read from its source: importing its module would import torch, which takes seconds."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from robustlab.attacks import registered
from robustlab.base.errors import did_you_mean
from robustlab.threat.model import parse_eps

THREAT = ("norm", "eps", "targeted", "target")  # said once for the whole suite
_TYPES: dict[str, Any] = {"int": int, "float": float, "bool": bool, "str": str, "float | None": float | None}
_PACKAGE = Path(__file__).resolve().parents[1]


@dataclass(frozen=True)
class Parameter:
    """One field of an attack's dataclass that a card or flag may set."""

    type: Any
    default: Any


def parameters(method: str) -> dict[str, Parameter]:
    """By name, those of the threat left out; the order is that of the dataclass.

    >>> list(parameters("square"))[-3:], parameters("apgd-t")["loss"].default
    (['p', 'rescale', 'probe'], 'dlr')
    """
    module, _, name = registered(method).partition(":")
    found = _fields(module, name)
    return {key: each for key, each in found.items() if each is not None and key not in THREAT}


def typed(key: str, value: Any) -> Any:
    """A value as a card or flag gave it; a step size may be a fraction, as eps."""
    return parse_eps(value, key) if key == "step_size" else value


def wrong(method: str, key: str, value: Any) -> str:
    """What is wrong with a value of the right type, as far as that needs no torch; the attack itself checks the rest.

    >>> wrong("pgd", "steps", 0), wrong("pgd", "loss", "dlr")
    ('pgd needs steps of at least 1, got 0.', '')
    """
    if key in ("steps", "restarts", "eot") and value < 1:
        return f"{method} needs {key} of at least 1, got {value}."
    if key == "loss" and value not in (known := _losses()):
        return f"loss must be one of {', '.join(known)}, got {value!r}.{did_you_mean(value, known)}"
    return ""


def _losses() -> list[str]:
    """The keys of `losses.LOSSES`."""
    lines = (node for node in _source("robustlab.attacks.losses").body if isinstance(node, ast.AnnAssign))
    table = next(line.value for line in lines if isinstance(line.target, ast.Name) and line.target.id == "LOSSES")
    assert isinstance(table, ast.Dict)
    return [key.value for key in table.keys if isinstance(key, ast.Constant) and isinstance(key.value, str)]


@cache
def _fields(module: str, name: str) -> dict[str, Parameter | None]:
    """All fields of a class and of what it inherits from, None for those that are not set by the caller."""
    tree = _source(module)
    home: dict[str, str] = {}
    for node in tree.body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("robustlab."):
            home |= {alias.name: node.module for alias in node.names}
    own = next(node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == name)
    found: dict[str, Parameter | None] = {}
    for base in own.bases:
        local = isinstance(base, ast.Name) and any(isinstance(n, ast.ClassDef) and n.name == base.id for n in tree.body)
        if isinstance(base, ast.Name) and (local or base.id in home):
            found |= _fields(home.get(base.id, module), base.id)
    for line in own.body:
        if isinstance(line, ast.AnnAssign) and isinstance(line.target, ast.Name):
            kind = ast.unparse(line.annotation)
            if not kind.startswith("ClassVar"):
                found[line.target.id] = _parameter(kind, line.value)
    return found


def _parameter(kind: str, value: ast.expr | None) -> Parameter | None:
    if isinstance(value, ast.Call):  # field(default=..., init=...)
        given = {keyword.arg: keyword.value for keyword in value.keywords}
        if isinstance(init := given.get("init"), ast.Constant) and init.value is False:
            return None
        value = given.get("default")
    try:
        default = ast.literal_eval(value) if value else None
    except ValueError:  # an expression; those of the threat alone have one
        default = None
    return Parameter(_TYPES.get(kind, Any), default)


@cache
def _source(module: str) -> ast.Module:
    path = _PACKAGE.joinpath(*module.split(".")[1:])
    return ast.parse(path.with_suffix(".py").read_text(encoding="utf-8"))
