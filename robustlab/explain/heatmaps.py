"""Grad-CAM and activation heatmaps, computed by captum (imported when the first one is drawn)."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
from torch import Tensor, nn

from robustlab.base.errors import RunError, UserError
from robustlab.base.given import check_images
from robustlab.explain.layers import Layer, find_layer
from robustlab.oracle import ask, undisturbed


@dataclass(frozen=True, eq=False)
class Heatmaps:
    """maps: (N, H, W) float32, at least 0, in the units of the layer: values of different images can be compared.

    layer: what they were drawn from.
    """

    maps: Tensor
    layer: Layer

    @property
    def zero(self) -> Tensor:
        """(N,) bool: the maps that are zero everywhere. Nothing speaks for the class there; no scale makes one."""
        return self.maps.flatten(1).amax(1) == 0


def grad_cam(
    model: nn.Module, images: Tensor, classes: Tensor, *, layer: str | Layer | None = None, batch_size: int = 64
) -> Heatmaps:
    """Which places of the image speak for a class: Grad-CAM (Selvaraju et al., 2017), https://arxiv.org/abs/1610.02391.

    The channels of a layer's output, weighted by the mean gradient of the class's logit over the places, are summed,
    cut off at zero (what speaks against the class is not shown) and enlarged bilinearly to the image's size.

    images: (N, C, H, W), on the model's device. classes: (N,) int64, the class that each map is about. layer: dotted
    name; default: `find_layer`. The model is evaluated in eval mode and left as it was. UserError: no such layer, or
    none that has places.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> found = grad_cam(net, torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))
    >>> found.maps.shape, found.layer.name
    (torch.Size([2, 8, 8]), '1')
    """
    from captum.attr import LayerGradCam

    at = _layer(model, images, layer)
    if classes.shape != images.shape[:1] or classes.is_floating_point():
        raise UserError(f"classes are {len(images)} class numbers, one an image; got {classes.dtype} {classes.shape}.")
    if int(classes.min()) < 0 or int(classes.max()) >= at.classes:
        raise UserError(
            f"classes lie between 0 and {at.classes - 1} for this model; got {int(classes.min())} to"
            f" {int(classes.max())}."
        )

    def attribute(probe: nn.Module, x: Tensor, rows: slice) -> Tensor:
        found = LayerGradCam(partial(ask, model), probe)
        return cast(Tensor, found.attribute(x, classes[rows].to(x.device), relu_attributions=True))

    return _heatmaps(model, images, at, batch_size, attribute)


def activation_map(
    model: nn.Module, images: Tensor, *, layer: str | Layer | None = None, batch_size: int = 64
) -> Heatmaps:
    """Which places of the image a layer responds to, whatever the class: the mean absolute value of its channels.

    Arguments, errors and size as `grad_cam`.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> activation_map(net, torch.rand(2, 3, 8, 8), layer="0").maps.shape
    torch.Size([2, 8, 8])
    """
    from captum.attr import LayerActivation

    def attribute(probe: nn.Module, x: Tensor, rows: slice) -> Tensor:
        return cast(Tensor, LayerActivation(partial(ask, model), probe).attribute(x)).abs().mean(1, keepdim=True)

    return _heatmaps(model, images, _layer(model, images, layer), batch_size, attribute)


def _layer(model: nn.Module, images: Tensor, layer: str | Layer | None) -> Layer:
    check_images(images)
    return layer if isinstance(layer, Layer) else find_layer(model, images, layer)


def _heatmaps(
    model: nn.Module,
    images: Tensor,
    layer: Layer,
    batch_size: int,
    attribute: Callable[[nn.Module, Tensor, slice], Tensor],
) -> Heatmaps:
    """attribute: (the watched module, a batch, its rows) -> (B, 1, h, w)."""
    from captum.attr import LayerAttribution

    parts = []
    with torch.inference_mode(False), undisturbed(model), layer.watched() as probe:
        for start in range(0, len(images), batch_size):
            rows = slice(start, start + batch_size)
            # frozen parameters leave no graph: it has to begin at the images
            x = images[rows].detach().clone().requires_grad_(True)
            small = attribute(probe, x, rows).detach().float()
            parts.append(LayerAttribution.interpolate(small, tuple(images.shape[2:]), "bilinear")[:, 0])
    maps = torch.cat(parts)
    if not bool(torch.isfinite(maps).all()):
        raise RunError(f"The heatmaps from the layer {layer.name!r} are NaN or infinite: the model's gradients are.")
    return Heatmaps(maps, layer)
