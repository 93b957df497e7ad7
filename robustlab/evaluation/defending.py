"""Models behind preprocessing: each is attacked beside the bare model that it holds."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

from robustlab.attacks.suite import Suite
from robustlab.base.errors import UserError, spelled
from robustlab.defenses import DEFENSES, make_defense
from robustlab.defenses.base import Defense, defended
from robustlab.defenses.cards import read_defense
from robustlab.models.classifier import Classifier


@dataclass(frozen=True, eq=False)
class Front:
    """What stands in front of an attacked model. bare: the model without it. table: as `make_defense` takes it."""

    bare: Classifier
    table: dict[str, Any]


def behind(models: Sequence[Classifier], defense: Any) -> tuple[list[Classifier], dict[str, Front]]:
    """The models, each followed by itself behind every defense, and the fronts of those by name.

    defense: what `read_defense` takes, a `Defense`, or a list of these; None for none. UserError: no such defense, one
    that puts nothing in front of a model, or one that does not fit it.
    """
    given = [] if defense is None else list(defense) if isinstance(defense, list | tuple) else [defense]
    made = [_made(each) for each in given]
    found: list[Classifier] = []
    fronts: dict[str, Front] = {}
    for model in models:
        found.append(model)
        for label, table, front in made:
            # a copy of the outermost object alone: what is said of the outputs of one is not said of the other
            outer = defended(copy.copy(model), front).eval().to(model.mean.device)
            outer.name = f"{model.name}+{label}"
            outer.source = model.source | {"defense": table} if model.source and table else None
            found.append(outer)
            fronts[outer.name] = Front(model, table)
    names = [model.name for model in found]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"Two models are named {twice!r}: give each model and each defense once.")
    return found, fronts


def check_seen(fronts: dict[str, Front], suite: Suite, surrogates: Sequence[Classifier]) -> None:
    """A UserError where models behind a defense would not be seen by the attack: that is what is asked."""
    if fronts and (surrogates or suite.transfer):
        raise UserError(
            f"{spelled('defense')} compares an attack that sees the defense with one that does not, and a transfer"
            " attack sees no model: give one of them."
        )


def _made(given: Any) -> tuple[str, dict[str, Any], Defense]:
    """A defense with its name, and its table, which is empty where no registry knows it."""
    if isinstance(given, Defense):
        path = f"{type(given).__module__}:{type(given).__qualname__}"
        method = next((name for name, known in DEFENSES.items() if known == path), "")
        values = {each.name: getattr(given, each.name) for each in fields(given) if each.init}
        label, table, defense = method or type(given).__name__, {"method": method, **values} if method else {}, given
    elif isinstance(given, str):
        label, table = read_defense(given)
        defense = make_defense(table)
    else:
        raise UserError(f"A defense is a name, the path of a card, or a Defense; got {type(given).__name__}.")
    if type(defense).wrap is Defense.wrap:
        raise UserError(
            f"{label} changes how a model is trained, and puts nothing in front of it: train with it, and attack the"
            " model that comes out."
        )
    return label, table, defense
