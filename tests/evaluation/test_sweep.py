"""The security curve of short tries: what is tried at each budget, from where, and what comes of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustlab
from robustlab.attacks.short_tries import OneTry, ShortTries
from robustlab.attacks.suite import load_suite
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.neighbour import STEPS, Neighbour
from robustlab.runs import Run

BUDGETS = [0.005, 0.01, 0.02, 0.03, 0.04]
EPS = 0.02


@pytest.fixture
def net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 3)).eval()


@pytest.fixture
def data(net: nn.Sequential) -> tuple[Tensor, Tensor]:
    """Away from the box, so that it does not bind."""
    x = 0.1 + 0.8 * torch.rand(60, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return x, net(x).argmax(1)


def reaches(net: nn.Sequential, x: Tensor, y: Tensor) -> Tensor:
    """(n,): the exact linf distance of each sample on a linear model."""
    w, z = net[1].weight.detach(), net(x).detach()
    gap, slope = z.gather(1, y[:, None]) - z, (w[None] - w[y][:, None]).abs().sum(2)
    return (gap / slope).scatter(1, y[:, None], torch.inf).amin(1)


def run(net: nn.Module, data: Any, folder: Path, **options: Any) -> Any:
    options = {"audit": 0, "curve": BUDGETS, "keep": 0, "chunk_size": 32} | options
    suite = load_suite("linf-standard", eps=EPS)
    return robustlab.evaluate({"net": net}, data, suite, output=folder, listener=Listener(say=print), **options)


def test_the_curve_is_the_closed_form_and_only_what_is_not_known_is_tried(
    net: nn.Sequential, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    stored = run(net, data, tmp_path / "run")
    size = reaches(net, *data)
    assert (size - size.new_tensor(BUDGETS)[:, None]).abs().min() > 1e-5
    curve = {p["eps"]: p["share"]["value"] for p in stored.info["aggregates"]["models"][0]["curve"]}
    assert list(curve) == [0.0, *BUDGETS]
    for eps in BUDGETS:
        assert curve[eps] == pytest.approx(float((size > eps).float().mean()))
    tried = {e: {line.id for line in stored.lines if (line.attack, line.eps) == ("short-tries", e)} for e in BUDGETS}

    def fell(eps: float) -> set[int]:
        return set((size <= eps).nonzero()[:, 0].tolist())

    everyone = set(range(60))
    assert tried[0.01] == fell(EPS) and tried[0.005] == fell(0.01)
    assert tried[0.03] == everyone - fell(EPS) and tried[0.04] == everyone - fell(0.03)
    assert all(0 < len(tried[e]) < 60 for e in BUDGETS)
    for line in stored.lines:  # from where the budget before ended, most have succeeded already
        if line.attack == "short-tries" and line.eps == 0.005 and line.success:
            assert line.backwards <= 1
        assert line.backwards <= 3 * 32


def test_a_sweep_with_a_missing_unit_is_done_again_and_gives_the_same(
    net: nn.Sequential, data: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = run(net, data, tmp_path / "whole")
    write, written = Run.write_unit, []

    def failing(self: Run, model: str, attack: str, eps: float, *rest: Any) -> None:
        if eps == 0.04 and len(written) < 1:
            written.append(eps)
            raise KeyboardInterrupt
        write(self, model, attack, eps, *rest)

    monkeypatch.setattr(Run, "write_unit", failing)
    with pytest.raises(KeyboardInterrupt):
        run(net, data, tmp_path / "cut")
    assert written
    again = run(net, data, tmp_path / "cut", resume=True)
    assert again.lines == whole.lines


def test_other_attacks_try_everything_below_so_that_a_weak_one_is_found_out(
    net: nn.Sequential, data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    suite = load_suite(attacks=["pgd:steps=5"], eps=EPS)
    quiet = Listener(say=print)
    options: dict[str, Any] = {"audit": 0, "curve": BUDGETS, "keep": 0}
    stored = robustlab.evaluate({"net": net}, data, suite, output=tmp_path / "run", listener=quiet, **options)
    tried = {e: sum((line.attack, line.eps) == ("pgd", e) for line in stored.lines) for e in BUDGETS}
    assert tried[0.005] == 60 > tried[0.01] > tried[0.03]


def test_points_are_scaled_to_the_next_budget() -> None:
    x = torch.full((2, 1, 1, 2), 0.5)
    near, attack = Neighbour(), ShortTries(eps=0.2)
    first = near.starting(attack, x, [7, 9])
    assert isinstance(first, OneTry) and first.points is None and (first.steps, first.restarts) == (STEPS, 1)
    near.ended(first, x + torch.tensor([0.2, -0.1]), [7, 9])
    smaller = near.starting(ShortTries(eps=0.1), x[:1], [9])
    assert isinstance(smaller, OneTry) and smaller.points is not None
    assert torch.allclose(smaller.points, x[:1] + torch.tensor([0.1, -0.05]))
    unknown = near.starting(ShortTries(eps=0.1), x[:1], [3])
    assert isinstance(unknown, OneTry) and unknown.points is not None and torch.equal(unknown.points, x[:1])


def test_what_was_made_of_other_samples_is_made_again(
    net: nn.Sequential, data: tuple[Tensor, Tensor], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first attack ends in an error, the run is killed later, and goes on with a model that is well."""

    class Ill(nn.Module):
        ill = False

        def forward(self, x: Tensor) -> Tensor:
            if self.ill and x.requires_grad:
                raise ArithmeticError("not today")
            out: Tensor = net(x)
            return out

    model = Ill().eval()
    whole = run(model, data, tmp_path / "whole")
    model.ill = True
    write = Run.write_unit

    def dying(self: Run, name: str, attack: str, eps: float, chunk: int, *rest: Any) -> None:
        if model.ill and chunk == 1 and attack == "short-tries":
            raise KeyboardInterrupt
        write(self, name, attack, eps, chunk, *rest)

    monkeypatch.setattr(Run, "write_unit", dying)
    with pytest.raises(KeyboardInterrupt):
        run(model, data, tmp_path / "cut")
    model.ill = False
    assert run(model, data, tmp_path / "cut", resume=True).lines == whole.lines
