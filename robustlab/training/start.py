"""What a training starts from: the classifier before its first step, and how the card of the trained one names it."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.base.lazy import locate
from robustlab.base.words import some
from robustlab.data import Data
from robustlab.defenses import make_defense
from robustlab.defenses.base import Defense, defended
from robustlab.models import ARCHITECTURES, BUILDERS, library_of
from robustlab.models.card import ModelCard, read_model_card
from robustlab.models.classifier import RANDOMISED, Classifier, check
from robustlab.models.factories import from_file
from robustlab.models.loading import build, undefended
from robustlab.training.recipe import Recipe

Norm = tuple[list[float] | None, list[float] | None]  # mean and standard deviation that a classifier normalises by


@dataclass(frozen=True)
class Start:
    """model: as it is trained, behind what its defense puts in front; bare: without that.

    Fresh, or with the weights of `Recipe.init`. architecture, options: as a card beside `output` needs them.
    code: the hash of the file of an architecture of one's own. own: it may be picky about strides.
    """

    model: Classifier
    bare: Classifier
    defense: Defense
    architecture: str
    options: dict[str, Any]
    code: str = ""
    warnings: list[str] = field(default_factory=list)

    @property
    def own(self) -> bool:
        return bool(self.code)


def card_of(architecture: str) -> ModelCard | None:
    """The card, where the name is one."""
    return read_model_card(architecture) if architecture.endswith(".toml") else None


def begin(architecture: str, data: Data, recipe: Recipe, seed: int, output: Path) -> Start:
    """The classifier of what is to be trained, under any of the names that `robustlab.train` takes.

    Random weights follow from the seed alone; with `recipe.init` they are those of that model, and its normalisation
    is kept. A module of one's own gets the images as they are, in [0, 1], as in an attack; all others normalise by
    mean and standard deviation of the training images. output: the folder that the card will lie in.
    """
    if len(data.classes) < 2:
        raise UserError(
            f"{data.name} has {'one class' if data.classes else 'no classes'}, and training needs at least 2 to tell"
            " apart: make a folder for each."
        )
    channels, high, wide = data.images.shape[1:]
    shape = (channels, high, wide)
    module, norm, architecture, options, code = _made(architecture, shape, data, recipe, seed, output)
    if recipe.init:
        first = undefended(recipe.init)
        norm = _of(first)
        _fill(module, first.module, recipe.init, architecture, data)
    model = Classifier(module, *norm, shape=shape, name=architecture)
    warnings = _checked(model, data, seed)
    if code and not any(p.requires_grad for p in module.parameters()):
        raise UserError(f"{architecture} has no parameters that could be trained (requires_grad).")
    model.classes = data.classes
    defense = make_defense(recipe.defense)
    return Start(defended(model, defense), model, defense, architecture, options, code, warnings if code else [])


def _made(
    architecture: str, shape: tuple[int, int, int], data: Data, recipe: Recipe, seed: int, output: Path
) -> tuple[nn.Module, Norm, str, dict[str, Any], str]:
    """A fresh module, what to normalise by, and `architecture`, `options` and `code` of `Start`."""
    count, options, beside = len(data.classes), dict[str, Any](), Path()
    if (card := card_of(architecture)) is not None:
        # what the data and the recipe decide is not the card's
        options = {k: v for k, v in card.options.items() if k not in ("classes", "num_classes", "shape", "dropout")}
        beside, architecture = Path(architecture).parent, card.architecture
    options |= recipe.model | ({"dropout": recipe.dropout} if recipe.dropout else {})
    file, colon, function = architecture.rpartition(":")
    if architecture in ARCHITECTURES:
        return build(architecture, count, shape, options, seed), _normalisation(data), architecture, options, ""
    if (library := library_of(architecture)) in BUILDERS:
        module = locate(BUILDERS[library])(function, count, shape, options, seed)
        return module, _normalisation(data), architecture, options, ""
    if not colon or not file.endswith(".py"):
        raise UserError(
            f"{architecture!r} cannot be trained: give an architecture ({', '.join(ARCHITECTURES)}), torchvision:NAME,"
            " timm:NAME, FILE.py:function, or a model card (FILE.toml) that names one of these."
        )
    path = beside / file
    offered = {"classes": count, "num_classes": count, "shape": list(shape)}
    made, options = from_file(path, function, options, offered, seed)
    code = hashlib.sha256(path.read_bytes()).hexdigest()[:32]
    inner, norm = (made.module, _of(made)) if isinstance(made, Classifier) else (made, (None, None))
    return inner, norm, f"{_seen_from(output, path)}:{function}", options, code


def _normalisation(data: Data) -> Norm:
    # of a set that lies on the disk, the first thousand say enough
    images = data.images if isinstance(data.images, Tensor) else data.images[:1000]
    mean = [round(float(v), 4) for v in images.mean((0, 2, 3))]
    return mean, [round(max(float(v), 1e-3), 4) for v in images.std((0, 2, 3))]


def _of(model: Classifier) -> Norm:
    """Mean and standard deviation that a classifier normalises by."""
    return (model.mean.flatten().tolist(), model.std.flatten().tolist()) if model.normalised else (None, None)


def _fill(module: nn.Module, first: nn.Module, init: str, architecture: str, data: Data) -> None:
    try:
        module.load_state_dict(first.state_dict())
    except RuntimeError as error:
        raise UserError(
            f"init {init!r} does not fit a {architecture} for {len(data.classes)} classes of images"
            f" {tuple(data.images.shape[1:])}: {error}"
        ) from error


def _checked(model: Classifier, data: Data, seed: int) -> list[str]:
    """The warnings of the boundary check; a UserError where the outputs are not one a class."""
    few = data.images[:2]
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(seed)  # what draws its weights when it sees its first image
        found = check(model, few, None)
        outputs = model.eval()(few).shape[1]
    if outputs != len(data.classes):
        names = some(data.classes, 5)
        raise UserError(
            f"{model.name} gives {outputs} outputs, and {data.name} has {len(data.classes)} classes ({names}): one"
            " output a class is expected. A function of your own gets the number where it has a parameter named"
            " classes (and channels, height, width as shape): def make(classes, shape)."
        )
    return [text for text in found.warnings if text != RANDOMISED]


def _seen_from(folder: Path, file: Path) -> str:
    """The path of a file as a card in `folder` names it: relative, unless they have nothing but the root in common."""
    there, here = file.resolve(), folder.resolve()
    return str(there) if os.path.commonpath([there, here]) == "/" else os.path.relpath(there, here)
