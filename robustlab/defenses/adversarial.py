"""Adversarial training: a network learns from images that are attacked as it is now."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from robustlab.attacks.lockstep import lockstep
from robustlab.attacks.pgd import PGD
from robustlab.defenses.base import Defense
from robustlab.defenses.batch import Batch
from robustlab.threat.model import BudgetNorm, ThreatModel


@dataclass(frozen=True)
class Adversarial(Defense):
    """Adversarial training with PGD, PGD-AT (Madry et al. 2018, arXiv:1706.06083, section 2.1).

    eps, norm: the budget; steps, step_size (default eps / 4): of PGD from a random start. ramp: epochs over which eps
    rises from 0. 10 steps as in Rice et al. 2020 (arXiv:2002.11569) and Pang et al. 2021 (arXiv:2010.00467); Madry et
    al. take 7. The images are made in eval mode (Pang et al.): BatchNorm's statistics then see each batch once, dropout
    does not blur the gradient, and the result for an image does not depend on its neighbours. An epoch costs
    steps + 1 plain ones.

    >>> import torch
    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> batch = Batch(torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    >>> near = Adversarial(eps="8/255").perturb(net, batch)
    >>> bool(((near - batch.x).abs() <= 8 / 255 + 1e-6).all())
    True
    """

    eps: float = 8 / 255
    norm: BudgetNorm = "linf"
    steps: int = 10
    step_size: float | None = None
    ramp: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", ThreatModel(self.norm, self.eps).eps)
        super().__post_init__()
        self.attack(1.0)  # says what is wrong with the rest

    def attack(self, strength: float) -> PGD:
        """The attack at a share of the budget."""
        size = None if self.step_size is None else self.step_size * strength
        return PGD(norm=self.norm, eps=self.eps * strength, steps=self.steps, step_size=size or None)

    def strength(self, epoch: float) -> float:
        """The share of eps that is used in an epoch."""
        return 1.0 if self.ramp == 0 else min(1.0, epoch / self.ramp)

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        """Attacked images for the batch, inside the budget and [0, 1]; see `Defense.perturb`."""
        return lockstep(self.attack(self.strength(batch.epoch)), model, batch.x, batch.y, batch.key, batch.losses)
