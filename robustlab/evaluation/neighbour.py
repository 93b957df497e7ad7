"""The security curve's short tries: at each budget one, from where it ended at the budget before."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor

from robustlab.attacks.base import Attack
from robustlab.attacks.short_tries import OneTry, ShortTries

STEPS = 16


def at_each_budget(attack: Attack) -> Attack:
    """What the curve runs of an attack: of short tries one, of others all."""
    if not isinstance(attack, ShortTries):
        return attack
    return OneTry(**{**vars(attack), "restarts": 1, "share": 1.0, "finish": 0.0, "steps": min(STEPS, attack.steps)})


@dataclass
class Neighbour:
    """Where samples ended at the budget before: their images by id. Empty at the first budget, and of other attacks."""

    eps: float = 0.0
    images: dict[int, Tensor] = field(default_factory=dict)

    def starting(self, attack: Attack, x: Tensor, ids: list[int]) -> Attack:
        """The attack from there, each perturbation scaled to the budget; x: (n, C, H, W) clean images, by ids."""
        attack = at_each_budget(attack)
        if not isinstance(attack, OneTry) or not self.images:
            return attack
        before = torch.stack([self.images.get(id, clean) for id, clean in zip(ids, x, strict=True)])
        points = x + (before - x) * (attack.eps / self.eps)
        return OneTry(**{**vars(attack), "points": points})

    def ended(self, attack: Attack, images: Tensor, ids: list[int]) -> None:
        if isinstance(attack, OneTry):
            self.eps, self.images = attack.eps, dict(zip(ids, images, strict=True))
