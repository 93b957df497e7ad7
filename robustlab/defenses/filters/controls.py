"""The two controls beside which every filter is shown: one that removes at random, and one that knows the poisons."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from robustlab.base.draws import keys, uniform
from robustlab.base.typed import check_whole
from robustlab.defenses.filters.base import Filter, Scores, Seen, check_eps, top


@dataclass(frozen=True)
class Random(Filter):
    """Removes 1.5 eps of each class at random, as many as a filter that is told eps. The draw is keyed by seed and id.

    >>> int(Random(eps=0.1)(Seen(torch.zeros(20).long())).removed.sum())
    3
    """

    eps: float = 0.05
    seed: int = 0
    needs: ClassVar[tuple[str, ...]] = ()

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_whole("seed", self.seed, 0)

    @property
    def knows(self) -> str:
        return "eps"

    def filter(self, seen: Seen) -> Scores:
        scores = uniform(keys(self.seed, seen.ids, "random filter"), (1,))[:, 0]
        removed = torch.zeros(len(scores), dtype=torch.bool)
        for _, where in seen.classes():
            removed[where] = top(scores[where], round(1.5 * self.eps * len(where)), seen.ids[where])
        return self.result(seen, scores, removed)


@dataclass(frozen=True)
class Perfect(Filter):
    """Removes the poisons and nothing else: what the best filter could do.

    >>> Perfect()(Seen(torch.zeros(3).long(), poisoned=torch.tensor([True, False, False]))).removed.tolist()
    [True, False, False]
    """

    needs: ClassVar[tuple[str, ...]] = ("poisoned",)

    @property
    def knows(self) -> str:
        return "every poison"

    def filter(self, seen: Seen) -> Scores:
        assert seen.poisoned is not None
        return self.result(seen, seen.poisoned.float(), seen.poisoned.bool())
