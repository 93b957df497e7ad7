"""What a layer of a classifier makes of images: the vectors that filters look at."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.typed import check_whole
from robustlab.models.classifier import Classifier
from robustlab.oracle import ask, undisturbed


def representations(
    classifier: nn.Module, images: Tensor, layer: str | None = None, *, pool: bool = False, batch_size: int = 256
) -> Tensor:
    """(n, d) float32: the output of a layer for each image, flattened. The classifier is left as it was.

    images: (n, C, H, W) in [0, 1]. layer: a dotted name, as in the module's `named_modules()` (of the module inside a
    `Classifier`); left out: the last layer with an output (n, d) before the logits, or else the last one before them.
    pool: of an output (n, c, h, w), the mean over its places, d = c. UserError: no such layer, or one that is not
    called or gives no tensor with one row an image.

    >>> net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    >>> images = torch.rand(5, 1, 4, 4)
    >>> representations(net, images).shape, representations(net, images, "0", pool=True).shape
    (torch.Size([5, 12]), torch.Size([5, 3]))
    """
    check_whole("batch_size", batch_size, 1)
    if images.ndim != 4 or not len(images):
        raise UserError(f"images must have the shape (n, C, H, W), n at least 1; got {tuple(images.shape)}.")
    name, module = found_layer(classifier, images, layer)
    with torch.no_grad(), undisturbed(classifier):
        parts = [_of_batch(classifier, module, name, x, pool) for x in images.split(batch_size)]
    return torch.cat(parts)


def found_layer(classifier: nn.Module, images: Tensor, layer: str | None = None) -> tuple[str, nn.Module]:
    """The layer of `representations`, by name or found by shape, and its name. UserError: there is none."""
    owner = classifier.module if isinstance(classifier, Classifier) else classifier
    modules = {name: module for name, module in owner.named_modules() if name}
    if layer is None:
        with torch.no_grad(), undisturbed(classifier):
            layer = _last_flat(classifier, modules, images[:2])
    if layer not in modules:
        raise UserError(
            f"The model has no layer {layer!r}.{did_you_mean(layer, modules)} Its layers: {', '.join(modules)}."
        )
    return layer, modules[layer]


def _last_flat(classifier: nn.Module, modules: dict[str, nn.Module], images: Tensor) -> str:
    """The last layer in the order of the forward pass with an output (n, d) that is not the logits."""
    outputs: dict[str, Tensor] = {}

    def keep(name: str, out: Any) -> None:
        outputs.pop(name, None)
        if isinstance(out, Tensor) and out.ndim > 1 and len(out) == len(images):
            outputs[name] = out.clone()

    with ExitStack() as hooks:
        for name, module in modules.items():
            hooks.enter_context(module.register_forward_hook(lambda m, given, out, name=name: keep(name, out)))
        logits = ask(classifier, images)
    before = [name for name, out in outputs.items() if out.shape != logits.shape]
    flat = [name for name in before if outputs[name].ndim == 2]
    if not before:
        raise UserError("The model has no layer before its logits. Name one, or give representations of your own.")
    return (flat or before)[-1]


def _of_batch(classifier: nn.Module, module: nn.Module, name: str, images: Tensor, pool: bool) -> Tensor:
    found: list[Any] = []
    with module.register_forward_hook(
        lambda m, given, out: found.append(out.clone() if isinstance(out, Tensor) else out)
    ):
        ask(classifier, images)
    out = found[-1] if found else None  # of a module that is called several times, the last call
    if not isinstance(out, Tensor) or out.ndim < 2 or len(out) != len(images):
        what = "is not called" if out is None else f"gives {tuple(out.shape) if isinstance(out, Tensor) else type(out)}"
        raise UserError(f"The layer {name!r} {what}; a tensor with one row an image is needed. Name another layer.")
    if pool and out.ndim > 2:
        out = out.flatten(2).mean(2)
    return out.flatten(1).float()
