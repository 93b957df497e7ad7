"""How unsure is the classifier?"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustlab.defenses.detectors.base import Detector


@dataclass(frozen=True)
class Confidence(Detector):
    """The largest softmax probability p (Hendrycks and Gimpel 2017, arXiv:1610.02136); the score is -log p.

    It ranks images as 1 - p does, and tells apart what 1 - p rounds to 0. From 0 (sure) to log K (nothing known).

    >>> import torch
    >>> round(Confidence()(torch.nn.Flatten(), torch.ones(1, 1, 1, 4)).item(), 4)  # log 4
    1.3863
    """

    def score(self, logits: Tensor) -> Tensor:
        z = logits[0]
        rest = z.scatter(1, z.argmax(1, keepdim=True), float("-inf"))  # log1p keeps what the sum would round away
        return (rest.logsumexp(1) - z.amax(1)).exp().log1p()
