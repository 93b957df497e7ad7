"""SPECTRE: robust covariance, whitening and quantum entropy scores."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.defenses.filters.base import Filter, Scores, Seen, check_eps, top
from robustlab.defenses.filters.robust import projected, que, whitened

SIZES = tuple(round((1 + step) ** 2) for step in range(10))  # 1, 4, 9 ... 100


@dataclass(frozen=True)
class Spectre(Filter):
    """SPECTRE (Hayase et al. 2021, arXiv:2104.11315): the outliers of a class after whitening by a robust covariance.

    In each class: the k directions of most variance; mean and covariance of the samples that are no outliers; all
    samples whitened by them and scored by quantum entropy, with the matrix exponential; the highest 1.5 eps are
    removed. k: left out, the one out of 1, 4, 9 ... 100 (at most a third of the class) whose scores have the largest
    mean. Otherwise than in the paper the covariance is found by `rounds` of leaving the highest 1.5 eps out and
    scoring again, in place of the filter of Diakonikolas et al. (2017). eps: an upper bound on the share of poisons.
    UserError: a class of fewer than 12 images, eps outside (0, 2/3) or so large that a class has fewer than 2 left.

    >>> x = torch.randn(200, 8, generator=torch.Generator().manual_seed(0)) * torch.tensor([9.0] + [1.0] * 7)
    >>> x[:10, 3] += 8
    >>> int(Spectre(eps=0.05, k=8)(Seen(torch.zeros(200).long(), representations=x)).removed[:10].sum())
    10
    """

    eps: float = 0.05
    k: int | None = None
    rounds: int = 6

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_whole("k", self.k, 1)
        check_whole("rounds", self.rounds, 1)

    @property
    def knows(self) -> str:
        return "eps"

    def filter(self, seen: Seen) -> Scores:
        assert seen.representations is not None
        scores, removed = torch.zeros(len(seen.labels)), torch.zeros(len(seen.labels), dtype=torch.bool)
        chosen: dict[int, int] = {}
        for label, where in seen.classes(12):
            count = math.ceil(1.5 * self.eps * len(where))
            if len(where) - count < 2:
                raise UserError(
                    f"SPECTRE leaves 1.5 eps of a class out, and {len(where) - count} of {len(where)} images of class"
                    f" {label} would be left for a covariance. Give a smaller eps than {self.eps:.3g}, or poison less."
                )
            sizes = [self.k] if self.k else [k for k in SIZES if k <= len(where) // 3]
            axes = projected(seen.representations[where], max(sizes))
            if axes.abs().max() == 0:
                raise UserError(f"All representations of class {label} are equal. Choose another layer.")
            sizes = sorted({min(k, axes.shape[1]) for k in sizes})
            each, _, k = max((self._scored(axes[:, :k], count, seen.ids[where], k) for k in sizes), key=lambda s: s[1])
            scores[where], chosen[label] = each.float(), k
            removed[where] = top(each, count, seen.ids[where])
        return self.result(seen, scores, removed, k=chosen)

    def _scored(self, z: Tensor, count: int, ids: Tensor, k: int) -> tuple[Tensor, float, int]:
        kept = torch.ones(len(z), dtype=torch.bool)
        for _ in range(self.rounds):
            each, mean = que(whitened(z, kept))
            kept = ~top(each, count, ids)
        each, mean = que(whitened(z, kept))
        return each, mean, k
