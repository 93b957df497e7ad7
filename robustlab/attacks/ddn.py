"""Decoupling direction and norm."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from robustlab.attacks.fmn import cosine
from robustlab.attacks.row_attack import MinimumAttack
from robustlab.attacks.rows import Draw, Observation, Rows, State
from robustlab.base.draws import normal
from robustlab.base.errors import UserError
from robustlab.threat.geometry import column, steepest


@dataclass(frozen=True)
class DDN(MinimumAttack):
    """Decoupling direction and norm, l2 (Rony et al. 2019, arXiv:1811.09600, algorithm 1).

    Steps along the gradient of the cross-entropy; the perturbation is then given the length of a sphere that shrinks by
    gamma while the point is adversarial and grows by it while it is not. radius: of the sphere before the first step.
    step_size: of the first step, falling to a hundredth along a cosine. Points are not rounded to a grid on their way.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> DDN(steps=30).run(model, x, y).success.shape
    torch.Size([4])
    """

    norms = ("l2",)

    norm: str = "l2"  # type: ignore[assignment]
    steps: int = 100
    step_size: float = 1.0
    gamma: float = 0.05
    radius: float = 1.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not (self.step_size > 0 and self.radius > 0 and 0 < self.gamma < 1):
            raise UserError("DDN needs step_size and radius above 0, and gamma between 0 and 1.")

    def start(self, rows: Rows, draw: Draw) -> State:
        radius = torch.full(rows.y.shape, self.radius, device=rows.x.device)
        return {"query": rows.x.clone(), "radius": radius}

    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        g = seen.gradient
        assert g is not None
        flat = g.abs().flatten(1).amax(1) == 0
        if bool(flat.any()):  # no slope to follow: any direction is as good
            noise = normal(draw.keys(rows, "direction"), g.shape[1:])
            g = torch.where(column(flat, g), noise, g)
        length = cosine(rows.age, self.steps, self.step_size, self.step_size / 100)
        delta = state["query"] - rows.x + steepest(g, rows.x, "l2", 1.0) * column(length, g)
        radius = state["radius"] * torch.where(seen.adversarial, 1 - self.gamma, 1 + self.gamma)
        delta = delta * column(radius / delta.flatten(1).norm(dim=1).clamp_min(1e-30), g)
        return {"query": (rows.x + delta).clamp_(0, 1), "radius": radius}
