"""Mean and covariance of most of a class, whitening, and scores by quantum entropy: what robust filters share."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.defenses.filters.directions import top_directions

_FLOOR = 1e-6  # of the largest variance: below it a direction is left out
ALPHA = 4.0


def projected(x: Tensor, k: int) -> Tensor:
    """(n, k) float64: the representations x (n, d) of a class less their mean, along the k top directions.

    >>> projected(torch.tensor([[1.0, 0], [-1, 0], [0, 0]]), 1).shape
    torch.Size([3, 1])
    """
    own = x.float() - x.mean(0, dtype=torch.float64).float()
    return own.double() @ top_directions(own, k, tolerance=1e-3)[1]


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
