"""A suite: several attacks under one threat model, from a card and flags. Imports torch only to build the attacks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from robustlab.attacks import attack_class
from robustlab.attacks.naming import Table, named
from robustlab.attacks.parameters import typed
from robustlab.base.cards import convert, find_card, parse_call, read_card
from robustlab.base.errors import UserError, spelled
from robustlab.base.words import as_fraction
from robustlab.threat.model import NORMS, ThreatModel, parse_eps

if TYPE_CHECKING:
    from robustlab.attacks.base import Attack
    from robustlab.attacks.wrapped import Wrapped

DEFAULT_CARD = "linf-standard"


@dataclass(frozen=True)
class SuiteCard:
    """What a TOML file in `attacks/` may hold. `[threat]` may leave out what the data set or a flag says.

    transfer: the images are crafted on other models than the attacked one, and every two models are compared by it.
    """

    attack: list[dict[str, Any]]
    threat: dict[str, Any] = field(default_factory=dict)
    description: str = ""
    source: str = ""
    transfer: bool = False


@dataclass(frozen=True)
class Member:
    """An attack of a suite under its name in lines and tables. parameters: as the card or flag gave them."""

    name: str
    method: str
    parameters: dict[str, Any]
    attack: Attack


@dataclass(frozen=True)
class Suite:
    """Attacks in the order in which a cascade runs them.

    >>> suite = load_suite("linf-standard")
    >>> [member.name for member in suite.members]
    ['fgsm', 'short-tries']
    """

    name: str
    threat: ThreatModel
    eps_typed: str
    members: tuple[Member, ...]
    transfer: bool = False  # see `SuiteCard`

    def at(self, member: Member, eps: float) -> Attack:
        """A member's attack at another budget; an absolute step size inside it keeps its ratio to eps."""
        size = getattr(member.attack, "step_size", None)
        scaled: dict[str, Any] = {"eps": eps}
        bound = member.attack.keep != "smallest"  # an attack on the distance does not step by its budget
        if bound and "step_size" in member.parameters and size is not None and self.threat.eps > 0:
            scaled["step_size"] = size * eps / self.threat.eps
        return replace(member.attack, **scaled)

    def with_eot(self, eot: int, over_card: bool = False) -> Suite:
        """Every gradient averaged over `eot` evaluations; what a card says itself holds unless `over_card`."""

        def averaged(member: Member) -> Member:
            fixed = "eot" in member.parameters and not over_card
            if fixed or member.attack.needs != "gradient":
                return member
            return replace(member, attack=replace(member.attack, eot=eot))

        return replace(self, members=tuple(averaged(member) for member in self.members))

    @property
    def nearest(self) -> Member | None:
        """The first attack that looks for the smallest distance: what it finds is the whole security curve.

        Not one that takes all its steps for each of several classes, nor one that says nothing of other budgets.
        """
        ours = (m for m in self.members if m.attack.any_eps and not m.attack.aims)
        return next((m for m in ours if m.attack.keep == "smallest"), None)

    @property
    def curve_member(self) -> Member:
        """The attack that is run at each budget for a security curve.

        Short tries, which then take one; else the first with several steps, those on the distance last; else the first.
        Not one that has a budget of its own, nor one that is unkeyed, if there is another.
        """
        several = [m for m in self.members if m.attack.steps > 1 and m.attack.any_eps]
        several.sort(key=lambda m: (m.method != "short-tries", not m.attack.keyed, m.attack.keep == "smallest"))
        return several[0] if several else next((m for m in self.members if m.attack.any_eps), self.members[0])


def parse_attack(text: str) -> dict[str, Any]:
    """`pgd:steps=50,loss="dlr"` as a card's `[[attack]]` table; values are TOML, words need no quotes.

    >>> parse_attack("pgd:steps=50,loss=dlr")
    {'method': 'pgd', 'steps': 50, 'loss': 'dlr'}
    """
    return parse_call(text, "--attack")


def load_suite(
    card: str | None = None,
    *,
    attacks: Sequence[str | Wrapped] = (),
    default: ThreatModel | None = None,
    **threat: Any,
) -> Suite:
    """A suite from a card (name or path) or from `--attack` texts, under a checked threat model.

    attacks: in Python, objects that `robustlab.attacks.wrap` made may stand among the texts.
    threat: norm, eps, targeted, target as flags gave them; None where not given. Flag > card > default: what neither
    says is the data set's default threat, whose eps counts only for its own norm.
    """
    if wrapped := [each for each in attacks if not isinstance(each, str)]:
        return _with_wrapped(attacks, wrapped, default or ThreatModel(), threat)
    content, name, where = _content(card, [each for each in attacks if isinstance(each, str)])
    model, text = _threat(content.threat, threat, default or ThreatModel(), where)
    members = tuple(_member(table, model, where) for table in named(content.attack, where))
    return Suite(name, model, text, members, content.transfer)


