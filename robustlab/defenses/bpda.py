"""Preprocessing in front of a classifier, and the gradient that an attacker who knows of it uses."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError

Preprocess = Callable[[Tensor], Tensor]


class BPDA(nn.Module):
    """Preprocessing whose forward pass is exact and whose backward pass is that of another function.

    BPDA, backward pass differentiable approximation (Athalye, Carlini and Wagner 2018, arXiv:1802.00420, section 4.1):
    what rounds or calls another program has no gradient, or none that helps. preprocess: images (N, C, H, W) in [0, 1]
    -> images, by any code; it is asked without gradients, in float32. backward: a differentiable function close to it,
    with an output of the same shape; left out: the identity. Where `preprocess` itself has a good gradient, or is
    random and has one, no BPDA is needed. UserError where the shapes differ.

    >>> rounded = BPDA(lambda x: (4 * x).round() / 4)
    >>> x = torch.tensor([[0.3, 0.6]], requires_grad=True)
    >>> y = rounded(x)
    >>> y.tolist(), torch.autograd.grad((y**2).sum(), x)[0].tolist()
    ([[0.25, 0.5]], [[0.5, 1.0]])
    """

    def __init__(self, preprocess: Preprocess, backward: Preprocess | None = None) -> None:
        super().__init__()
        self.preprocess, self.approximation = preprocess, backward

    def forward(self, x: Tensor) -> Tensor:
        with torch.no_grad():
            exact = self.preprocess(x.detach().float()).to(x.dtype)
        near = x if self.approximation is None else self.approximation(x)
        if near.shape != exact.shape:
            raise UserError(
                f"BPDA needs a backward function whose output is like that of the preprocessing, {tuple(exact.shape)};"
                f" got {tuple(near.shape)}. Give `backward`, a differentiable function close to the preprocessing."
            )
        out: Tensor = _Instead.apply(near, exact)
        return out


class _Instead(torch.autograd.Function):
    """The value of `exact`, the gradient of `near`."""

    @staticmethod
    def forward(ctx: Any, near: Tensor, exact: Tensor) -> Tensor:
        return exact.view_as(exact)

    @staticmethod
    def backward(ctx: Any, *gradients: Any) -> tuple[Any, None]:
        return gradients[0], None
