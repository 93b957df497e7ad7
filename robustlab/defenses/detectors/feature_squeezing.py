"""Does the answer stay when the image loses what a picture can do without?"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustlab.defenses.bpda import BPDA
from robustlab.defenses.detectors.base import Detector
from robustlab.defenses.squeezing import BitDepth, Median


@dataclass(frozen=True)
class FeatureSqueezing(Detector):
    """The largest L1 distance between the softmax of the image and of squeezed ones (Xu et al. 2018, arXiv:1704.01155).

    Squeezed by fewer bits a value, and by a median filter. bits: 1 to 8; default as in the paper: 1 for images of one
    channel (its MNIST), 5 for colour (its CIFAR-10 and ImageNet). window: height and width of the median filter, 2 as
    there. Its third squeezer of colour images, non-local means, has no gradient and is left out. From 0 to 2.

    >>> import torch
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(16, 3))
    >>> bool((FeatureSqueezing()(net, torch.rand(5, 1, 4, 4)) <= 2).all())
    True
    """

    bits: int | None = None
    window: int = 2

    def __post_init__(self) -> None:
        Median(self.window)  # checks it
        if self.bits is not None:
            BitDepth(self.bits)

    def views(self, images: Tensor) -> tuple[Tensor, ...]:
        bits = BitDepth(self.bits or (1 if images.shape[1] == 1 else 5))
        return images, BPDA(bits.squeeze)(images), Median(self.window).smooth(images)

    def score(self, logits: Tensor) -> Tensor:
        p: Tensor = logits.softmax(2)
        return (p[1:] - p[0]).abs().sum(2).amax(0)
