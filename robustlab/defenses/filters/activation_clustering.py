"""Activation clustering."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.base.draws import keys, uniform
from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.defenses.filters.base import Filter, Scores, Seen
from robustlab.defenses.filters.robust import projected

_STARTS, _STEPS = 10, 100


@dataclass(frozen=True)
class ActivationClustering(Filter):
    """Activation clustering (Chen et al. 2018, arXiv:1811.03728): two clusters in each class, the smaller is odd.

    The representations are reduced to `dims` directions of most variance (the paper's independent components span
    the same space) and divided by 2-means, the best of 10 starts. The smaller cluster is removed where it is below
    `largest` of the class: 0.35 by default; 0.5 always removes it, as several libraries do. The score is the distance
    to the mean of the larger cluster less that to the smaller one's. UserError: a class of fewer than 12 images.

    >>> x = torch.randn(100, 4, generator=torch.Generator().manual_seed(0))
    >>> x[:10] += 9
    >>> ActivationClustering(dims=2)(Seen(torch.zeros(100).long(), representations=x)).removed.nonzero()[:, 0].tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]
    """

    dims: int = 10
    largest: float = 0.35

    def __post_init__(self) -> None:
        check_whole("dims", self.dims, 1)
        if not 0 < self.largest <= 0.5:
            raise UserError(f"largest is the share of a class, above 0 and at most 0.5; got {self.largest}.")

    @property
    def knows(self) -> str:
        return "that poisons are a minority of their class"

    def filter(self, seen: Seen) -> Scores:
        assert seen.representations is not None
        scores, removed = torch.zeros(len(seen.labels)), torch.zeros(len(seen.labels), dtype=torch.bool)
        smaller: dict[int, float] = {}
        for label, where in seen.classes(12):
            z = projected(seen.representations[where], self.dims)
            distances = _two_means(z, seen.ids[where])
            small = int((distances[:, 1] < distances[:, 0]).sum() * 2 < len(z))  # which cluster
            each = distances[:, 1 - small] - distances[:, small]
            scores[where] = each.float()
            share = float((each > 0).double().mean())
            smaller[label] = share
            removed[where] = (each > 0) & (share < self.largest)
        return self.result(seen, scores, removed, smaller=smaller)


def _two_means(z: Tensor, ids: Tensor) -> Tensor:
    """(n, 2) distances from the two means of the best start; a start is a pair of samples, drawn by their ids."""
    draws = uniform(keys(0, ids, "2-means"), (_STARTS, 2))
    best, least = torch.cdist(z, z[:2]), torch.inf
    for start in range(_STARTS):
        first = int(draws[:, start, 0].argmax())
        far = torch.cdist(z, z[first : first + 1])[:, 0].square()
        second = int((far * draws[:, start, 1].double()).argmax())
        means = z[[first, second]]
        for _ in range(_STEPS):
            second_is_nearer = torch.cdist(z, means).argmin(1) == 1
            if bool(second_is_nearer.all()) or not bool(second_is_nearer.any()):
                break
            moved = torch.stack([z[~second_is_nearer].mean(0), z[second_is_nearer].mean(0)])
            if torch.equal(moved, means):
                break
            means = moved
        distances = torch.cdist(z, means)
        spread = float(distances.amin(1).square().sum())
        if spread < least:
            best, least = distances, spread
    return best
