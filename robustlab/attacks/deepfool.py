"""DeepFool."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from robustlab.attacks.foolbox_adapter import FoolboxAttack, foolbox
from robustlab.base.errors import UserError


@dataclass(frozen=True)
class DeepFool(FoolboxAttack):
    """DeepFool (Moosavi-Dezfooli et al. 2016, arXiv:1511.04599, algorithm 2), linf and l2; foolbox's.

    Steps to where a linear model has its nearest boundary, until the answer changes. A quick estimate, not the smallest
    distance: it stops at the first adversarial point. steps: at most. candidates: likeliest classes whose boundaries
    are looked at, each with a forward and a backward of its own. overshoot: how far beyond the boundary, as a share of
    the way. Untargeted.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    >>> x, y = torch.rand(4, 3, 2, 2), torch.tensor([0, 1, 2, 0])
    >>> DeepFool(norm="l2").run(model, x, y).success.shape
    torch.Size([4])
    """

    norms = ("linf", "l2")

    norm: str = "l2"  # type: ignore[assignment]
    steps: int = 50
    candidates: int = 10
    overshoot: float = 0.02

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.targeted:
            raise UserError("deepfool chooses its own targets; for a targeted threat use fmn.")
        if self.candidates < 2 or not self.overshoot >= 0:
            raise UserError(
                f"deepfool needs candidates of at least 2 and overshoot of at least 0, got {self.candidates} and"
                f" {self.overshoot}."
            )

    @property
    def queries(self) -> int:
        return self.steps * (self.candidates - 1)

    def made(self, batch: int) -> Any:
        kind = {"linf": "LinfDeepFoolAttack", "l2": "L2DeepFoolAttack"}[self.norm]
        return getattr(foolbox().attacks, kind)(steps=self.steps, candidates=self.candidates, overshoot=self.overshoot)
