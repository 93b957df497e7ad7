"""Short tries: many fresh starts, few steps each."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor

from robustlab.attacks.allocation import allot
from robustlab.attacks.base import Outcome
from robustlab.attacks.pgd import ball
from robustlab.attacks.row_attack import RowAttack
from robustlab.attacks.rows import Draw, Observation, Rows, State
from robustlab.base.errors import UserError
from robustlab.oracle import Oracle
from robustlab.threat.geometry import column, project, random_start, steepest


@dataclass(frozen=True)
class ShortTries(RowAttack):
    """Many short runs of PGD on the margin, each from a fresh start, with a step that falls from eps along a cosine.

    As in A3 (Liu et al. 2022, arXiv:2203.05154) tries are short, and the effort goes where there is hope: after each
    try only the `share` of the samples with the largest margins so far goes on; see `robustlab.attacks.allocation`.
    The first try starts at the clean image. steps: gradient queries a try. restarts: tries. share: 1 tries all samples
    in full. The constants were searched by benchmarks/short_tries.py. In l1 the attack is weak: take APGD there.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> ShortTries(eps="8/255", steps=8)(model, torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4, 3, 2, 2])
    """

    steps: int = 32
    restarts: int = 13
    loss: str = "margin"
    share: float = 0.7

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.share <= 1:
            raise UserError(f"short-tries needs share, of the samples that go on, above 0 and at most 1; got {self.share}.")

    def start(self, rows: Rows, draw: Draw) -> State:
        start = random_start(rows.x, self.norm, self.eps, draw.keys(rows, "start"))
        query = torch.where(column(rows.rank == 0, start), rows.x, start)
        return {"query": query, **ball(rows, self.norm, self.eps)}

    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        assert seen.gradient is not None
        size = self.eps * (1 + torch.cos(math.pi * rows.age / self.steps)) / 2
        moved = steepest(seen.gradient, state["query"], self.norm, 1.0) * column(size, rows.x) + state["query"]
        inside = (
            torch.clamp(moved, state["low"], state["high"])
            if self.norm == "linf"
            else project(moved, rows.x, self.norm, self.eps)
        )
        return {**state, "query": inside}

    def attempt(
        self, oracle: Oracle, x: Tensor, y: Tensor, ids: Tensor, targets: Tensor | None, crafting: bool, **how: Any
    ) -> Outcome:
        """All tries of all samples, or where that can be told apart, of those with hope only."""
        whole = crafting or not self.stop_at_success or oracle.query_budget is not None
        if whole or self.share == 1:
            return super().attempt(oracle, x, y, ids, targets, crafting, **how)

        def tries(at: Tensor, first: int, count: int, **also: Any) -> Outcome:
            some = _Some(**{**vars(self), "share": 1.0, "restarts": count, "first": first})
            return some.attempt(oracle, x[at], y[at], ids[at], None if targets is None else targets[at], False, **also)

        return allot(tries, ids, self.restarts, self.share, self.steps, **how)


@dataclass(frozen=True)
class _Some(ShortTries):
    """Some of the tries: those from number `first` on."""

    first: int = 0

    def start(self, rows: Rows, draw: Draw) -> State:
        return super().start(replace(rows, rank=rows.rank + self.first), draw)
