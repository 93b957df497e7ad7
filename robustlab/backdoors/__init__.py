"""Backdoors: triggers, training sets with poisons in them, test sets for attack success.

>>> from robustlab import load_data
>>> from robustlab.backdoors import poison
>>> data = load_data("road-signs", "train", 100)
>>> len(poison(data, "blended", rate=0.1, target="stop", seed=1).changed_ids)
10
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from robustlab.backdoors.triggers import TRIGGERS, trigger_class
from robustlab.base.lazy import exports

if TYPE_CHECKING:
    from robustlab.backdoors.poisoning import RELATIONS, Poisoned, poison, triggered

__all__ = ["RELATIONS", "TRIGGERS", "Poisoned", "poison", "trigger_class", "triggered"]

__getattr__ = exports(
    __name__, [f"robustlab.backdoors.poisoning:{name}" for name in ("RELATIONS", "Poisoned", "poison", "triggered")]
)
