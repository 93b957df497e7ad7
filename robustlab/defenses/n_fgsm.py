"""Adversarial training with one noisy gradient step."""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.base.draws import uniform
from robustlab.base.errors import UserError
from robustlab.defenses.base import Defense
from robustlab.oracle import ask, undisturbed
from robustlab.threat.model import ThreatModel


@dataclass(frozen=True)
class NFGSM(Defense):
    """N-FGSM: noise first, then one sign step, and no projection (de Jorge et al. 2022, arXiv:2202.01181, algorithm 1).

    The noise is uniform in (-k eps, k eps) and the step is alpha eps, so a training image may be (k + alpha) eps from
    the clean one: clipping to the ball is what makes one-step training collapse. Only the pixel range [0, 1] is kept.
    eps: the linf budget to defend against. k, alpha: 2 and 1 in the paper. ramp: epochs over which eps rises from 0.
    It costs one more forward and one input gradient a batch.

    >>> net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> near = NFGSM(eps="8/255").perturb(net, x, y, key=torch.arange(4))
    >>> bool(((near - x).abs() <= 3 * 8 / 255 + 1e-6).all())
    True
    """

    eps: float = 8 / 255
    k: float = 2.0
    alpha: float = 1.0
    ramp: float = 0.0

    def __post_init__(self) -> None:
        object.__setattr__(self, "eps", ThreatModel("linf", self.eps).eps)
        for key in ("k", "alpha", "ramp"):
            if not getattr(self, key) >= 0:
                raise UserError(f"n-fgsm needs {key} of at least 0, got {getattr(self, key)!r}.")

    def perturb(self, model: nn.Module, x: Tensor, y: Tensor, key: Tensor, strength: float = 1.0) -> Tensor:
        """Training images for (x, y): same shape, in [0, 1]. key: (B,) int64 from `draws.keys`. strength: scales eps.

        Crafted in eval mode, unlike in the authors' code: BatchNorm's statistics then see each batch once, dropout does
        not blur the gradient, and the result for an image does not depend on its neighbours in the batch.
        """
        eps = self.eps * strength
        noise = (2 * uniform(key, x.shape[1:]) - 1) * (self.k * eps)
        start = (x + noise).clamp_(0, 1).requires_grad_(True)
        with undisturbed(model), torch.enable_grad():
            loss = F.cross_entropy(ask(model, start).float(), y, reduction="sum")
            (gradient,) = torch.autograd.grad(loss, start)
        return torch.add(start.detach(), gradient.sign(), alpha=self.alpha * eps).clamp_(0, 1)

    def loss(self, model: nn.Module, x: Tensor, y: Tensor, key: Tensor, epoch: float) -> tuple[Tensor, Tensor]:
        """Logits (B, K) on the perturbed batch and the mean loss there; see `Defense.loss`."""
        strength = 1.0 if self.ramp == 0 else min(1.0, epoch / self.ramp)
        logits = model(self.perturb(model, x, y, key, strength))
        return logits, F.cross_entropy(logits, y)
