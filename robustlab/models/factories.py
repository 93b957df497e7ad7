"""FILE.py:function: a factory of one's own."""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
from torch import nn

from robustlab.base.errors import UserError, did_you_mean

_BY_NAME = (inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY)


def from_file(
    path: Path, function: str, options: Mapping[str, Any], offered: Mapping[str, Any] | None = None, seed: int = 0
) -> tuple[nn.Module, dict[str, Any]]:
    """What a factory in a user's file returns; anything that goes wrong there is a `UserError` with the line.

    The file is run as a module of its own name, with its folder first on the import path, so that it can import its
    neighbours. offered: arguments that the factory gets where it has a parameter of that name. seed: of random initial
    weights. Second come the options that make the same again: those given, and what it wants of `offered`.
    """
    if not path.is_file():
        raise UserError(f"There is no file {str(path)!r} (for FILE.py:function).")
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            factory = _function(_module(path), path, function)
            chosen = {**_wanted(factory, offered or {}), **options}
            try:
                made = factory if isinstance(factory, nn.Module) else factory(**_with_tuples(chosen))
            except (Exception, SystemExit) as error:
                hint = (
                    ". Attack the folder of its training (robustlab attack FOLDER), or give the arguments defaults."
                    if isinstance(error, TypeError) and "missing" in str(error) and not offered
                    else ""
                )
                raise UserError(f"{path}:{function} raised {_what(error, path)}{hint}") from error
    finally:
        sys.path.remove(folder)
    if not isinstance(made, nn.Module):
        raise UserError(f"{path}:{function} must return a torch.nn.Module, it returned a {type(made).__name__}.")
    return made, chosen


def _wanted(factory: Any, offered: Mapping[str, Any]) -> dict[str, Any]:
    """What is offered under the name of one of the factory's parameters."""
    if not offered or isinstance(factory, nn.Module):
        return {}
    try:
        parameters = inspect.signature(factory).parameters.values()
    except (TypeError, ValueError):  # of some callables nothing is known
        return {}
    return {p.name: offered[p.name] for p in parameters if p.kind in _BY_NAME and p.name in offered}


def _with_tuples(options: Mapping[str, Any]) -> dict[str, Any]:
    """The shape as a registered architecture gets it; a card can hold a list only."""
    return {**options, "shape": tuple(options["shape"])} if isinstance(options.get("shape"), list) else {**options}


def _module(path: Path) -> ModuleType:
    unique = f"robustlab_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(unique, path)
    assert spec is not None and spec.loader is not None  # true of every file whose name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:  # a script that reads its command line ends when it is imported
        del sys.modules[unique]
        raise UserError(f"{path} cannot be imported: {_what(error, path)}") from error
    return module


def _function(module: ModuleType, path: Path, function: str) -> Any:
    factory = getattr(module, function, None)
    if not callable(factory):
        own = [key for key, value in vars(module).items() if callable(value) and not key.startswith("_")]
        is_what = "has no function" if factory is None else "has something that cannot be called named"
        raise UserError(
            f"{path} {is_what} {function!r}.{did_you_mean(function, own)} It defines: {', '.join(own) or 'none'}."
        )
    return factory


def _what(error: BaseException, path: Path) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    place = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{place}"
