"""The registry of attacks, and their classes, imported when asked for. Importing this module imports no torch."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from robustlab.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from robustlab.attacks.fgsm import FGSM as FGSM
    from robustlab.attacks.mi_fgsm import MIFGSM as MIFGSM
    from robustlab.attacks.pgd import PGD as PGD

ATTACKS: dict[str, str] = {
    "fgsm": "robustlab.attacks.fgsm:FGSM",
    "pgd": "robustlab.attacks.pgd:PGD",
    "mi-fgsm": "robustlab.attacks.mi_fgsm:MIFGSM",
}


def attack_class(method: str) -> Any:
    """The dataclass behind a registry name.

    >>> attack_class("pgd").__name__
    'PGD'
    """
    if method not in ATTACKS:
        known = ", ".join(ATTACKS)
        raise UserError(f"There is no attack {method!r}.{did_you_mean(method, ATTACKS)} Known: {known}.")
    module, name = ATTACKS[method].split(":")
    return getattr(import_module(module), name)


def __getattr__(name: str) -> Any:
    for path in ATTACKS.values():
        module, cls = path.split(":")
        if cls == name:
            return getattr(import_module(module), cls)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
