"""What a detector is: a number for each image, from what the classifier says of it and of changed copies of it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.oracle import ask, undisturbed


@dataclass(frozen=True)
class Detector(ABC):
    """Scores images by how suspicious they are; the fields of a subclass are its parameters.

    Contract: called with a classifier (images (N, C, H, W) in [0, 1] -> logits (N, K)) and images, it returns (N,)
    float64, high = suspicious. Each score depends on its own image alone. It lets a gradient through to the images;
    a step that has none (rounding) hands it on as if it did nothing (BPDA, Athalye et al. 2018, arXiv:1802.00420). The
    classifier is asked in eval mode and left as it was. Which score is too high is not the detector's to say: see
    `measure.threshold`.

    >>> from robustlab.defenses.detectors import Confidence
    >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 3))
    >>> Confidence()(net, torch.rand(5, 1, 2, 2)).shape
    torch.Size([5])
    """

    def views(self, images: Tensor) -> tuple[Tensor, ...]:
        """The images (N, C, H, W) that the classifier is shown, those given first. Each has the shape of the images."""
        return (images,)

    @abstractmethod
    def score(self, logits: Tensor) -> Tensor:
        """(N,) float64, high = suspicious, from the logits (views, N, K) float64 of all views."""

    def logits(self, classifier: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """(views, N, K) float64: what the classifier says of each view; in float64 a score saturates later."""
        with undisturbed(classifier):
            return torch.stack([ask(classifier, view).double() for view in self.views(images)])

    def __call__(self, classifier: Callable[[Tensor], Tensor], images: Tensor) -> Tensor:
        """(N,) float64 scores."""
        return self.score(self.logits(classifier, images))


def scores_of(detector: Detector, classifier: Callable[[Tensor], Tensor], images: Tensor, batch_size: int) -> Tensor:
    """(N,) float64 scores on the CPU, batch by batch, without a gradient.

    >>> from robustlab.defenses.detectors import Energy
    >>> scores_of(Energy(), torch.nn.Flatten(), torch.zeros(3, 1, 1, 2), batch_size=2).shape
    torch.Size([3])
    """
    with torch.no_grad():
        return torch.cat([detector(classifier, part).cpu() for part in images.split(batch_size)])
