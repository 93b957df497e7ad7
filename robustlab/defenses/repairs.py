"""Repairs of a model with a backdoor from a few clean images: fine-tuning, and pruning before it."""

from __future__ import annotations

import copy

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.base.draws import keys, uniform
from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.given import check_images, labels_of
from robustlab.base.typed import check_whole
from robustlab.models.classifier import Classifier
from robustlab.oracle import ask, undisturbed


def fine_tuning(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    epochs: int = 10,
    lr: float = 0.01,
    batch_size: int = 64,
    seed: int = 0,
) -> nn.Module:
    """A copy of the classifier, trained on clean images (n, C, H, W) with labels (n,); the given one stays as it is.

    SGD with momentum 0.9 and weight decay 5e-4, in an order drawn by the seed. UserError: fewer than 2 images.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    >>> tuned = fine_tuning(net, torch.rand(6, 1, 2, 2), torch.arange(6) % 2, epochs=1)
    >>> tuned is net, tuned(torch.rand(1, 1, 2, 2)).shape
    (False, torch.Size([1, 2]))
    """
    labels = _checked(images, labels)
    for name, value in (("epochs", epochs), ("batch_size", batch_size)):
        check_whole(name, value, 1)
    if not lr > 0:
        raise UserError(f"lr must be above 0, got {lr}.")
    tuned = copy.deepcopy(classifier)
    modes = [(module, module.training) for module in tuned.modules()]
    tuned.train()
    sgd = torch.optim.SGD([p for p in tuned.parameters() if p.requires_grad], lr, momentum=0.9, weight_decay=5e-4)
    with torch.enable_grad():
        for epoch in range(epochs):
            order = uniform(keys(seed, torch.arange(len(images)), "fine-tuning", epoch), (1,))[:, 0].argsort()
            for batch in order.split(batch_size):
                if len(batch) == 1:  # BatchNorm needs two
                    continue
                sgd.zero_grad()
                F.cross_entropy(ask(tuned, images[batch]), labels[batch]).backward()
                sgd.step()
    for module, training in modes:
        module.training = training
    return tuned


def prune(
    classifier: nn.Module, images: Tensor, labels: Tensor, layer: str | None = None, *, drop: float = 0.04
) -> tuple[nn.Module, list[int]]:
    """A copy without the channels that sleep on clean images, and their numbers (Liu, Dolan-Gavitt and Garg 2018).

    The channels of a convolution or BatchNorm are set to zero one after another, from the smallest mean activation
    (after a ReLU) on the clean images, as long as the accuracy on these images falls by at most `drop`. layer: a dotted
    name, by default the last BatchNorm2d or Conv2d. One channel at least is left.

    >>> net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    >>> pruned, gone = prune(net, torch.rand(6, 1, 4, 4), torch.arange(6) % 2, drop=1.0)
    >>> len(gone)
    2
    """
    labels = _checked(images, labels)
    if not 0 <= drop <= 1:
        raise UserError(f"drop is a share of the accuracy, from 0 to 1; got {drop}.")
    pruned = copy.deepcopy(classifier)
    channels = _channels(pruned, layer)
    active: list[Tensor] = []
    with torch.no_grad(), undisturbed(pruned):
        with channels.register_forward_hook(lambda m, given, out: active.append(out.relu().mean((0, 2, 3)) * len(out))):
            before = _accuracy(pruned, images, labels)
        order = torch.stack(active).sum(0).argsort().tolist()
        gone: list[int] = []
        for channel in order[:-1]:
            kept = [(p, p[channel].clone()) for p in (channels.weight, channels.bias) if isinstance(p, Tensor)]
            for parameter, _ in kept:
                parameter[channel] = 0
            if _accuracy(pruned, images, labels) < before - drop:
                for parameter, values in kept:
                    parameter[channel] = values
                break
            gone.append(channel)
    return pruned, gone


def fine_pruning(
    classifier: nn.Module,
    images: Tensor,
    labels: Tensor,
    layer: str | None = None,
    *,
    drop: float = 0.04,
    epochs: int = 10,
    lr: float = 0.01,
    seed: int = 0,
) -> nn.Module:
    """`prune`, then `fine_tuning` (Liu, Dolan-Gavitt and Garg 2018, arXiv:1805.12185). Returns a copy.

    Otherwise than in the paper a pruned channel may come back in the fine-tuning.

    >>> net = nn.Sequential(nn.Conv2d(1, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(12, 2))
    >>> fine_pruning(net, torch.rand(6, 1, 4, 4), torch.arange(6) % 2, epochs=1) is net
    False
    """
    pruned, _ = prune(classifier, images, labels, layer, drop=drop)
    return fine_tuning(pruned, images, labels, epochs=epochs, lr=lr, seed=seed)


def _checked(images: Tensor, labels: Tensor) -> Tensor:
    check_images(images)
    if len(images) < 2:
        raise UserError("A repair needs 2 clean images at least; a few hundred are usual.")
    return labels_of(labels, len(images))


def _channels(classifier: nn.Module, layer: str | None) -> nn.Conv2d | nn.BatchNorm2d:
    owner = classifier.module if isinstance(classifier, Classifier) else classifier
    found = {name: m for name, m in owner.named_modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)}
    found = {name: m for name, m in found.items() if m.weight is not None}
    if not found or (layer is not None and layer not in found):
        hint = did_you_mean(str(layer), found)
        raise UserError(
            f"Pruning needs a convolution or BatchNorm; got {layer!r}.{hint} There are: {', '.join(found)}."
        )
    return found[layer] if layer is not None else list(found.values())[-1]


def _accuracy(classifier: nn.Module, images: Tensor, labels: Tensor) -> float:
    answers = torch.cat([ask(classifier, x).argmax(1) for x in images.split(256)])
    return float((answers == labels).float().mean())
