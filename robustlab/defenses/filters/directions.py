"""The directions of largest variance of many long vectors, without their full singular value decomposition."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from robustlab.base.draws import keys, normal

_EXACT = 512  # the smaller side up to which the Gram matrix is decomposed whole
_STEPS = 40
_ROWS = 1024  # that are worked on at once


class Rows:
    """Vectors x (n, d) less the mean of their group, with no centred copy of all of them in memory.

    groups: (n,) int64, numbers from 0 on; left out, nothing is subtracted. Means are summed in float64; a part is
    float32, or float64 where x is.

    >>> next(Rows(torch.tensor([[1.0, 4.0], [3.0, 4.0]]), torch.tensor([0, 0])).parts())[0].tolist()
    [[-1.0, 0.0], [1.0, 0.0]]
    """

    def __init__(self, x: Tensor, groups: Tensor | None = None) -> None:
        self.x, self.groups, self.shape = x, groups, (len(x), x.shape[1])
        self.dtype = x.dtype if x.dtype == torch.float64 else torch.float32
        if groups is not None:
            counts = groups.bincount().double().clamp(min=1)
            sums = x.new_zeros(len(counts), x.shape[1], dtype=torch.float64)
            for part, which in zip(x.split(_ROWS), groups.split(_ROWS), strict=True):
                sums.index_add_(0, which, part.double())
            self.means = (sums / counts[:, None]).to(self.dtype)

    def parts(self) -> Iterator[tuple[Tensor, slice]]:
        """The rows, some at a time, and where they are."""
        for start in range(0, len(self.x), _ROWS):
            here = slice(start, start + _ROWS)
            part = self.x[here].to(self.dtype)
            yield part if self.groups is None else part - self.means[self.groups[here]], here

    def times(self, v: Tensor, *, exactly: bool = False) -> Tensor:
        """(n, k) float64: the rows along v (d, k); multiplied in float64 where `exactly`."""
        out = v.new_empty(len(self.x), v.shape[1], dtype=torch.float64)
        for part, here in self.parts():
            out[here] = (part.double() if exactly else part) @ (v if exactly else v.to(self.dtype))
        return out

    def back(self, image: Tensor) -> Tensor:
        """(d, k) float64: the transposed rows times image (n, k)."""
        out = image.new_zeros(self.shape[1], image.shape[1])
        for part, here in self.parts():
            out += part.T @ image[here].to(self.dtype)
        return out

    def whole(self) -> Tensor:
        """(n, d) float64, of few."""
        return torch.cat([part.double() for part, _ in self.parts()])


def top_directions(x: Tensor | Rows, k: int = 1, tolerance: float = 1e-5, steps: int = _STEPS) -> tuple[Tensor, Tensor]:
    """The k largest singular values (k,) and right singular vectors (d, k) of x (n, d), in float64.

    Small matrices exactly, by the smaller Gram matrix in float64. Large ones by block Krylov iteration (Musco and Musco
    2015, arXiv:1504.05477) from keyed draws in feature space, so that the order of the samples does not matter. It ends
    when the residual |x'x v - s^2 v| of all k is below `tolerance` s_1^2, or after `steps`. Memory beside x: n (k + 8)
    numbers, and 4 d for each of at most `steps` (k + 8) columns. The sign of a vector is that of its largest entry.

    >>> s, v = top_directions(torch.tensor([[3.0, 0.0], [0.0, 1.0]]))
    >>> s.tolist(), v[:, 0].tolist()
    ([3.0], [1.0, 0.0])
    """
    rows = x if isinstance(x, Rows) else Rows(x)
    n, d = rows.shape
    k = min(k, n, d)
    if min(n, d) <= _EXACT:
        values, vectors = _exact(rows.whole(), k)
    else:
        values, vectors = _krylov(rows, k, tolerance, steps)
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


def _krylov(x: Rows, k: int, tolerance: float, steps: int) -> tuple[Tensor, Tensor]:
    n, d = x.shape
    width = min(k + 8, n, d)
    block = torch.linalg.qr(normal(keys(0, torch.arange(d), "directions"), (width,)).to(x.x.device).double()).Q
    q, xxq = block.new_empty(d, 0), block.new_empty(d, 0)  # an orthonormal basis Q, and x'x Q
    for _ in range(max(1, min(steps, min(n, d) // width))):
        back = x.back(x.times(block))
        q, xxq = torch.cat([q, block], 1), torch.cat([xxq, back], 1)
        gram = q.T @ xxq
        squares, rotation = torch.linalg.eigh((gram + gram.T) / 2)
        squares, rotation = squares[-k:].flip(0), rotation[:, -k:].flip(1)
        vectors = q @ rotation
        residual = (xxq @ rotation - vectors * squares).norm(dim=0).max()
        if residual <= tolerance * squares[0]:
            break
        for _ in range(2):  # twice is enough (Kahan and Parlett)
            back = back - q @ (q.T @ back)
        block = torch.linalg.qr(back).Q
    return squares.clamp(min=0).sqrt(), vectors
