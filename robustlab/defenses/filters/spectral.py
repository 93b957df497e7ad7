"""Spectral signatures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch

from robustlab.base.errors import UserError
from robustlab.base.typed import check_choice
from robustlab.defenses.filters.base import Filter, Scores, Seen, check_eps, top
from robustlab.defenses.filters.directions import top_directions

Variant = Literal["paper", "original-code"]
_SHARE = 0.15  # of the target class, which the original code removes


@dataclass(frozen=True)
class Spectral(Filter):
    """Spectral signatures (Tran, Li and Madry 2018, arXiv:1811.00636, algorithm 1).

    In each class: the representations less their mean, their top right singular vector v, and the squared projection
    on v as the score; the highest 1.5 eps of the class are removed. eps: an upper bound on the share of poisons in a
    class. variant: "paper", or "original-code" as its authors published it, which needs `target`: v as above, but the
    score is |v . r| of the representation r with its mean, in the target class only, of which 15 % are removed
    whatever eps is. UserError: a class of fewer than 2 images, eps outside (0, 2/3), a target that is no class.

    >>> r = torch.tensor([[0.0, 1], [0, -1], [0, 1], [0, -1], [0, 1], [0, -1], [0, 1], [0, -1], [0, 0], [9, 0]])
    >>> Spectral(eps=0.05)(Seen(torch.zeros(10).long(), representations=r)).removed.nonzero().tolist()
    [[9]]
    """

    eps: float = 0.05
    variant: Variant = "paper"
    target: int | None = None

    def __post_init__(self) -> None:
        check_eps(self.eps)
        check_choice("variant", self.variant, get_args(Variant))
        if self.variant == "original-code" and self.target is None:
            raise UserError("The original code filters the target class only: give target, its number.")

    @property
    def knows(self) -> str:
        if self.variant == "original-code":
            return "the target class"
        return "eps" if self.target is None else "eps and the target class"

    def filter(self, seen: Seen) -> Scores:
        assert seen.representations is not None
        n = len(seen.labels)
        scores, removed = torch.full((n,), torch.nan), torch.zeros(n, dtype=torch.bool)
        largest: dict[int, float] = {}
        classes = dict(seen.classes(2))
        if self.target is not None and self.target not in classes:
            raise UserError(f"target must be a class of the data, one of {sorted(classes)}; got {self.target}.")
        for label, where in classes.items():
            if self.target not in (None, label):
                continue
            own = seen.representations[where].float()
            mean = own.mean(0, dtype=torch.float64)
            own -= mean.float()
            values, vectors = top_directions(own)
            v = vectors[:, 0]
            along = (own @ v.float()).double()
            original = self.variant == "original-code"
            each = (along + mean @ v).abs() if original else along.square()
            scores[where] = each.float()
            count = round((_SHARE if original else 1.5 * self.eps) * len(where))
            removed[where] = top(each, count, seen.ids[where])
            largest[label] = float(values[0])
        return self.result(seen, scores, removed, singular_values=largest)
