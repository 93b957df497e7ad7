"""Isolation by loss."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from robustlab.base.errors import UserError
from robustlab.base.typed import check_whole
from robustlab.defenses.filters.base import Filter, Scores, Seen, top


@dataclass(frozen=True)
class ABL(Filter):
    """The isolation step of anti-backdoor learning (Li et al. 2021, arXiv:2110.11571): poisons are learned first.

    The score is minus the loss of a sample after training epoch `epoch` (counted from 1; left out, the mean over all
    epochs that are given). The share `isolated` of all samples with the highest scores is removed, the paper's 1 %.
    The paper trains with a loss that stays above gamma while isolating; which training gave the losses is the
    caller's choice. UserError: an epoch that has no losses, isolated outside (0, 1).

    >>> import torch
    >>> losses = torch.tensor([[0.1, 2.0, 1.5, 1.8]])
    >>> ABL(isolated=0.25)(Seen(torch.tensor([0, 0, 1, 1]), losses=losses)).removed.tolist()
    [True, False, False, False]
    """

    isolated: float = 0.01
    epoch: int | None = None
    needs: ClassVar[tuple[str, ...]] = ("losses",)

    def __post_init__(self) -> None:
        check_whole("epoch", self.epoch, 1)
        if not 0 < self.isolated < 1:
            raise UserError(f"isolated is a share of the data set, between 0 and 1; got {self.isolated}.")

    @property
    def knows(self) -> str:
        return "the losses during training, and a share to isolate"

    def filter(self, seen: Seen) -> Scores:
        assert seen.losses is not None
        if self.epoch is not None and self.epoch > len(seen.losses):
            raise UserError(f"epoch must be at most {len(seen.losses)}, of which there are losses; got {self.epoch}.")
        scores = -(seen.losses.mean(0) if self.epoch is None else seen.losses[self.epoch - 1]).float()
        return self.result(seen, scores, top(scores, round(self.isolated * len(scores)), seen.ids))
