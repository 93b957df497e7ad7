"""What the attacker may do: norm, budget, target, and what rounding may add. Imports no torch; see `geometry`."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Literal, get_args

from robustlab.base.errors import UserError, did_you_mean

Norm = Literal["linf", "l2", "l1", "l0"]
NORMS: tuple[str, ...] = get_args(Norm)
BudgetNorm = Literal["linf", "l2", "l1"]  # those with a projection
BUDGET_NORMS: tuple[str, ...] = get_args(BudgetNorm)
TOLERANCE = 1e-6  # of max(1, eps): what rounding to float32 may add to a distance


def parse_eps(text: str | float, name: str = "eps") -> float:
    """A budget as typed (`"8/255"`, `"0.5"` or a number) as a finite float >= 0. name: what an error calls it.

    >>> parse_eps("8/255") == 8 / 255
    True
    """
    match = re.fullmatch(r"\s*([0-9.eE+-]+)\s*(?:/\s*([0-9.eE+-]+)\s*)?", str(text))
    try:
        if match is None:
            raise ValueError
        value = float(match[1]) / float(match[2] or 1)
    except (ValueError, ZeroDivisionError):
        raise UserError(f"{name} must be a number or a fraction such as 8/255, got {text!r}.") from None
    if not (math.isfinite(value) and value >= 0):
        raise UserError(f"{name} must be finite and not negative, got {text!r}.")
    return value


def check_eps(norm: str, eps: float) -> float:
    """The budget, if it is no larger than the range of a value.

    >>> check_eps("linf", 0.5)
    0.5
    """
    if norm == "linf" and eps > 1:
        raise UserError(
            f"eps = {eps:g} is larger than the whole range of an image, which is [0, 1]. Did you mean {eps:g}/255?"
        )
    return eps


def allowed(eps: float) -> float:
    """The largest distance that is still inside a budget of `eps`, in its units; inf for inf.

    >>> allowed(0.5) - 0.5 < 2e-6 < allowed(12.0) - 12.0
    True
    """
    return eps + TOLERANCE * max(1.0, eps)


@dataclass(frozen=True)
class ThreatModel:
    """Norm and budget, targeted or not.

    norm: `linf`, `l2`, `l1` or `l0`. eps: the budget in the units of the norm, images in [0, 1].
    targeted: success is "predicted as the target", otherwise "predicted as anything but the label".
    target: a class name, `random` (keyed by seed and id) or `least-likely`; only read when targeted.

    >>> ThreatModel(eps="8/255").eps == 8 / 255
    True
    """

    norm: Norm = "linf"
    eps: float = 8 / 255
    targeted: bool = False
    target: str = "random"

    def __post_init__(self) -> None:
        if self.norm not in NORMS:
            known = ", ".join(NORMS)
            raise UserError(
                f"norm must be one of {known}, got {self.norm!r}.{did_you_mean(str(self.norm).lower(), NORMS)}"
            )
        object.__setattr__(self, "eps", parse_eps(self.eps))
        check_eps(self.norm, self.eps)

    @property
    def target_class(self) -> str | None:
        """The class that every sample is to reach, where the target is one class."""
        return self.target if self.targeted and self.target not in ("random", "least-likely") else None
