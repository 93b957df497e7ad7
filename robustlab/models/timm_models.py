"""timm:NAME and timm:FOLDER: the classifiers of the package timm, with the normalisation and image size of its own.

A folder is one that timm's `save_for_hf` writes: config.json beside the weights. No file is read that could run code.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import torchvision
from torch import Tensor, nn

from robustlab.base.errors import UserError, did_you_mean, spelled
from robustlab.base.lazy import optional
from robustlab.base.words import first_line, some
from robustlab.models.card import MOST_CLASSES
from robustlab.models.classifier import Classifier
from robustlab.models.framing import framing
from robustlab.models.weights import load_state, read_weights

FILES = ("model.safetensors", "pytorch_model.bin")  # of the weights, in a folder or on the hub
Shape = tuple[int, int, int]
_RAISED = (TypeError, ValueError, AssertionError, RuntimeError, KeyError, AttributeError)  # by timm's architectures


def load_timm(
    name: str,
    weights: str | Path | None = None,
    download: bool = False,
    *,
    outputs: int | None = None,
    shape: Shape | None = None,
    options: Mapping[str, Any] | None = None,
) -> Classifier:
    """A classifier of timm: images in [0, 1] (N, C, H, W) -> logits (N, K).

    name: an architecture (`resnet18`), one with the name of its weights (`resnet18.a1_in1k`), or the path of a folder,
    with a / in it. weights: a file; `random`, a function of nothing but the name; default: those of the folder, or
    timm's own, which must lie in Hugging Face's cache unless `download` is set. Normalisation and image size are what
    `timm.data.resolve_model_data_config` says; for another number of channels than it has means, all get the average,
    as in timm's loader (`timm.data.loader.adapt_to_chs`). Another number of classes in a file is that file's. outputs,
    shape, options: another number of classes, image size, and keyword arguments of `timm.create_model`. Raises
    UserError.
    """
    architecture, config, arguments = _of_folder(Path(name)) if "/" in name else (*_of_name(name), {})
    arguments |= options or {}
    config["input_size"] = _input_size(config, arguments)
    path = Path() if str(weights) == "random" else _file(name, weights, config, download)
    state = None if str(weights) == "random" else read_weights(path)
    count = outputs or (state and _rows(state, config)) or config["num_classes"]
    if not 1 <= count <= MOST_CLASSES:
        what = "gives features and has no classes" if count == 0 else f"has {count:,} classes"
        raise UserError(f"timm:{name} {what}: a classifier with 2 to {MOST_CLASSES:,} is expected.")
    module = _built(architecture, config, count, shape, arguments, state, path)
    data = optional("timm.data", "timm").resolve_model_data_config(module)
    found = shape or tuple(data["input_size"])
    mean, std = (_for_channels(data[key], found[0]) for key in ("mean", "std"))
    model = Classifier(module, mean, std, classes=_classes(config, count), shape=found)
    if shape is None:  # else the images are not those of timm's own pipeline
        plain = dict(data, input_size=found, mean=[0.0], std=[1.0])
        model.notes = framing(optional("timm.data", "timm").create_transform(**plain, is_training=False), found)
    return model


def build_timm(name: str, classes: int, shape: Shape, options: Mapping[str, Any], seed: int = 0) -> nn.Module:
    """A fresh module, its weights a function of the seed alone; see `load_timm`."""
    if "/" in name:
        raise UserError(f"timm:{name}: a training starts from an architecture of timm's; a folder has trained weights.")
    return _built(*_of_name(name), classes, shape, options, seed=seed)


def _of_name(name: str) -> tuple[str, dict[str, Any]]:
    """The architecture of a name of timm's, and timm's description of its weights."""
    timm = optional("timm", "timm")
    architecture, _, tag = name.partition(".")
    if not timm.is_model(architecture):
        known = timm.list_models()
        raise UserError(
            f"timm has no model {architecture!r}.{did_you_mean(architecture, known)} It has {len(known):,}, such as"
            " resnet50 and vit_base_patch16_224: timm.list_models(). The path of a folder has a / in it: timm:./NAME."
        )
    try:
        config = timm.get_pretrained_cfg(name)
    except RuntimeError:
        tags = [each.partition(".")[2] for each in timm.list_models(f"{architecture}.*", pretrained=True)]
        raise UserError(
            f"timm has no weights {tag!r} for {architecture}.{did_you_mean(tag, tags)} It has {some(tags, 8)}."
        ) from None
    return architecture, config.to_dict()


def _of_folder(path: Path) -> tuple[str, dict[str, Any], dict[str, Any]]:
    """The architecture of a folder that timm wrote, the description of its weights, and its arguments."""
    file = path / "config.json"
    if not file.is_file():
        there = "has no config.json" if path.is_dir() else "is no folder"
        raise UserError(f"timm:{path}: {path} {there}. Give timm's name of a model, or a folder of timm's save_for_hf.")
    try:
        content = json.loads(file.read_text(encoding="utf-8"))
        architecture, config = content["architecture"], dict(content.get("pretrained_cfg") or content)
        config = {key: value for key, value in config.items() if key in _fields()}
        arguments = dict(content.get("model_args") or {})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{file} is not a description that timm wrote: {type(error).__name__}: {error}. Of a transformers model,"
            f" give hf:{path}."
        ) from error
    if not optional("timm", "timm").is_model(architecture):
        raise UserError(f"{file} names the architecture {architecture!r}, which timm does not have.")
    config |= {key: content[key] for key in ("num_classes", "label_names") if content.get(key) is not None}
    return architecture, {"num_classes": 1000, **config}, arguments


def _input_size(config: Mapping[str, Any], arguments: Mapping[str, Any]) -> Shape:
    """The shape of the images: that of the description, where the arguments do not say another."""
    channels, *size = config.get("input_size") or (3, 224, 224)
    side = arguments.get("img_size") or size
    height, width = (side, side) if isinstance(side, int) else side
    return arguments.get("in_chans") or channels, height, width


def _fields() -> set[str]:
    return set(optional("timm.models", "timm").PretrainedCfg.__dataclass_fields__)


def _file(name: str, weights: str | Path | None, config: Mapping[str, Any], download: bool) -> Path:
    """The file with the weights: the one given, that of the folder, or timm's own in the cache."""
    if weights is not None:
        if not any(Path(place).is_file() for place in (weights, str(weights).rpartition("#")[0])):  # FILE#KEY
            raise UserError(
                f"There is no weights file {str(weights)!r}.{did_you_mean(str(weights), ['random'])} Give a file, or"
                " `random`; timm's own weights are a part of the name: timm:resnet18.a1_in1k."
            )
        return Path(weights)
    if "/" in name:
        found = next((Path(name, file) for file in FILES if Path(name, file).is_file()), None)
        if found is None:
            raise UserError(f"{name} holds no weights ({' or '.join(FILES)}). Put them there, or give a file.")
        return found
    others = f"give a file ({spelled('weights')}), or take untrained weights ({spelled('weights', 'random')})"
    if not config.get("hf_hub_id"):
        raise UserError(f"timm offers no weights for {name}: {others}.")
    hub, errors = optional("huggingface_hub", "timm"), optional("huggingface_hub.errors", "timm")
    repository, _, revision = str(config["hf_hub_id"]).partition("@")
    reason = ""
    for file in FILES:
        try:
            return Path(hub.hf_hub_download(repository, file, revision=revision or None, local_files_only=not download))
        except (OSError, ValueError, errors.EntryNotFoundError) as error:  # not there; no network; a full disk
            reason = reason or first_line(error)
    if not download:
        raise UserError(
            f"The weights {repository} of timm:{name} are not on this machine. Let them be downloaded"
            f" ({spelled('download', True)}), {others}."
        )
    raise UserError(f"The weights {repository} of timm:{name} could not be downloaded ({reason}). Try again, {others}.")


