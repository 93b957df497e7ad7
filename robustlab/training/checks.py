"""What is measured every epoch: loss and accuracy, clean and under PGD, and whether one-step training has collapsed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.data import Data
from robustlab.data.streamed import LazyImages
from robustlab.models.classifier import Classifier
from robustlab.oracle import undisturbed

PGD_STEPS = 10
BATCH = 250


def loss_and_accuracy(model: Classifier, images: Tensor | LazyImages, labels: Tensor) -> tuple[float, float]:
    """Mean cross-entropy and share of correct predictions, in eval mode. images: (N, C, H, W) in [0, 1]."""
    loss, right = 0.0, 0
    with torch.no_grad(), undisturbed(model):
        for start in range(0, len(labels), BATCH):
            y = labels[start : start + BATCH]
            logits = model(images[start : start + BATCH].to(y.device))
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
            right += int((logits.argmax(1) == y).sum())
    return loss / len(labels), right / len(labels)


def under_attack(model: Classifier, data: Data, eps: float, seed: int) -> tuple[float, float]:
    """Loss and accuracy under PGD-10 (linf, one start).

    A sample is left as soon as it is fooled, so the accuracy is exact for this attack and the loss a lower bound.
    """
    from robustlab.attacks import PGD

    attack = PGD(eps=eps, steps=PGD_STEPS, restarts=1)
    images = data.loaded().images.to(data.labels.device)
    adversarial = attack(model, images, data.labels, ids=data.ids, seed=seed, batch_size=BATCH)
    return loss_and_accuracy(model, adversarial, data.labels)


def collapse(history: Sequence[dict[str, Any]], drop: float = 0.15) -> str | None:
    """A warning where the last epoch shows catastrophic overfitting, else None (Wong et al. 2020, arXiv:2001.03994).

    The sign: accuracy under PGD falls by more than `drop` below an earlier epoch's, while accuracy on the one-step
    examples that the model trains on has not fallen with it.

    >>> before = {"epoch": 3, "val_robust_accuracy": 0.45, "batch_accuracy": 0.6}
    >>> collapse([before, {"epoch": 4, "val_robust_accuracy": 0.02, "batch_accuracy": 0.9}]) is None
    False
    """
    if len(history) < 2:
        return None
    *earlier, now = history
    best = max(earlier, key=lambda entry: entry["val_robust_accuracy"])
    lost = best["val_robust_accuracy"] - now["val_robust_accuracy"]
    if lost <= drop or now["batch_accuracy"] < best["batch_accuracy"]:
        return None
    return (
        f"Epoch {now['epoch']}: catastrophic overfitting. Accuracy under PGD fell from"
        f" {best['val_robust_accuracy']:.1%} (epoch {best['epoch']}) to {now['val_robust_accuracy']:.1%}, while on"
        f" one-step examples it went from {best['batch_accuracy']:.1%} to {now['batch_accuracy']:.1%}. The checkpoint"
        " of the best epoch is kept; more noise (k), a smaller eps or fewer epochs avoid it."
    )
