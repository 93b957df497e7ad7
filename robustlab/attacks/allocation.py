"""Which samples get another try: those with hope, and some others that show whether the rest had none.

After each try the samples that withstood it are ranked by the largest loss that a try has seen so far, and only a share
goes on. The rest is set aside, but for some of them, drawn at random: the *controls* take every try. If one of them
falls, the ranking was wrong, and all that was set aside takes its tries after all. If none falls, the interval of that
share says how many of the rest may have been missed.

All is decided between tries, on the samples of one call, from numbers that do not depend on how these were batched (up
to rounding). The cascade calls an attack chunk by chunk, so resume and the number of processes change nothing.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from robustlab.attacks.base import Allocation, Outcome
from robustlab.attacks.rows import Observation, Rows, Watch
from robustlab.base.draws import keys
from robustlab.oracle import Oracle

FLOOR = 16  # with so many samples or fewer, all go on
CONTROLS = 1 / 10  # of those set aside
LEAST = 8  # controls


class Tries(Protocol):
    """`count` tries, from number `first` on, of the samples at `at`; watch: as in `Attack.run`."""

    def __call__(self, at: Tensor, first: int, count: int, watch: Watch) -> Outcome: ...


def allot(
    tries: Tries,
    long: Callable[[Tensor], Outcome],
    ids: Tensor,
    total: int,
    share: float,
    finish: float,
    steps: int,
    seed: int,
) -> Outcome:
    """The outcome of `total` tries of each sample, or of as many as the share lets it take.

    long: what the nearest of those that are left take in the end, a share of `finish` of them.
    ids: (n,) int64 keys of the draws. share: of the samples left, those that go on after a try. steps: of a try; its
    last point is not ranked, since the driver does not always tell its loss.
    """
    n, device = len(ids), ids.device
    top = torch.full((n,), -torch.inf, device=device)
    taken = torch.zeros(n, dtype=torch.long, device=device)
    control = torch.zeros(n, dtype=torch.bool, device=device)

    def watch(rows: Rows, seen: Observation) -> None:
        moving = (rows.pos >= 0) & (rows.age < steps)
        loss = torch.where(moving, seen.loss.float(), -torch.inf)
        top.scatter_reduce_(0, rows.pos.clamp(min=0), loss, "amax")

    def go(at: Tensor, first: int, count: int) -> Outcome:
        taken[at] = first + count
        return tries(at, first, count, watch)

    at = torch.arange(n, device=device)
    outcome = go(at, 0, 1)
    first = 1
    while first < total:
        at = at[~(outcome.success | outcome.invalid)[at]]
        at = _going(at, control, top, ids, share, seed)
        if not len(at):
            break
        count = 1 if int((~control[at]).sum()) > FLOOR else total - first
        outcome.put(at, go(at, first, count), first)
        first += count
    succeeded = int((control & outcome.success).sum())
    aside = (taken < total) & ~outcome.success & ~outcome.invalid
    for first in taken[aside].unique().tolist() if succeeded else ():
        at = (aside & (taken == first)).nonzero()[:, 0]
        outcome.put(at, go(at, first, total - first), first)
    again = int(aside.sum()) if succeeded else 0
    left = (~(outcome.success | outcome.invalid)).nonzero()[:, 0]
    near = left[top[left].argsort(descending=True, stable=True)[: int(finish * len(left))]]
    if len(near):
        outcome.put(near, long(near), total)
        aside[near] = False
    outcome.allocation = Allocation(0 if succeeded else int(aside.sum()), int(control.sum()), succeeded, again)
    return outcome


def _going(at: Tensor, control: Tensor, top: Tensor, ids: Tensor, share: float, seed: int) -> Tensor:
    """The positions, of those at `at`, that go on: the hopeful and the controls; new controls are marked."""
    hopeful = at[~control[at]]
    hopeful = hopeful[keys(seed, ids[hopeful], "ranking").argsort()]  # decides where margins are equal
    hopeful = hopeful[top[hopeful].argsort(descending=True, stable=True)]
    aside = hopeful[max(FLOOR, math.ceil(share * len(hopeful))) :]
    new = min(len(aside), max(math.ceil(CONTROLS * len(aside)), LEAST - int(control.sum())))
    control[aside[keys(seed, ids[aside], "controls").argsort()[:new]]] = True
    return at[~torch.isin(at, aside[~control[aside]])]


def on_part(
    attempt: Callable[..., Outcome],
    at: Tensor,
    oracle: Oracle,
    x: Tensor,
    y: Tensor,
    ids: Tensor,
    targets: Tensor | None,
    first: int = 0,
    *,
    clean_logits: Tensor | None = None,
    watch: Watch | None = None,
    **how: Any,
) -> Outcome:
    """An attack's `attempt` on the samples at `at`.

    Whoever watches is told their places among all samples, and ranks from `first` on.
    """

    def told(rows: Rows, seen: Observation) -> None:
        assert watch is not None
        pos = torch.where(rows.pos >= 0, at[rows.pos], -1)
        watch(replace(rows, pos=pos, rank=rows.rank + first), seen)

    aims, logits = (None if each is None else each[at] for each in (targets, clean_logits))
    how |= {"clean_logits": logits, "watch": None if watch is None else told}
    return attempt(oracle, x[at], y[at], ids[at], aims, False, **how)
