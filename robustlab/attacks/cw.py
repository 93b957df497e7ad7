"""Carlini and Wagner's attack, and what it shares with EAD."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robustlab.attacks.foolbox_adapter import FoolboxAttack, foolbox
from robustlab.base.errors import UserError


@dataclass(frozen=True)
class PenaltyAttack(FoolboxAttack):
    """Minimises distance plus c times the margin, for several c between which it searches the best of each sample.

    steps: of each search, all of which are taken: foolbox's early stop looks at the sum over the batch, so that the
    neighbours of a sample would decide what is found for it. binary_search_steps: values of c, from initial_const on.
    """

    steps: int = 100
    binary_search_steps: int = 6
    initial_const: float = 1.0
    step_size: float = 0.01

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_one("binary_search_steps")
        if not (self.initial_const > 0 and self.step_size > 0):
            raise UserError(f"{type(self).__name__} needs initial_const and step_size above 0.")

    @property
    def queries(self) -> int:
        return self.steps * self.binary_search_steps


@dataclass(frozen=True)
class CW(PenaltyAttack):
    """Carlini and Wagner's attack (2017, arXiv:1608.04644, section V), l2; foolbox's. Targeted or not.

    Adam on the arctanh of the pixels. The default is meant for a CPU, 600 gradients a sample (the paper takes 20 times
    1,000 and more); values of exactly 0 or 1, as in MNIST's black, need more steps or a larger step_size.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> CW(steps=10).run(model, x, y).success.shape
    torch.Size([4])
    """

    norms = ("l2",)

    norm: str = "l2"  # type: ignore[assignment]

    def made(self, batch: int) -> Any:
        return foolbox().attacks.L2CarliniWagnerAttack(
            binary_search_steps=self.binary_search_steps,
            steps=self.steps,
            stepsize=self.step_size,
            initial_const=self.initial_const,
            abort_early=False,
        )
