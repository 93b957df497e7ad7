"""torchvision:NAME: the classifiers of torchvision, with the normalisation and the class names of their weights."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import urlparse

import torch
import torchvision
from PIL import Image
from torch import Tensor, nn

from robustlab.base.errors import UserError, did_you_mean, spelled
from robustlab.models.card import MOST_CLASSES
from robustlab.models.classifier import Classifier
from robustlab.models.framing import framing
from robustlab.models.weights import load_state, read_weights

# names in the files that torchvision offers -> names in its modules
_RENAMED = (
    (re.compile(r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_1\."), r"\1.0."),
    (re.compile(r"(encoder_layer_\d+\.mlp)\.linear_2\."), r"\1.3."),
)
# heads that train with these two and take no part in a prediction
_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}


def torchvision_names() -> list[str]:
    """What may follow `torchvision:`: every classifier of the installed version.

    >>> "resnet18" in torchvision_names()
    True
    """
    return cast("list[str]", torchvision.models.list_models(module=torchvision.models))


def load_torchvision(
    name: str,
    weights: str | Path | None = None,
    download: bool = False,
    *,
    outputs: int | None = None,
    shape: tuple[int, int, int] | None = None,
    options: Mapping[str, Any] | None = None,
) -> Classifier:
    """A classifier of torchvision: images in [0, 1] (N, 3, H, W) -> logits (N, K).

    weights: the name of weights that torchvision has for it (default: its DEFAULT), which must lie in torch's cache
    unless `download` is set; a file; or `random`, a function of nothing but the name. Normalisation, class names and
    image size are those of the named weights, else of DEFAULT; another number of classes in a file is that file's.
    outputs, shape, options: another number of classes, image size, and keyword arguments of torchvision's function.
    Raises UserError.

    >>> model = load_torchvision("squeezenet1_1", "random")
    >>> model.shape, len(model.classes), model.classes[1]
    ((3, 224, 224), 1000, 'goldfish')
    """
    _check(name, shape)
    offered = torchvision.models.get_model_weights(name)
    chosen = offered.__members__.get(str(weights), offered.DEFAULT)
    preset, names = chosen.transforms(), chosen.meta["categories"]
    own = (3, preset.crop_size[0], preset.crop_size[0])
    shape = shape or own
    path = None if str(weights) == "random" else _file(name, weights, chosen, list(offered.__members__), download)
    count = outputs or len(names or ()) or 1000
    module = build_torchvision(name, count, shape, options or {})
    if path is not None:
        state = {modern(key): value for key, value in read_weights(path).items()}
        state = {key: value for key, value in state.items() if not key.startswith(_AUXILIARY.get(name, ()))}
        last = list(module.state_dict())[-1]  # of the layer that gives the logits, a row a class
        if outputs is None and last in state and state[last].shape[:1] not in ((), (count,)):
            count = len(state[last])
            if count > MOST_CLASSES:
                raise UserError(f"{path} is of {count:,} classes, and at most {MOST_CLASSES:,} are taken.")
            module = build_torchvision(name, count, shape, options or {})
        load_state(module, state, path)
    classes = names if names is not None and len(names) == count else None
    model = Classifier(module, preset.mean, preset.std, classes=classes, shape=shape)
    if shape == own:
        model.notes = framing(partial(_shown, preset), own)
    return model


def _shown(preset: Any, image: Image.Image) -> Tensor:
    """(3, H, W) in [0, 1], the pixels that a model sees of an image."""
    mean, std = (torch.tensor(values)[:, None, None] for values in (preset.mean, preset.std))
    return cast(Tensor, preset(image) * std + mean)


def build_torchvision(
    name: str, classes: int, shape: tuple[int, int, int], options: Mapping[str, Any], seed: int = 0
) -> nn.Module:
    """A fresh module, its weights a function of the seed alone; see `load_torchvision`."""
    _check(name, shape)
    given: dict[str, Any] = {"num_classes": classes}
    if name.startswith("vit_"):
        given["image_size"] = shape[1]
    elif name.startswith("maxvit"):
        given["input_size"] = shape[1:]
    elif name in _AUXILIARY:  # these turn the normalisation of ImageNet into their own
        given |= {"aux_logits": False, "transform_input": True, "init_weights": True}
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            return cast(nn.Module, torchvision.models.get_model(name, weights=None, **(given | dict(options))))
        except (TypeError, ValueError, AssertionError, RuntimeError) as error:
            raise UserError(
                f"torchvision cannot build {name!r} for images of {shape[1]} x {shape[2]} with the options"
                f" {dict(options)}: {error}"
            ) from error


def _check(name: str, shape: tuple[int, int, int] | None) -> None:
    if name not in torchvision_names():
        hint = did_you_mean(name, torchvision_names())
        raise UserError(
            f"torchvision has no classifier {name!r}.{hint} It has {len(torchvision_names())}, such as resnet50,"
            " vit_b_16 and convnext_tiny: torchvision.models.list_models(module=torchvision.models)."
        )
    if shape is not None and shape[0] != 3:
        raise UserError(f"torchvision's classifiers take images of 3 channels, not {shape[0]}.")


def _file(name: str, weights: str | Path | None, chosen: Any, offered: list[str], download: bool) -> Path:
    """The file with the weights: the one given, or the one in torch's cache, fetched where that is allowed."""
    if weights is not None and str(weights) not in offered:
        if not Path(weights).is_file():
            raise UserError(
                f"There is no weights file {str(weights)!r}, and torchvision:{name} has no weights of that name."
                f"{did_you_mean(str(weights), [*offered, 'random'])} Give a file, or one of"
                f" {', '.join([*offered, 'random'])}."
            )
        return Path(weights)
    path = Path(torch.hub.get_dir()) / "checkpoints" / Path(urlparse(chosen.url).path).name
    if path.is_file():
        return path
    others = f"give a file ({spelled('weights')}), or take untrained weights ({spelled('weights', 'random')})"
    if not download:
        raise UserError(
            f"The weights {chosen.name} of torchvision:{name} are not on this machine ({path}). Let them be downloaded"
            f" ({spelled('download', True)}), {others}."
        )
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        prefix = re.search(r"-([0-9a-f]{8,})\.", path.name)
        torch.hub.download_url_to_file(chosen.url, str(path), hash_prefix=prefix[1] if prefix else None)
    except (OSError, RuntimeError) as error:  # no network, no such host, a full disk; another file than expected
        raise UserError(
            f"{chosen.url} could not be downloaded to {path} ({error}). Try again, put the file there yourself,"
            f" {others}."
        ) from error
    return path


def modern(key: str) -> str:
    """The present name of a tensor in a file that torchvision offers.

    >>> modern("features.denseblock1.denselayer1.norm.1.weight")
    'features.denseblock1.denselayer1.norm1.weight'
    """
    for pattern, name in _RENAMED:
        key = pattern.sub(name, key)
    return key
