"""The fast adaptive boundary attack, towards chosen classes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.attacks.losses import chosen
from robustlab.attacks.row_attack import MinimumAttack, likeliest
from robustlab.attacks.rows import Draw, Observation, Rows, State
from robustlab.base.errors import UserError
from robustlab.threat.geometry import column, distance, random_start
from robustlab.threat.model import BUDGET_NORMS

NEAREST = 0.1  # at most this share of a step comes from the projection of the clean image
OVERSHOOT = 1.05
BACK = 0.9  # an adversarial point is pulled towards the clean image by this factor


def to_boundary(points: Tensor, normal: Tensor, gap: Tensor, norm: str) -> Tensor:
    """The smallest moves that stay in the box [0, 1] and change normal . points by gap; (B, ...).

    normal may have fewer rows, if it is the same for the first and second half of the points, and so on.
    Croce and Hein 2020, arXiv:1907.02044, eq. 4. linf: all values move by t, or as far as they can.
    l2: by t |normal_i|, or as far as they can. l1: those with the largest |normal_i| go all the way, one after another.
    Where the box does not allow the change, everything moves as far as it goes.
    """
    w, x = normal.flatten(1), points.flatten(1)
    # scaled by the largest value, so that squares of small gradients do not underflow
    a = w.abs()
    scale = a.amax(1, keepdim=True).clamp_min(1e-37)
    a, times = a / scale, (len(x) // max(1, len(w)), 1)
    order = a.argsort(dim=1, descending=True).repeat(times) if norm == "l1" else None
    a, scale = a.repeat(times), scale.repeat(times)
    w = w.repeat(times) * gap.sign().to(w.dtype)[:, None]
    need = (gap.abs()[:, None] / scale).to(w.dtype)
    room = torch.where(w > 0, 1 - x, x).mul_(w != 0)
    move = _together(a, room, need, norm) if order is None else _largest_first(a, room, need, order)
    return (move * w.sign()).view_as(points)


def _largest_first(a: Tensor, room: Tensor, need: Tensor, order: Tensor) -> Tensor:
    gain = (a * room).gather(1, order)
    left = (need - (gain.cumsum(1) - gain)).clamp_min(0).minimum(gain)
    move = torch.zeros_like(a).scatter_(1, order, left / a.gather(1, order).clamp_min(1e-37))
    return torch.minimum(move, room)


def _together(a: Tensor, room: Tensor, need: Tensor, norm: str) -> Tensor:
    """min(t rate_i, room_i), with the t at which the gain, the sum of a_i times that, is what is needed.

    The gain is concave and piecewise linear in t. Newton's steps from t = 0 therefore never pass the solution, and end
    at it as soon as the same values have reached the box twice: after a few steps, where sorting would need all values.
    """
    rate = torch.ones_like(a) if norm == "linf" else a
    full, slope = a * room, a * rate
    free, t = torch.ones_like(a, dtype=torch.bool), torch.zeros_like(need)
    while True:
        rest = need - (full * ~free).sum(1, keepdim=True)
        most = rest / (slope * free).sum(1, keepdim=True).clamp_min(1e-37)
        t = torch.maximum(t, most.clamp_max(1e38))  # finite, for the values that must not move (a rate of 0)
        still = free & (t * rate < room)
        if torch.equal(still, free):
            return torch.minimum(t * rate, room)
        free = still


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
        return 2 * self.steps  # an adversarial point, and the point pulled back from it

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
        no = torch.zeros_like(rows.y, dtype=torch.bool)
        return {
            "query": query,
            "taken": torch.zeros_like(rows.y),
            "pulled": no,  # the query has been pulled back from an adversarial point
            "judged": no.clone(),  # of the query only the answer is wanted, not the gradient
            "moved": torch.stack([no, no], 1),  # it was reached by a step from a point not pulled back, or pulled back
            "crossed": torch.zeros(len(no), 2, dtype=torch.long, device=no.device),  # how many such in a row crossed
        }

    def objective(self, logits: Tensor, rows: Rows, state: State) -> Tensor:
        return chosen(logits, rows.target) - chosen(logits, rows.y)

    def done(self, rows: Rows, state: State) -> Tensor:
        return state["taken"] >= self.steps

    def judged(self, rows: Rows, state: State) -> Tensor:
        return state["judged"]

    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        assert seen.gradient is not None
        pull = seen.adversarial & ~state["pulled"]
        move = ~pull & ~state["judged"]
        x, at = state["query"], move.nonzero()[:, 0]
        query = torch.where(column(pull, x), rows.x + BACK * (x - rows.x), x)
        query[at] = self._step(x[at], rows.x[at], seen.gradient[at], seen.loss[at])
        taken = state["taken"] + move.long()
        # no gradient is needed where a row ends, nor at a point from which it is pulled back; that is likely where the
        # last two steps of this kind have crossed the boundary (where this one then does not, the row asks again)
        run = (state["crossed"] + 1) * seen.adversarial[:, None]
        crossed = torch.where(state["moved"], run, state["crossed"])
        moved = torch.stack([~state["pulled"], state["pulled"]], 1) & move[:, None]
        judged = (moved & (crossed >= 2)).any(1) | move & (taken >= self.steps)
        return {"query": query, "taken": taken, "pulled": pull, "judged": judged, "moved": moved, "crossed": crossed}

    def _step(self, x: Tensor, clean: Tensor, g: Tensor, loss: Tensor) -> Tensor:
        """To where the linear model of the margin at x has its boundary, as seen from x and from the clean image."""
        there = loss.double() + (g * (clean - x)).flatten(1).double().sum(1)
        both = to_boundary(torch.cat([x, clean]), g, torch.cat([-loss.double(), -there]), self.norm)
        here, home = both.chunk(2)
        a, b = distance(both, self.norm).clamp_min(1e-8).to(x.dtype).chunk(2)
        lean = column((a / (a + b)).clamp(max=NEAREST), x)
        return ((x + OVERSHOOT * here) * (1 - lean) + (clean + OVERSHOOT * home) * lean).clamp_(0, 1)
