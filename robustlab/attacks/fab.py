"""The fast adaptive boundary attack, towards chosen classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.attacks.apgd import likeliest
from robustlab.attacks.base import Draw, MinimumAttack, Rows, Seen, State
from robustlab.attacks.losses import chosen
from robustlab.errors import UserError
from robustlab.threat import BUDGET_NORMS, column, distance, random_start

NEAREST = 0.1  # at most this share of a step comes from the projection of the clean image
OVERSHOOT = 1.05
BACK = 0.9  # an adversarial point is pulled towards the clean image by this factor


def to_boundary(points: Tensor, normal: Tensor, gap: Tensor, norm: str) -> Tensor:
    """The smallest moves that stay in the box [0, 1] and change normal . points by gap; (B, ...).

    Croce and Hein 2020, arXiv:1907.02044, eq. 4. linf: all values move by t, or as far as they can.
    l2: by t |normal_i|, or as far as they can. l1: those with the largest |normal_i| go all the way, one after another.
    t solves a piecewise linear equation. Where the box does not allow the change, everything moves as far as it goes.
    """
    w = normal.flatten(1).double() * gap.sign().double()[:, None]
    x, need = points.flatten(1).double(), gap.abs().double()[:, None]
    room = torch.where(w > 0, 1 - x, x) * (w != 0)
    a = w.abs()
    if norm == "l1":
        order = a.argsort(dim=1, descending=True)
        gain = (a * room).gather(1, order)
        left = (need - (gain.cumsum(1) - gain)).clamp_min(0).minimum(gain)
        move = torch.zeros_like(a).scatter_(1, order, left / a.gather(1, order).clamp_min(1e-300))
    else:
        rate = torch.ones_like(a) if norm == "linf" else a
        stop, order = (room / rate.clamp_min(1e-300)).sort(dim=1)  # the t at which a value has reached the box
        full = (a * room).gather(1, order).cumsum(1)
        slope = (a * rate).gather(1, order)
        free = slope.flip(1).cumsum(1).flip(1) - slope  # of the values that go on after this stop
        reached = full + free * stop >= need  # what is gained when the k-th value stops
        k = reached.long().argmax(1, keepdim=True)
        before = torch.where(k > 0, full.gather(1, (k - 1).clamp_min(0)), 0)
        t = (need - before) / (free + slope).gather(1, k).clamp_min(1e-300)
        t = torch.where(reached.any(1, keepdim=True), t, torch.inf)
        move = torch.minimum(torch.nan_to_num(t * rate, posinf=1.0), room)
    return (torch.minimum(move, room) * w.sign()).view_as(points).to(points.dtype)


@dataclass(frozen=True)
class FABT(MinimumAttack):
    """Fast adaptive boundary attack on the likeliest wrong classes one after another (Croce and Hein 2020,
    arXiv:1907.02044, algorithm 1; targets: arXiv:2003.01690, section 4.2); linf, l2, l1.

    Each step goes to where a linear model has its boundary between the label and the target, leaning towards the clean
    image; adversarial points are pulled back. classes: how many targets, by the logits of the clean image. Any wrong
    answer counts. The first try of a target starts at the clean image, restarts at random within eps / 2.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> FABT(norm="l2", steps=10).run(model, x, y).success.shape
    torch.Size([4])
    """

    aims = True
    norms = BUDGET_NORMS

    steps: int = 100
    loss: str = "margin"
    classes: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targeted:
            raise UserError("fab-t chooses its own targets; for a targeted threat use fmn.")
        if self.classes < 1:
            raise UserError(f"fab-t needs classes of at least 1, got {self.classes}.")

    @property
    def queries(self) -> int:
        return 2 * self.steps  # after an adversarial point, the point pulled back is asked for as well

    @property
    def looks(self) -> int:
        return super().looks * self.classes

    def ranks(self, y: Tensor, targets: Tensor | None, clean_logits: Tensor | None) -> Tensor:
        return likeliest(y, clean_logits, self.classes).repeat_interleave(self.restarts, dim=1)

    def start(self, rows: Rows, draw: Draw) -> State:
        query, again = rows.x.clone(), (rows.rank % self.restarts) > 0
        if bool(again.any()):
            reach = self.eps / 2 if self.eps < torch.inf else {"linf": 0.15, "l2": 0.5, "l1": 2.5}[self.norm]
            query = torch.where(
                column(again, query), random_start(query, self.norm, reach, draw.keys(rows, "start")), query
            )
        return {"query": query, "taken": torch.zeros_like(rows.y), "pulled": torch.zeros_like(rows.y, dtype=torch.bool)}

    def objective(self, logits: Tensor, rows: Rows, state: State) -> Tensor:
        return chosen(logits, rows.target) - chosen(logits, rows.y)

    def done(self, rows: Rows, state: State) -> Tensor:
        return state["taken"] >= self.steps

    def tell(self, rows: Rows, state: State, seen: Seen, draw: Draw) -> State:
        g, x = seen.gradient, state["query"]
        assert g is not None
        both = to_boundary(torch.cat([x, rows.x]), torch.cat([g, g]), self._gaps(seen.loss, g, x, rows.x), self.norm)
        here, home = both.chunk(2)
        sizes = distance(both, self.norm).clamp_min(1e-8).to(x.dtype)
        a, b = sizes.chunk(2)
        lean = column((a / (a + b)).clamp(max=NEAREST), x)
        moved = ((x + OVERSHOOT * here) * (1 - lean) + (rows.x + OVERSHOOT * home) * lean).clamp_(0, 1)
        pull = seen.hit & ~state["pulled"]
        query = torch.where(column(pull, x), rows.x + BACK * (x - rows.x), moved)
        return {"query": query, "taken": state["taken"] + (~pull).long(), "pulled": pull}

    @staticmethod
    def _gaps(loss: Tensor, g: Tensor, x: Tensor, clean: Tensor) -> Tensor:
        """What the linear model of the margin lacks to zero at x and, by the same plane, at the clean image."""
        there = loss.double() + (g * (clean - x)).flatten(1).double().sum(1)
        return torch.cat([-loss.double(), -there])
