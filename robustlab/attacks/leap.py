"""Several queries of a row in one forward pass, for attacks of which most queries change nothing."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.attacks.base import Draw, Model, RowAttack, Rows, State

PART = 4  # so many times fewer rows than the batch holds are left when leaping begins


class Leap:
    """Looks as far ahead as pays off: twice as far when all that was seen changed nothing, else half as far.

    A step of a few rows costs nearly as much as one of many, and random search keeps most points as they are. What its
    next queries will be is then known, and they are shown to the model at once, up to the first that matters.
    """

    def __init__(self, attack: RowAttack, model: Model, draw: Draw, batch_size: int) -> None:
        self.attack, self.model, self.draw = attack, model, draw
        self.room, self.reach = batch_size // PART, 2

    def skip(self, rows: Rows, state: State) -> Tensor:
        """(B,): how many queries change nothing, from the current one on; rows and state move on past them."""
        attack, n, device = self.attack, len(rows), rows.age.device
        reach = min(self.reach, self.room // n)
        if reach < 2:
            return torch.zeros_like(rows.age)
        each = torch.arange(n, device=device)
        ahead = rows.take(each.repeat(reach))
        ahead.age += torch.arange(reach, device=device).repeat_interleave(n)
        ahead.age.clamp_(max=attack.queries)
        foreseen = {key: value.repeat(reach, *[1] * (value.ndim - 1)) for key, value in state.items()}
        queries = torch.cat([state["query"], attack.propose(ahead, foreseen, self.draw)])
        foreseen["query"] = queries[:-n]
        with torch.no_grad():
            logits = self.model(foreseen["query"]).float()
        idle = attack.idle(foreseen, attack.objective(logits, ahead, foreseen)) & torch.isfinite(logits).all(1)
        predicted = logits.argmax(1)
        idle &= (predicted != ahead.target) if attack.targeted else (predicted == ahead.y)
        idle &= (ahead.age < attack.queries) & (ahead.pos >= 0)
        done = attack.done(ahead, foreseen)
        skipped = (idle if done is None else idle & ~done).view(reach, n).long().cumprod(0).sum(0)
        state["query"] = queries.view(reach + 1, n, *queries.shape[1:])[skipped, each]
        rows.age += skipped
        live = skipped[rows.pos >= 0]
        self.reach = 2 * reach if bool((live == reach).all()) else max(2, reach // 2)
        return skipped
