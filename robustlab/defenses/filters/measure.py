"""How well a filter found what is known to be poisoned."""

from __future__ import annotations

from typing import TypedDict

import torch
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.intervals import Share, share


class Area(TypedDict):
    """The area under the ROC curve; None where there is no pair of a poisoned and a clean sample."""

    value: float | None
    poisoned: int
    clean: int


class Measured(TypedDict):
    """What `measure_filter` counts; tpr and fpr with 95 % Wilson intervals and their n."""

    auroc: Area
    tpr: Share
    fpr: Share
    poisons_left: int
    clean_removed: int
    n: int


def measure_filter(scores: Tensor, removed: Tensor, poisoned: Tensor) -> Measured:
    """AUROC, true and false positive rate, poisons left and clean samples removed.

    scores: (n,) float, high is suspicious; NaN ones are left out of the AUROC. removed, poisoned: (n,) bool. AUROC is
    the chance that a poisoned sample has the higher score than a clean one, equal scores counting half. Give one class
    only to measure inside it: scores of different classes may have different scales.

    >>> m = measure_filter(torch.tensor([1.0, 2, 2, 3]), torch.tensor([0, 0, 0, 1]) > 0, torch.tensor([0, 0, 1, 1]) > 0)
    >>> m["auroc"]["value"], m["tpr"]["value"], m["poisons_left"], m["clean_removed"]
    (0.875, 0.5, 1, 0)
    """
    if not (scores.shape == removed.shape == poisoned.shape) or scores.ndim != 1:
        shapes = ", ".join(str(tuple(each.shape)) for each in (scores, removed, poisoned))
        raise UserError(f"scores, removed and poisoned must have one shape (n,), got {shapes}.")
    if removed.dtype != torch.bool or poisoned.dtype != torch.bool:
        raise UserError(f"removed and poisoned must be bool, got {removed.dtype} and {poisoned.dtype}.")
    hit = int((removed & poisoned).sum())
    false = int((removed & ~poisoned).sum())
    bad, n = int(poisoned.sum()), len(scores)
    return Measured(
        auroc=_auroc(scores, poisoned),
        tpr=share(hit, bad),
        fpr=share(false, n - bad),
        poisons_left=bad - hit,
        clean_removed=false,
        n=n,
    )


def _auroc(scores: Tensor, poisoned: Tensor) -> Area:
    """Mann and Whitney's U by ranks, of which equal scores share the mean."""
    looked = ~scores.isnan()
    scores, poisoned = scores[looked], poisoned[looked]
    bad = int(poisoned.sum())
    good = len(poisoned) - bad
    if not bad or not good:
        return Area(value=None, poisoned=bad, clean=good)
    ranks = mid_ranks(scores)
    u = float(ranks[poisoned].sum()) - bad * (bad + 1) / 2
    return Area(value=u / (bad * good), poisoned=bad, clean=good)


def mid_ranks(scores: Tensor) -> Tensor:
    """(n,) float64: ranks from 1 on; equal scores share the mean of theirs.

    >>> mid_ranks(torch.tensor([5.0, 2.0, 5.0])).tolist()
    [2.5, 1.0, 2.5]
    """
    _, where, counts = scores.double().unique(return_inverse=True, return_counts=True)
    ranks: Tensor = (counts.cumsum(0) - (counts - 1) / 2).double()[where]
    return ranks
