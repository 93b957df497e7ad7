"""The registry of attacks, and their classes, imported when asked for. Importing this module imports no torch."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from robustlab.base.errors import UserError, did_you_mean, spelled
from robustlab.base.lazy import exports, locate

if TYPE_CHECKING:
    from robustlab.attacks.apgd import APGD as APGD
    from robustlab.attacks.apgd import APGDT as APGDT
    from robustlab.attacks.brendel_bethge import BrendelBethge as BrendelBethge
    from robustlab.attacks.cw import CW as CW
    from robustlab.attacks.ddn import DDN as DDN
    from robustlab.attacks.deepfool import DeepFool as DeepFool
    from robustlab.attacks.ead import EAD as EAD
    from robustlab.attacks.fab import FABT as FABT
    from robustlab.attacks.fgsm import FGSM as FGSM
    from robustlab.attacks.fmn import FMN as FMN
    from robustlab.attacks.mi_fgsm import DIFGSM as DIFGSM
    from robustlab.attacks.mi_fgsm import MIFGSM as MIFGSM
    from robustlab.attacks.mi_fgsm import NIFGSM as NIFGSM
    from robustlab.attacks.mi_fgsm import SINIFGSM as SINIFGSM
    from robustlab.attacks.mi_fgsm import TIFGSM as TIFGSM
    from robustlab.attacks.pgd import PGD as PGD
    from robustlab.attacks.short_tries import ShortTries as ShortTries
    from robustlab.attacks.square import Square as Square
    from robustlab.attacks.wrapped import wrap as wrap

ATTACKS: dict[str, str] = {
    "fgsm": "robustlab.attacks.fgsm:FGSM",
    "pgd": "robustlab.attacks.pgd:PGD",
    "mi-fgsm": "robustlab.attacks.mi_fgsm:MIFGSM",
    "ni-fgsm": "robustlab.attacks.mi_fgsm:NIFGSM",
    "si-ni-fgsm": "robustlab.attacks.mi_fgsm:SINIFGSM",
    "di-fgsm": "robustlab.attacks.mi_fgsm:DIFGSM",
    "ti-fgsm": "robustlab.attacks.mi_fgsm:TIFGSM",
    "short-tries": "robustlab.attacks.short_tries:ShortTries",
    "apgd": "robustlab.attacks.apgd:APGD",
    "apgd-t": "robustlab.attacks.apgd:APGDT",
    "square": "robustlab.attacks.square:Square",
    "fab-t": "robustlab.attacks.fab:FABT",
    "fmn": "robustlab.attacks.fmn:FMN",
    "ddn": "robustlab.attacks.ddn:DDN",
    "deepfool": "robustlab.attacks.deepfool:DeepFool",
    "cw": "robustlab.attacks.cw:CW",
    "ead": "robustlab.attacks.ead:EAD",
    "brendel-bethge": "robustlab.attacks.brendel_bethge:BrendelBethge",
}


def registered(method: str) -> str:
    """Where a registry name's class is, as "module:name"; an unknown one is a `UserError`."""
    if method not in ATTACKS:
        known = ", ".join(ATTACKS)
        if method.lower().replace("-", "").startswith("autoattack"):
            raise UserError(
                f"AutoAttack is four attacks, one after another: {spelled('suite', 'autoattack-standard')}."
            )
        raise UserError(f"There is no attack {method!r}.{did_you_mean(method, ATTACKS)} Known: {known}.")
    return ATTACKS[method]


def attack_class(method: str) -> Any:
    """The dataclass behind a registry name.

    >>> attack_class("pgd").__name__
    'PGD'
    """
    return locate(registered(method))


__getattr__ = exports(__name__, [*ATTACKS.values(), "robustlab.attacks.wrapped:wrap"])
