"""Mean and covariance of most of a class, whitening, and scores by quantum entropy: what robust filters share."""

from __future__ import annotations

import torch
from scipy.stats import norm
from torch import Tensor

from robustlab.defenses.filters.directions import Rows, top_directions

_FLOOR = 1e-6  # of the largest variance: below it a direction is left out
_STEPS = 10
ALPHA = 4.0


def projected(x: Tensor, k: int, groups: Tensor | None = None) -> Tensor:
    """(n, k) float64: representations x (n, d) less their mean, along the k top directions.

    groups: (n,) int64 from 0 on, each with a mean of its own; left out, all are one. The search for the directions ends
    after 10 steps: where the spectrum is flat the last ones are then not the very ones of the decomposition, but of
    nearly the same variance.

    >>> projected(torch.tensor([[1.0, 0], [-1, 0], [0, 0]]), 1).shape
    torch.Size([3, 1])
    """
    own = Rows(x, torch.zeros(len(x), dtype=torch.int64) if groups is None else groups)
    return own.times(top_directions(own, k, tolerance=1e-3, steps=_STEPS)[1], exactly=True)


def whitened(z: Tensor, kept: Tensor) -> Tensor:
    """z (n, k) less the mean of the kept rows, times the inverse root of their covariance. kept: (n,) bool.

    >>> z = torch.randn(500, 3, generator=torch.Generator().manual_seed(0)).double() * 5
    >>> bool(torch.allclose(torch.cov(whitened(z, torch.ones(500) > 0).T), torch.eye(3).double()))
    True
    """
    chosen = z[kept]
    variances, axes = torch.linalg.eigh(torch.cov(chosen.T).reshape(z.shape[1], -1))
    use = variances > _FLOOR * variances[-1]
    white: Tensor = (z - chosen.mean(0)) @ axes[:, use] / variances[use].sqrt()
    return white


def que(white: Tensor) -> tuple[Tensor, float]:
    """Quantum entropy scores (n,) of whitened rows (n, k), and their mean (Hayase et al. 2021, algorithm 3).

    w' M w with M = exp(alpha (S - 1) / (|S|_2 - 1)) as a matrix exponential, of trace 1; S is the second moment of all
    rows and alpha is 4. The mean is tr(M S), which is 1 where the rows are white.

    >>> rows = torch.eye(2).double().repeat(50, 1) * 2**0.5
    >>> round(que(rows)[1], 6)
    1.0
    """
    moment = white.T @ white / len(white)
    values, axes = torch.linalg.eigh(moment)
    excess = float(values[-1]) - 1
    powers = ALPHA * (values - 1) / excess if excess > 1e-6 else torch.zeros_like(values)
    weights = (powers - powers.max()).exp()
    scores = ((white @ axes).square() * (weights / weights.sum())).sum(1)
    return scores, float(scores.mean())


def upper_z(scores: Tensor, share: float = 0.65) -> Tensor:
    """(n,) float64: scores less their median, in standard deviations that follow from a quantile above it.

    share: of the samples below that quantile. 15 % poisons above it make it the 76 % quantile of the others, and a
    long lower tail does not count.

    >>> [round(z, 2) for z in upper_z(torch.tensor([-99.0, 0.0, 1.0]), 0.75).tolist()]
    [-133.55, 0.0, 1.35]
    """
    middle, upper = scores.double().quantile(torch.tensor([0.5, share], dtype=torch.float64))
    z: Tensor = (scores.double() - middle) / (upper - middle).clamp(min=1e-12) * float(norm.ppf(share))
    return z
