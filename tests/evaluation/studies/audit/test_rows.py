"""The audit reads the run's own rows: what they say of many samples, a small audited subset may not show."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustlab
from robustlab.attacks.suite import load_suite
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.studies.audit.finding import Finding
from robustlab.evaluation.studies.audit.rows import QUESTIONS, Ran, Rival, with_rows
from robustlab.evaluation.studies.audit.study import CHECKS
from robustlab.runs.aggregates import Line

EPS = 0.1


def tried(attack: str, ids: Iterable[int], broken: Iterable[int] = (), errors: Iterable[int] = (), **more: Any) -> Any:
    hits, failed = set(broken), set(errors)
    made = []
    for i in ids:
        fields = {"success": i in hits, "verified": True if i in hits else None, "error": "E" if i in failed else None}
        made.append(Line(model="m", attack=attack, eps=EPS, id=i, label=0, clean=0, **(fields | more)))
    return attack, made


def ran(attacks: list[str], *lines: Any, **more: Any) -> Ran:
    return Ran(load_suite(attacks=attacks, norm="linf", eps=EPS), dict(lines), **more)


GRADIENTS = ["apgd", "apgd-t"]
CASES: dict[str, tuple[Ran, str, list[Rival]]] = {
    "square behind gradients": (
        ran(
            [*GRADIENTS, "square"],
            tried("apgd", range(200), range(20)),
            tried("apgd-t", range(20, 200), range(20, 27)),
            tried("square", range(27, 200), range(30, 36)),
        ),
        "score_based",
        [Rival("square", "the gradient attacks", 6, 173)],
    ),
    "square first, in a cascade": (
        ran(["square", "apgd"], tried("square", range(200), range(50)), tried("apgd", range(50, 200), range(60, 70))),
        "score_based",
        [],
    ),
    "square between": (
        ran(
            ["pgd", "square", "apgd"],
            tried("pgd", range(100), range(40)),
            tried("square", range(40, 100), range(40, 50)),
            tried("apgd", range(50, 100), range(50, 60)),
        ),
        "score_based",
        [Rival("square", "pgd", 10, 60)],
    ),
    "square first, in a full run": (
        ran(["square", "apgd"], tried("square", range(99), range(9)), tried("apgd", range(99), range(5)), full=True),
        "score_based",
        [Rival("square", "apgd", 4, 94)],
    ),
    "what ended in an error says nothing": (
        ran(
            ["apgd", "square"],
            tried("apgd", range(20), (), errors=range(10)),
            tried("square", range(20), range(12), errors=range(10, 12)),
        ),
        "score_based",
        [Rival("square", "apgd", 0, 8)],
    ),
    "nothing was left": (
        ran(["apgd", "square"], tried("apgd", range(20), range(20)), tried("square", [])),
        "score_based",
        [],
    ),
    "no gradient attack": (ran(["square"], tried("square", range(20), range(9))), "score_based", []),
    "fab behind apgd": (
        ran(["apgd", "fab-t"], tried("apgd", range(100), range(50)), tried("fab-t", range(50, 100), range(50, 86))),
        "on_distance",
        [Rival("fab-t", "apgd", 36, 50)],
    ),
    "fmn saw every sample, pgd did not": (
        ran(
            ["fgsm", "pgd", "fmn"],
            tried("fgsm", range(90), range(30)),
            tried("pgd", range(30, 90), range(30, 40)),
            tried("fmn", range(90), range(45)),
        ),
        "on_distance",
        [Rival("fmn", "the gradient attacks", 5, 50)],
    ),
    "one step behind many": (
        ran(["pgd", "fgsm"], tried("pgd", range(100), range(10)), tried("fgsm", range(100), range(14)), full=True),
        "one_step",
        [Rival("fgsm", "pgd", 4, 90)],
    ),
    "one step first, as in the default suite": (
        ran(["fgsm", "pgd"], tried("fgsm", range(100), range(60)), tried("pgd", range(60, 100), range(60, 70))),
        "one_step",
        [],
    ),
    "the last restart": (
        ran(["pgd:restarts=3"], tried("pgd", range(50), range(4), rank=2)),
        "last_restarts",
        [Rival("the last random start of pgd", "those before", 4, 50)],
    ),
    "ranks of a targeted attack are no restarts": (
        ran(["apgd-t:restarts=2"], tried("apgd-t", range(50), range(4), rank=1)),
        "last_restarts",
        [],
    ),
    "fell at a smaller budget": (
        ran(["pgd"], tried("pgd", range(50), range(10)), below=frozenset({3, 20, 21})),
        "succeeded_below",
        [Rival("the curve's attack at a smaller budget", "the suite", 2, 40)],
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_what_rows_say(case: str) -> None:
    rows, question, rivals = CASES[case]
    assert getattr(rows, question)() == rivals


def test_nothing_was_asked_of_no_sample() -> None:
    empty = ran([*GRADIENTS, "fab-t", "square"], *(tried(name, []) for name in (*GRADIENTS, "fab-t", "square")))
    for question in ("score_based", "on_distance", "one_step", "last_restarts", "succeeded_below"):
        assert getattr(empty, question)() == []
    assert empty.unconfirmed() == 0


def test_every_question_belongs_to_a_check() -> None:
    assert QUESTIONS.keys() <= {check.name for check in CHECKS}


@pytest.mark.parametrize(
    ("k", "n", "many", "before", "after"),
    [
        (6, 173, "fail", "pass", "fail"),  # the run that was passed before
        (2, 199, "fail", "pass", "fail"),
        (2, 200, "fail", "pass", "warn"),  # no more than one in a hundred
        (1, 4, "fail", "pass", "warn"),  # a single one is no evidence
        (0, 173, "fail", "pass", "pass"),
        (0, 173, "fail", "warn", "warn"),
        (0, 173, "fail", "not run", "not run"),
        (6, 173, "fail", "not run", "fail"),
        (2, 50, "warn", "pass", "warn"),
        (2, 250, "warn", "pass", "pass"),
        (6, 173, "warn", "fail", "fail"),
    ],
)
def test_status(k: int, n: int, many: Any, before: Any, after: str) -> None:
    attack, check = ("square", "black-box") if many == "fail" else ("fab-t", "converged")
    rows = ran(["pgd", attack], tried("pgd", range(n)), tried(attack, range(n), range(k)))
    found = with_rows(check, Finding(before, "Said."), rows)
    assert found.status == after
    assert found.measured == f"Said. In the run itself {attack} broke {k} of the {n} that pgd had left."
    assert found.numbers["run"][attack]["n"] == n


def test_two_questions_of_one_check() -> None:
    rows = ran(["pgd", "fab-t"], tried("pgd", range(50)), tried("fab-t", range(50)), below=frozenset({3}))
    found = with_rows("converged", Finding("pass", "Said."), rows)
    assert found.status == "warn" and len(found.numbers["run"]) == 2 and found.measured.count("In the run itself") == 2


class Masked(nn.Module):
    """A net whose images are rounded, which has no gradient, where their first value is dark: one in ten."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        dark = (x[:, :1, :1, :1] < 0.15).float()
        return self.net(dark * (x * 12).round() / 12 + (1 - dark) * x)  # type: ignore[no-any-return]


