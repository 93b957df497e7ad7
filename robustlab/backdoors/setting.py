"""What a backdoor is made of, and the filters that look for it: from cards, flags or Python. Imports no torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from robustlab.backdoors.triggers import TRIGGERS, trigger_class
from robustlab.base.cards import card_names, convert, find_card, parse_call, read_toml
from robustlab.base.errors import UserError, did_you_mean
from robustlab.defenses.filters import FILTERS, filter_class

CONTROLS = ("random", "perfect")  # every run has them
RESERVED = ("undefended", "fine-tuning", "fine-pruning")  # other rows of the table


@dataclass(frozen=True)
class Setting:
    """Which images are poisoned, and how; see `robustlab.backdoors.poison` for rate, of, relation, target, source.

    trigger: a name of `TRIGGERS`; parameters: fields of its dataclass. model: an architecture.

    >>> Setting(trigger="badnets", rate=0.05, target="stop", parameters={"pattern": "x"}).made.pattern
    'x'
    """

    trigger: str = "badnets"
    rate: float = 0.05
    of: str = "data"
    relation: str = "all-to-one"
    target: str | int | None = None
    source: str | int | None = None
    model: str = "cnn"
    parameters: dict[str, Any] = field(default_factory=dict)

    @property
    def made(self) -> Any:
        """The trigger. UserError: unknown, or a bad parameter."""
        return convert(dict(self.parameters), trigger_class(self.trigger), f"the trigger {self.trigger}")

    @property
    def poisoning(self) -> dict[str, Any]:
        """The keyword arguments that `poison` and `triggered` share."""
        return {"target": self.target, "source": self.source, "relation": self.relation}


@dataclass(frozen=True)
class FilterPlan:
    """A filter as it was asked for. name: in tables. parameters: as given; `eps` and `target` may be filled in later.

    layer: that it looks at; None: that of the run. again: is a model trained on what it leaves?

    >>> FilterPlan("spectral", "spectral", {}).made(eps=0.04).eps
    0.04
    """

    name: str
    method: str
    parameters: dict[str, Any]
    layer: str | None = None
    again: bool = True

    def made(self, eps: float, target: int | None = None) -> Any:
        """The filter; where it wants the share of poisons or the target class and was not given it, it gets these."""
        kind = filter_class(self.method)
        known = {each for each in kind.__dataclass_fields__ if each not in self.parameters}
        told: dict[str, Any] = {"eps": eps} if "eps" in known else {}
        if self.parameters.get("variant") == "original-code" and "target" in known:
            told["target"] = target
        return convert({**told, **self.parameters}, kind, f"the filter {self.name}")

    @property
    def told(self) -> bool:
        """Is it told the true share of poisons?"""
        return "eps" in filter_class(self.method).__dataclass_fields__ and "eps" not in self.parameters

    @property
    def alike(self) -> bool:
        """Does it remove as many of each class as every other filter that is told the true share?"""
        return self.told and "target" not in self.parameters and self.parameters.get("variant") != "original-code"

    @property
    def needs(self) -> tuple[str, ...]:
        """The fields of `Seen` that it reads."""
        needs: tuple[str, ...] = filter_class(self.method).needs
        return needs


def read_setting(card: str | None, flags: Mapping[str, Any]) -> Setting:
    """The setting of a card in `attacks/` (or the default), with the flags that are not None in its place.

    flags: fields of `Setting`; `trigger` may be `name:key=value,...`, which also replaces the card's parameters.
    """
    content: dict[str, Any] = {}
    if card is not None:
        path = find_card("attacks", card, "backdoor")
        table = read_toml(path).get("backdoor")
        if not isinstance(table, dict):
            raise UserError(f"{path.name} has no [backdoor] table, and so describes no backdoor.")
        content = dict(table)
    given = {key: value for key, value in flags.items() if value is not None}
    if "trigger" in given:
        table = parse_call(given["trigger"], "--trigger")
        given |= {"trigger": table.pop("method"), "parameters": table}
    setting = convert({**content, **given}, Setting, "the backdoor" if card is None else f"[backdoor] in {card}")
    if setting.trigger not in TRIGGERS:
        trigger_class(setting.trigger)
    return setting


def read_filter(text: str, again: bool = True) -> FilterPlan:
    """A filter by name with parameters (`spectral:eps=0.1,layer=9`), or a card in `defenses/` by name or path.

    >>> read_filter("robust-z:threshold=4").parameters
    {'threshold': 4}
    """
    name = text.partition(":")[0].strip()
    if name not in FILTERS and (text.endswith(".toml") or name in card_names("defenses", "filter")):
        path = find_card("defenses", text, "filter")
        table = read_toml(path).get("filter")
        if not isinstance(table, dict) or "method" not in table:
            raise UserError(f"{path.name} has no [filter] table with a method, and so describes no filter.")
        table = dict(table)
        name = path.stem if path.stem not in (*FILTERS, *RESERVED) or path.stem == table["method"] else path.name
    else:
        table = parse_call(text, "--filter")
        name = text if len(table) > 1 else name
    method = table.pop("method")
    if method in CONTROLS:
        raise UserError(f"{method} is a control, and is always there: leave it out.")
    if method not in FILTERS:
        able = [each for each in FILTERS if each not in CONTROLS]
        raise UserError(f"There is no filter {method!r}.{did_you_mean(method, able)} Known: {', '.join(able)}.")
    layer = table.pop("layer", None)
    return FilterPlan(name, method, table, None if layer is None else str(layer), again)


def with_numbers(setting: Setting, classes: tuple[str, ...]) -> Setting:
    """The setting with its classes by name, as far as the data has names. UserError: no such class."""
    from robustlab.base.given import class_number
    from robustlab.data.selection import class_index

    def named(value: str | int | None) -> str | int | None:
        if value is None or not classes:
            return value
        number = class_index(value, classes) if isinstance(value, str) else class_number(value, classes)
        return None if number is None else classes[number]

    return replace(setting, target=named(setting.target), source=named(setting.source))
