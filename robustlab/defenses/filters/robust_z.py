"""A filter that is not told how many poisons there are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.typed import check_choice, check_whole
from robustlab.defenses.filters.base import Filter, Scores, Seen, top
from robustlab.defenses.filters.robust import projected, que, whitened

Covariance = Literal["pooled", "class"]
_MAD = 1.4826  # standard deviation of a normal variable over its median absolute deviation
_TRIMMED = 0.1  # of all samples, for the pooled covariance


@dataclass(frozen=True)
class RobustZ(Filter):
    """Outliers of a class by robust whitening, above a threshold that follows from the class itself.

    No published method: quantum entropy scores as in `Spectre`, otherwise whitened. covariance: "pooled" is that of all
    samples less the mean of their class, without the tenth that lies furthest out, so that the poisons of one class
    hardly count in it; "class" is that of the class alone, as in `Spectre`. In both, the share `most` of the class
    with the highest scores is left out of its mean (of "class": and covariance) in each of the `rounds`. k: how many
    directions of most variance, of a class at most a third of its images.

    The cube roots of the scores, which are about normal for a clean class (Wilson and Hilferty 1931), are centred by
    their median and divided by 1.4826 times their median absolute deviation. What is above `threshold` is removed.
    UserError: a class of fewer than 12 images, or whose representations are all equal.

    >>> x = torch.randn(300, 8, generator=torch.Generator().manual_seed(0))
    >>> x[:15, 3] += 12
    >>> found = RobustZ()(Seen(torch.zeros(300).long(), representations=x))
    >>> found.removed[:15].all().item(), found.knows
    (True, 'nothing but that poisons are at most 0.15 of a class')
    """

    threshold: float = 3.5
    most: float = 0.15
    k: int = 64
    rounds: int = 6
    covariance: Covariance = "pooled"

    def __post_init__(self) -> None:
        check_whole("k", self.k, 1)
        check_whole("rounds", self.rounds, 1)
        check_choice("covariance", self.covariance, get_args(Covariance))
        if not self.threshold > 0:
            raise UserError(f"threshold must be above 0, got {self.threshold}.")
        if not 0 < self.most < 0.5:
            raise UserError(f"most is a share of a class, above 0 and below 0.5; got {self.most}.")

    @property
    def knows(self) -> str:
        return f"nothing but that poisons are at most {self.most:g} of a class"

    def filter(self, seen: Seen) -> Scores:
        x = seen.representations
        assert x is not None
        classes = list(seen.classes(12))
        for label, where in classes:
            if bool((x[where] == x[where[0]]).all()):
                raise UserError(f"All representations of class {label} are equal. Choose another layer.")
        scores = torch.zeros(len(x))
        pooled = self._pooled(x, classes, seen.ids) if self.covariance == "pooled" else None
        for _, where in classes:
            z = projected(x[where], min(self.k, len(where) // 3)) if pooled is None else pooled[where]
            scores[where] = self._scored(z, seen.ids[where]).float()
        return self.result(seen, scores, scores > self.threshold)

    def _pooled(self, x: Tensor, classes: list[tuple[int, Tensor]], ids: Tensor) -> Tensor:
        """(n, k) float64: all samples less the mean of their class, whitened by the covariance that they share."""
        groups = torch.empty(len(x), dtype=torch.int64)
        for group, (_, where) in enumerate(classes):
            groups[where] = group
        z = projected(x, min(self.k, len(x) // 3), groups)
        white = whitened(z, torch.ones(len(z), dtype=torch.bool))
        for _ in range(3):
            white = whitened(z, ~top(white.square().sum(1), round(_TRIMMED * len(z)), ids))
        return white

    def _scored(self, z: Tensor, ids: Tensor) -> Tensor:
        kept = torch.ones(len(z), dtype=torch.bool)
        for _ in range(self.rounds):
            kept = ~top(que(self._white(z, kept))[0], round(self.most * len(z)), ids)
        roots = que(self._white(z, kept))[0].pow(1 / 3)
        off = roots - roots.median()
        return off / (_MAD * off.abs().median()).clamp(min=1e-12)

    def _white(self, z: Tensor, kept: Tensor) -> Tensor:
        return z - z[kept].mean(0) if self.covariance == "pooled" else whitened(z, kept)
