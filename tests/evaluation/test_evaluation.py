"""`robustlab.evaluate` as a library call."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import robustlab
from robustlab.attacks import PGD
from robustlab.attacks.suite import load_suite
from robustlab.base.errors import UserError
from robustlab.data import Data
from robustlab.evaluation.listener import Listener
from robustlab.evaluation.targets import random_targets
from robustlab.threat.model import ThreatModel

QUIET = Listener(say=lambda text: None)


def linear(seed: int) -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))


@pytest.fixture
def data() -> tuple[Tensor, Tensor]:
    x = torch.rand(50, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    return x, linear(0)(x).argmax(1)


def run(models: Any, data: Any, folder: Path, **options: Any) -> Any:
    options = {"audit": 0, "curve": []} | options
    suite = options.pop("suite", None) or load_suite(attacks=["pgd:steps=10"], eps="8/255")
    return robustlab.evaluate(models, data, suite, output=folder, listener=QUIET, **options)


def numbers(stored: Any, model: int = 0) -> Any:
    return stored.info["aggregates"]["models"][model]


def test_robust_accuracy_is_the_closed_form_on_a_linear_model(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    """linf: a sample falls exactly if eps times the l1 norm of a difference of weights exceeds the margin."""
    x, y = data
    net = linear(0)
    w, z = net[1].weight.detach(), net(x).detach()
    eps = 0.02
    # away from the box, so that it does not bind
    x = 0.1 + 0.8 * x
    z = net(x).detach()
    y = z.argmax(1)
    gap = z.gather(1, y[:, None]) - z
    reach = eps * (w[None] - w[y][:, None]).abs().sum(2)
    robust = ((gap > reach) | (torch.arange(3)[None] == y[:, None])).all(1)
    suite = load_suite(attacks=["pgd:steps=30,loss=margin,restarts=3"], eps=eps)
    stored = run({"net": net}, (x, y), tmp_path / "run", suite=suite)
    got = numbers(stored)["robust_accuracy"]
    assert round(got["value"] * 50) == int(robust.sum()) and 0 < int(robust.sum()) < 50


def test_the_run_says_what_a_call_says(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    x, y = data
    net = linear(0)
    stored = run({"net": net}, (x, y), tmp_path / "run", suite=load_suite(attacks=["pgd:steps=7"], eps=0.03), seed=4)
    outcome = PGD(eps=0.03, steps=7).run(net, x, y, ids=torch.arange(50), seed=4)
    lines = {line.id: line for line in stored.lines if line.attack == "pgd" and line.eps == 0.03}
    assert [lines[i].success for i in range(50)] == outcome.success.tolist()
    assert [lines[i].forwards for i in range(50)] == outcome.forwards.tolist()


def test_eps_zero_is_clean_accuracy(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    stored = run({"net": linear(1)}, data, tmp_path / "run", suite=load_suite("linf-standard", eps=0))
    assert numbers(stored)["robust_accuracy"] == numbers(stored)["clean_accuracy"]
    assert 0 < numbers(stored)["clean_accuracy"]["value"] < 1


def test_several_models_are_compared_on_the_same_images(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    stored = run({"a": linear(0), "b": linear(1)}, data, tmp_path / "run")
    assert [m["name"] for m in stored.info["aggregates"]["models"]] == ["a", "b"]
    (pair,) = stored.info["aggregates"]["pairs"]
    clean = [numbers(stored, i)["clean_accuracy"]["value"] for i in (0, 1)]
    assert abs(pair["clean"]["value"] - (clean[1] - clean[0])) < 1e-12
    assert pair["clean"]["low"] <= pair["clean"]["value"] <= pair["clean"]["high"] and pair["clean"]["n"] == 50
    both = [{line.id for line in stored.lines if line.model == m and line.attack == "clean"} for m in "ab"]
    assert both[0] == both[1] and len(both[0]) == 50


def test_models_keep_their_mode_buffers_and_gradients(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)).train()
    before = {k: v.clone() for k, v in net.state_dict().items()}
    run(net, data, tmp_path / "run")
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    assert all(m.training for m in net.modules())


def test_search_copy_changes_nothing_but_the_time(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    net = nn.Sequential(nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Flatten(), nn.Linear(32, 3)).eval()
    x, _ = data
    y = net(x).argmax(1)
    with_copy = run({"n": net}, (x, y), tmp_path / "a")
    without = run({"n": net}, (x, y), tmp_path / "b", search_copy=False)
    assert [line.success for line in with_copy.lines] == [line.success for line in without.lines]
    assert with_copy.info["models"][0]["search_copy"]["folded"] is True
    assert without.info["models"][0]["search_copy"]["used"] is False


class Noisy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.inner = linear(0)

    def forward(self, x: Tensor) -> Tensor:
        return self.inner(x) + 0.05 * torch.randn(len(x), 3)  # type: ignore[no-any-return]


def test_suspicious_models_are_warned_about(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    soft = nn.Sequential(linear(0), nn.Softmax(1))
    stored = run({"soft": soft, "noisy": Noisy()}, data, tmp_path / "run")
    text = " ".join(stored.info["warnings"])
    assert "probabilities" in text and "randomised" in text
    noisy = stored.info["models"][1]["search_copy"]
    assert noisy["used"] is False and "differ" in noisy["reason"]


def test_bad_calls(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    x, y = data
    for models, given, message in (
        ([], data, "No model"),
        (3, data, "nn.Module"),
        ({"a": linear(0)}, (x * 3, y), r"\[0, 1\]"),
        ({"a": linear(0)}, (x, y + 5), "classes"),
        ([linear(0), linear(1)], data, "named"),
        ({"a": linear(0)}, (x[:, :, :2], y), "cannot take"),
        ({"a": linear(0)}, (x, y[:20]), "50 images and 20 labels"),
        ({"a": linear(0)}, (x[:0], y[:0]), "no sample"),
    ):
        with pytest.raises(UserError, match=message):
            run(models, given, tmp_path / "run")
    with pytest.raises(UserError, match="8/255"):
        run({"a": linear(0)}, data, tmp_path / "run", curve=["8"])
    twice = Data("twice", "test", x, y, torch.arange(50) // 2, ("0", "1", "2"), "0", ThreatModel())
    with pytest.raises(UserError, match="occur twice"):
        run({"a": linear(0)}, twice, tmp_path / "run")
    assert not (tmp_path / "run").exists()
    with pytest.raises(UserError, match="chunk_size"):
        run({"a": linear(0)}, data, tmp_path / "run", chunk_size=0)


def test_clean_accuracy_is_judged_on_logits_not_on_tied_probabilities(
    data: tuple[Tensor, Tensor], tmp_path: Path
) -> None:
    class Faint(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = linear(0)

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x) * 1e-9  # type: ignore[no-any-return]

    assert numbers(run({"f": Faint()}, data, tmp_path / "run"))["clean_accuracy"]["value"] == 1


def test_targets_are_drawn_from_the_outputs_of_the_model(data: tuple[Tensor, Tensor], tmp_path: Path) -> None:
    x, _ = data
    suite = load_suite(attacks=["fgsm"], eps=0.01, targeted=True)
    y = linear(0)(x).argmax(1)
    stored = run({"n": linear(0)}, (x[y == 1], y[y == 1] * 0 + 1), tmp_path / "run", suite=suite)
    targets = {line.target for line in stored.lines if line.attack == "fgsm"}
    assert targets == {0, 2}
    suite = load_suite(attacks=["fgsm"], eps=0.01, targeted=True, target="2")
    stored = run({"n": linear(0)}, (x[y == 1], y[y == 1] * 0 + 1), tmp_path / "two", suite=suite)
    assert {line.target for line in stored.lines if line.attack == "fgsm"} == {2}


class Masked(nn.Module):
    """Its gradient is worth something only near the image: small budgets find what a large step jumps over."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.flatten(1).mean(1)
        near = ((mean - 0.5).abs() - 0.03).abs() < 0.02
        return torch.stack([torch.ones_like(mean), torch.where(near, 2 + mean, mean - mean.detach())], 1)


def test_what_fell_at_a_smaller_eps_but_not_at_the_headline_is_said(tmp_path: Path) -> None:
    x = torch.full((6, 3, 4, 4), 0.5)
    suite = load_suite(attacks=["pgd:steps=2,random_start=false,step_size=0.2"], eps=0.2)
    stored = run({"m": Masked()}, (x, torch.zeros(6, dtype=torch.long)), tmp_path / "run", suite=suite, curve=["0.03"])
    assert numbers(stored)["robust_accuracy"]["value"] == 1 and numbers(stored)["fallen_at_smaller_eps"] == 6
    assert any("fell at a smaller eps" in warning for warning in stored.info["warnings"])


def test_random_targets_never_hit_the_label_and_are_keyed() -> None:
    ids, y = torch.arange(3000), torch.arange(3000) % 10
    t = random_targets(0, ids, y, 10)
    assert (t != y).all() and (t >= 0).all() and (t < 10).all()
    counts = ((t - y) % 10).bincount(minlength=10)[1:]
    assert counts.min() > 250
    assert torch.equal(random_targets(0, ids.flip(0), y.flip(0), 10).flip(0), t)
