"""The surrogates of a transfer attack: which models the images of each attacked model are crafted on."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustlab.attacks.suite import Suite
from robustlab.base.errors import UserError, spelled
from robustlab.data.matching import plain
from robustlab.models.classifier import Classifier
from robustlab.models.ensemble import Ensemble


def surrogates_of(suite: Suite, models: Sequence[Classifier], given: Sequence[Classifier]) -> list[list[Classifier]]:
    """For each model the ones that its images are crafted on: those that were given, or in a transfer suite all others.

    Empty lists in a white-box attack.
    """
    names = [model.name for model in models]
    twice = next((surrogate.name for surrogate in given if surrogate.name in names), None)
    if twice:
        raise UserError(
            f"{twice!r} is both a model to attack and a surrogate. For a white-box attack leave the surrogate out;"
            " different models need different names: {'a': model}."
        )
    if given:
        return [list(given) for _ in models]
    if not suite.transfer:
        return [[] for _ in models]
    if len(models) == 1:
        raise UserError(
            f"{suite.name} is a transfer suite: its images are crafted on other models than the attacked one. Add"
            f" {spelled('surrogate')}, or give several models, each of which is then attacked from all the others."
        )
    return [[other for other in models if other is not model] for model in models]


def check_surrogates(
    models: Sequence[Classifier], surrogates: Sequence[Sequence[Classifier]], logits: dict[str, Tensor]
) -> None:
    """A UserError where a surrogate knows other classes than its target, or is the target.

    logits: (1, K) of every model, on the same image.
    """
    for model, own in zip(models, surrogates, strict=True):
        for surrogate in own:
            there, here = logits[surrogate.name], logits[model.name]
            if there.shape[1] != here.shape[1]:
                raise UserError(
                    f"{surrogate.name} has {there.shape[1]} outputs and {model.name} has {here.shape[1]}: a surrogate"
                    " must know the classes of the model that is attacked."
                )
            names = [[plain(c) for c in m.classes or ()] for m in (surrogate, model)]
            if sorted(names[0]) == sorted(names[1]) and names[0] != names[1]:
                raise UserError(
                    f"{surrogate.name} and {model.name} have the same classes in another order. A surrogate must have"
                    f" them in the order of the model that is attacked: {', '.join(model.classes or ())}."
                )
            # a defense may leave weights as they are, so they alone do not tell
            alike = surrogate.hash() == model.hash() and repr(surrogate) == repr(model)
            if alike and torch.equal(there, here):
                raise UserError(
                    f"{surrogate.name} and {model.name} are the same model (weights, layers and answers): an image"
                    " crafted on it is a white-box attack. For that leave the surrogate out, or give another one."
                )


def as_one(members: Sequence[nn.Module]) -> nn.Module | None:
    """What images are crafted on: nothing, one model, or the mean of several models' logits."""
    return Ensemble(members) if len(members) > 1 else next(iter(members), None)
