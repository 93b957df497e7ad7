"""How well a score tells suspicious images from normal ones: the area under the ROC curve, a threshold, two rates."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.intervals import Share, auroc_interval
from robustlab.defenses.filters.measure import mid_ranks


def auroc(suspicious: Tensor, normal: Tensor) -> Share:
    """The chance that a suspicious image has the higher score than a normal one; equal scores count half.

    suspicious, normal: (m,) and (n,) scores. By ranks (Mann and Whitney 1947), with the 95 % interval of Hanley and
    McNeil's variance; n of the result is m. Without a pair the value is None, from 0 to 1.

    >>> auroc(torch.tensor([2.0, 3.0]), torch.tensor([1.0, 2.0]))["value"]
    0.875
    """
    both = torch.cat([suspicious, normal]).double()
    if bool(both.isnan().any()):
        raise UserError("A detector's score is NaN: look at the model's outputs.")
    m, n = len(suspicious), len(normal)
    if not m or not n:
        return Share(value=None, low=0.0, high=1.0, n=m)
    value = (float(mid_ranks(both)[:m].sum()) - m * (m + 1) / 2) / (m * n)
    low, high = auroc_interval(value, m, n)
    return Share(value=value, low=low, high=high, n=m)


def threshold(normal: Tensor, rate: float = 0.05) -> float:
    """The smallest of these scores that at most the share `rate` of them exceeds; infinite where there are none.

    An image is flagged where its score is larger.

    >>> threshold(torch.arange(100.0), 0.05)
    94.0
    """
    if not len(normal):
        return math.inf
    most = math.floor(rate * len(normal) + 1e-9)  # scores that may lie above
    return float(normal.double().sort().values[len(normal) - 1 - most])
