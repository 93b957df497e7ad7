"""Adversarial training with one step from a random start."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from robustlab.attacks.pgd import PGD
from robustlab.defenses.adversarial import Adversarial


@dataclass(frozen=True)
class FastAT(Adversarial):
    """Fast adversarial training, FGSM-RS (Wong et al. 2020, arXiv:2001.03994, algorithm 3).

    One step of alpha eps from a uniform start, back into the ball: 1.25 in the paper, which is 10/255 for 8/255 and
    0.375 for 0.3. It may collapse (catastrophic overfitting); training sees that and stops. An epoch costs two plain
    ones.

    >>> FastAT(eps=0.3).attack(1.0).step_length
    0.375
    """

    positive: ClassVar[tuple[str, ...]] = ("alpha",)

    alpha: float = 1.25
    steps: int = field(default=1, init=False)
    step_size: float | None = field(default=None, init=False)

    def attack(self, strength: float) -> PGD:
        eps = self.eps * strength
        return PGD(norm=self.norm, eps=eps, steps=1, step_size=self.alpha * eps or None)
