"""What a channel responds to: its top images with the region that did it, and how an attack changes its output."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.base.intervals import mean_interval
from robustlab.base.typed import check_whole
from robustlab.explain.heatmaps import layer_of, outputs_of
from robustlab.explain.layers import Layer

Json = dict[str, Any]
HALF = 0.5  # of a channel's largest value in an image: what is above it is the region


@dataclass(frozen=True, eq=False)
class TopImages:
    """The images that a channel responds to most, the strongest first.

    strength: the mean absolute output of the channel over all images and places. rows: (k,) places in the images that
    were looked at. peaks: (k,) the channel's largest output in each. inside: (k, H, W) bool, the region that did it:
    where the output, enlarged bilinearly, is at least half of its largest value. That is not the receptive field; the
    layer may have seen more of the image. Images in which the channel is nowhere above zero are left out.
    """

    channel: int
    strength: float
    rows: Tensor
    peaks: Tensor
    inside: Tensor
    layer: Layer


def strengths(
    model: nn.Module, images: Tensor, *, layer: str | Layer | None = None, batch_size: int = 64
) -> tuple[Tensor, Tensor]:
    """(N, C) mean absolute output of each channel over the places of each image, and (N, C) its largest output.

    Arguments and errors as `robustlab.explain.grad_cam`.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> [values.shape for values in strengths(net, torch.rand(2, 3, 8, 8))]
    [torch.Size([2, 4]), torch.Size([2, 4])]
    """
    at = layer_of(model, images, layer)
    parts = outputs_of(model, images, at, batch_size, lambda out, rows: (out.abs().mean((2, 3)), out.amax((2, 3))))
    mean, peak = (torch.cat(each).cpu() for each in zip(*parts, strict=True))
    return mean, peak


def top_images(
    model: nn.Module,
    images: Tensor,
    *,
    layer: str | Layer | None = None,
    count: int = 8,
    top: int = 6,
    batch_size: int = 64,
) -> list[TopImages]:
    """For each of the strongest channels of a layer, the images (N, C, H, W) that it responds to most, and where.

    Zeiler and Fergus (2014), https://arxiv.org/abs/1311.2901, show top images; the region is cut out of the enlarged
    output, as in Bau et al. (2017), "Network dissection", https://arxiv.org/abs/1704.05796, but at half of the largest
    value of the image. count: how many channels, of the largest mean absolute output. top: images of each. Other
    arguments and errors as `robustlab.explain.grad_cam`.

    >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2))
    >>> found = top_images(net, torch.rand(9, 3, 8, 8), count=2, top=3)
    >>> len(found), found[0].inside.shape[1:]
    (2, torch.Size([8, 8]))
    """
    check_whole("count", count, 1)
    check_whole("top", top, 1)
    at = layer_of(model, images, layer)
    mean, peak = strengths(model, images, layer=at, batch_size=batch_size)
    strength, chosen = mean.mean(0).topk(min(count, mean.shape[1]))
    order = peak[:, chosen].argsort(dim=0, descending=True, stable=True)[:top]  # (top, count)
    needed, places = order.unique(return_inverse=True)  # each of these images goes through the model once
    shown = images[needed.to(images.device)]
    size = (int(images.shape[2]), int(images.shape[3]))
    outputs = torch.cat(outputs_of(model, shown, at, batch_size, lambda out, rows: out[:, chosen.to(out.device)].cpu()))
    found = []
    for i, (channel, value) in enumerate(zip(chosen.tolist(), strength.tolist(), strict=True)):
        small = outputs[places[:, i], i]
        peaks = small.amax((1, 2))
        there = peaks > 0
        large = F.interpolate(small[there, None], size, mode="bilinear")[:, 0]
        inside = large >= HALF * large.amax((1, 2), keepdim=True)
        found.append(TopImages(channel, value, order[there, i], peaks[there], inside, at))
    return found


def channel_changes(clean: Tensor, changed: Mapping[str, Tensor], channels: list[int]) -> list[Json]:
    """How the strengths (N, C) of some channels differ between the clean images and other versions of the same ones.

    A row a channel: the mean of the clean images, and under the name of each version the mean paired difference, all
    with n and 95 % t intervals. The last row, of no channel, is about whole images: which share of an image's strongest
    channels (as many as `channels`) are still among its strongest. An image does not count there if a tie decides which
    channels these are, as in a layer that gives only zeros; nor does any if `channels` are all there are.
    UserError: a channel that the layer does not have, or the same one twice.

    >>> clean, adv = torch.tensor([[1.0, 3.0], [1.0, 3.0]]), torch.tensor([[4.0, 3.0], [1.0, 3.0]])
    >>> rows = channel_changes(clean, {"adv": adv}, [1])
    >>> rows[0]["clean"]["mean"], rows[0]["adv"]["mean"], rows[1]["adv"]["mean"]
    (3.0, 0.0, 0.5)
    """
    if not channels or len(set(channels)) < len(channels) or not set(channels) <= set(range(clean.shape[1])):
        raise UserError(f"channels are some of 0 to {clean.shape[1] - 1}, each once; got {channels}.")
    rows: list[Json] = []
    for c in channels:
        differences = {name: mean_interval((each[:, c] - clean[:, c]).tolist()) for name, each in changed.items()}
        rows.append({"channel": c, "clean": mean_interval(clean[:, c].tolist()), **differences})
    first, kept = _strongest(clean, len(channels)), {}
    for name, each in changed.items():
        then = _strongest(each, len(channels))
        clear = first.any(1) & then.any(1)
        kept[name] = mean_interval((first & then)[clear].double().sum(1).div(len(channels)).tolist())
    return [*rows, {"channel": None, "clean": None, **kept}]


def _strongest(strength: Tensor, count: int) -> Tensor:
    """(N, C) bool: the `count` largest values of each row; none in a row in which the next one is as large."""
    at = strength.topk(min(count + 1, strength.shape[1]), 1)
    clear = at.values[:, count - 1 : count] > at.values[:, -1:]
    return torch.zeros_like(strength, dtype=torch.bool).scatter(1, at.indices[:, :count], clear.expand(-1, count))
