"""What rounding to float32 may add to a distance before a point counts as outside its budget. Imports no torch."""

from __future__ import annotations

TOLERANCE = 1e-6  # of max(1, eps)


def allowed(eps: float) -> float:
    """The largest distance that is still inside a budget of `eps`, in its units; inf for inf.

    >>> allowed(0.5) - 0.5 < 2e-6 < allowed(12.0) - 12.0
    True
    """
    return eps + TOLERANCE * max(1.0, eps)