def _rows(state: Mapping[str, Tensor], config: Mapping[str, Any]) -> int:
    """How many classes the weights in a file are of; 0 where that cannot be seen."""
    heads = config.get("classifier") or ()
    for head in (heads,) if isinstance(heads, str) else heads:
        if (weight := state.get(f"{head}.weight")) is not None and weight.ndim:
            return len(weight)
    return 0


def _built(
    architecture: str,
    config: Mapping[str, Any],
    classes: int,
    shape: Shape | None,
    options: Mapping[str, Any],
    state: Mapping[str, Tensor] | None = None,
    path: Path = Path(),
    seed: int = 0,
) -> nn.Module:
    """The module, with the tensors of a file if there are any, none left out: timm brings them to its present names."""
    # the head is the file's own, and no layer is made to fit: what does not fit is an error
    config = {**config, "num_classes": classes, "label_offset": None, "first_conv": None, "source": ""}
    given: dict[str, Any] = {"num_classes": classes}
    channels, *size = config["input_size"]
    if shape is not None and shape[0] != channels:
        given["in_chans"] = shape[0]
    if shape is not None and list(shape[1:]) != size and config.get("fixed_input_size"):
        given["img_size"] = shape[1:]
    create = partial(optional("timm", "timm").create_model, architecture, **given | dict(options))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        if state:
            with suppress(*_RAISED):  # of files in older forms, too; what is wrong with this one is said below
                module = create(pretrained=True, pretrained_cfg=config | {"state_dict": dict(state)})
                del module.pretrained_cfg["state_dict"]  # a second copy of the weights
                return cast(nn.Module, module)
        try:
            module = cast(nn.Module, create(pretrained=False, pretrained_cfg=config))
        except _RAISED as error:
            size = f"{shape[1]} x {shape[2]}" if shape else "its own size"
            raise UserError(
                f"timm cannot build {architecture!r} for images of {size} with the options {dict(options)}:"
                f" {first_line(error)}"
            ) from error
    if state is not None:
        load_state(module, state, path)
    return module


def _for_channels(values: Sequence[float], channels: int) -> list[float]:
    """One value a channel: those given, or their average for all."""
    return list(values) if len(values) == channels else [sum(values) / len(values)] * channels


def _classes(config: Mapping[str, Any], count: int) -> list[str] | None:
    """The names of the classes: those in the description, or ImageNet's, as torchvision has them, of 1000."""
    names = config.get("label_names")
    if isinstance(names, Mapping):  # by number, with gaps or without
        names = [names[key] for key in map(str, range(count)) if key in names]
    if names is None and config["num_classes"] == count == 1000:
        names = torchvision.models.ResNet18_Weights.DEFAULT.meta["categories"]
    return list(map(str, names)) if names is not None and len(names) == count else None
