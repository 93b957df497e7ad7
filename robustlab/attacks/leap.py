"""Several queries of a row in one forward pass, for attacks of which most queries change nothing."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from robustlab.attacks.rows import Draw, Foreseeable, Rows, State
from robustlab.oracle import Oracle


class Leapt(NamedTuple):
    """What a leap has shown of each row."""

    skipped: Tensor  # (B,): how many queries change nothing, from the first one on
    shown: Tensor  # (B,) bool: the query at which the row now stands was among those shown
    logits: Tensor  # (B, K): its logits, if so


class Leap:
    """Shows the model several of a row's next queries at once and skips those up to the first that matters.

    A step of a few rows costs nearly as much as one of many, and random search keeps most points as they are: what its
    next queries will be is then known. Looks further ahead while nothing happens, less far when something does. What
    lies behind the first query that matters was shown in vain: the oracle has counted it, nobody is charged for it.
    room: how many images are shown at once, at most.
    """

    def __init__(self, attack: Foreseeable, oracle: Oracle, draw: Draw, room: int) -> None:
        self.attack, self.oracle, self.draw, self.room = attack, oracle, draw, room
        self.reach = 2

    def skip(self, rows: Rows, state: State) -> Leapt | None:
        """Move rows and state past the queries that change nothing. None: the rows are too many to look ahead."""
        attack, n, device = self.attack, len(rows), rows.age.device
        reach = min(self.reach, self.room // n)
        if reach < 2:
            return None
        each = torch.arange(n, device=device)
        ahead = rows.take(each.repeat(reach))
        ahead.age += torch.arange(reach, device=device).repeat_interleave(n)
        ahead.age.clamp_(max=attack.queries)  # what lies behind the last step is never idle, so never skipped
        foreseen = {key: value.repeat(reach, *[1] * (value.ndim - 1)) for key, value in state.items()}
        queries = torch.cat([state["query"], attack.propose(ahead, foreseen, self.draw)])
        foreseen["query"] = queries[:-n]
        logits = self.oracle.logits(foreseen["query"])
        idle = attack.idle(foreseen, attack.objective(logits, ahead, foreseen)) & torch.isfinite(logits).all(1)
        idle &= ~attack.succeeds(logits.argmax(1), ahead.y, ahead.target)
        idle &= (ahead.age < attack.queries) & (ahead.pos >= 0)
        done = attack.done(ahead, foreseen)
        if done is not None:
            idle &= ~done
        skipped = idle.view(reach, n).long().cumprod(0).sum(0)
        state["query"] = queries.view(reach + 1, n, *queries.shape[1:])[skipped, each]
        rows.age += skipped
        moved = skipped[rows.pos >= 0]
        self.reach = 2 * reach if bool((moved == reach).all()) else max(2, reach // 2)
        return Leapt(skipped, skipped < reach, logits.view(reach, n, -1)[skipped.clamp(max=reach - 1), each])
