"""Feature squeezing: fewer bits, and a median filter."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.defenses.base import Defense
from robustlab.defenses.bpda import BPDA
from robustlab.models.classifier import Classifier


@dataclass(frozen=True)
class BitDepth(Defense):
    """Every value rounded to the nearest of 2**bits levels (Xu, Evans and Qi 2018, arXiv:1704.01155, section II-B).

    bits: 1 to 8. Rounding has no gradient: attacks go through as if nothing was rounded (`BPDA`).

    >>> import torch
    >>> BitDepth(bits=2).squeeze(torch.tensor([[0.1, 0.3, 0.9]])).mul(3).tolist()
    [[0.0, 1.0, 3.0]]
    """

    bits: int = 3

    def __post_init__(self) -> None:
        check_whole("bits of bit-depth", self.bits, 1)
        if self.bits > 8:
            raise UserError(f"bit-depth takes bits of 1 to 8, got {self.bits}: images have 8.")

    def squeeze(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1] of 2**bits levels."""
        levels = float(2**self.bits - 1)
        return (x * levels).round() / levels

    def wrap(self, classifier: Classifier) -> nn.Module:
        return nn.Sequential(BPDA(self.squeeze), classifier)


@dataclass(frozen=True)
class Median(Defense):
    """Each value becomes the median of the square around it, channel by channel (Xu et al. 2018, section II-C).

    size: side of the square in pixels, 2 to 15. Beyond the edge the outermost pixels go on. As in
    `scipy.ndimage.median_filter(..., mode="nearest")`: an even square reaches one pixel further up and left, and its
    median is the upper one of the two in the middle. Attacks go through as if nothing was filtered (`BPDA`).

    >>> import torch
    >>> Median(size=3).smooth(torch.tensor([[[[0.0, 1.0, 0.0, 0.0]]]])).tolist()
    [[[[0.0, 0.0, 0.0, 0.0]]]]
    """

    size: int = 3

    def __post_init__(self) -> None:
        check_whole("size of median", self.size, 2)
        if self.size > 15:
            raise UserError(f"median takes a size of 2 to 15 pixels, got {self.size}.")

    def smooth(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) in [0, 1], filtered."""
        before, after = self.size // 2, (self.size - 1) // 2
        padded = F.pad(x, (before, after, before, after), mode="replicate")
        squares = padded.unfold(2, self.size, 1).unfold(3, self.size, 1).flatten(4)
        return squares.kthvalue(self.size**2 // 2 + 1, dim=4).values

    def wrap(self, classifier: Classifier) -> nn.Module:
        return nn.Sequential(BPDA(self.smooth), classifier)