@pytest.fixture
def evaluated(world: Any, tmp_path: Path) -> Callable[..., Any]:
    def run(*attacks: str, model: nn.Module | None = None, **options: Any) -> Any:
        suite = load_suite(attacks=attacks, norm="linf", eps=25 / 255)
        given = {"audit": 4, "curve": [], "keep": 0, "output": tmp_path / "run", "overwrite": True} | options
        x, y = world.patterns(120, seed=1)
        x = x.clone()
        x[:, :, :1, :1] = torch.where(torch.arange(120) % 4 == 0, 0.0, 1.0)[:, None, None, None]
        quiet = Listener(say=lambda text: None)
        stored = robustlab.evaluate({"net": model or Masked(world.plain())}, (x, y), suite, listener=quiet, **given)
        return {check["name"]: check for check in stored.info["audit"]["net"]["checks"]}, stored

    return run


@pytest.mark.parametrize("chunk_size", [512, 25])
def test_a_small_audit_does_not_pass_what_the_run_contradicts(chunk_size: int, evaluated: Callable[..., Any]) -> None:
    found, stored = evaluated("pgd:steps=10", "square:steps=300", chunk_size=chunk_size)
    pgd = {line.id for line in stored.lines if line.attack == "pgd" and not line.succeeded}
    square = {line.id for line in stored.lines if line.attack == "square" and line.succeeded}
    assert len(square) > 1
    box = found["black-box"]
    assert box["status"] == "fail" and "covers it" in box["advice"]
    assert f"In the run itself square broke {len(square)} of the {len(pgd)} that pgd had left." in box["measured"]
    assert box["numbers"]["run"]["square"]["n"] == len(pgd)


def test_full_runs_and_other_orders(evaluated: Callable[..., Any]) -> None:
    full, _ = evaluated("square:steps=300", "pgd:steps=10", full=True)
    assert full["black-box"]["status"] == "fail" and full["black-box"]["numbers"]["run"]["square"]["value"] > 0.01
    first, _ = evaluated("square:steps=300", "pgd:steps=10")
    assert "run" not in first["black-box"]["numbers"]


def test_an_honest_model_has_nothing_to_hide(evaluated: Callable[..., Any], world: Any) -> None:
    found, _ = evaluated("fgsm", "pgd:steps=20", "fab-t:steps=10", "square:steps=100", model=world.plain(), full=True)
    for name in ("black-box", "one-step", "converged"):
        assert found[name]["status"] != "fail" and "In the run itself" in found[name]["measured"]
