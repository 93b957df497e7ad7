"""Adversarial training that looks at what is misclassified."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlab.attacks.losses import chosen
from robustlab.defenses.adversarial import Adversarial
from robustlab.defenses.batch import Batch
from robustlab.defenses.trades import divergence


@dataclass(frozen=True)
class MART(Adversarial):
    """Misclassification-aware training (Wang et al. 2020, ICLR, openreview.net/forum?id=rklOg6EFwS, eq. 11).

    A boosted cross-entropy on attacked images (eq. 8: the label's, and that of the best other class being wrong), plus
    beta times their divergence from the clean answer, which weighs 1 - p(label): little where the network is sure.
    beta: 5 for a ResNet-18 in the paper, 6 for a WideResNet. In a mixup the boost looks at the larger label. It costs a
    training step more than PGD-AT.
    """

    beta: float = 5.0

    def loss(self, model: nn.Module, batch: Batch, near: Tensor) -> tuple[Tensor, Tensor]:
        """Logits on the attacked images, and the loss; see `Defense.loss`."""
        clean, logits = model(batch.x).float().log_softmax(1), model(near)
        best_other = logits.float().log_softmax(1).scatter(1, batch.y[:, None], -torch.inf).amax(1)
        margin = (1.0001 - best_other.exp()).log()  # finite where the probability is 1, as in the authors' code
        unsure = 1 - chosen(clean, batch.y).exp()
        apart = divergence(logits, clean) * unsure
        return logits, batch.cross_entropy(logits) - margin.mean() + self.beta * apart.mean()
