"""The registry of triggers. Importing this module imports no torch."""

from __future__ import annotations

from typing import Any

from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.lazy import exports, locate

TRIGGERS: dict[str, str] = {
    "badnets": "robustlab.backdoors.triggers.badnets:BadNets",
    "blended": "robustlab.backdoors.triggers.blended:Blended",
    "sig": "robustlab.backdoors.triggers.sig:SIG",
    "wanet": "robustlab.backdoors.triggers.wanet:WaNet",
    "label-consistent": "robustlab.backdoors.triggers.label_consistent:LabelConsistent",
    "adaptive-blend": "robustlab.backdoors.triggers.adaptive:AdaptiveBlend",
    "adaptive-patch": "robustlab.backdoors.triggers.adaptive:AdaptivePatch",
    "physical": "robustlab.backdoors.triggers.physical:Physical",
}


def trigger_class(name: str) -> Any:
    """The dataclass behind a registry name; an unknown one is a `UserError`.

    >>> trigger_class("badnets").__name__
    'BadNets'
    """
    if name not in TRIGGERS:
        raise UserError(f"There is no trigger {name!r}.{did_you_mean(name, TRIGGERS)} Known: {', '.join(TRIGGERS)}.")
    return locate(TRIGGERS[name])


__getattr__ = exports(__name__, TRIGGERS.values())
