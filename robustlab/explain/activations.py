"""What a layer responds to in an image, whatever the class: the mean of its channels, and its strongest channels."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.base.pictures import coloured, sheet
from robustlab.base.typed import check_whole
from robustlab.explain.heatmaps import LayerHeatmaps, layer_of, of_layer, outputs_of
from robustlab.explain.layers import Layer
from robustlab.oracle import ask


def activation_map(
    model: nn.Module, images: Tensor, *, layer: str | Layer | None = None, batch_size: int = 64
) -> LayerHeatmaps:
    """Which places of the image a layer responds to, whatever the class: the mean absolute value of its channels.

    Enlarged bilinearly to the image's size. Arguments and errors as `robustlab.explain.grad_cam`.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> activation_map(net, torch.rand(2, 3, 8, 8), layer="0").maps.shape
    torch.Size([2, 8, 8])
    """
    from captum.attr import LayerActivation

    def attribute(probe: nn.Module, x: Tensor, rows: slice) -> Tensor:
        return cast(Tensor, LayerActivation(partial(ask, model), probe).attribute(x)).abs().mean(1, keepdim=True)

    return of_layer(model, images, layer_of(model, images, layer), batch_size, attribute)


@dataclass(frozen=True, eq=False)
class Channels:
    """The strongest channels of a layer for each image, the strongest first.

    index: (N, k) int64, the numbers of the channels. strength: (N, k), the mean absolute value over the places.
    outputs: (N, k, h, w), what the layer gave there, as it is: with its sign, and not enlarged.
    """

    index: Tensor
    strength: Tensor
    outputs: Tensor
    layer: Layer

    def contact_sheet(self, row: int, side: int = 64) -> Tensor:
        """(3, height, width) in [0, 1]: absolute values of the channels of image `row`, in rows of at most eight.

        All have one scale of colours, from 0 to the largest value of the image: they can be compared.
        """
        values = self.outputs[row].abs()
        h, w = values.shape[1:]
        size = (max(1, round(side * h / max(h, w))), max(1, round(side * w / max(h, w))))
        tiles = coloured(F.interpolate(values[:, None], size)[:, 0], float(values.max()))
        tiles = F.pad(tiles, (1, 1, 1, 1), value=1.0)
        columns = min(8, len(tiles))
        tiles = torch.cat([tiles, torch.ones(-len(tiles) % columns, *tiles.shape[1:])])
        return sheet(list(tiles.split(columns)), 1)


def strongest_channels(
    model: nn.Module, images: Tensor, *, layer: str | Layer | None = None, count: int = 16, batch_size: int = 64
) -> Channels:
    """The channels of a layer that respond most to each image; `contact_sheet` of what comes back shows them.

    count: how many; all, where the layer has fewer. Arguments and errors as `robustlab.explain.grad_cam`.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> found = strongest_channels(net, torch.rand(2, 3, 8, 8), count=3)
    >>> found.index.shape, found.outputs.shape, found.contact_sheet(0).shape
    (torch.Size([2, 3]), torch.Size([2, 3, 6, 6]), torch.Size([3, 66, 198]))
    """
    check_whole("count", count, 1)
    at = layer_of(model, images, layer)

    def strongest(out: Tensor, rows: slice) -> tuple[Tensor, Tensor, Tensor]:
        strength, index = out.abs().mean((2, 3)).topk(min(count, out.shape[1]))
        return index, strength, out.take_along_dim(index[:, :, None, None], 1)

    parts = outputs_of(model, images, at, batch_size, strongest)
    index, strength, outputs = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
    return Channels(index, strength, outputs, at)
