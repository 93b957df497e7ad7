"""Does the answer stay when the image loses what a picture can do without?"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.defenses.detectors.base import Detector


@dataclass(frozen=True)
class FeatureSqueezing(Detector):
    """The largest L1 distance between the softmax of the image and of squeezed ones (Xu et al. 2018, arXiv:1704.01155).

    Squeezed by fewer bits a value, and by a median filter. bits: 1 to 8; default as in the paper: 1 for images of one
    channel (its MNIST), 5 for colour (its CIFAR-10 and ImageNet). window: height and width of the median filter, 2 as
    there. Its third squeezer of colour images, non-local means, has no gradient and is left out. From 0 to 2.

    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> bool((FeatureSqueezing()(net, torch.rand(5, 1, 4, 4)) <= 2).all())
    True
    """

    bits: int | None = None
    window: int = 2

    def __post_init__(self) -> None:
        check_whole("bits", self.bits, 1)
        check_whole("window", self.window, 2)
        if self.bits is not None and self.bits > 8:
            raise UserError(f"bits must be at most 8, which an image has anyway, got {self.bits}.")

    def views(self, images: Tensor) -> tuple[Tensor, ...]:
        bits = self.bits or (1 if images.shape[1] == 1 else 5)
        return images, fewer_bits(images, bits), median(images, self.window)

    def score(self, logits: Tensor) -> Tensor:
        p: Tensor = logits.softmax(2)
        return (p[1:] - p[0]).abs().sum(2).amax(0)


def fewer_bits(images: Tensor, bits: int) -> Tensor:
    """Each value rounded to the nearest of 2^bits levels; the gradient goes through as if nothing was rounded.

    >>> fewer_bits(torch.tensor([0.4, 0.6]), 1).tolist()
    [0.0, 1.0]
    """
    most = float(2**bits - 1)
    return images + ((images.detach() * most).round() / most - images.detach())


def median(images: Tensor, window: int) -> Tensor:
    """The median over window x window pixels of each channel; the gradient goes to the pixel that is the median.

    Of an even number of values the upper one of the middle; the window of an even width reaches further up and left,
    and the image is mirrored at its border, its edge pixels twice: as `scipy.ndimage.median_filter`.

    >>> median(torch.tensor([[[[0.0, 0.2], [0.4, 1.0]]]]), 2).tolist()[0][0][1][1] == torch.tensor(0.4).item()
    True
    """
    height, width = images.shape[2:]
    if window > min(height, width):
        raise UserError(f"window must be at most the image's side, {min(height, width)}, got {window}.")
    before, after = window // 2, (window - 1) // 2
    rows, columns = (_mirrored(size, before, after, images.device) for size in (height, width))
    padded = images[:, :, rows][:, :, :, columns]
    patches = F.unfold(padded.flatten(0, 1)[:, None], window)  # (N * C, window^2, H * W)
    return patches.kthvalue(window * window // 2 + 1, dim=1).values.view_as(images)


def _mirrored(size: int, before: int, after: int, device: torch.device) -> Tensor:
    """Where the pixels of a padded side come from: ... 1 0 | 0 1 2 | 2 1 ..."""
    at = torch.arange(-before, size + after, device=device)
    at = torch.where(at < 0, -1 - at, at)
    return torch.where(at >= size, 2 * size - 1 - at, at)
