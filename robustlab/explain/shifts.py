"""How far heatmaps move between two images or two classes: measures of one pair of maps each, and the control."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.base.draws import keys, uniform
from robustlab.base.intervals import Mean, mean_interval

TOP = 0.1  # of the pixels, for `top_k`
MEASURES: dict[str, str] = {
    "spearman": "Rank correlation",
    "top": "Shared among the top 10 %",
    "ssim": "SSIM",
    "centre": "Shift of the centre",
}


def ranks(values: Tensor) -> Tensor:
    """(N, P) float64 ranks from 1 in each row; equal values share the mean of their ranks.

    >>> ranks(torch.tensor([[5.0, 0.0, 0.0]])).tolist()
    [[3.0, 1.5, 1.5]]
    """
    ordered, values = values.sort(1).values, values.contiguous()
    below, upto = torch.searchsorted(ordered, values), torch.searchsorted(ordered, values, right=True)
    return (below + upto + 1).double() / 2


def spearman(first: Tensor, second: Tensor) -> Tensor:
    """(N,) rank correlation of maps (N, H, W), with average ranks of equal values; NaN where a map is constant.

    >>> a = torch.arange(4.0).view(1, 2, 2)
    >>> spearman(a, a**2).item(), spearman(a, -a).item()
    (1.0, -1.0)
    """
    a, b = (ranks(maps.flatten(1)) for maps in (first, second))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


def top_k(first: Tensor, second: Tensor, share: float = TOP) -> Tensor:
    """(N,) how much of the hottest `share` of the pixels two maps have in common, from 0 to 1.

    Pixels that tie for the last places share them, so that the order of equal values decides nothing.

    >>> a = torch.tensor([[[3.0, 2.0, 1.0, 0.0]]])
    >>> top_k(a, a.flip(2), 0.5).item(), top_k(a, a, 0.5).item()
    (0.0, 1.0)
    """
    count = max(1, round(share * first[0].numel()))
    return torch.minimum(_members(first, count), _members(second, count)).sum(1) / count


def _members(maps: Tensor, count: int) -> Tensor:
    flat = maps.flatten(1).double()
    last = flat.topk(count).values[:, -1:]
    above, tied = (flat > last).double(), (flat == last).double()
    return above + tied * (count - above.sum(1, keepdim=True)) / tied.sum(1, keepdim=True)


def ssim(first: Tensor, second: Tensor) -> Tensor:
    """(N,) mean structural similarity (Wang et al. 2004, IEEE TIP 13(4)) of maps (N, H, W) >= 0.

    A Gaussian window of 11 pixels and a standard deviation of 1.5, only where it fits (a smaller one on smaller maps).
    Both maps are divided by the larger of their two maxima: that one of them is weaker counts. NaN where both are 0.

    >>> a = torch.rand(1, 16, 16)
    >>> round(ssim(a, a).item(), 6)
    1.0
    """
    scale = torch.maximum(first.amax((1, 2)), second.amax((1, 2)))[:, None, None].double()
    a, b = (first.double() / scale)[:, None], (second.double() / scale)[:, None]
    side = min(11, *first.shape[1:])
    side -= 1 - side % 2
    at = torch.arange(side, device=first.device).double() - side // 2
    line = torch.exp(-at.square() / (2 * 1.5**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]

    def mean(values: Tensor) -> Tensor:
        return F.conv2d(values, window)

    ma, mb = mean(a), mean(b)
    va, vb, ab = mean(a * a) - ma**2, mean(b * b) - mb**2, mean(a * b) - ma * mb
    c1, c2 = 0.01**2, 0.03**2
    found: Tensor = (2 * ma * mb + c1) * (2 * ab + c2) / ((ma**2 + mb**2 + c1) * (va + vb + c2))
    return found.mean((1, 2, 3))


def centre_shift(first: Tensor, second: Tensor) -> Tensor:
    """(N,) distance between the centres of mass of maps (N, H, W) >= 0, as a share of the image's diagonal.

    >>> a = torch.zeros(1, 3, 4)
    >>> a[0, 0, 0] = 1
    >>> centre_shift(a, a.flip(1)).item()
    0.4
    """
    h, w = first.shape[1:]
    y, x = torch.arange(h, device=first.device).double(), torch.arange(w, device=first.device).double()

    def centre(maps: Tensor) -> Tensor:
        heat = maps.double()
        total = heat.sum((1, 2))
        return torch.stack([(heat.sum(2) * y).sum(1) / total, (heat.sum(1) * x).sum(1) / total], 1)

    distance: Tensor = torch.linalg.vector_norm(centre(first) - centre(second), dim=1)
    return distance / math.hypot(h, w)


def shift(first: Tensor, second: Tensor) -> dict[str, list[float]]:
    """Each of `MEASURES` for the pairs of maps (N, H, W) >= 0 of which neither is zero everywhere.

    >>> a = torch.rand(2, 8, 8)
    >>> [len(values) for values in shift(a, torch.stack([a[0], a[1] * 0])).values()]
    [1, 1, 1, 1]
    """
    there = (first.amax((1, 2)) > 0) & (second.amax((1, 2)) > 0)
    a, b = first[there], second[there]
    if not len(a):
        return {name: [] for name in MEASURES}
    found = {"spearman": spearman(a, b), "top": top_k(a, b), "ssim": ssim(a, b), "centre": centre_shift(a, b)}
    return {name: values[values.isfinite()].tolist() for name, values in found.items()}


def means(values: Mapping[str, list[float]]) -> dict[str, Mean]:
    """The mean of each measure over the images, with its interval, cut to where the measure can lie.

    >>> means({"top": [0.9, 1.0]})["top"]["high"]
    1.0
    """
    found = {name: mean_interval(each) for name, each in values.items()}
    for name, each in found.items():
        if each["low"] is not None and each["high"] is not None:
            lowest = -1.0 if name in ("spearman", "ssim") else 0.0
            each["low"], each["high"] = max(each["low"], lowest), min(each["high"], 1.0)
    return found


def same_size_noise(clean: Tensor, changed: Tensor, seed: int, ids: Tensor) -> Tensor:
    """The images (N, C, H, W) with the change that was made to them at other places: the control of every shift.

    The pixels of the change are put into a random order, one for each seed and id: every norm of it stays as it is
    (until the result is cut to [0, 1]), but it aims at nothing any more.

    >>> x = torch.full((1, 3, 4, 4), 0.5)
    >>> y = x.clone()
    >>> y[:, :, 0, 0] = 1
    >>> int((same_size_noise(x, y, 0, torch.tensor([7])) != x).sum())
    3
    """
    change = (changed - clean).flatten(2)
    order = uniform(keys(seed, ids.to(clean.device), "shift noise"), (change.shape[2],)).argsort(1)
    moved = change.gather(2, order[:, None].expand_as(change))
    return (clean + moved.view_as(clean)).clamp(0, 1)
