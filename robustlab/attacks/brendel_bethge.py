"""Brendel and Bethge's attack along the boundary."""

from __future__ import annotations

import importlib.util
import warnings
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from robustlab.attacks.fmn import BEYOND, FMN
from robustlab.attacks.foolbox_adapter import FoolboxAttack, NotFinite, Shown, foolbox
from robustlab.base.errors import UserError
from robustlab.threat.geometry import distance
from robustlab.threat.model import NORMS

SAME = 1e-4  # in l0, foolbox takes a smaller change of a value for none


@dataclass(frozen=True)
class BrendelBethge(FoolboxAttack):
    """Brendel and Bethge's attack (2019, arXiv:1907.01003, algorithm 1), linf, l2, l1 and l0; foolbox's.

    Follows the boundary from an adversarial point to the nearest one: FMN's with as many steps, which it can only make
    better. Needs numba, which compiles its solver anew in each process, for half a minute or more. Targeted or not.

    >>> BrendelBethge(norm="linf").steps
    100
    """

    norms = NORMS

    norm: str = "l2"  # type: ignore[assignment]
    steps: int = 100

    @property
    def queries(self) -> int:
        return 2 * self.steps

    def made(self, batch: int) -> Any:
        if importlib.util.find_spec("numba") is None:
            raise UserError("brendel-bethge needs numba, which is not installed: pip install numba. Or use fmn.")
        kind = {"linf": "Linfinity", "l2": "L2", "l1": "L1", "l0": "L0"}[self.norm]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "At the first initialisation the optimizer needs to be compiled")
            # foolbox's trust region grows with the number of samples in the batch; this is the one of a single sample
            return getattr(foolbox().attacks, f"{kind}BrendelBethgeAttack")(steps=self.steps, lr=1e-3 / batch)

    def search(self, shown: Shown, x: Tensor, y: Tensor, target: Tensor, **more: Any) -> Tensor:
        if shown.oracle.evaluations > 1:
            raise UserError("brendel-bethge follows a boundary, and that of a randomised model moves. Use fmn.")
        self.made(len(x))  # what is missing is said before the work
        fmn = FMN(self.norm, targeted=self.targeted, steps=self.steps)
        targets = target if self.targeted else None
        first = fmn.run(shown.oracle, x, y, targets=targets, batch_size=len(x))
        shown.before = first.forwards, first.backwards
        if bool(first.invalid.any()):
            raise NotFinite(first.invalid)
        nearest, rows = first.images, first.success.nonzero()[:, 0]
        try:
            while len(rows):  # foolbox insists that all are adversarial, which rounding may change in another batch
                answers = shown(nearest[rows]).argmax(1)
                holds = answers == target[rows] if self.targeted else answers != y[rows]
                if bool(holds.all()):
                    break
                rows = rows[holds]
            else:
                return nearest
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "The given NumPy array is not writable")  # it is only read
                found = super().search(shown, x[rows], y[rows], target[rows], starting_points=nearest[rows])
        except NotFinite as error:
            bad = torch.zeros_like(first.invalid)
            bad[rows[error.rows]] = True
            raise NotFinite(bad) from error
        delta = found - x[rows]
        if self.norm == "l0":
            delta = delta * (delta.abs() > SAME)
        found = (x[rows] + delta * BEYOND).clamp(0, 1)  # exactly on the boundary rounding decides
        nearer = distance(found - x[rows], self.norm) < distance(nearest[rows] - x[rows], self.norm)
        nearest[rows[nearer]] = found[nearer]
        return nearest
