"""Beatrix: Gram matrices of representations."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.defenses.filters.base import Filter, Scores, Seen, check_eps, top

_WIDTH = 10.0  # MADs on each side of the median, inside which a feature does not count
_CHANNELS = 128  # where nobody says how many
_TINY = 1e-6


@dataclass(frozen=True)
class Beatrix(Filter):
    """Beatrix (Ma et al., NDSS 2023, arXiv:2209.11715): which products of channels are unusual in a class.

    Of a representation F (channels x places) the Gram matrix of order p is (F^p F^p')^(1/p), elementwise but for the
    product; its upper triangle, for p from 1 to `orders`, are the features. The score is how far they lie outside of
    median -+ 10 MAD of the class, relative to that bound, in the mean. The highest 1.5 eps of the class are removed.
    channels: how many the layer has whose output was flattened; left out, the largest divisor of the representation's
    length up to 128. With one place a channel, all orders are the same, so that one is enough. Time grows with the
    square of the channels.

    Otherwise than in the paper, medians and threshold do not come from clean images: the medians are those of the
    class as it stands, poisons included, and eps, an upper bound on their share, is the threshold. The paper's test of
    which class is the target is not here. UserError: a class of fewer than 12 images, eps outside (0, 2/3), channels
    that do not divide the representation.

    >>> x = torch.rand(100, 6, generator=torch.Generator().manual_seed(0)) + 9
    >>> x[:5, :2] = torch.tensor([20.0, 1.0])
    >>> Beatrix(eps=0.04)(Seen(torch.zeros(100).long(), representations=x)).removed.nonzero()[:5, 0].tolist()
    [0, 1, 2, 3, 4]
    """

    eps: float = 0.05
    channels: int | None = None
    orders: int = 8

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_whole("channels", self.channels, 1)
        check_whole("orders", self.orders, 1)

    @property
    def knows(self) -> str:
        return "eps"

    def filter(self, seen: Seen) -> Scores:
        assert seen.representations is not None
        d = seen.representations.shape[1]
        channels = self.channels or max(k for k in range(1, _CHANNELS + 1) if d % k == 0)
        if d % channels:
            raise UserError(f"channels must divide the {d} numbers of a representation, got {channels}.")
        scores, removed = torch.zeros(len(seen.labels)), torch.zeros(len(seen.labels), dtype=torch.bool)
        for _, where in seen.classes(12):
            maps = seen.representations[where].double().unflatten(1, (channels, d // channels))
            each = torch.stack([_deviations(maps, p) for p in range(1, self.orders + 1 if d > channels else 2)]).mean(0)
            scores[where] = each.float()
            removed[where] = top(each, round(1.5 * self.eps * len(where)), seen.ids[where])
        return self.result(seen, scores, removed)


def _deviations(maps: Tensor, order: int) -> Tensor:
    """(n,): of maps (n, channels, places), how far the Gram features of one order lie outside, in the mean."""
    n, channels, _ = maps.shape
    powers, total = maps.pow(order), torch.zeros(n, dtype=torch.float64)
    for row in range(channels):  # of the upper triangle, so that a whole Gram matrix is never in memory
        gram = (powers[:, row:] @ powers[:, row, :, None])[:, :, 0].T.contiguous()
        gram = gram.sign() * gram.abs().pow(1 / order)
        middle = gram.median(1, keepdim=True).values
        spread = _WIDTH * (gram - middle).abs().median(1, keepdim=True).values
        low, high = middle - spread, middle + spread
        outside = (low - gram).clamp(min=0) / (low + _TINY).abs() + (gram - high).clamp(min=0) / (high + _TINY).abs()
        total += outside.sum(0)
    return total / (channels * (channels + 1) / 2)
