"""Auto-PGD: projected gradient descent that sets its own step sizes."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor

from robustlab.attacks.pgd import ball, inside
from robustlab.attacks.row_attack import RowAttack, likeliest
from robustlab.attacks.rows import Draw, Observation, Rows, State
from robustlab.base.errors import UserError
from robustlab.threat.geometry import column, distance, project, random_start, steepest

MOMENTUM = 0.25  # weight of the last move; none on the first step
RISES = 0.75  # share of the steps since the last check on which the loss has to have risen
SPARSER = 1.5  # l1: a step touches the fraction 1 / SPARSER of the values that the best point has changed
FINEST = 10.0  # l1: the smallest step is eps / FINEST


class Schedule(NamedTuple):
    """What happens at each age, (steps + 1,) each: is it the first point of a phase, the last one; how many steps lie
    since the last check if there is one now (else 0); the radius of the phase, in eps."""

    first: Tensor
    final: Tensor
    check: Tensor
    radius: Tensor


@lru_cache(maxsize=32)
def schedule(steps: int, norm: str, device: torch.device) -> Schedule:
    """linf, l2: one phase; checks after 22 % of the steps, then every 3 % sooner down to 6 % (2020, section 3.1).

    l1: three phases of 30, 30 and 40 % of the steps in balls of 3, 2 and 1 eps (2021, section 3.2), with a
    check after every 4 % of each.

    >>> schedule(100, "linf", torch.device("cpu")).check.nonzero()[:, 0].tolist()
    [22, 41, 57, 70, 80, 87, 93, 99]
    """
    few = 0 if steps < 10 else math.ceil(0.3 * steps)  # too few steps for phases: only the last one
    phases = [(few, 3.0), (few, 2.0), (steps + 1 - 2 * few, 1.0)] if norm == "l1" else [(steps + 1, 1.0)]
    first, final, check, radius = [], [], [], []
    for length, factor in phases:
        every = max(int(0.04 * length), 1) if norm == "l1" else max(int(0.22 * steps), 1)
        since = 0
        for i in range(length):
            due = i > 0 and since == every
            first.append(i == 0)
            final.append(i == length - 1)
            check.append(every if due else 0)
            radius.append(factor)
            if due and norm != "l1":
                every = max(every - max(int(0.03 * steps), 1), max(int(0.06 * steps), 1))
            since = 1 if due or i == 0 else since + 1
    return Schedule(*(torch.tensor(table, device=device) for table in (first, final, check, radius)))


@dataclass(frozen=True)
class APGD(RowAttack):
    """Auto-PGD (Croce and Hein 2020, arXiv:2003.01690, algorithm 1; l1: Croce and Hein 2021, arXiv:2103.01208).

    linf, l2: steps of 2 eps with momentum, halved for a sample whose loss rises too seldom or not at all, which then
    goes on from its best point. l1: sparse steps, in balls that shrink to eps. loss: ce, dlr or margin.
    The first check compares with the loss of the starting point; reference code compares with 0 there.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> APGD(eps="8/255", steps=10)(model, torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4, 3, 2, 2])
    """

    steps: int = 100

    def start(self, rows: Rows, draw: Draw) -> State:
        radius = schedule(self.steps, self.norm, rows.x.device).radius[0].item()
        query = random_start(rows.x, self.norm, self.eps * radius, draw.keys(rows, "start"))
        nothing = torch.full(rows.y.shape, -torch.inf, device=rows.x.device)
        return {
            "query": query,
            "previous": query.clone(),
            "best": query.clone(),
            "slope": torch.zeros_like(query),  # the gradient at the best point
            "top": nothing,  # its loss
            "last": nothing.clone(),
            "checked": nothing.clone(),  # the best loss at the last check
            "rises": torch.zeros_like(rows.y),
            "halved": torch.ones_like(rows.y, dtype=torch.bool),
            "size": torch.zeros_like(nothing),
            "changed": torch.zeros_like(nothing),  # l1: how many values the best point differed in at the last check
            **ball(rows, self.norm, self.eps),
        }

    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        assert seen.gradient is not None
        plan = schedule(self.steps, self.norm, rows.x.device)
        first, check = plan.first[rows.age], plan.check[rows.age]
        better = first | (seen.loss > state["top"])
        wide = column(better, rows.x)
        state = {
            **state,
            "top": torch.where(better, seen.loss, state["top"]),
            "best": torch.where(wide, state["query"], state["best"]),
            "slope": torch.where(wide, seen.gradient, state["slope"]),
            "rises": torch.where(first, 0, state["rises"] + (seen.loss > state["last"])),
            "last": seen.loss,
        }
        if self.norm == "l1":
            return self._sparse(rows, state, seen.gradient, plan)
        stalled = ~state["halved"] & (state["checked"] >= state["top"])
        stuck = (check > 0) & ((state["rises"] <= RISES * check) | stalled)
        size = torch.where(first, 2 * self.eps, torch.where(stuck, state["size"] / 2, state["size"]))
        x = torch.where(column(stuck, rows.x), state["best"], state["query"])
        gradient = torch.where(column(stuck, rows.x), state["slope"], seen.gradient)
        last_move = torch.where(column(first, x), torch.zeros_like(x), x - state["previous"])
        weight = column(torch.where(first, 0.0, MOMENTUM), x)
        moved = inside(rows, state, x + steepest(gradient, x, self.norm, 1.0) * column(size, x), self.norm, self.eps)
        moved = inside(rows, state, x + (1 - weight) * (moved - x) + weight * last_move, self.norm, self.eps)
        return {
            **state,
            "query": moved,
            "previous": x,
            "size": size,
            "halved": torch.where(check > 0, stuck, first | state["halved"]),
            "checked": torch.where(first | (check > 0), state["top"], state["checked"]),
            "rises": torch.where(check > 0, 0, state["rises"]),
        }

    def crafted(self, state: State) -> Tensor:
        return state["best"]

    def _sparse(self, rows: Rows, state: State, gradient: Tensor, plan: Schedule) -> State:
        """The l1 step: equal moves of the values with the largest gradients, as many as the best point has use for."""
        values = rows.x[0].numel()
        first, due = plan.first[rows.age], plan.check[rows.age] > 0
        radius = self.eps * plan.radius[rows.age]
        changed = distance(state["best"] - rows.x, "l0").to(gradient.dtype)
        sparser = due & (changed < 0.95 * state["changed"])
        shrunk = (state["size"] / SPARSER).clamp(min=radius / FINEST).minimum(radius)
        size = torch.where(first | sparser, radius, torch.where(due, shrunk, state["size"]))
        changed = torch.where(first | due, changed, state["changed"])
        x = torch.where(column(sparser, rows.x), state["best"], state["query"])
        gradient = torch.where(column(sparser, rows.x), state["slope"], gradient)

        rank = ((1 - changed / values / SPARSER) * values).long().clamp(0, values - 1)
        strength = gradient.abs().flatten(1)
        floor = strength.sort(dim=1).values.gather(1, rank[:, None])
        sign = (gradient.flatten(1) * (strength >= floor)).sign()
        step = sign * (size / sign.abs().sum(1).clamp_min(1))[:, None]
        # the next phase starts at the best point of this one
        last = plan.final[rows.age]
        ahead = self.eps * plan.radius[(rows.age + 1).clamp(max=self.steps)]
        points = torch.where(column(last, x), state["best"], x + step.view_as(x))
        query = points
        for factor in plan.radius.unique().tolist():
            own = (ahead == self.eps * factor).nonzero()[:, 0]
            if len(own):
                query[own] = project(points[own], rows.x[own], "l1", self.eps * factor)
        return {**state, "query": query, "size": size, "changed": changed}


@dataclass(frozen=True)
class APGDT(APGD):
    """Auto-PGD on the targeted DLR loss, for the likeliest wrong classes one after another (2020, section 4.2).

    classes: how many, by the logits of the clean image, at most all others. Any wrong answer is a success.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 5))
    >>> APGDT(eps="8/255", steps=10)(model, torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4, 3, 2, 2])
    """

    aims = True

    loss: str = "dlr"
    classes: int = 9

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targeted:
            raise UserError("apgd-t chooses its own targets; for a targeted threat use apgd.")
        if self.classes < 1:
            raise UserError(f"apgd-t needs classes of at least 1, got {self.classes}.")

    @property
    def looks(self) -> int:
        return super().looks * self.classes

    def ranks(self, y: Tensor, targets: Tensor | None, clean_logits: Tensor | None) -> Tensor:
        return likeliest(y, clean_logits, self.classes).repeat_interleave(self.restarts, dim=1)
