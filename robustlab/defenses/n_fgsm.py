"""Adversarial training with one noisy gradient step."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from robustlab.base.draws import uniform
from robustlab.defenses.adversarial import Adversarial
from robustlab.defenses.batch import Batch
from robustlab.oracle import ask, undisturbed
from robustlab.threat.model import BudgetNorm


@dataclass(frozen=True)
class NFGSM(Adversarial):
    """N-FGSM: noise first, then one sign step, and no projection (de Jorge et al. 2022, arXiv:2202.01181, algorithm 1).

    The noise is uniform in (-k eps, k eps) and the step is alpha eps, so a training image may be (k + alpha) eps from
    the clean one: clipping to the ball is what makes one-step training collapse. Only the pixel range [0, 1] is kept.
    eps: the linf budget to defend against. k, alpha: 2 and 1 in the paper. ramp: epochs over which eps rises from 0.
    It costs one more forward and one input gradient a batch. Crafted in eval mode, unlike in the authors' code.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> batch = Batch(torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0]), torch.arange(4))
    >>> near = NFGSM(eps="8/255").perturb(net, batch)
    >>> bool(((near - batch.x).abs() <= 3 * 8 / 255 + 1e-6).all())
    True
    """

    k: float = 2.0
    alpha: float = 1.0
    norm: BudgetNorm = field(default="linf", init=False)
    steps: int = field(default=1, init=False)
    step_size: float | None = field(default=None, init=False)

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        """Training images for the batch: same shape, in [0, 1]; see `Defense.perturb`."""
        x, eps = batch.x, self.eps * self.strength(batch.epoch)
        noise = (2 * uniform(batch.key, x.shape[1:]) - 1) * (self.k * eps)
        start = (x + noise).clamp_(0, 1).requires_grad_(True)
        with undisturbed(model), torch.enable_grad():
            (gradient,) = torch.autograd.grad(batch.losses(ask(model, start)).sum(), start)
        return torch.add(start.detach(), gradient.sign(), alpha=self.alpha * eps).clamp_(0, 1)
