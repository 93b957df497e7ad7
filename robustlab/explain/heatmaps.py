"""What every heatmap is, and what all methods share: checked classes, batches, a model that is left as it was."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor, nn

from robustlab.base.errors import RunError, UserError
from robustlab.base.given import check_images
from robustlab.explain.layers import Layer, find_layer
from robustlab.oracle import ask, check_gradient, undisturbed

T = TypeVar("T")


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """maps: (N, H, W) float32 in the units of their method, so that values of different images can be compared.

    They are at least 0, unless `signed` maps were asked for.
    """

    maps: Tensor

    @property
    def zero(self) -> Tensor:
        """(N,) bool: the maps that are zero everywhere. Nothing speaks for the class there; no scale makes one."""
        return self.maps.flatten(1).abs().amax(1) == 0


@dataclass(frozen=True, eq=False)
class LayerHeatmaps(Heatmaps):
    """Heatmaps of a layer: which one they were drawn from."""

    layer: Layer


def layer_of(model: nn.Module, images: Tensor, layer: str | Layer | None) -> Layer:
    """The layer that was given, or found by its name, or by itself."""
    check_images(images)
    return layer if isinstance(layer, Layer) else find_layer(model, images, layer)


def check_asked(classes: Tensor, images: Tensor, count: int) -> None:
    """A `UserError` unless there is one class number an image, and the model has each."""
    if classes.shape != images.shape[:1] or classes.is_floating_point():
        raise UserError(f"classes are {len(images)} class numbers, one an image; got {classes.dtype} {classes.shape}.")
    if int(classes.min()) < 0 or int(classes.max()) >= count:
        raise UserError(
            f"classes lie between 0 and {count - 1} for this model; got {int(classes.min())} to {int(classes.max())}."
        )


def of_layer(
    model: nn.Module,
    images: Tensor,
    layer: Layer,
    batch_size: int,
    attribute: Callable[[nn.Module, Tensor, slice], Tensor],
) -> LayerHeatmaps:
    """Maps of a layer, enlarged bilinearly. attribute: (the watched module, a batch, its rows) -> (B, 1, h, w)."""
    from captum.attr import LayerAttribution

    parts = []
    with torch.inference_mode(False), undisturbed(model), layer.watched() as probe:
        for rows, x in _batches(images, batch_size):
            small = attribute(probe, x, rows).detach().float()
            parts.append(LayerAttribution.interpolate(small, tuple(images.shape[2:]), "bilinear")[:, 0])
    return LayerHeatmaps(_finite(parts, f" from the layer {layer.name!r}"), layer)


def of_pixels(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    batch_size: int,
    attribute: Callable[[Tensor, Tensor], Tensor],
    *,
    gradients: bool = True,
) -> Heatmaps:
    """Maps of the image itself. attribute: (a batch, its classes) -> (B, H, W). gradients: does it need them?"""
    check_images(images)
    with torch.inference_mode(False), undisturbed(model):
        one = images[:1].detach().clone()
        with torch.no_grad():
            logits = ask(model, one)
        check_asked(classes, images, logits.shape[1])
        if gradients:
            check_gradient(model, one)
        parts = []
        for rows, x in _batches(images, batch_size):
            parts.append(attribute(x, classes[rows].to(x.device)).detach().float())
    return Heatmaps(_finite(parts))


def outputs_of(
    model: nn.Module, images: Tensor, layer: Layer, batch_size: int, look: Callable[[Tensor, slice], T]
) -> list[T]:
    """What `look` makes of the layer's output (B, C, h, w) for each batch, and its rows. One forward pass an image."""
    held: list[Tensor] = []
    found = []
    with torch.no_grad(), undisturbed(model), layer.watched() as probe:
        with probe.register_forward_hook(lambda module, given, out: held.append(out.detach().float().clone())):
            for start in range(0, len(images), batch_size):
                held.clear()
                ask(model, images[start : start + batch_size])
                if not bool(torch.isfinite(held[-1]).all()):
                    raise RunError(f"The layer {layer.name!r} gives NaN or infinite values.")
                found.append(look(held[-1], slice(start, start + len(held[-1]))))
    return found


def _batches(images: Tensor, batch_size: int) -> list[tuple[slice, Tensor]]:
    """The rows of each batch and its images, from which the gradients begin: frozen parameters leave no graph."""
    slices = [slice(start, start + batch_size) for start in range(0, len(images), batch_size)]
    return [(rows, images[rows].detach().clone().requires_grad_(True)) for rows in slices]


def _finite(parts: list[Tensor], where: str = "") -> Tensor:
    maps = torch.cat(parts)
    if not bool(torch.isfinite(maps).all()):
        raise RunError(f"The heatmaps{where} are NaN or infinite: the model's gradients or outputs are.")
    return maps
