"""How much of a model's heat lies inside a region: a sticker, a patch or a trigger, and bare images."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from robustlab.base.intervals import Share, mean_share
from robustlab.base.pictures import enlarged, palette
from robustlab.explain.cams import grad_cam
from robustlab.explain.layers import find_layer
from robustlab.oracle import answers


def heat_inside(maps: Tensor, inside: Tensor) -> Tensor:
    """(B,) the share of each map (B, H, W) that lies inside a region (B, H, W) in [0, 1]; NaN where the map is zero.

    >>> half = torch.tensor([[[1.0, 0.0], [1.0, 0.0]]])
    >>> heat_inside(torch.tensor([[[3.0, 1.0], [0.0, 0.0]]]), half)
    tensor([0.7500])
    """
    total = maps.double().sum((1, 2))
    return ((maps.double() * inside).sum((1, 2)) / total).float()


def heat_shares(
    model: nn.Module, versions: Mapping[str, Tensor], inside: Tensor
) -> tuple[dict[str, Tensor], dict[str, dict[str, Share]]]:
    """Grad-CAM maps (N, H, W) of the model's own answers for each version of the images, and the heat inside a region.

    versions: images (N, C, H, W) by name, all of the same scenes; the first decides the layer. inside: (N, H, W) in
    [0, 1]. Of each version the mean share `heat`, without the maps that are zero, and that of the region's `area`,
    which heat that is spread evenly has; with n and 95 % t intervals. UserError: the model has no layer with a map.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sigmoid(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> _, found = heat_shares(net, {"bare": torch.rand(2, 3, 8, 8)}, torch.ones(2, 8, 8))
    >>> found["bare"]["area"]["value"]
    1.0
    """
    layer = find_layer(model, next(iter(versions.values()))[:8])
    maps, found = {}, {}
    for name, images in versions.items():
        classes = answers(model, images, images.device).to(images.device)
        maps[name] = grad_cam(model, images, classes, layer=layer).maps.cpu()
        heat = heat_inside(maps[name], inside.cpu())
        found[name] = {
            "heat": mean_share(heat[heat.isfinite()].tolist()),
            "area": mean_share(inside.mean((1, 2)).tolist()),
        }
    return maps, found


def own_colours(maps: Tensor) -> Tensor:
    """Maps (N, H, W) >= 0 as images (N, 3, H, W) in [0, 1], each on its own scale, enlarged as `pictures.sheet` does.

    >>> own_colours(torch.ones(2, 32, 32)).shape
    torch.Size([2, 3, 96, 96])
    """
    share = maps / maps.amax((1, 2), keepdim=True).clamp_min(1e-12)
    return enlarged(torch.from_numpy(palette())[share.mul(255).round().long()].permute(0, 3, 1, 2) / 255)
