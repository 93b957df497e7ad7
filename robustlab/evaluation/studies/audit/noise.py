"""Random points at the edge of the budget: an attacker who knows nothing of the model."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.base.draws import keys, uniform
from robustlab.evaluation.studies.audit.subject import Subject
from robustlab.threat.geometry import random_start


def noise(subject: Subject, number: int) -> Tensor:
    """Draw `number` for every sample; linf: every value moved by eps, up or down; l0: none; else a random start."""
    x, threat = subject.x, subject.suite.threat
    key = keys(subject.seed, subject.ids, "audit noise", number)
    if threat.norm == "l0":
        return x
    if threat.norm != "linf":
        return random_start(x, threat.norm, threat.eps, key)
    sign = torch.where(uniform(key, x.shape[1:]) < 0.5, -threat.eps, threat.eps)
    return torch.clamp(x + sign, (x - threat.eps).clamp(min=0), (x + threat.eps).clamp(max=1))
