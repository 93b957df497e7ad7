"""Grad-CAM, computed by captum (imported when the first map is drawn)."""

from __future__ import annotations

from functools import partial
from typing import cast

from torch import Tensor, nn

from robustlab.explain.heatmaps import LayerHeatmaps, check_asked, layer_of, of_layer
from robustlab.explain.layers import Layer
from robustlab.oracle import ask


def grad_cam(
    model: nn.Module,
    images: Tensor,
    classes: Tensor,
    *,
    layer: str | Layer | None = None,
    batch_size: int = 64,
    signed: bool = False,
) -> LayerHeatmaps:
    """Which places of the image speak for a class: Grad-CAM (Selvaraju et al., 2017), https://arxiv.org/abs/1610.02391.

    The channels of a layer's output, weighted by the mean gradient of the class's logit over the places, are summed,
    cut off at zero (what speaks against the class is not shown) and enlarged bilinearly to the image's size.

    images: (N, C, H, W), on the model's device. classes: (N,) int64, the class that each map is about. layer: dotted
    name; default: `find_layer`. signed: keep what speaks against the class, below zero. The model is evaluated in eval
    mode and left as it was. UserError: no such layer, or none that has places.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> import torch
    >>> found = grad_cam(net, torch.rand(2, 3, 8, 8), torch.tensor([0, 1]))
    >>> found.maps.shape, found.layer.name
    (torch.Size([2, 8, 8]), '1')
    """
    from captum.attr import LayerGradCam

    at = layer_of(model, images, layer)
    check_asked(classes, images, at.classes)

    def attribute(probe: nn.Module, x: Tensor, rows: slice) -> Tensor:
        found = LayerGradCam(partial(ask, model), probe)
        return cast(Tensor, found.attribute(x, classes[rows].to(x.device), relu_attributions=not signed))

    return of_layer(model, images, at, batch_size, attribute)
