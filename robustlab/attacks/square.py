"""The Square attack: random search with scores alone."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from robustlab.attacks.allocation import on_part
from robustlab.attacks.base import Outcome
from robustlab.attacks.row_attack import SearchAttack
from robustlab.attacks.rows import Draw, Observation, Rows, State
from robustlab.base.draws import uniform
from robustlab.base.errors import UserError
from robustlab.oracle import Oracle
from robustlab.threat.geometry import column, project

HALVINGS = (10, 50, 200, 500, 1000, 2000, 4000, 6000, 8000)  # the iterations after which the share p of pixels halves
TRIES = 8  # draws of signs for a proposal; the first that changes something is taken


def sides(steps: int, p: float, rescale: bool, height: int, width: int, odd: bool) -> tuple[int, ...]:
    """The side of the square at each iteration: root of p times the pixels, p halving at fixed iterations.

    rescale: the iterations are those of 10,000 steps, scaled to `steps`. odd: odd and at least 3 (l2, l1).

    >>> [sides(10000, 0.8, False, 32, 32, False)[i] for i in (0, 10, 11, 9000)]
    [29, 29, 20, 1]
    """
    found = []
    for i in range(steps + 1):
        at = int(i / steps * 10000) if rescale else i
        side = round(math.sqrt(p / 2 ** sum(at > h for h in HALVINGS) * height * width))
        side = max(side, 3) | 1 if odd else max(side, 1)
        found.append(min(side, height, width))
    return tuple(found)


@lru_cache(maxsize=32)
def _table(steps: int, p: float, rescale: bool, height: int, width: int, odd: bool, device: torch.device) -> Tensor:
    return torch.tensor(sides(steps, p, rescale, height, width, odd), device=device)


@lru_cache(maxsize=64)
def bump(side: int, p: int) -> Tensor:
    """(side, side): two opposite pyramids one above the other, of p-norm 1 (2020, section 3.3; l1 alike)."""

    def pyramid(height: int, width: int) -> Tensor:
        rings = torch.zeros(height, width)
        top, left = height // 2, width // 2
        for ring in range(max(top, left) + 1):
            rows = slice(max(top - ring, 0), min(top + ring + 1, height))
            rings[rows, max(left - ring, 0) : min(left + ring + 1, width)] += 1 / (ring + 1) ** 2
        return _unit(rings, p)

    upper = side // 2
    return _unit(torch.cat([pyramid(upper, side), -pyramid(side - upper, side)]) if upper else pyramid(1, side), p)


def _unit(shape: Tensor, p: int) -> Tensor:
    return shape / (shape.abs() ** p).sum().clamp_min(1e-12) ** (1 / p)


@dataclass(frozen=True)
class Square(SearchAttack):
    """Square attack (Andriushchenko et al. 2020, arXiv:1912.00049, algorithms 1 to 3; l1: arXiv:2103.01208, section 4).

    Score-based random search: squares of +-eps (linf), or of moved mass (l2, l1), kept where the margin falls. Every
    sample has its own squares. steps: queries after the first. p: share of the pixels in the first squares.
    rescale: scale the schedule of 10,000 steps to `steps` (AutoAttack does not). Queries that would change nothing are
    not sent. probe: end all samples after so many queries, unless one of them has succeeded by then; 0: never. Behind
    attacks with gradients there is seldom anything left to find, unless the gradients mislead; then it is found early.

    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> Square(eps=0.1, steps=20)(model, torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4, 3, 2, 2])
    """

    steps: int = 5000
    loss: str = "margin"
    p: float = 0.8
    rescale: bool = False
    probe: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0 < self.p <= 1:
            raise UserError(f"Square needs p, a share of the pixels, above 0 and at most 1; got {self.p}.")
        if not 0 <= self.probe <= self.steps:
            raise UserError(f"Square needs probe, queries, from 0 to its steps ({self.steps}); got {self.probe}.")

    @property
    def likely_looks(self) -> float:
        return self.probe or self.looks

    def start(self, rows: Rows, draw: Draw) -> State:
        n, c, h, w = rows.x.shape
        key = draw.keys(rows, "start")
        if self.norm == "linf":  # vertical stripes
            query = (rows.x + self.eps * _signs(key, (c, 1, w))).clamp_(0, 1)
        else:  # a grid of bumps
            side = max(min(h, w) // 5, 1)
            tile = bump(side, self._p).to(rows.x.device).repeat(h // side, w // side)
            signs = _signs(key, (c, h // side, w // side)).repeat_interleave(side, 2).repeat_interleave(side, 3)
            delta = torch.zeros_like(rows.x)
            delta[:, :, : tile.shape[0], : tile.shape[1]] = tile * signs
            query = self._full(rows, delta)
        return {"query": query, "best": query.clone(), "top": torch.full((n,), -torch.inf, device=rows.x.device)}

    def tell(self, rows: Rows, state: State, seen: Observation, draw: Draw) -> State:
        better = seen.loss > state["top"]
        best = torch.where(column(better, rows.x), state["query"], state["best"])
        state = {"best": best, "top": torch.where(better, seen.loss, state["top"])}
        return {"query": self.propose(rows, state, draw), **state}

    def idle(self, state: State, loss: Tensor) -> Tensor:
        return loss <= state["top"]

    def propose(self, rows: Rows, state: State, draw: Draw) -> Tensor:
        change = self._linf if self.norm == "linf" else self._moved
        return change(rows, state["best"], draw.keys(rows, "square"))

    def done(self, rows: Rows, state: State) -> Tensor | None:
        return rows.age >= self.probe if self.probe else None

    def attempt(
        self, oracle: Oracle, x: Tensor, y: Tensor, ids: Tensor, targets: Tensor | None, crafting: bool, **how: Any
    ) -> Outcome:
        """With a probe: its queries on all samples, then all queries on all that are left if it found something."""
        if self.probe and (crafting or not self.stop_at_success or oracle.query_budget is not None):
            return replace(self, probe=0).attempt(oracle, x, y, ids, targets, crafting, **how)
        found = super().attempt(oracle, x, y, ids, targets, crafting, **how)
        if self.probe and bool(found.success.any()):
            at = (~(found.success | found.invalid)).nonzero()[:, 0]
            found.put(at, on_part(replace(self, probe=0).attempt, at, oracle, x, y, ids, targets, **how))
        return found

    def crafted(self, state: State) -> Tensor:
        return state["best"]

    @property
    def _p(self) -> int:
        return 1 if self.norm == "l1" else 2

    def _linf(self, rows: Rows, best: Tensor, key: Tensor) -> Tensor:
        """A square in which every channel is eps above or below the clean image."""
        n, c, h, w = best.shape
        square, _, _ = self._window(rows, best, key, odd=False)
        low, high = (rows.x - self.eps).clamp_(0, 1), (rows.x + self.eps).clamp_(0, 1)
        changes = [((side != best) & square).flatten(2).any(2) for side in (low, high)]  # (n, c): would it do anything?
        up = uniform(key ^ 2, (TRIES, c)) < 0.5
        useful = torch.where(up, changes[1][:, None], changes[0][:, None]).any(2)
        up = up[torch.arange(n, device=up.device), useful.long().argmax(1)]
        up = torch.where(useful.any(1, keepdim=True), up, ~up)
        return torch.where(square, torch.where(up[:, :, None, None], high, low), best)

    def _moved(self, rows: Rows, best: Tensor, key: Tensor) -> Tensor:
        """The mass of a second square, and what the box has cut off, is moved to a first one as a bump."""
        n, c, h, w = best.shape
        delta = best - rows.x
        first, place, side = self._window(rows, best, key, odd=True)
        second, _, _ = self._window(rows, best, key ^ 4, odd=True)
        size = delta.abs() ** self._p
        spare = (self.eps**self._p - size.flatten(1).sum(1)).clamp_min(0) / c
        room = ((size * (first | second)).sum((2, 3)) + spare[:, None]) ** (1 / self._p)
        bumps = torch.zeros(n, h, w, device=best.device)
        for s in side.unique().tolist():
            own = (side == s).nonzero()[:, 0]
            i = (torch.arange(h, device=best.device) - place[own, 0, None]).clamp(0, s - 1)
            j = (torch.arange(w, device=best.device) - place[own, 1, None]).clamp(0, s - 1)
            turned = uniform(key[own] ^ 5, (1,)) < 0.5
            across, along = i[:, :, None].expand(-1, -1, w), j[:, None, :].expand(-1, h, -1)
            shape = bump(s, self._p).to(best.device)
            bumps[own] = torch.where(turned[:, :, None], shape[along, across], shape[across, along])
        old = delta * first
        norm = (old.abs() ** self._p).sum((2, 3), keepdim=True) ** (1 / self._p)
        new = (bumps[:, None] * _signs(key ^ 6, (c, 1, 1)) + old / norm.clamp_min(1e-12)) * first
        norm = (new.abs() ** self._p).sum((2, 3), keepdim=True) ** (1 / self._p)
        new = new / norm.clamp_min(1e-12) * room[:, :, None, None]
        return self._full(rows, torch.where(first, new, delta * ~second))

    def _full(self, rows: Rows, delta: Tensor) -> Tensor:
        """delta brought to the length eps, then into the box."""
        length = (delta.abs() ** self._p).flatten(1).sum(1) ** (1 / self._p)
        points = rows.x + delta * column(self.eps / length.clamp_min(1e-12), delta)
        return project(points.clamp_(0, 1), rows.x, self.norm, self.eps)

    def _window(self, rows: Rows, best: Tensor, key: Tensor, odd: bool) -> tuple[Tensor, Tensor, Tensor]:
        """Where each row's square lies: (n, 1, h, w) bool, its upper left corner (n, 2), its side (n,)."""
        h, w = best.shape[2:]
        side = _table(self.steps, self.p, self.rescale, h, w, odd, best.device)[rows.age]
        free = torch.stack([h - side, w - side], 1) + 1
        place = (uniform(key, (2,)) * free).long()
        i, j = torch.arange(h, device=best.device), torch.arange(w, device=best.device)
        inside = [(at >= place[:, k, None]) & (at < (place[:, k] + side)[:, None]) for k, at in enumerate((i, j))]
        return inside[0][:, None, :, None] & inside[1][:, None, None, :], place, side


def _signs(key: Tensor, shape: tuple[int, ...]) -> Tensor:
    return torch.where(uniform(key, shape) < 0.5, -1.0, 1.0)
