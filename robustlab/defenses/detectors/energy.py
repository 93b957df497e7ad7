"""How small are all logits together?"""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.defenses.detectors.base import Detector


@dataclass(frozen=True)
class Energy(Detector):
    """The free energy -T log(sum of exp(logit / T)) (Liu et al. 2020, arXiv:2010.03759, eq. 4; there T = 1).

    temperature: T, larger than 0. Unlike a softmax it sees how large the logits are, not only how far apart.

    >>> import torch
    >>> round(Energy()(torch.nn.Flatten(), torch.zeros(1, 1, 1, 3)).item(), 4)  # -log 3
    -1.0986
    """

    temperature: float = 1.0

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature > 0):
            raise UserError(f"temperature must be a number larger than 0, got {self.temperature}.")

    def score(self, logits: Tensor) -> Tensor:
        return -self.temperature * (logits[0] / self.temperature).logsumexp(1)
