"""The elastic-net attack."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robustlab.attacks.cw import PenaltyAttack
from robustlab.attacks.foolbox_adapter import foolbox
from robustlab.base.errors import UserError


@dataclass(frozen=True)
class EAD(PenaltyAttack):
    """Elastic-net attack (Chen et al. 2018, arXiv:1709.04114, algorithm 1), l1, with the L1 decision rule; foolbox's.

    beta: the weight of l1 beside the squared l2. Gradients are taken at extrapolated points, which may lie a little
    outside the box; every point that counts lies in it. Targeted or not.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> EAD(steps=10).run(model, x, y).success.shape
    torch.Size([4])
    """

    norms = ("l1",)

    norm: str = "l1"  # type: ignore[assignment]
    beta: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.beta > 0:
            raise UserError(f"EAD needs beta above 0, got {self.beta}.")

    @property
    def looks(self) -> int:
        return 2 * super().looks  # each new point is looked at once more

    def made(self, batch: int) -> Any:
        return foolbox().attacks.EADAttack(
            binary_search_steps=self.binary_search_steps,
            steps=self.steps,
            initial_stepsize=self.step_size,
            initial_const=self.initial_const,
            regularization=self.beta,
            decision_rule="L1",
            abort_early=False,
        )
