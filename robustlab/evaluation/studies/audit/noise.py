"""Random points at the edge of the budget: an attacker who knows nothing of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.base.draws import keys, uniform
from robustlab.evaluation.studies.audit.subject import Subject
from robustlab.threat.geometry import random_start


def noise(subject: Subject, number: int) -> Tensor:
    """Draw `number` for every sample; l0: none."""
    if subject.suite.threat.norm == "l0":
        return subject.x
    key = keys(subject.seed, subject.ids, "audit noise", number)
    return at_edge(subject.x, subject.suite.threat.norm, subject.suite.threat.eps, key)


def at_edge(x: Tensor, norm: str, eps: float, key: Tensor) -> Tensor:
    """A random point at the edge of each image's ball; linf: every value moved by eps, up or down; else a random start.

    x: (n, C, H, W). key: (n,) int64 from `draws.keys`.
    """
    if norm != "linf":
        return random_start(x, norm, eps, key)
    sign = torch.where(uniform(key, x.shape[1:]) < 0.5, -eps, eps)
    return torch.clamp(x + sign, (x - eps).clamp(min=0), (x + eps).clamp(max=1))
