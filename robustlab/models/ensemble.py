"""Several classifiers as one."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.oracle import ask


class Ensemble(nn.Module):
    """The mean of the members' logits (Dong et al. 2018, arXiv:1710.06081, section 3.3), for transfer attacks.

    >>> nets = [nn.Sequential(nn.Flatten(), nn.Linear(12, 3)) for _ in range(2)]
    >>> Ensemble(nets)(torch.rand(4, 3, 2, 2)).shape
    torch.Size([4, 3])
    """

    def __init__(self, members: Sequence[nn.Module]) -> None:
        super().__init__()
        if not members:
            raise UserError("An ensemble needs at least one model.")
        self.members = nn.ModuleList(members)

    def forward(self, x: Tensor) -> Tensor:
        logits = [ask(member, x) for member in self.members]
        if len({z.shape[1] for z in logits}) > 1:
            counts = ", ".join(str(z.shape[1]) for z in logits)
            raise UserError(f"The models of an ensemble must know the same classes; they have {counts} outputs.")
        return torch.stack(logits).mean(0)
