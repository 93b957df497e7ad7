"""Worlds that are rendered on demand, with all that is known of each image."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Factor:
    """What the values of a factor mean. categories: what 0, 1, 2 ... stand for, where the kind is "category".

    >>> Factor("distance", "metres").kind
    'number'
    """

    label: str
    unit: str = ""
    kind: Literal["number", "angle", "category"] = "number"
    categories: tuple[str, ...] = ()
