"""The parameters of an attack, read from its source: importing its module would import torch, which takes seconds."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from robustlab.attacks import registered
from robustlab.threat_model import parse_eps

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
    (['p', 'rescale', 'give_up'], 'dlr')
    """
    module, _, name = registered(method).partition(":")
    found = _fields(module, name)
    return {key: each for key, each in found.items() if each is not None and key not in THREAT}


def typed(key: str, value: Any) -> Any:
    """A value as a card or flag gave it; a step size may be a fraction, as eps."""
    return parse_eps(value, key) if key == "step_size" else value


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
