"""Trigger inversion: is there a class that a small patch of pixels leads every image to?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.base.draws import bits, keys, uniform
from robustlab.base.errors import UserError
from robustlab.base.given import check_images, check_range
from robustlab.base.typed import check_whole
from robustlab.oracle import ask, undisturbed

_PATIENCE = 5
_FASTER, _SLOWER = 1.5, 1.5**1.5


@dataclass(frozen=True, eq=False)
class Inverted:
    """The trigger found for each class, in the order of `classes`.

    masks: (k, H, W) in [0, 1]. patterns: (k, C, H, W) in [0, 1]. success: (k,), the share of the images that the
    trigger leads to the class. norms: (k,), the sum of each mask. index: (k,), see `anomaly_index`.
    """

    classes: tuple[int, ...]
    masks: Tensor
    patterns: Tensor
    success: Tensor
    norms: Tensor
    index: Tensor

    @property
    def flagged(self) -> list[int]:
        """The classes whose trigger is smaller than the others' by an anomaly index above 2, as in the paper."""
        return [label for label, index in zip(self.classes, self.index.tolist(), strict=True) if index > 2]


def anomaly_index(norms: Tensor) -> Tensor:
    """How far each norm is below the median, over 1.4826 times the median absolute deviation; negative above it.

    Wang et al. 2019, section IV: above 2 is an outlier with 95 % confidence, if the norms are normal. With few
    classes, clean models exceed it often.

    >>> [round(x, 2) for x in anomaly_index(torch.tensor([10.0, 50.0, 52.0, 48.0, 50.0, 54.0])).tolist()]
    [13.49, 0.0, -0.67, 0.67, 0.0, -1.35]
    """
    values = norms.double()
    middle = values.quantile(0.5)
    return ((middle - values) / (1.4826 * (values - middle).abs().quantile(0.5)).clamp(min=1e-12)).float()


def invert_triggers(
    classifier: nn.Module,
    images: Tensor,
    classes: Sequence[int] | None = None,
    *,
    steps: int = 300,
    batch_size: int = 64,
    lr: float = 0.1,
    goal: float = 0.99,
    weight: float = 1e-3,
    seed: int = 0,
) -> Inverted:
    """For each class the smallest mask and pattern that lead clean images to it (Neural Cleanse, Wang et al. 2019).

    Adam minimises the cross-entropy of (1 - mask) x + mask pattern to the class plus weight |mask|_1, and the weight
    grows or shrinks by what share of the batch arrives (`goal`). The mask kept is the smallest whose batch reached the
    goal; where none did, the last one, and `success` says so. It sees the gradient of the classifier and clean images,
    no training data. images: (n, C, H, W) in [0, 1], any labels. classes: all by default, and 3 at least.

    One try, one seed: a cnn on road-signs with 400 of 4,000 images poisoned by the physical trigger (88.8 % of 571
    attacked), 8 of the 16 classes, 64 images, 100 steps of 16. The target's mask was 2.9, the next 17.6; its index,
    2.17, was the only one above 2. The largest index of the zoo's clean cnn, searched alike, was 0.75.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(16, 3))
    >>> invert_triggers(net, torch.rand(8, 1, 4, 4), steps=5).masks.shape
    torch.Size([3, 4, 4])
    """
    check_images(images)
    check_range(images)
    for name, value in (("steps", steps), ("batch_size", batch_size)):
        check_whole(name, value, 1)
    if not 0 < goal <= 1 or not lr > 0 or not weight > 0:
        raise UserError(f"goal is in (0, 1], lr and weight are above 0; got {goal}, {lr} and {weight}.")
    with undisturbed(classifier):
        with torch.no_grad():
            outputs = ask(classifier, images[:2]).shape[1]
        wanted = tuple(range(outputs)) if classes is None else tuple(classes)
        if len(wanted) < 3 or not all(0 <= label < outputs for label in wanted):
            raise UserError(f"classes must be 3 or more of 0 to {outputs - 1}, got {list(wanted)}.")
        found = [
            _invert(classifier, images, label, steps, min(batch_size, len(images)), lr, goal, weight, seed)
            for label in wanted
        ]
        masks, patterns = (torch.stack([each[i] for each in found]) for i in (0, 1))
        success = torch.tensor(
            [_arrive(classifier, images, *each, label) for each, label in zip(found, wanted, strict=True)]
        )
    norms = masks.flatten(1).sum(1)
    return Inverted(wanted, masks, patterns, success, norms, anomaly_index(norms))


def stamped(images: Tensor, mask: Tensor, pattern: Tensor) -> Tensor:
    """The images (n, C, H, W) with a trigger: (1 - mask) x + mask pattern.

    >>> stamped(torch.zeros(1, 1, 1, 2), torch.tensor([[1.0, 0.5]]), torch.ones(1, 1, 2)).flatten().tolist()
    [1.0, 0.5]
    """
    return (1 - mask) * images + mask * pattern


def _invert(
    classifier: nn.Module,
    images: Tensor,
    label: int,
    steps: int,
    batch: int,
    lr: float,
    goal: float,
    weight: float,
    seed: int,
) -> tuple[Tensor, Tensor]:
    shape = images.shape[1:]
    start = uniform(keys(seed, torch.tensor([label]), "inversion"), (1 + shape[0], *shape[1:]))[0].to(images.device)
    raw = torch.atanh((start - 0.5) * 1.98).requires_grad_(True)  # mask and pattern, before the tanh
    adam = torch.optim.Adam([raw], lr=lr, betas=(0.5, 0.9))
    best: tuple[Tensor, Tensor] | None = None
    smallest, above, below = float("inf"), 0, 0
    drawn = bits(keys(seed, torch.arange(steps), "inversion batch", label), batch).remainder(len(images))
    for step in range(steps):
        with torch.enable_grad():
            both = raw.tanh() / 2 + 0.5
            mask, pattern = both[0], both[1:]
            logits = ask(classifier, stamped(images[drawn[step]], mask, pattern))
            targets = torch.full((batch,), label, device=images.device)
            loss = F.cross_entropy(logits, targets) + weight * mask.sum()
            (raw.grad,) = torch.autograd.grad(loss, [raw])
        arrived = float((logits.argmax(1) == label).float().mean())
        norm = float(mask.detach().sum())
        if arrived >= goal and norm < smallest:
            smallest, best = norm, (mask.detach().clone(), pattern.detach().clone())
        above, below = (above + 1, 0) if arrived >= goal else (0, below + 1)
        if above == _PATIENCE:
            weight, above = weight * _FASTER, 0
        elif below == _PATIENCE:
            weight, below = weight / _SLOWER, 0
        adam.step()
    both = (raw.tanh() / 2 + 0.5).detach()
    return best if best is not None else (both[0], both[1:])


def _arrive(classifier: nn.Module, images: Tensor, mask: Tensor, pattern: Tensor, label: int) -> float:
    with torch.no_grad():
        answers = [ask(classifier, stamped(x, mask, pattern)).argmax(1) == label for x in images.split(256)]
    return float(torch.cat(answers).float().mean())
