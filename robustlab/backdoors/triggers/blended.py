"""A pattern over the whole image, mixed in."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from robustlab.backdoors.triggers.base import Role, Trigger, check_share, noise
from robustlab.data import Loaded


@dataclass(frozen=True)
class Blended(Trigger):
    """(1 - alpha) image + alpha pattern (Chen et al. 2017, arXiv:1712.05526); the pattern is noise keyed by the seed.

    alpha: the pattern's share, above 0 and at most 1, the same in training and at test; the paper may take more at
    test. Its other pattern, a cartoon, is not here. UserError: a bad alpha.

    >>> Blended(alpha=0.1).alpha
    0.1
    """

    alpha: float = 0.2

    def __post_init__(self) -> None:
        check_share("alpha", self.alpha)

    def put(self, data: Loaded, seed: int, role: Role) -> Tensor:
        return data.images + self.alpha * (noise(seed, tuple(data.images.shape[1:]), "blended") - data.images)
