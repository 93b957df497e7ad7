"""Adversarial training that weighs clean accuracy against robustness."""

from __future__ import annotations

from dataclasses import dataclass, field, fields

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.attacks.lockstep import lockstep
from robustlab.attacks.pgd import PGD, ball
from robustlab.attacks.rows import Draw, Rows, State
from robustlab.base.draws import normal
from robustlab.defenses.adversarial import Adversarial
from robustlab.defenses.batch import Batch
from robustlab.oracle import ask, undisturbed
from robustlab.threat.geometry import project

NOISE = 0.001  # standard deviation of the start


@dataclass(frozen=True)
class Apart(PGD):
    """PGD on the divergence of the answer from that to the clean image, from a start very close to it.

    clean: (n, K) log-probabilities on the clean images of the batch, in its order.
    """

    clean: Tensor = field(kw_only=True, repr=False)

    def start(self, rows: Rows, draw: Draw) -> State:
        near = rows.x + NOISE * normal(draw.keys(rows, "start"), rows.x.shape[1:])
        return {"query": project(near, rows.x, self.norm, self.eps), **ball(rows, self.norm, self.eps)}

    def objective(self, logits: Tensor, rows: Rows, state: State) -> Tensor:
        return divergence(logits, self.clean[rows.pos])


def divergence(logits: Tensor, clean: Tensor) -> Tensor:
    """(B,): KL(p || q) of p, given as log-probabilities, from the q of logits; finite, and so is its gradient.

    >>> divergence(torch.tensor([[1e4, 0.0]]), torch.tensor([[0.0, -1e4]])).isfinite().all().item()
    True
    """
    return F.kl_div(logits.float().log_softmax(1), clean, reduction="none", log_target=True).sum(1)


@dataclass(frozen=True)
class TRADES(Adversarial):
    """Cross-entropy on clean images plus beta times the divergence inside the ball, TRADES (Zhang et al. 2019).

    arXiv:1901.08573, eq. 5. beta: 6 for CIFAR-10, 1 for MNIST in the paper (there 1 / lambda). The attack maximises the
    divergence from a normal start of 0.001. An epoch costs one forward pass and a training step more than PGD-AT.
    """

    beta: float = 6.0

    def perturb(self, model: nn.Module, batch: Batch) -> Tensor:
        """Images on which the model answers otherwise than on those of the batch; see `Defense.perturb`."""
        with undisturbed(model), torch.no_grad():
            clean = ask(model, batch.x).float().log_softmax(1)
        pgd = self.attack(self.strength(batch.epoch))
        apart = Apart(**{each.name: getattr(pgd, each.name) for each in fields(pgd) if each.init}, clean=clean)
        return lockstep(apart, model, batch.x, batch.y, batch.key)

    def loss(self, model: nn.Module, batch: Batch, near: Tensor) -> tuple[Tensor, Tensor]:
        """Logits on the attacked images, and the loss; see `Defense.loss`."""
        clean, logits = model(batch.x), model(near)
        apart = divergence(logits, clean.float().log_softmax(1)).mean()
        return logits, batch.cross_entropy(clean) + self.beta * apart
