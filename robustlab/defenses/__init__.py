"""The registry of defenses that training knows. Importing this module imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, cast

from robustlab.base.cards import convert
from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.lazy import exports, locate
from robustlab.threat.model import parse_eps

if TYPE_CHECKING:
    from robustlab.defenses.adversarial import Adversarial as Adversarial
    from robustlab.defenses.base import Defense as Defense
    from robustlab.defenses.bpda import BPDA as BPDA
    from robustlab.defenses.distillation import Distillation as Distillation
    from robustlab.defenses.fast_at import FastAT as FastAT
    from robustlab.defenses.jpeg import JPEG as JPEG
    from robustlab.defenses.mart import MART as MART
    from robustlab.defenses.n_fgsm import NFGSM as NFGSM
    from robustlab.defenses.noise import GaussianNoise as GaussianNoise
    from robustlab.defenses.random_resize import RandomResize as RandomResize
    from robustlab.defenses.squeezing import BitDepth as BitDepth
    from robustlab.defenses.squeezing import Median as Median
    from robustlab.defenses.trades import TRADES as TRADES

DEFENSES: dict[str, str] = {
    "pgd-at": "robustlab.defenses.adversarial:Adversarial",
    "fast-at": "robustlab.defenses.fast_at:FastAT",
    "n-fgsm": "robustlab.defenses.n_fgsm:NFGSM",
    "trades": "robustlab.defenses.trades:TRADES",
    "mart": "robustlab.defenses.mart:MART",
    "gaussian-noise": "robustlab.defenses.noise:GaussianNoise",
    "distillation": "robustlab.defenses.distillation:Distillation",
    "jpeg": "robustlab.defenses.jpeg:JPEG",
    "bit-depth": "robustlab.defenses.squeezing:BitDepth",
    "median": "robustlab.defenses.squeezing:Median",
    "random-resize": "robustlab.defenses.random_resize:RandomResize",
}
_NONE = "robustlab.defenses.base:Defense"
_BPDA = "robustlab.defenses.bpda:BPDA"


def registered(method: object, where: str = "defense") -> str:
    """Where the class behind a registry name is; an unknown one is a `UserError`. where: what it calls the table.

    >>> registered("n-fgsm")
    'robustlab.defenses.n_fgsm:NFGSM'
    """
    if method not in DEFENSES:
        hint = did_you_mean(str(method), DEFENSES)
        raise UserError(f"{where} needs a method out of {', '.join(DEFENSES)}; got {method!r}.{hint}")
    return DEFENSES[str(method)]


def defense_class(method: object) -> Any:
    """The dataclass behind a registry name; an unknown one is a `UserError`.

    >>> defense_class("n-fgsm").__name__
    'NFGSM'
    """
    return locate(registered(method))


def parameters(table: Mapping[str, Any]) -> list[str]:
    """The names of all parameters of the defense that a table names; none where the table is empty.

    >>> parameters({"method": "n-fgsm"}), parameters({})
    (['eps', 'ramp', 'k', 'alpha'], [])
    """
    return [each.name for each in fields(defense_class(table.get("method"))) if each.init] if table else []


def make_defense(table: Mapping[str, Any]) -> Defense:
    """The defense that a recipe's `[defense]` table describes: `method` (a registry name) and its parameters.

    An empty table is a defense that does nothing.

    >>> make_defense({"method": "n-fgsm", "eps": "4/255"}).eps == 4 / 255
    True
    """
    if not table:
        return cast("Defense", locate(_NONE)())
    method = table.get("method")
    typed = ("eps", "step_size")  # may be fractions
    given = {key: parse_eps(value, key) if key in typed else value for key, value in table.items() if key != "method"}
    return cast("Defense", convert(given, defense_class(method), f"the defense {method!r}"))


__getattr__ = exports(__name__, [*DEFENSES.values(), _NONE, _BPDA])
