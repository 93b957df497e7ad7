"""A model with a single output, a logit or a probability of "yes", as a classifier of two classes."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, get_args

import torch
import torch.fx
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.base.outputs import (
    ENOUGH,
    SINGLE_PROBABILITY,
    Squashed,
    like_a_single_probability,
    logits_of_probabilities,
    unpacked,
)
from robustlab.models.card import Single
from robustlab.models.classifier import Classifier


def two_classes(model: nn.Module, output: Single = "logit", *, classes: Sequence[str] | None = None) -> Classifier:
    """A model that returns one number an image, (N,) or (N, 1), as a classifier with logits (N, 2).

    output: what the number is, the `logit` of class 1 (trained with BCEWithLogitsLoss), or its `probability`, after a
    sigmoid (trained with BCELoss). classes: the names of class 0 and class 1. The logits are 0 and z: their softmax is
    the model's own sigmoid(z), and class 1 is the answer where z > 0. A warning says where the first 8 or more of them
    look like probabilities. Of a probability z is what went into the sigmoid,
    where the model's last step is one, else log p - log(1 - p). Of a `Classifier` normalisation, shape and name are
    kept. Raises UserError.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 1))
    >>> x = torch.rand(4, 3, 2, 2)
    >>> torch.allclose(two_classes(net)(x).softmax(1)[:, 1:], net(x).sigmoid())
    True
    """
    if output not in get_args(Single):
        raise UserError(f"output must be logit or probability, got {output!r}.")
    if not isinstance(model, Classifier):
        return Classifier(_TwoClasses(model, output), classes=classes, name=type(model).__name__)
    if model.outputs != "logits":
        raise UserError(f"The classifier's outputs are said to be {model.outputs}: leave that out.")
    norm = [each.flatten().tolist() for each in (model.mean, model.std)] if model.normalised else [None, None]
    two = Classifier(_TwoClasses(model.module, output), *norm).described_as(model)
    two.classes = classes
    return two


class _TwoClasses(nn.Module):
    def __init__(self, module: nn.Module, output: Single) -> None:
        super().__init__()
        self.module, self.output = module, output
        self.looked = False  # at outputs that are said to be logits

    def forward(self, x: Tensor) -> Tensor:
        if self.output == "logit":
            z = _single(self.module(x), x).float()
        else:
            with Squashed() as squashed:
                out = unpacked(self.module(x))
            p, before = _single(out, x), squashed.before(out, "sigmoids")
            if not bool(((p >= 0) & (p <= 1)).all()):
                raise UserError(
                    f"The model's output is said to be a probability, and it goes from {p.min().item():.4g} to"
                    f' {p.max().item():.4g}. Where it is a logit: two_classes(model, output="logit").'
                )
            z = logits_of_probabilities(p, "sigmoids", None if before is None else _single(before, x))
        logits = torch.cat([torch.zeros_like(z), z], 1)
        if self.output == "logit" and not self.looked and isinstance(logits, Tensor) and len(logits) >= ENOUGH:
            self.looked = True
            if like_a_single_probability(logits):
                warnings.warn(SINGLE_PROBABILITY, stacklevel=2)
        return logits


def _single(out: Any, x: Tensor) -> Tensor:
    """(N, 1), from what a model returned for images (N, C, H, W)."""
    out = unpacked(out)
    traced = isinstance(out, torch.fx.Proxy)
    if not traced and not (isinstance(out, Tensor) and out.is_floating_point() and out.numel() == len(x)):
        found = tuple(out.shape) if isinstance(out, Tensor) else f"a {type(out).__name__}"
        raise UserError(f"One float number an image is expected, shape ({len(x)},) or ({len(x)}, 1); got {found}.")
    single: Tensor = out.reshape(x.shape[0], 1)
    return single
