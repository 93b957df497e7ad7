"""What a check finds, and the rules by which counts become pass, warn or fail."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal

from robustlab.base.intervals import wilson

Status = Literal["pass", "warn", "fail", "not run"]

# A check fails where the 95 % interval of a share of samples that should not be there lies above this, two points of
# robust accuracy; what is there but may be fewer is a warning.
TOLERATED = 0.02

CARLINI = "Carlini et al. 2019, arXiv:1902.06705"
PINTOR = "Pintor et al. 2022, arXiv:2106.09947"


@dataclass(frozen=True)
class Finding:
    """measured: what was seen, in words with its n. numbers: the same for programs. advice: in place of the check's."""

    status: Status
    measured: str
    numbers: dict[str, Any] = field(default_factory=dict)
    advice: str = ""


def not_run(reason: str) -> Finding:
    return Finding("not run", reason)


def judged(k: int, n: int) -> Status:
    """The status where k of n samples should be none. A single one is never more than a warning.

    >>> [judged(k, 64) for k in (0, 1, 3, 4)], [judged(k, 4) for k in (1, 2)]
    (['pass', 'warn', 'warn', 'fail'], ['warn', 'fail'])
    """
    if not k:
        return "pass"
    return "fail" if k > 1 and wilson(k, n)[0] > TOLERATED else "warn"


def mostly(k: int, n: int, more_than: float = 0.5) -> bool:
    """Does the 95 % interval of k of n lie above a share?

    >>> mostly(20, 24), mostly(5, 6)
    (True, False)
    """
    return wilson(k, n)[0] > more_than


def worst(*statuses: Status) -> Status:
    """The worst of several.

    >>> worst("pass", "warn", "pass")
    'warn'
    """
    return max(statuses, key=("not run", "pass", "warn", "fail").index)
