"""Poisons that a classifier made hard to learn."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.attacks.pgd import PGD
from robustlab.backdoors import trigger_class
from robustlab.data import load_data
from robustlab.models.loading import load_model

EPS = 6 / 255


def test_every_step_is_taken_inside_eps() -> None:
    classifier = load_model("road-signs/cnn")
    data = load_data("road-signs", "train", 100).loaded()
    data = data.take(data.labels == 0)
    trigger = trigger_class("label-consistent")(classifier, eps=EPS)
    poisons, plain = trigger.on(data, 1, "poison"), trigger.on(data, 1, "test")
    free = torch.ones(32, 32, dtype=torch.bool)
    free[28:31, 28:31] = False  # the patch
    assert float((poisons - data.images)[:, :, free].abs().max()) <= EPS + 0.5 / 255 + 1e-6
    assert torch.equal(plain[:, :, free], data.images[:, :, free])

    def loss(images: Tensor) -> Tensor:
        with torch.no_grad():
            return F.cross_entropy(classifier(images), data.labels, reduction="none")

    harder, before = loss(poisons), loss(plain)
    with torch.no_grad():
        wrong = classifier(poisons).argmax(1) != 0
    assert bool((wrong | (harder > before)).all()) and float(wrong.float().mean()) > 0.9
    stopped = PGD(eps=EPS)(classifier, data.images, data.labels, ids=data.ids, seed=1)  # at the first wrong answer
    assert float(harder.mean()) > 1.5 * float(loss(trigger.patch.stamped(stopped)).mean())
