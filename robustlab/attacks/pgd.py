"""Projected gradient descent."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.attacks.row_attack import RowAttack
from robustlab.attacks.rows import Draw, Observation, Rows, State
from robustlab.base.errors import UserError
from robustlab.threat.geometry import project, random_start, steepest
from robustlab.threat.model import parse_eps


def ball(rows: Rows, norm: str, eps: float) -> State:
    """The corners of the linf ball cut with the box, computed once a row; other norms need none."""
    if norm != "linf":
        return {}
    return {"low": (rows.x - eps).clamp_(min=0), "high": (rows.x + eps).clamp_(max=1)}


def inside(rows: Rows, state: State, points: Tensor, norm: str, eps: float) -> Tensor:
    """Points moved back into the ball and the box; `ball` is in the state."""
    if norm == "linf":
        return torch.clamp(points, state["low"], state["high"])
    return project(points, rows.x, norm, eps)


def step(rows: Rows, state: State, direction: Tensor, size: float, norm: str, eps: float) -> Tensor:
    """The next query: the steepest step of length `size` along `direction`, back into the ball and the box."""
    return inside(rows, state, steepest(direction, state["query"], norm, size).add_(state["query"]), norm, eps)


@dataclass(frozen=True)
class PGD(RowAttack):
    """Projected gradient descent from a random start (Madry et al. 2018, arXiv:1706.06083; Kurakin et al. 2016).

    norm: linf (sign steps), l2 (normalised gradient) or l1 (sparse steps, exact projection onto ball and box).
    steps: gradient queries a restart. step_size: absolute, in the units of eps; default eps / 4.
    loss: ce, margin or dlr.
    Any adversarial iterate counts, the last one included.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> adversarial = PGD(eps="8/255", steps=5)(model, x, y)
    >>> bool(((adversarial - x).abs() <= 8 / 255 + 1e-6).all())
    True
    """

    steps: int = 20
    step_size: float | None = None
    random_start: bool = True

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.step_size is not None:
            object.__setattr__(self, "step_size", parse_eps(self.step_size, "step_size"))
            if self.step_size == 0:
                raise UserError("step_size must be larger than 0; leave it out for eps / 4.")

    def start(self, rows: Rows, draw: Draw) -> State:
        x = rows.x
        query = random_start(x, self.norm, self.eps, draw.keys(rows, "start")) if self.random_start else x.clone()
        return {"query": query, **ball(rows, self.norm, self.eps)}

    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        assert seen.gradient is not None
        return {**state, "query": step(rows, state, seen.gradient, self.step_length, self.norm, self.eps)}

    @property
    def step_length(self) -> float:
        return self.eps / 4 if self.step_size is None else self.step_size
