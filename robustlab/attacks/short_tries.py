"""Short tries: many fresh starts, few steps each."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, ClassVar

import torch
from torch import Tensor

from robustlab.attacks.allocation import allot, on_part
from robustlab.attacks.apgd import APGD, APGDT
from robustlab.attacks.base import Outcome
from robustlab.attacks.pgd import ball, inside
from robustlab.attacks.row_attack import RowAttack
from robustlab.attacks.rows import Draw, Observation, Rows, State, Watch
from robustlab.base.draws import uniform
from robustlab.base.errors import UserError
from robustlab.oracle import Oracle
from robustlab.threat.geometry import column, random_start, steepest

AWAY = (-0.8, 0.1)  # the label's weight in a drift is drawn from here
TOWARDS = 0.8  # the weight of the try's class; those of the others are drawn from -1 to 1


@dataclass(frozen=True)
class ShortTries(RowAttack):
    """Many short runs of PGD on the margin, each with a start of its own, and with steps that fall along a cosine.

    After A3 (Liu et al. 2022, arXiv:2203.05154): a try starts at a random point, drifts for some steps of length eps
    along random weights of the logits that lean towards one of the likeliest wrong classes, another each time, and then
    raises the margin, with steps from eps down to 0. The first try starts at the clean image and does not drift.
    After each try only the `share` of the samples with the largest margins goes on; see `robustlab.attacks.allocation`.
    Of what is left in the end the nearest, a share of `finish`, take APGD-T in full: a few fall to long tries only.

    steps: gradient queries a try, `drift` of them for the drift. restarts: tries. share: 1 tries all samples in full.
    The constants were found by benchmarks/short_tries.py. In l1 the attack is weak: take APGD there.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> ShortTries(eps="8/255", steps=8)(model, torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4, 3, 2, 2])
    """

    steps: int = 32
    restarts: int = 9
    loss: str = "margin"
    drift: int = 7
    classes: int = 9
    share: float = 0.85
    finish: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        self._at_least_one("classes")
        if not 0 <= self.drift:
            raise UserError(f"short-tries needs drift, steps, of at least 0; got {self.drift}.")
        if not 0 < self.share <= 1:
            raise UserError(
                f"short-tries needs share, of the samples that go on, above 0 and at most 1; got {self.share}."
            )
        if not 0 <= self.finish <= 1:
            raise UserError(f"short-tries needs finish, a share of what is left, from 0 to 1; got {self.finish}.")

    @property
    def looks(self) -> int:
        return super().looks + (self._long.looks if self.finish else 0)

    @property
    def likely_looks(self) -> float:
        tries = self.steps * sum(self.share**k for k in range(self.restarts))
        return tries * self.eot + self.finish * self._long.looks

    @property
    def _long(self) -> APGD:
        """What the nearest take in the end."""
        if self.targeted:
            return APGD(self.norm, self.eps, targeted=True, loss="dlr", eot=self.eot)
        return APGDT(self.norm, self.eps, classes=self.classes, eot=self.eot)

    _first: ClassVar[int] = 0  # the number of the first try, where an instance takes some of them only

    def number(self, rows: Rows) -> Tensor:
        """(B,): which of the tries it is."""
        return rows.rank + self._first

    def start(self, rows: Rows, draw: Draw) -> State:
        number = self.number(rows)
        keyed = replace(rows, rank=number)
        start = random_start(rows.x, self.norm, self.eps, draw.keys(keyed, "start"))
        return {
            "query": torch.where(column(number == 0, start), rows.x, start),
            "number": number,
            "key": draw.keys(keyed, "drift"),
            "class": rows.target.clone(),  # that of the drift; -1: not chosen yet
            **ball(rows, self.norm, self.eps),
        }

    def objective(self, logits: Tensor, rows: Rows, state: State) -> Tensor:
        key, chosen = state["key"], self._class(logits, rows, state)[:, None]
        low, high = AWAY
        weights = 2 * uniform(key, logits.shape[1:]) - 1
        weights.scatter_(1, rows.y[:, None], low + (high - low) * uniform(key ^ 1, (1,)))
        weights.scatter_(1, chosen, TOWARDS)
        drifts = (rows.age < min(self.drift, self.steps - 1)) & (state["number"] > 0)
        return torch.where(drifts, (logits * weights).sum(1), super().objective(logits, rows, state))

    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        assert seen.gradient is not None
        first = torch.where(state["number"] > 0, min(self.drift, self.steps - 1), 0)
        along = math.pi * (rows.age - first).clamp(min=0) / (self.steps - first)
        size = column(self.eps * (1 + torch.cos(along)) / 2, rows.x)
        moved = steepest(seen.gradient, state["query"], self.norm, 1.0) * size + state["query"]
        query = inside(rows, state, moved, self.norm, self.eps)
        return {**state, "query": query, "class": self._class(seen.logits, rows, state)}

    def _class(self, logits: Tensor, rows: Rows, state: State) -> Tensor:
        """(B,): the class of the drift: by these logits the first, second ... likeliest wrong one, by turns."""
        order = logits.scatter(1, rows.y[:, None], -torch.inf).argsort(dim=1, descending=True, stable=True)
        place = (state["number"] - 1).clamp(min=0) % min(self.classes, max(1, logits.shape[1] - 1))
        return torch.where(state["class"] < 0, order.gather(1, place[:, None])[:, 0], state["class"])

    def _told(self, watching: Sequence[Watch], rows: Rows, seen: Observation) -> None:
        """Who watches is told the loss that the tries climb, also where they drift."""
        seen = seen._replace(loss=super().objective(seen.logits, rows, {}))
        for watch in watching:
            watch(rows, seen)

    def attempt(
        self, oracle: Oracle, x: Tensor, y: Tensor, ids: Tensor, targets: Tensor | None, crafting: bool, **how: Any
    ) -> Outcome:
        """All tries of all samples, or where samples may be told apart, those with hope."""
        apart = self.stop_at_success and oracle.query_budget is None and (self.share < 1 or self.finish > 0)
        watching = how.pop("watch", None)
        if crafting or not apart:
            told = None if watching is None else partial(self._told, (watching,))
            return super().attempt(oracle, x, y, ids, targets, crafting, watch=told, **how)

        def tries(at: Tensor, first: int, count: int, watch: Watch) -> Outcome:
            both = partial(self._told, (watch,) if watching is None else (watch, watching))

            some = replace(self, restarts=count)
            object.__setattr__(some, "_first", first)
            return on_part(partial(RowAttack.attempt, some), at, oracle, x, y, ids, targets, first, watch=both, **how)

        def long(at: Tensor) -> Outcome:
            return on_part(self._long.attempt, at, oracle, x, y, ids, targets, **how)

        with torch.inference_mode(False):
            return allot(tries, long, ids, self.restarts, self.share, self.finish, self.steps, how["seed"])


@dataclass(frozen=True, eq=False)
class OneTry(ShortTries):
    """A single try, from given points. points: (n, C, H, W), one for each sample of the call, moved into the ball.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> x = torch.rand(4, 3, 2, 2)
    >>> OneTry(eps="8/255", steps=8, points=x + 0.1)(model, x, torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4, 3, 2, 2])
    """

    restarts: int = 1
    share: float = 1.0
    points: Tensor | None = None

    def start(self, rows: Rows, draw: Draw) -> State:
        state = super().start(rows, draw)
        if self.points is None:
            return state
        return {**state, "query": inside(rows, state, self.points[rows.pos], self.norm, self.eps)}
