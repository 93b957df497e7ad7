"""The directions of largest variance of many long vectors, without their full singular value decomposition."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.base.draws import keys, normal

_EXACT = 512  # the smaller side up to which the Gram matrix is decomposed whole
_STEPS = 40


def top_directions(x: Tensor, k: int = 1, tolerance: float = 1e-5) -> tuple[Tensor, Tensor]:
    """The k largest singular values (k,) and right singular vectors (d, k) of x (n, d), in float64.

    Small matrices exactly, by the smaller Gram matrix in float64. Large ones by block Krylov iteration (Musco and Musco
    2015, arXiv:1504.05477) from keyed draws in feature space, so that the order of the samples does not matter. It ends
    when the residual |x'x v - s^2 v| of all k is below `tolerance` s_1^2, or after 40 steps. Memory beside x:
    (n + 3 d) numbers for each of at most 40 (k + 8) columns. The sign of a vector is that of its largest entry.

    >>> s, v = top_directions(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    >>> s.tolist(), v[:, 0].tolist()
    ([3.0], [1.0, 0.0])
    """
    n, d = x.shape
    k = min(k, n, d)
    if min(n, d) <= _EXACT:
        values, vectors = _exact(x.double(), k)
    else:
        values, vectors = _krylov(x, k, tolerance)
    heads = vectors.gather(0, vectors.abs().argmax(0, keepdim=True)).sign()
    return values, vectors * torch.where(heads == 0, 1.0, heads)


def _exact(x: Tensor, k: int) -> tuple[Tensor, Tensor]:
    n, d = x.shape
    if d <= n:
        squares, vectors = torch.linalg.eigh(x.T @ x)
        return squares[-k:].flip(0).clamp(min=0).sqrt(), vectors[:, -k:].flip(1)
    squares, left = torch.linalg.eigh(x @ x.T)
    vectors, values = x.T @ left[:, -k:].flip(1), squares[-k:].flip(0).clamp(min=0).sqrt()
    return values, vectors / vectors.norm(dim=0).clamp(min=1e-300)


def _krylov(x: Tensor, k: int, tolerance: float) -> tuple[Tensor, Tensor]:
    n, d = x.shape
    width = min(k + 8, n, d)
    start = normal(keys(0, torch.arange(d), "directions"), (width,)).to(x.device).double()
    block = torch.linalg.qr(start).Q
    basis, images, pulled = [block], [], []  # Q, x Q and x'x Q
    for _ in range(_STEPS):
        image = x @ block.to(x.dtype)
        back = (x.T @ image).double()
        images.append(image.double())
        pulled.append(back)
        q, xq, xxq = torch.cat(basis, 1), torch.cat(images, 1), torch.cat(pulled, 1)
        squares, rotation = torch.linalg.eigh(xq.T @ xq)
        squares, rotation = squares[-k:].flip(0), rotation[:, -k:].flip(1)
        vectors = q @ rotation
        residual = (xxq @ rotation - vectors * squares).norm(dim=0).max()
        if residual <= tolerance * squares[0] or q.shape[1] + width > min(n, d):
            break
        for _ in range(2):  # twice is enough (Kahan and Parlett)
            back = back - q @ (q.T @ back)
        block = torch.linalg.qr(back).Q
        basis.append(block)
    return squares.clamp(min=0).sqrt(), vectors
