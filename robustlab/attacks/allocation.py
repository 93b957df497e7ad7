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
from dataclasses import replace
from typing import Any, Protocol

import torch
from torch import Tensor

from robustlab.attacks.base import Allocation, Outcome
from robustlab.attacks.rows import Observation, Rows, Watch
from robustlab.base.draws import keys

FLOOR = 16  # with so many samples or fewer, all go on
CONTROLS = 1 / 16  # of those set aside
LEAST = 8  # controls


class Tries(Protocol):
    """`count` tries, from number `first` on, of the samples at `at`; how: as in `Attack.run`."""

    def __call__(self, at: Tensor, first: int, count: int, **how: Any) -> Outcome: ...


def allot(
    tries: Tries,
    ids: Tensor,
    total: int,
    share: float,
    steps: int,
    *,
    seed: int = 0,
    clean_logits: Tensor | None = None,
    watch: Watch | None = None,
    **how: Any,
) -> Outcome:
    """The outcome of `total` tries of each sample, or of as many as the share lets it take.

    ids: (n,) int64 keys of the draws. share: of the samples left, how many go on after a try. steps: of a try; its
    last point is not ranked, since the driver does not always tell its loss.
    """
    n, device = len(ids), ids.device
    top = torch.full((n,), -torch.inf, device=device)
    taken = torch.zeros(n, dtype=torch.long, device=device)
    control = torch.zeros(n, dtype=torch.bool, device=device)
    outcome = None

    def go(at: Tensor, first: int, count: int) -> Outcome:
        def note(rows: Rows, seen: Observation) -> None:
            moving = (rows.pos >= 0) & (rows.age < steps)
            top.scatter_reduce_(0, at[rows.pos[moving]], seen.loss[moving].float(), "amax")
            if watch is not None:
                pos = torch.where(rows.pos >= 0, at[rows.pos], -1)
                watch(replace(rows, pos=pos, rank=rows.rank + first), seen)

        logits = None if clean_logits is None else clean_logits[at]
        taken[at] = first + count
        return tries(at, first, count, seed=seed, clean_logits=logits, watch=note, **how)

    at, first = torch.arange(n, device=device), 0
    while first < total and (outcome is None or len(at)):
        hopeful = len(at) - int(control[at].sum())
        count = 1 if hopeful > FLOOR else total - first
        found = go(at, first, count)
        outcome = found if outcome is None else _joined(outcome, at, found, first)
        first += count
        at = at[~(found.success | found.invalid)]
        if first < total:
            at = _going(at, control, top, ids, share, seed)
    assert outcome is not None
    succeeded = int((control & outcome.success).sum())
    aside = (taken < total) & ~outcome.success & ~outcome.invalid
    for first in taken[aside].unique().tolist() if succeeded else ():
        at = (aside & (taken == first)).nonzero()[:, 0]
        outcome = _joined(outcome, at, go(at, first, total - first), first)
    outcome.allocation = Allocation(int(aside.sum()), int(control.sum()), succeeded)
    return outcome


def _going(at: Tensor, control: Tensor, top: Tensor, ids: Tensor, share: float, seed: int) -> Tensor:
    """The positions, of those at `at`, that go on: the hopeful and the controls; new controls are marked."""
    hopeful = at[~control[at]]
    count = max(FLOOR, math.ceil(share * len(hopeful)))
    hopeful = hopeful[keys(seed, ids[hopeful], "ranking").argsort()]  # where margins are equal
    hopeful = hopeful[top[hopeful].argsort(descending=True, stable=True)]
    aside = hopeful[count:]
    new = min(len(aside), max(math.ceil(CONTROLS * len(aside)), LEAST - int(control.sum())))
    control[aside[keys(seed, ids[aside], "controls").argsort()[:new]]] = True
    gone = aside[~control[aside]]
    return at[~torch.isin(at, gone)]


def _joined(total: Outcome, at: Tensor, found: Outcome, first: int) -> Outcome:
    """What later tries, from number `first` on, add to the samples at `at`."""
    total.images[at], total.success[at], total.target[at] = found.images, found.success, found.target
    total.rank[at] = torch.where(found.success, found.rank + first, -1)
    total.invalid[at] |= found.invalid
    total.forwards[at] += found.forwards
    total.backwards[at] += found.backwards
    total.refused += found.refused
    return total
