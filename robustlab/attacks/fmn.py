"""The fast minimum-norm attack."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.attacks.row_attack import MinimumAttack
from robustlab.attacks.rows import Draw, Observation, Rows, State
from robustlab.base.errors import UserError
from robustlab.threat.geometry import column, distance, shrink
from robustlab.threat.model import NORMS

BEYOND = 1.001  # exactly on the boundary nothing is decided
DUAL = {"linf": "l1", "l2": "l2", "l1": "linf", "l0": "linf"}


def cosine(age: Tensor, steps: int, first: float, last: float) -> Tensor:
    """(B,): from `first` at age 0 to `last` at age `steps` along half a cosine."""
    return last + (first - last) * (1 + torch.cos(math.pi * age / steps)) / 2


@dataclass(frozen=True)
class FMN(MinimumAttack):
    """Fast minimum-norm attack (Pintor et al. 2021, arXiv:2102.12827, algorithm 1): linf, l2, l1 and l0.

    Steps along the gradient of the margin, projected onto a ball that shrinks while the point is adversarial and grows
    while it is not. step_size: of the first l2-normalised step (1), falling to a hundredth; gamma: by what fraction the
    ball changes at first (0.05), falling to 0.001. Targeted or not.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> FMN(norm="l2", steps=30).run(model, x, y).success.shape
    torch.Size([4])
    """

    norms = NORMS

    norm: str = "l2"  # type: ignore[assignment]
    steps: int = 100
    loss: str = "margin"
    step_size: float = 1.0
    gamma: float = 0.05

    def __post_init__(self) -> None:
        super().__post_init__()
        if not self.step_size > 0 or not 0 < self.gamma < 1:
            raise UserError(
                f"FMN needs step_size above 0 and gamma between 0 and 1, got {self.step_size} and {self.gamma}."
            )

    def start(self, rows: Rows, draw: Draw) -> State:
        radius = torch.full(rows.y.shape, torch.inf, dtype=torch.float64, device=rows.x.device)
        return {"query": rows.x.clone(), "radius": radius, "nearest": radius.clone()}

    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        g, query = seen.gradient, state["query"]
        assert g is not None
        size = distance(query - rows.x, self.norm)
        nearest = torch.where(seen.adversarial, torch.minimum(size, state["nearest"]), state["nearest"])
        gamma = cosine(rows.age, self.steps, self.gamma, 0.001).double()
        inwards, outwards = state["radius"] * (1 - gamma), state["radius"] * (1 + gamma)
        if self.norm == "l0":  # whole values
            inwards = torch.minimum(state["radius"] - 1, inwards.floor()).clamp_min(0)
            outwards = torch.maximum(state["radius"] + 1, outwards.floor())
            # values that point out of the box leave the size behind the radius
            ahead = torch.maximum(size, state["radius"].nan_to_num(posinf=0.0)) + 1
        else:  # to where a linear model would have its boundary
            ahead = (size + seen.loss.abs() / distance(g, DUAL[self.norm]).clamp_min(1e-12)) * BEYOND
        outwards = torch.where(nearest < torch.inf, outwards, ahead)
        radius = torch.where(seen.adversarial, torch.minimum(inwards, nearest), outwards)
        length = cosine(rows.age, self.steps, self.step_size, self.step_size / 100)
        flat = g.flatten(1).norm(dim=1).clamp_min(1e-30)
        delta = shrink(query - rows.x + g * column(length / flat, g), self.norm, radius)
        return {"query": (rows.x + delta).clamp_(0, 1), "radius": radius, "nearest": nearest}
