"""The losses that attacks maximise: one value a row, never reduced over the batch.

Each takes logits (B, K), labels (B,) and, for a targeted attack, targets (B,); larger is better for the attacker.
`margin` is positive exactly where the attack has succeeded.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

Loss = Callable[[Tensor, Tensor, Tensor | None], Tensor]


def chosen(logits: Tensor, index: Tensor) -> Tensor:
    """(B,): each row's logit of the class at `index`."""
    return logits.gather(1, index[:, None])[:, 0]


def best_other(logits: Tensor, index: Tensor) -> Tensor:
    """(B,): each row's largest logit of the other classes."""
    return logits.scatter(1, index[:, None], -torch.inf).amax(1)


def ce(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Cross-entropy of the label; for a targeted attack minus that of the target."""
    if targets is None:
        return F.cross_entropy(logits, labels, reduction="none")
    return -F.cross_entropy(logits, targets, reduction="none")


def margin(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Best other logit minus the label's; targeted: the target's minus the best other.

    Carlini and Wagner 2017, arXiv:1608.04644, section V.A.
    """
    if targets is None:
        return best_other(logits, labels) - chosen(logits, labels)
    return chosen(logits, targets) - best_other(logits, targets)


def dlr(logits: Tensor, labels: Tensor, targets: Tensor | None = None) -> Tensor:
    """Difference of logits ratio (Croce and Hein 2020, arXiv:2003.01690, eqs. 6 and 7).

    It needs 3 classes, targeted 4; with fewer it is the margin.
    """
    if logits.shape[1] < (3 if targets is None else 4):
        return margin(logits, labels, targets)
    top = logits.topk(3 if targets is None else 4, dim=1).values
    if targets is None:
        return margin(logits, labels) / (top[:, 0] - top[:, 2] + 1e-12)
    gap = top[:, 0] - (top[:, 2] + top[:, 3]) / 2
    return (chosen(logits, targets) - chosen(logits, labels)) / (gap + 1e-12)


LOSSES: dict[str, Loss] = {"ce": ce, "margin": margin, "dlr": dlr}
