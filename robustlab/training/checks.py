"""What is measured every epoch: loss and accuracy, clean and under PGD, and whether training has collapsed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.base.processes import ALONE, World
from robustlab.data import Data
from robustlab.data.streamed import LazyImages
from robustlab.models.classifier import Classifier
from robustlab.oracle import ask, undisturbed
from robustlab.threat.model import ThreatModel
from robustlab.training.recipe import Recipe

PGD_STEPS = 10
BATCH = 250


def share_of(data: Data, world: World) -> Data:
    """The images that this process measures."""
    return data if world.size == 1 else data.take(world.places(len(data)))


def loss_and_accuracy(
    model: Classifier, images: Tensor | LazyImages, labels: Tensor, world: World = ALONE
) -> tuple[float, float]:
    """Mean cross-entropy and share of correct predictions, in eval mode. images: (N, C, H, W) in [0, 1].

    Of several processes each gives its share of the images (N may be 0); what comes back is over all of them.
    """
    loss, right = 0.0, 0
    with torch.no_grad(), undisturbed(model):
        for start in range(0, len(labels), BATCH):
            y = labels[start : start + BATCH]
            logits = ask(model, images[start : start + BATCH].to(y.device))
            loss += float(F.cross_entropy(logits, y, reduction="sum"))
            right += int((logits.argmax(1) == y).sum())
    loss, correct, n = world.sum(torch.tensor([loss, right, len(labels)], dtype=torch.float64)).tolist()
    return loss / n, correct / n


def under_attack(
    model: Classifier, data: Data, threat: ThreatModel, seed: int, world: World = ALONE
) -> tuple[float, float]:
    """Loss and accuracy under PGD-10 (one start); of several processes each gives its share of the data.

    The attack leaves a sample after its first success, so the accuracy is exact for this attack, the loss a lower
    bound.
    """
    from robustlab.attacks import PGD

    attack = PGD(norm=threat.norm, eps=threat.eps, steps=PGD_STEPS, restarts=1)
    images = data.loaded().images.to(data.labels.device)
    if len(data):
        images = attack(model, images, data.labels, ids=data.ids, seed=seed, batch_size=BATCH)
    return loss_and_accuracy(model, images, data.labels, world)


def collapse(history: Sequence[dict[str, Any]], guess: float = 0.0) -> str | None:
    """A warning where the last epoch shows catastrophic overfitting, else None (Wong et al. 2020, arXiv:2001.03994).

    The signs, all of them: accuracy under PGD is 0.2 (as in their code), and three standard errors, below that of one
    of the three epochs before; on the examples that the model trains on accuracy has not fallen, and is more than 0.3
    above that under PGD. guess: the share of the most frequent class; what is no better on clean images is no epoch to
    fall from.

    >>> before = {"epoch": 3, "val_robust_accuracy": 0.45, "batch_accuracy": 0.6, "val_accuracy": 0.8}
    >>> now = {"epoch": 4, "val_robust_accuracy": 0.02, "batch_accuracy": 0.9, "val_accuracy": 0.9}
    >>> collapse([before, now | {"val_robust_n": 300}]) is None
    False
    """
    *earlier, now = history
    known = [entry for entry in earlier[-3:] if entry["val_accuracy"] > guess]
    if not known:
        return None
    best = max(known, key=lambda entry: entry["val_robust_accuracy"])
    was, robust, own = best["val_robust_accuracy"], now["val_robust_accuracy"], now["batch_accuracy"]
    noise = 3 * math.sqrt((was * (1 - was) + robust * (1 - robust)) / now["val_robust_n"])
    if was - robust <= max(0.2, noise) or own < best["batch_accuracy"] or own - robust <= 0.3:
        return None
    return (
        f"Epoch {now['epoch']}: catastrophic overfitting. Accuracy under PGD fell from {was:.1%} (epoch"
        f" {best['epoch']}) to {robust:.1%}, while on its own training examples it went from"
        f" {best['batch_accuracy']:.1%} to {own:.1%}. Training stops here, and the best epoch is kept. The recipes"
        " pgd-at and n-fgsm do not collapse so easily; a smaller eps or fewer epochs help, too."
    )


EXPLODED = "The loss exploded"
GUESSING = "The model still guesses"


def trouble(history: Sequence[dict[str, Any]], recipe: Recipe, train: Data, val: Data) -> list[str]:
    """Warnings after the last epoch of a history: a loss that exploded, or answers no better than guesses; each once.

    Guessing: up to now no epoch was better than always answering with the most frequent class, by half a standard
    deviation; asked when the learning rate is past its peak.
    """
    said, now, found = " ".join(entry.get("warning", "") for entry in history), history[-1], []
    even = math.log(len(train.classes))  # the loss of one who answers every class alike
    lost = min(now["train_loss"], now["val_loss"])
    if not lost < 10 * even and EXPLODED not in said:
        found.append(
            f"{EXPLODED}: {now['val_loss']:.4g} on the validation images after epoch {now['epoch']}, where"
            f" answering every class alike has {even:.2f}. {recipe.calmer()}"
        )
    past = now["epoch"] > max(1, math.ceil(recipe.warmup * recipe.epochs)) or now["epoch"] == recipe.epochs
    if (
        past
        and GUESSING not in said
        and all(_guesses(history, split, d) for split, d in (("train", train), ("val", val)))
    ):
        steps = recipe.epochs * math.ceil(len(train) / recipe.batch_size)
        few = f" All {recipe.epochs} epochs have {steps} steps only: more of them, or smaller batches"
        few += f" (--epochs {3 * recipe.epochs}, --set batch_size={max(8, recipe.batch_size // 4)})."
        found.append(
            f"{GUESSING} after epoch {now['epoch']}: {now['val_accuracy']:.1%} of {now['val_n']} validation images, no"
            f" more than one answer for all would have.{few if steps < 300 else ''} {recipe.calmer()} If that does not"
            " help, look at the images and their labels (robustlab data), and whether the model normalises its input."
        )
    return found


def _guesses(history: Sequence[dict[str, Any]], split: str, data: Data) -> bool:
    best = max(entry[f"{split}_accuracy"] for entry in history)
    return bool(best <= guess_of(data.labels[: history[-1][f"{split}_n"]]))


def guess_of(labels: Tensor) -> float:
    """The accuracy up to which a model may as well answer the most frequent class always: its share and a little more.

    >>> round(guess_of(torch.tensor([0, 0, 0, 1])), 3)
    0.858
    """
    share = int(labels.bincount().max()) / len(labels)
    return share + 0.5 * math.sqrt(share * (1 - share) / len(labels))
