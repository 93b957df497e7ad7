"""One batch that a network learns from: images, labels, and how the labels are weighed."""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Batch:
    """x: (B, C, H, W) in [0, 1], y: (B,) labels, key: (B,) int64 for `base.draws`, all after the augmentation.

    epoch: how far training is, in epochs. smoothing: the share of a label that is spread over all classes (Szegedy et
    al. 2016, arXiv:1512.00567). other, share: the second labels of a mixup, (B,) each; y then weighs `share`, at least
    a half. Attacks maximise the mixture's loss, without smoothing.

    >>> import torch
    >>> batch = Batch(torch.rand(2, 1, 2, 2), torch.tensor([0, 1]), torch.arange(2))
    >>> round(float(batch.cross_entropy(torch.zeros(2, 4))), 4)  # all classes alike: log 4
    1.3863
    """

    x: Tensor
    y: Tensor
    key: Tensor
    epoch: float = 0.0
    smoothing: float = 0.0
    other: Tensor | None = None
    share: Tensor | None = None

    def cross_entropy(self, logits: Tensor) -> Tensor:
        """The mean cross-entropy of logits (B, K) in float32: smoothed and mixed as the recipe says."""
        return self.losses(logits, self.smoothing).mean()

    def losses(self, logits: Tensor, smoothing: float = 0.0) -> Tensor:
        """(B,): the cross-entropy of each image, mixed as the recipe says."""

        def of(y: Tensor) -> Tensor:
            return F.cross_entropy(logits.float(), y, reduction="none", label_smoothing=smoothing)

        if self.other is None or self.share is None:
            return of(self.y)
        return self.share * of(self.y) + (1 - self.share) * of(self.other)
