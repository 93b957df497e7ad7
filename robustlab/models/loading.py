"""From the name that a user types to a classifier."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from robustlab.base.errors import UserError, did_you_mean, spelled
from robustlab.base.lazy import locate
from robustlab.models import ARCHITECTURES, LIBRARIES, library_of
from robustlab.models.card import ModelCard, read_model_card
from robustlab.models.classifier import Classifier
from robustlab.models.factories import from_file
from robustlab.models.single_output import two_classes
from robustlab.models.weights import check_fit, load_state, load_weights, read_weights
from robustlab.models.zoo import card_path, zoo_names, zoo_path

Shape = tuple[int, int, int]
LARGEST = 8192  # an option of an architecture, such as its width or depth
FORMS = (
    "torchvision:NAME, timm:NAME, hf:FOLDER, a model card (FILE.toml), an exported program (FILE.pt2), or"
    " FILE.py:function"
)


class CodeError(UserError):
    """The model's name leads to code, and running code was not allowed."""


def load_model(
    name: str,
    *,
    weights: str | Path | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    classes: Sequence[str] | None = None,
    shape: Shape | None = None,
    download: bool = False,
    device: str = "cpu",
    run_code: bool = True,
    defense: Mapping[str, Any] | None = None,
) -> Classifier:
    """The classifier that a name means, in eval mode: images in [0, 1] (N, C, H, W) -> logits (N, K).

    name: a zoo name (`road-signs/cnn`), the path of a model card (`mine/model.toml`, see `ModelCard`) or of the folder
    of a training that holds one, `torchvision:resnet18`, `timm:resnet18`, `hf:FOLDER` (of transformers; see the files
    in `LIBRARIES`), an exported program (`FILE.pt2`), or `FILE.py:function`, a factory that returns a module. The last
    two run what is in the file: take them only from people whose code you would run. weights: a `.safetensors` or
    `.pth` file with the module's parameters, which can hold no code; for models of other packages also `random`, and
    for torchvision the name of weights of its own. What is not in the package's cache is fetched there with `download`.
    mean, std: the normalisation, one value or one a channel. What is left out is what the name brings along. defense:
    put this in front of it all, a table as `robustlab.defenses.make_defense` takes it. run_code: without it a name that
    leads to code, also through a card, is refused. Raises UserError.

    >>> model = load_model("road-signs/cnn")
    >>> model.shape, len(model.classes)
    ((3, 32, 32), 16)
    """
    name = card_path(name)
    model, wrap = _bare(name, weights, download, run_code)
    model = _adjusted(model, mean, std, classes, shape)
    for table in filter(None, (wrap, defense)):
        make, defended = locate("robustlab.defenses:make_defense"), locate("robustlab.defenses.base:defended")
        model = cast(Classifier, defended(model, make(table)))
    model.name = name
    model.source = {
        "name": name,
        "weights": None if weights is None else str(weights),
        "mean": None if mean is None else list(mean),
        "std": None if std is None else list(std),
        **({"defense": dict(defense)} if defense else {}),
    }
    return model.eval().to(device)


def undefended(name: str) -> Classifier:
    """As `load_model`, without what its card puts around it: the part that can be trained further."""
    return _bare(card_path(name), None, False, True)[0].eval()


def _bare(
    name: str, weights: str | Path | None, download: bool, run_code: bool
) -> tuple[Classifier, Mapping[str, Any]]:
    """The classifier without what its card puts around it, and the table that says what that is."""
    if name in zoo_names() or name.endswith(".toml"):
        path = zoo_path(name) if name in zoo_names() else Path(name)
        card = read_model_card(path)
        return _from_card(card, path, weights, download, run_code), card.wrap
    return _from_name(name, Path(), weights, download, run_code), {}


def _from_card(card: ModelCard, path: Path, weights: str | Path | None, download: bool, run_code: bool) -> Classifier:
    if weights is None and card.weights:
        beside = path.parent / card.weights
        # the weights of other packages have names; whatever else is named is a file
        weights = card.weights if library_of(card.architecture) and not beside.exists() else beside
    file = card.architecture.rpartition(":")[0]
    if file.endswith(".py") and not (path.parent / file).is_file():
        raise UserError(
            f"The model card {path} names the factory {card.architecture}, and there is no file {path.parent / file}."
            " Put it back, or change the line `architecture` in the card."
        )
    outputs = 1 if card.single_output else card.outputs
    if card.architecture in ARCHITECTURES:
        if outputs is None or card.shape is None or weights is None:
            needed = (("classes", outputs), ("shape", card.shape), ("weights", weights))
            missing = ", ".join(key for key, value in needed if value is None)
            raise UserError(f"{path} lacks {missing}: the architecture {card.architecture!r} cannot do without.")
        state = read_weights(weights)
        with torch.device("meta"):  # takes no memory: what does not fit is known before the module is made
            without_data = build(card.architecture, outputs, card.shape, card.options)
        check_fit(without_data, state, weights)
        module = build(card.architecture, outputs, card.shape, card.options)
        load_state(module, state, weights)
        model = Classifier(module, shape=card.shape)
    else:
        model = _from_name(
            card.architecture, path.parent, weights, download, run_code, outputs, card.shape, card.options
        )
    model.data, model.divided, model.trained = card.data, card.files if card.split else "", card.trained
    if card.single_output:
        model = two_classes(model, card.single_output)
    return _adjusted(model, card.mean, card.std, card.names, card.shape)


