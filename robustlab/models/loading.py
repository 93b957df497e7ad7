"""From the name that a user types to a classifier."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
import traceback
from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Any, cast

import torch
from torch import nn

from robustlab.errors import UserError, did_you_mean
from robustlab.models import ARCHITECTURES
from robustlab.models.card import read_model_card
from robustlab.models.classifier import Classifier
from robustlab.models.weights import load_weights
from robustlab.models.zoo import zoo_names, zoo_path

Shape = tuple[int, int, int]


def load(
    name: str,
    *,
    weights: str | Path | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    classes: Sequence[str] | None,
    shape: Shape | None,
    device: str,
) -> Classifier:
    """See `robustlab.models.load_model`."""
    file, colon, function = name.rpartition(":")
    if name in zoo_names():
        model = _from_card(zoo_path(name), name, weights, mean, std)
    elif name.endswith(".toml"):
        model = _from_card(Path(name), None, weights, mean, std)
    elif colon and file.endswith(".py"):
        module = from_file(Path(file), function)
        inner = module.module if isinstance(module, Classifier) else module
        if weights is not None:
            load_weights(inner, weights)
        if isinstance(module, Classifier) and mean is None and std is None:
            model = module
            model.classes, model.shape = tuple(classes or model.classes or ()) or None, shape or model.shape
        else:
            model = Classifier(inner, mean, std, classes=classes, shape=shape)
        model.name = name
    else:
        raise UserError(unknown_model(name))
    return model.eval().to(device)


def unknown_model(name: str) -> str:
    """The message for a name that means nothing."""
    forms = f"a zoo name ({', '.join(zoo_names())}), a model card (FILE.toml), or FILE.py:function"
    if name in ARCHITECTURES:
        return (
            f"{name!r} is an architecture, not a trained model. Train it with: robustlab train {name} --data DATA;"
            f" or give {forms}."
        )
    if name.endswith(".py"):
        return f"{name!r} names a file but no function in it: write {name}:FUNCTION, a factory that returns a module."
    return f"There is no model {name!r}.{did_you_mean(name, zoo_names())} Give {forms}."


def build(architecture: str, classes: int, shape: Shape, options: dict[str, Any], seed: int = 0) -> nn.Module:
    """A fresh module of a registered architecture, its initial weights a function of the seed alone."""
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(
            f"There is no architecture {architecture!r}.{did_you_mean(architecture, ARCHITECTURES)} Known: {known}."
        )
    path, _, function = ARCHITECTURES[architecture].partition(":")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return cast(nn.Module, getattr(import_module(path), function)(classes, shape, **options))
        except TypeError as error:
            raise UserError(
                f"The architecture {architecture!r} does not take the options {options}: {error}."
            ) from error


def _from_card(
    path: Path,
    name: str | None,
    weights: str | Path | None,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
) -> Classifier:
    card = read_model_card(path)
    module = build(card.architecture, len(card.classes), card.shape, card.options)
    load_weights(module, weights if weights is not None else path.parent / card.weights)
    return Classifier(
        module,
        card.mean if mean is None else mean,
        card.std if std is None else std,
        classes=card.classes,
        shape=card.shape,
        name=name or str(path),
        data=card.data,
    )


def from_file(path: Path, function: str) -> nn.Module:
    """What a factory in a user's file returns; anything that goes wrong there is a `UserError` with the line.

    The file is run as a module of its own name, with its folder first on the import path, so that it can import its
    neighbours; random initial weights are the same each time.
    """
    if not path.is_file():
        raise UserError(f"There is no file {str(path)!r} (for FILE.py:function).")
    folder = str(path.resolve().parent)
    sys.path.insert(0, folder)
    try:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            factory = _function(_module(path), path, function)
            try:
                made = factory()
            except Exception as error:
                raise UserError(f"{path}:{function} raised {_what(error, path)}") from error
    finally:
        sys.path.remove(folder)
    if not isinstance(made, nn.Module):
        raise UserError(f"{path}:{function} must return a torch.nn.Module, it returned a {type(made).__name__}.")
    return made


def _module(path: Path) -> ModuleType:
    unique = f"robustlab_file_{hashlib.sha256(str(path.resolve()).encode()).hexdigest()[:12]}"
    spec = importlib.util.spec_from_file_location(unique, path)
    assert spec is not None and spec.loader is not None  # true of every file whose name ends in .py
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module  # dataclasses and pickle look a class's module up there
    try:
        spec.loader.exec_module(module)
    except Exception as error:
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


def _what(error: Exception, path: Path) -> str:
    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)]
    place = f" (line {lines[-1]})" if lines else ""
    return f"{type(error).__name__}: {error}{place}"
