"""Cards and flags become a checked suite; what is wrong is said."""

from __future__ import annotations

from pathlib import Path

import pytest

from robustlab.attacks import APGD, APGDT, FABT, Square
from robustlab.attacks.suite import load_suite, parse_attack
from robustlab.base.errors import UserError
from robustlab.threat.model import ThreatModel

from .conftest import SUITES


@pytest.mark.parametrize("name", SUITES)
def test_every_shipped_card_loads(name: str) -> None:
    suite = load_suite(name)
    assert suite.name == name and suite.members
    assert all(m.attack.norm == suite.threat.norm and m.attack.eps == suite.threat.eps for m in suite.members)


def test_flag_beats_card_beats_default() -> None:
    mnist = ThreatModel("linf", 0.3)
    assert load_suite("linf-standard", default=mnist).threat.eps == 0.3
    assert load_suite("linf-standard", default=mnist, eps="4/255").threat.eps == 4 / 255
    assert load_suite("l2-standard", default=mnist).threat == ThreatModel("l2", 0.5)
    assert load_suite("l2-standard", eps=1.5).members[0].attack.eps == 1.5
    with pytest.raises(UserError, match="no eps for the norm l2.*Add eps"):
        load_suite("linf-standard", default=mnist, norm="l2")


def test_a_budget_means_nothing_in_another_norm() -> None:
    for norm in ("linf", "l1"):
        default = ThreatModel("linf", 0.1)
        suite = "l2-standard"
        if norm == "linf":
            assert load_suite(suite, default=default, norm=norm).threat.eps == 0.1
        else:
            with pytest.raises(UserError, match="no eps for the norm l1"):
                load_suite(suite, default=default, norm=norm)


def test_eps_is_kept_as_typed() -> None:
    assert load_suite("linf-standard", eps="8/255").eps_typed == "8/255"
    assert load_suite("linf-standard").eps_typed == "8/255"
    assert load_suite("linf-standard", eps="0.01").eps_typed == "0.01"


def test_attack_flags() -> None:
    assert parse_attack("mi-fgsm") == {"method": "mi-fgsm"}
    assert parse_attack("pgd: steps=3 , random_start=false,loss='dlr'") == {
        "method": "pgd",
        "steps": 3,
        "random_start": False,
        "loss": "dlr",
    }
    suite = load_suite(attacks=["pgd:steps=3,step_size=2/255", "pgd", "fgsm:name=one"])
    assert [m.name for m in suite.members] == ["pgd-steps3", "pgd-steps20", "one"]
    assert suite.members[0].attack.step_size == 2 / 255  # type: ignore[attr-defined]


def test_another_eps_scales_absolute_steps_and_nothing_else() -> None:
    suite = load_suite(attacks=["pgd:steps=3,step_size=2/255", "fgsm"], eps="8/255")
    half = suite.at(suite.members[0], 4 / 255)
    assert (half.eps, half.step_size, half.steps) == (4 / 255, 1 / 255, 3)  # type: ignore[attr-defined]
    assert suite.at(suite.members[1], 4 / 255).eps == 4 / 255
    assert suite.curve_member.name == "pgd"


@pytest.mark.parametrize(("norm", "eps"), [("linf", "8/255"), ("l2", 0.5), ("l1", 12.0)])
def test_autoattack_is_the_published_one_in_each_norm(norm: str, eps: str | float) -> None:
    suite = load_suite("autoattack-standard", norm=norm, eps=eps)
    assert [(m.name, m.method, m.attack.steps, m.attack.restarts) for m in suite.members] == [  # type: ignore[attr-defined]
        ("apgd-ce", "apgd", 100, 1),
        ("apgd-t", "apgd-t", 100, 1),
        ("fab-t", "fab-t", 100, 1),
        ("square", "square", 5000, 1),
    ]
    ce, targeted, boundary, square = (m.attack for m in suite.members)
    assert isinstance(ce, APGD) and ce.loss == "ce"
    assert isinstance(targeted, APGDT) and (targeted.loss, targeted.classes) == ("dlr", 9)
    assert isinstance(boundary, FABT) and boundary.classes == 9
    assert isinstance(square, Square) and (square.p, square.rescale, square.probe) == (0.8, False, 0)
    assert all((m.attack.norm, m.attack.eps) == (norm, suite.threat.eps) for m in suite.members)


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_strong_suites_end_with_square_that_goes_on_where_it_finds_something(norm: str) -> None:
    strong = load_suite(f"{norm}-strong", eps=0.1)
    assert strong.threat.norm == norm
    *_, square = (m.attack for m in strong.members)
    assert square == Square(norm=norm, eps=0.1, probe=100)  # type: ignore[arg-type]
    assert strong.members[0].method == ("short-tries" if norm == "linf" else "fab-t")
    assert strong.curve_member.method == ("apgd" if norm == "l1" else "short-tries")


