"""Random size and place: the image is shrunk and padded, otherwise each time."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.defenses.base import Defense
from robustlab.models.classifier import Classifier


@dataclass(frozen=True)
class RandomResize(Defense):
    """Each image is resized to a random size and padded with zeros at a random place (Xie et al. 2018,
    arXiv:1711.01991).

    The paper enlarges 299 pixels to 299 to 331 for a network that takes any size. Here the network's own size stays:
    the image is shrunk, by the same ratio at most, and padded back. smallest: the smallest side as a share of the
    whole, above 0 and at most 1. Nearest pixels, as in the paper's code; size and place are drawn for each image from
    torch's generator, so the model counts as randomised. It has a gradient of its own; an attacker who knows of it
    averages that over draws (EOT, Athalye et al. 2018, arXiv:1802.00420).

    >>> x = torch.ones(1, 1, 10, 10)
    >>> counts = RandomResize(smallest=0.8).shrink(x.expand(50, 1, 10, 10)).sum((1, 2, 3)).unique().tolist()
    >>> set(counts) <= {64.0, 81.0, 100.0}
    True
    """

    smallest: float = 299 / 331

    def __post_init__(self) -> None:
        if not 0 < self.smallest <= 1:
            raise UserError(f"random-resize takes smallest, a share of the side, in (0, 1]; got {self.smallest!r}.")

    def shrink(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W), each at a size and a place of its own inside zeros."""
        n, (high, wide) = len(x), x.shape[2:]
        least = min(high, math.ceil(self.smallest * high - 1e-9))
        height = torch.randint(least, high + 1, (n,), device=x.device)
        width = (height * wide / high).round().long()
        rows, inside = _nearest(height, high, x.device)
        columns, beside = _nearest(width, wide, x.device)
        x = x.gather(2, rows[:, None, :, None].expand_as(x)).gather(3, columns[:, None, None, :].expand_as(x))
        return x * (inside[:, :, None] & beside[:, None, :])[:, None]

    def wrap(self, classifier: Classifier) -> nn.Module:
        return nn.Sequential(_Shrink(self), classifier)


def _nearest(size: Tensor, side: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """(N, side) each: the pixel that comes to this place, and whether one does. size: (N,) that the side shrinks to."""
    offset = (torch.rand(len(size), device=device) * (side - size + 1)).floor()
    place = torch.arange(side, device=device) - offset[:, None]
    inside = (place >= 0) & (place < size[:, None])
    pixel = ((place + 0.5) * side / size[:, None]).floor().long()
    return pixel.clamp(0, side - 1), inside


class _Shrink(nn.Module):
    def __init__(self, defense: RandomResize) -> None:
        super().__init__()
        self.defense = defense

    def forward(self, x: Tensor) -> Tensor:
        return self.defense.shrink(x)
