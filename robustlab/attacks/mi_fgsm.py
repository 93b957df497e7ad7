"""The momentum iterative fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robustlab.attacks.base import Draw, Rows, Seen, State
from robustlab.attacks.pgd import PGD, step
from robustlab.threat import column


@dataclass(frozen=True)
class MIFGSM(PGD):
    """Sign steps along a decaying sum of gradients (Dong et al. 2018, arXiv:1710.06081, algorithm 1).

    Each gradient is divided by its own mean absolute value, image by image. decay: the factor mu of the sum.
    step_size: default eps / steps. It starts at the clean image.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> MIFGSM(eps="8/255", steps=3)(model, torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4, 3, 2, 2])
    """

    steps: int = 10
    random_start: bool = False
    decay: float = 1.0

    def start(self, rows: Rows, draw: Draw) -> State:
        return {**super().start(rows, draw), "momentum": torch.zeros_like(rows.x)}

    def tell(self, rows: Rows, state: State, seen: Seen, draw: Draw) -> State:
        g = seen.gradient
        assert g is not None
        mean = g.abs().flatten(1).mean(1).clamp_min(1e-30)
        momentum = self.decay * state["momentum"] + g / column(mean, g)
        query = step(rows, state, momentum, self.step_length, self.norm, self.eps)
        return {**state, "momentum": momentum, "query": query}

    @property
    def step_length(self) -> float:
        return self.eps / self.steps if self.step_size is None else self.step_size
