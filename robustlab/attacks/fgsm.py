"""The fast gradient sign method."""

from __future__ import annotations

from dataclasses import dataclass, field

from robustlab.attacks.pgd import PGD


@dataclass(frozen=True)
class FGSM(PGD):
    """One gradient step of length eps from the clean image (Goodfellow et al. 2015, arXiv:1412.6572, section 4).

    In linf it is the sign method; in l2 and l1 the step of that length along PGD's direction.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> FGSM(eps="8/255")(model, torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])).shape
    torch.Size([4, 3, 2, 2])
    """

    steps: int = field(default=1, init=False)
    restarts: int = field(default=1, init=False)
    random_start: bool = field(default=False, init=False)
    step_size: float | None = field(default=None, init=False)

    @property
    def step_length(self) -> float:
        return self.eps
