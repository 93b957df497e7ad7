"""A filter that is not told how many poisons there are."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.defenses.filters.base import Filter, Scores, Seen, top
from robustlab.defenses.filters.robust import projected, que, whitened

_MAD = 1.4826  # standard deviation of a normal variable over its median absolute deviation


@dataclass(frozen=True)
class RobustZ(Filter):
    """Outliers of a class by robust whitening, above a threshold that follows from the class itself.

    As `Spectre`, with a share of `most` left out of the covariance whatever the data are, in k directions (at most a
    third of the class). The cube roots of the scores, which are about normal for a clean class (Wilson and Hilferty
    1931), are centred by their median and divided by 1.4826 times their median absolute deviation. What is above
    `threshold` is removed. UserError: a class of fewer than 12 images.

    >>> x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    >>> x[:15, 3] += 12
    >>> found = RobustZ(k=8)(Seen(torch.zeros(300).long(), representations=x))
    >>> found.removed[:15].all().item(), found.knows
    (True, 'nothing but that poisons are at most 0.15 of a class')
    """

    threshold: float = 3.5
    most: float = 0.15
    k: int = 16
    rounds: int = 6

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1)
        check_whole("rounds", self.rounds, 1)
        if not self.threshold > 0:
            raise UserError(f"threshold must be above 0, got {self.threshold}.")
        if not 0 < self.most < 0.5:
            raise UserError(f"most is a share of a class, above 0 and below 0.5; got {self.most}.")

    @property
    def knows(self) -> str:
        return f"nothing but that poisons are at most {self.most:g} of a class"

    def filter(self, seen: Seen) -> Scores:
        assert seen.representations is not None
        scores = torch.zeros(len(seen.labels))
        for label, where in seen.classes(12):
            z = projected(seen.representations[where], min(self.k, len(where) // 3))
            if z.abs().max() == 0:
                raise UserError(f"All representations of class {label} are equal. Choose another layer.")
            scores[where] = self._scored(z, seen.ids[where]).float()
        return self.result(seen, scores, scores > self.threshold)

    def _scored(self, z: Tensor, ids: Tensor) -> Tensor:
        kept = torch.ones(len(z), dtype=torch.bool)
        for _ in range(self.rounds):
            kept = ~top(que(whitened(z, kept))[0], round(self.most * len(z)), ids)
        roots = que(whitened(z, kept))[0].pow(1 / 3)
        off = roots - roots.median()
        return off / (_MAD * off.abs().median()).clamp(min=1e-12)