def _from_name(
    name: str,
    folder: Path,
    weights: str | Path | None,
    download: bool,
    run_code: bool,
    outputs: int | None = None,
    shape: Shape | None = None,
    options: Mapping[str, Any] | None = None,
) -> Classifier:
    """What is neither a card nor in a registry. folder: what the paths in the name are relative to."""
    if library := library_of(name):
        within = name.partition(":")[2]
        if folder != Path() and (library == "hf" or "/" in within) and (folder / within).is_dir():
            within = str(folder / within)
        load = locate(LIBRARIES[library])
        return cast(Classifier, load(within, weights, download, outputs=outputs, shape=shape, options=options))
    file, colon, function = name.rpartition(":")
    if not run_code and (name.endswith(".pt2") or (colon and file.endswith(".py"))):
        raise CodeError(f"{name} holds code, and loading it runs that.")
    if name.endswith(".pt2"):
        from robustlab.models.exported import load_exported

        if weights is not None or options:
            raise UserError(f"{name} is an exported program, which holds its own weights and takes no options.")
        return load_exported(folder / name)
    if colon and file.endswith(".py"):
        made, _ = from_file(folder / file, function, options or {})
        model = made if isinstance(made, Classifier) else Classifier(made)
        if weights is not None:
            load_weights(model.module, weights)
        return model
    raise UserError(unknown_model(name))


def _adjusted(
    model: Classifier,
    mean: Sequence[float] | None,
    std: Sequence[float] | None,
    classes: Sequence[str] | None,
    shape: Shape | None,
) -> Classifier:
    """The classifier with what is given in place of its own."""
    if mean is not None or std is not None:
        if model.normalised:
            mean = model.mean.flatten().tolist() if mean is None else mean
            std = model.std.flatten().tolist() if std is None else std
        made = Classifier(model.module, mean, std, shape=shape or model.shape, outputs=model.outputs)
        model = made.described_as(model)
    model.classes = model.classes if classes is None else classes
    model.shape = shape or model.shape
    return model


def unknown_model(name: str) -> str:
    """The message for a name that means nothing."""
    forms = f"a zoo name ({', '.join(zoo_names())}), {FORMS}"
    path = Path(name)
    if name in ARCHITECTURES:
        return (
            f"{name!r} is an architecture, not a trained model. Train it with: robustlab train {name} --data DATA;"
            f" or give {forms}."
        )
    if path.suffix == ".py":
        return f"{name!r} names a file but no function in it: write {name}:FUNCTION, a factory that returns a module."
    if path.is_file() and zipfile.is_zipfile(path) and any("/code/" in n for n in zipfile.ZipFile(path).namelist()):
        return (
            f"{name!r} is a TorchScript module, which is not supported. Export the model (torch.export.save, FILE.pt2),"
            f" or give FILE.py:function with {spelled('weights')}."
        )
    if path.suffix in (".pt", ".pth", ".safetensors", ".ckpt", ".bin"):
        return (
            f"{name!r} looks like weights, which alone do not say what network they belong to. Give the network and"
            f" {spelled('weights', name)}: FILE.py:function, torchvision:NAME or timm:NAME; or name both in a model"
            " card (FILE.toml)."
        )
    return f"There is no model {name!r}.{_of_torchvision(name) or did_you_mean(name, zoo_names())} Give {forms}."


def _of_torchvision(name: str) -> str:
    from robustlab.models.torchvision_models import torchvision_names

    return f" Did you mean 'torchvision:{name}'?" if name in torchvision_names() else ""


def build(architecture: str, classes: int, shape: Shape, options: Mapping[str, Any], seed: int = 0) -> nn.Module:
    """A fresh module of a registered architecture, its initial weights a function of the seed alone."""
    if architecture not in ARCHITECTURES:
        known = ", ".join(ARCHITECTURES)
        raise UserError(
            f"There is no architecture {architecture!r}.{did_you_mean(architecture, ARCHITECTURES)} Known: {known}."
        )
    large = [key for key, value in options.items() if isinstance(value, int | float) and not abs(value) <= LARGEST]
    if large:
        raise UserError(f"The option {large[0]!r} of the architecture {architecture!r} is above {LARGEST:,}.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return cast(nn.Module, locate(ARCHITECTURES[architecture])(classes, shape, **options))
        except UserError:
            raise
        except (TypeError, ValueError, RuntimeError, ArithmeticError) as error:
            raise UserError(
                f"The architecture {architecture!r} does not take the options {options}: {error}."
            ) from error