CARD = '[threat]\nnorm = "linf"\n[[attack]]\nmethod = "pgd"\n'

BAD = {
    "not TOML": ("[[attack]\n", "not valid TOML"),
    "unknown key": (CARD + "[extra]\na = 1\n", "unknown key 'extra'"),
    "unknown threat key": ('[threat]\nnrom = "linf"\n[[attack]]\nmethod = "pgd"\n', "Did you mean 'norm'"),
    "no attack": ('[threat]\nnorm = "linf"\n', "attack"),
    "empty attacks": ("attack = []\n", "names no attack"),
    "no method": ("[[attack]]\nsteps = 3\n", "has no method"),
    "unknown method": ('[[attack]]\nmethod = "pdg"\n', "Did you mean 'pgd'"),
    "unknown parameter": ('[[attack]]\nmethod = "pgd"\nstep = 3\n', "Did you mean 'steps'"),
    "threat repeated": ('[[attack]]\nmethod = "pgd"\neps = 0.1\n', "belongs to the threat"),
    "wrong type": ('[[attack]]\nmethod = "pgd"\nsteps = "x"\n', "steps must be of the type int, got str"),
    "no steps": ('[[attack]]\nmethod = "pgd"\nsteps = 0\n', "steps of at least 1"),
    "one-step attack given steps": ('[[attack]]\nmethod = "fgsm"\nsteps = 3\n', "no parameter 'steps'"),
    "same name": (
        '[[attack]]\nmethod = "pgd"\nname = "a"\n[[attack]]\nmethod = "fgsm"\nname = "a"\n',
        "two attacks named",
    ),
    "name of the clean pass": ('[[attack]]\nmethod = "pgd"\nname = "clean"\n', "not 'clean'"),
    "eps in pixels": ("[threat]\neps = 8\n[[attack]]\nmethod = 'pgd'\n", "Did you mean 8/255"),
    "negative eps": ("[threat]\neps = -0.1\n[[attack]]\nmethod = 'pgd'\n", "not negative"),
    "zero division": ("[threat]\neps = '8/0'\n[[attack]]\nmethod = 'pgd'\n", "8/0"),
    "norm": ("[threat]\nnorm = 'l3'\n[[attack]]\nmethod = 'pgd'\n", "l3"),
    "norm without projection": ("[threat]\nnorm = 'l0'\neps = 3\n[[attack]]\nmethod = 'pgd'\n", "knows the norms"),
    "loss": ("[[attack]]\nmethod = 'pgd'\nloss = 'cee'\n", "Did you mean 'ce'"),
    "step size": ("[[attack]]\nmethod = 'pgd'\nstep_size = 0\n", "larger than 0"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_cards(case: str, tmp_path: Path) -> None:
    text, message = BAD[case]
    card = tmp_path / "mine.toml"
    card.write_text(text)
    with pytest.raises(UserError, match=message):
        load_suite(str(card))


def test_unknown_cards() -> None:
    with pytest.raises(UserError, match="Did you mean 'linf-standard'"):
        load_suite("linf-standart")
    with pytest.raises(UserError, match="no card 'nowhere/x.toml'"):
        load_suite("nowhere/x.toml")
