"""Training on noisy images, for randomised smoothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from robustlab.base.draws import normal
from robustlab.defenses.base import Defense
from robustlab.defenses.batch import Batch


@dataclass(frozen=True)
class GaussianNoise(Defense):
    """Normal noise of standard deviation sigma on each image (Cohen et al. 2019, arXiv:1902.02918, section 3.3).

    The base classifier of a smoothed one needs it, with the same sigma. sigma: in the units of [0, 1], before any
    normalisation. As in the paper, the noisy images are not clipped. The last epoch is kept, since
    clean images say little of it.
    """

    keeps_last: ClassVar[bool] = True

    sigma: float = 0.25

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        """The images of the batch with noise; see `Defense.perturb`."""
        return batch.x + self.sigma * normal(batch.key, batch.x.shape[1:])
