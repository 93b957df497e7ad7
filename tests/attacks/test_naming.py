"""What attacks are called, and what of a command line is checked before torch is imported."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from robustlab.attacks import ATTACKS, PGD, attack_class
from robustlab.attacks.naming import named
from robustlab.attacks.parameters import THREAT, parameters
from robustlab.attacks.suite import Member, Suite, load_suite, suite_again
from robustlab.evaluation.record import _parameters
from robustlab.runs.examples import slug

from .conftest import SUITES

NAMES = {
    "one of a method": (["pgd:steps=3", "fgsm"], ["pgd", "fgsm"]),
    "losses, one of them the default": (["apgd", "apgd:loss=dlr"], ["apgd-ce", "apgd-dlr"]),
    "steps": (["pgd:steps=10", "pgd:steps=100"], ["pgd-steps10", "pgd-steps100"]),
    "the loss comes first": (
        ["pgd:steps=5,loss=ce", "pgd:steps=9,loss=ce", "pgd:steps=5,loss=dlr"],
        ["pgd-ce-steps5", "pgd-ce-steps9", "pgd-dlr-steps5"],
    ),
    "as little as tells them apart": (["pgd:steps=5,restarts=2", "pgd"], ["pgd-steps5", "pgd-steps20"]),
    "a switch": (["square:rescale=true", "square"], ["square-rescale", "square"]),
    "a switch that is off": (["pgd", "pgd:random_start=false"], ["pgd", "pgd-no-random_start"]),
    "a fraction": (["pgd:step_size=2/255", "pgd:step_size=0.5"], ["pgd-step_size2-255", "pgd-step_size0.5"]),
    "nothing differs": (["pgd", "pgd", "pgd:steps=20"], ["pgd", "pgd-2", "pgd-3"]),
    "some do not differ": (["pgd", "pgd:steps=5", "pgd"], ["pgd-steps20", "pgd-steps5", "pgd-steps20-2"]),
    "a given name holds": (["apgd:loss=dlr", "apgd:name=first"], ["apgd", "first"]),
    "a given name is taken": (["apgd", "apgd:loss=dlr", "fgsm:name=apgd-dlr"], ["apgd-ce", "apgd-dlr-2", "apgd-dlr"]),
    "a given name like a method": (["apgd:name=pgd", "pgd"], ["pgd", "pgd-2"]),
    "a default of its own": (["apgd-t:loss=ce", "apgd-t"], ["apgd-t-ce", "apgd-t-dlr"]),
}


@pytest.mark.parametrize("case", NAMES)
def test_names(case: str) -> None:
    attacks, names = NAMES[case]
    assert [member.name for member in load_suite(attacks=attacks).members] == names
    assert len({slug(name) for name in names}) == len(names)


def test_a_long_value_makes_no_long_name() -> None:
    tables = [{"method": "pgd", "steps": steps} for steps in (10**80, 10**80 + 1)]
    first, second = (each.name for each in named(tables, "--attack"))
    assert len(first) < 40 and second == f"{first}-2"


@pytest.mark.parametrize("method", ATTACKS)
def test_parameters_are_those_of_the_class(method: str) -> None:
    """They are read from its source, without running it."""
    read = parameters(method)
    own = {field.name: field for field in fields(attack_class(method)) if field.init and field.name not in THREAT}
    assert list(read) == list(own)
    types: dict[str, Any] = {"int": int, "float": float, "bool": bool, "str": str, "float | None": float | None}
    assert {key: (each.type, each.default) for key, each in read.items()} == {
        key: (types[str(field.type)], field.default) for key, field in own.items()
    }


EARLY = {
    "eps": (["--eps", "abc"], "such as 8/255, got 'abc'"),
    "eps in pixels": (["--eps", "8"], "Did you mean 8/255"),
    "eps below 0": (["--eps", "-1"], "not negative"),
    "no eps": (["--norm", "l2"], "Add --eps"),
    "curve": (["--curve", "0.1", "abc"], "curve must be a number"),
    "suite": (["--suite", "nope"], "no card 'nope'"),
    "card": (["--suite", "mine.toml"], "unknown key 'stepz'"),
    "method": (["--attack", "pdg"], "Did you mean 'pgd'"),
    "type": (["--attack", "pgd:steps=x"], "steps must be of the type int, got str"),
    "no steps": (["--attack", "pgd:steps=0"], "steps of at least 1, got 0"),
    "loss": (["--attack", "apgd:loss=cee"], "one of ce, margin, dlr, got 'cee'. Did you mean 'ce'?"),
    "step size": (["--attack", "pgd:step_size=x"], "step_size must be a number"),
    "key": (["--attack", "pgd:stepz=3"], "Did you mean 'steps'"),
    "threat key": (["--attack", "pgd:eps=0.1"], "belongs to the threat"),
    "no value": (["--attack", "pgd:steps"], "no key=value"),
    "name": (["--attack", "pgd:name=a/b"], "letters, digits"),
    "same name": (["--attack", "pgd:name=a", "--attack", "fgsm:name=a"], "two attacks named 'a'"),
}

EACH = """
import contextlib, io, json, sys
from robustlab.cli import main
found = []
for words in json.loads(sys.argv[1]):
    with contextlib.redirect_stderr(io.StringIO()) as said:
        code = main(["attack", *words])
    found.append([code, said.getvalue(), "torch" in sys.modules])
print(json.dumps(found))
"""


def test_what_is_wrong_with_threat_and_attacks_is_said_before_torch_is_imported(tmp_path: Path) -> None:
    (tmp_path / "mine.toml").write_text("stepz = 3\n[[attack]]\nmethod = 'pgd'\n")
    words = json.dumps([words for words, _ in EARLY.values()])
    out = subprocess.run([sys.executable, "-c", EACH, words], capture_output=True, text=True, check=True, cwd=tmp_path)
    for (case, (_, message)), (code, said, torch) in zip(EARLY.items(), json.loads(out.stdout), strict=True):
        assert (code, torch) == (2, False) and message in " ".join(said.split()), (case, code, said, torch)


@pytest.mark.parametrize("card", [*SUITES, "pgd:steps=3,step_size=2/255"])
def test_a_run_records_what_its_attacks_do(card: str) -> None:
    """Also of a suite that was made in Python; another number of steps is another configuration."""
    suite = load_suite(attacks=[card]) if ":" in card else load_suite(card)
    assert [_parameters(member) for member in suite.members] == [member.parameters for member in suite.members]
    made = Suite("mine", suite.threat, "8/255", (Member("pgd", "pgd", {}, PGD(steps=7, loss="dlr")),))
    recorded = [{"name": m.name, "method": m.method, "parameters": _parameters(m)} for m in made.members]
    assert recorded[0]["parameters"] == {"steps": 7, "loss": "dlr"}
    again = suite_again({"suite": "mine", "threat": {"norm": "linf", "eps": 8 / 255}, "attacks": recorded})
    assert again.members[0].attack == made.members[0].attack
