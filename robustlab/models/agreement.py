"""Do two modules compute the same? Their outputs, and their gradients by the image: at the images and around them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.base.draws import keys, uniform
from robustlab.base.memory import of_the_machine
from robustlab.oracle import ask, undisturbed

AROUND = 0.05  # how far from the images the other points lie, value by value


@dataclass(frozen=True)
class Answer:
    """What a model says at some points: logits (N, K), and the gradient (N, ...) by the points; None if it gives none.

    The gradient is that of a sum of the logits with random signs: no class is left out, and nothing saturates.
    """

    logits: Tensor
    gradient: Tensor | None


@dataclass(frozen=True)
class Agreement:
    """How well a model agrees with another, at the points where it agrees least.

    difference: the largest of a logit, relative to the largest logit. signs: the share of a gradient's values that have
    the same sign, of those that are not zero in both. cosine: of the angle between the gradients. Both are means over
    images. length: of all gradients together, the shorter by the longer. All three are 1 where neither model has a
    gradient, and 0 where only one has.
    """

    difference: float
    signs: float
    cosine: float
    length: float


def answers(model: Callable[[Tensor], Tensor], images: Tensor) -> list[Answer]:
    """At the images (N, C, H, W) in [0, 1], and at points around them. Raises what the model raises without a gradient.

    >>> first, second = answers(torch.nn.Flatten(), torch.zeros(4, 1, 1, 2))
    >>> bool((first.gradient.abs() == 1).all()), bool((second.logits > 0).any())
    (True, True)
    """
    rows = torch.arange(len(images), device=images.device)
    noise = uniform(keys(0, rows, "around"), images.shape[1:]).mul_(2).sub_(1).mul_(AROUND)
    with torch.inference_mode(False), undisturbed(model):
        return [_answer(model, points) for points in (images.clone(), (images + noise).clamp_(0, 1))]


def _answer(model: Callable[[Tensor], Tensor], points: Tensor) -> Answer:
    try:
        with torch.enable_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # torch's, on operations that have no gradient
            leaf = points.clone().requires_grad_(True)
            logits = ask(model, leaf).float()
            key = keys(0, torch.arange(len(logits), device=logits.device), "signs")
            total = torch.where(uniform(key, logits.shape[1:]) < 0.5, -logits, logits).sum()
            slope = torch.autograd.grad(total, leaf, allow_unused=True)[0] if total.requires_grad else None
    except Exception as error:  # no backward pass: only attacks that need no gradient can search on it
        if of_the_machine(error):
            raise
        with torch.no_grad():
            return Answer(ask(model, points).float(), None)
    return Answer(logits.detach(), slope)


def agreement(wanted: Sequence[Answer], got: Sequence[Answer]) -> Agreement:
    """How well `got` agrees with `wanted`, point by point."""
    found = [_compared(*pair) for pair in zip(wanted, got, strict=True)]
    return Agreement(
        difference=max((each.difference for each in found), key=lambda d: (d != d, d)),  # NaN is the largest
        signs=min(each.signs for each in found),
        cosine=min(each.cosine for each in found),
        length=min(each.length for each in found),
    )


def _compared(wanted: Answer, got: Answer) -> Agreement:
    size = wanted.logits.abs().max().clamp_min(1e-6)
    difference = ((got.logits - wanted.logits).abs().max() / size).item()
    if wanted.gradient is None or got.gradient is None:
        same = float(wanted.gradient is None and got.gradient is None)
        return Agreement(difference, same, same, same)
    a, b = (each.flatten(1).double() for each in (wanted.gradient, got.gradient))
    either = (a != 0) | (b != 0)
    signs = ((a.sign() == b.sign()) & either).sum(1) / either.sum(1)
    lengths = torch.stack([a.norm(dim=1), b.norm(dim=1)])
    cosine = (a * b).sum(1) / lengths.prod(0)
    both = [each.norm() for each in (a, b)]
    # 0 / 0: an image at which both gradients are zero
    signs, cosine = (torch.where(either.any(1), each.nan_to_num(0.0), 1.0) for each in (signs, cosine))
    longest = max(both)
    return Agreement(
        difference, signs.mean().item(), cosine.mean().item(), (min(both) / longest).item() if longest > 0 else 1.0
    )