def _with_wrapped(
    attacks: Sequence[str | Wrapped], wrapped: Sequence[Wrapped], default: ThreatModel, threat: dict[str, Any]
) -> Suite:
    """A suite of texts and of attacks of other libraries, in the order in which they are given."""
    from robustlab.attacks.wrapped import Wrapped

    if strange := [type(each).__name__ for each in wrapped if not isinstance(each, Wrapped)]:
        raise UserError(
            "An attack in a list is a text such as 'pgd:steps=50', or robustlab.attacks.wrap(an object of foolbox or"
            f" torchattacks); got {strange[0]}."
        )
    where = "attacks"
    model, text = _threat({}, threat, default, where)
    tables = iter(named([parse_attack(each) for each in attacks if isinstance(each, str)], where))
    members: list[Member] = []
    for each in attacks:
        if isinstance(each, str):
            members.append(_member(next(tables), model, where))
            continue
        alike = sum(member.method == each.method for member in members)
        name = f"{each.method}-{alike + 1}" if alike else each.method
        members.append(Member(name, each.method, each.parameters, each.under(model)))
    return Suite("attacks", model, text, tuple(members))


def check_suite(card: str | None = None, *, attacks: Sequence[str] = (), **threat: Any) -> None:
    """Raise what `load_suite` would raise, as far as that is known without torch; it takes no time."""
    content, _, where = _content(card, attacks)
    _threat(content.threat, threat, ThreatModel(), where)
    named(content.attack, where)


def suite_again(config: Mapping[str, Any]) -> Suite:
    """The suite of a run, from its configuration in run.json; `UserError` where that cannot be one."""
    threat = convert(dict(config["threat"]), ThreatModel, "the threat of run.json")
    tables = [{"method": each["method"], "name": each["name"], **each["parameters"]} for each in config["attacks"]]
    members = tuple(_member(table, threat, "run.json") for table in named(tables, "run.json"))
    return Suite(str(config["suite"]), threat, as_fraction(threat.eps), members, "transfer_matrix" in config)


def _content(card: str | None, attacks: Sequence[str]) -> tuple[SuiteCard, str, str]:
    """What is to be run, the suite's name, and what errors call it."""
    if attacks:
        content, name, where = SuiteCard(attack=[parse_attack(text) for text in attacks]), "attacks", "--attack"
    else:
        path = find_card("attacks", card or DEFAULT_CARD, "attack")
        content, name, where = read_card(path, SuiteCard), path.stem, str(path.name)
    if not content.attack:
        raise UserError(f"{where} names no attack; it needs at least one [[attack]] table with a method.")
    return content, name, where


def _threat(card: dict[str, Any], flags: dict[str, Any], default: ThreatModel, where: str) -> tuple[ThreatModel, str]:
    flags = {key: value for key, value in flags.items() if value is not None}
    if flags.get("norm", card.get("norm", default.norm)) != card.get("norm", default.norm):
        card = {key: value for key, value in card.items() if key != "eps"}  # a budget means nothing in another norm
    given = {**card, **flags}
    given.setdefault("norm", default.norm)
    if given["norm"] not in NORMS:
        ThreatModel(given["norm"])  # says so, before its eps is asked for
    if "eps" not in given:
        if given["norm"] != default.norm:
            raise UserError(
                f"{where} gives no eps for the norm {given['norm']}, and the data set has a default only for"
                f" {default.norm}. Add {spelled('eps')}."
            )
        given["eps"] = default.eps
    eps = parse_eps(given["eps"])
    typed = given["eps"] if isinstance(given["eps"], str) else as_fraction(eps)
    given["eps"] = eps
    return convert(given, ThreatModel, f"the threat of {where}"), typed


def _member(table: Table, threat: ThreatModel, where: str) -> Member:
    given = {key: typed(key, value) for key, value in table.parameters.items()}
    full = {**given, "norm": threat.norm, "eps": threat.eps, "targeted": threat.targeted}
    attack = convert(full, attack_class(table.method), f"attack {table.name!r} of {where}")
    return Member(table.name, table.method, table.parameters, attack)
