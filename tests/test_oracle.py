"""The oracle counts and gives no more than it is asked to."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import PGD, Square
from robustlab.attacks.lockstep import lockstep
from robustlab.base.errors import UserError
from robustlab.explain import grad_cam, occlusion
from robustlab.oracle import Oracle, ask, undisturbed
from robustlab.testing import assert_robust


def test_counts_and_gradients() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))
    oracle = Oracle(net)
    x = torch.rand(5, 3, 2, 2)
    logits, loss, g = oracle.gradient(x, lambda z: z[:, 0] * torch.arange(5.0), lambda q, i: q)
    wanted = torch.arange(5.0)[:, None] * net[1].weight[0]
    assert torch.allclose(g.flatten(1), wanted) and not logits.requires_grad
    assert logits.shape == (1, 5, 3) and loss.shape == (5,)
    oracle.logits(x)
    assert (oracle.forwards, oracle.backwards) == (10, 5)
    assert not x.requires_grad


def test_views_are_averaged() -> None:
    net = nn.Sequential(nn.Flatten(), nn.Linear(4, 2))
    x = torch.rand(3, 1, 2, 2)
    _, _, g = Oracle(net).gradient(x, lambda z: z[:, 0], lambda q, i: q / 2**i, views=3)
    assert torch.allclose(g.flatten(1), net[1].weight[0] * (1 + 1 / 2 + 1 / 4) / 3, atol=1e-6)


def test_labels_hide_the_scores() -> None:
    z = torch.tensor([[0.1, 3.0, 0.2], [2.0, 0.0, 0.0]])
    wanted = torch.tensor([[0.0, 1, 0], [1, 0, 0]])
    assert torch.equal(Oracle(lambda x: z, gives="labels").logits(torch.zeros(2, 1, 1, 1)), wanted)
    assert torch.equal(Oracle(lambda x: z.argmax(1), gives="labels", classes=3).logits(torch.zeros(2, 1, 1, 1)), wanted)
    with pytest.raises(UserError, match="classes=K"):
        Oracle(lambda x: z.argmax(1), gives="labels").logits(torch.zeros(2, 1, 1, 1))


def test_bad_oracles_and_outputs() -> None:
    with pytest.raises(UserError, match="gives must be"):
        Oracle(nn.Flatten(), gives="all")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="query_budget must be at least 1"):
        Oracle(nn.Flatten(), query_budget=0)
    with pytest.raises(UserError, match=r"shape \(2, K\)"):
        Oracle(nn.Identity()).logits(torch.zeros(2, 1, 2, 2))


class Answers(nn.Module):
    """Returns its logits inside something else, and writes over them in the next call."""

    def __init__(self, pack: Callable[[Tensor], Any]) -> None:
        super().__init__()
        self.pack, self.conv, self.linear = pack, nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4, 3)
        self.kept: Tensor | None = None

    def forward(self, x: Tensor) -> Any:
        if self.kept is not None:
            self.kept.data.zero_()
        self.kept = self.linear(self.conv(x).relu().mean((2, 3)))
        return self.pack(self.kept)


@pytest.mark.parametrize(
    "pack",
    [
        lambda z: z,
        lambda z: SimpleNamespace(loss=None, logits=z, hidden_states=None),
        lambda z: {"logits": z},
        lambda z: (z, [torch.zeros(1)]),
    ],
)
def test_logits_inside_something_else_are_taken_everywhere(pack: Callable[[Tensor], Any], tmp_path: Path) -> None:
    torch.manual_seed(0)
    net = Answers(pack).eval()
    x = torch.rand(6, 3, 8, 8)
    first = ask(net, x)
    assert first.shape == (6, 3) and bool(first.any()) and torch.equal(first, ask(net, x))
    y = first.argmax(1)
    for attack in (PGD(eps=0.1, steps=2), Square(eps=0.1, steps=5)):
        assert attack(net, x, y).shape == x.shape
    near = lockstep(PGD(eps=0.1, steps=2), net, x, y, torch.arange(6))
    assert not torch.equal(near, x)
    assert grad_cam(net, x, y).maps.shape == occlusion(net, x, y).maps.shape == (6, 8, 8)
    run = assert_robust(net, (x, y), "fgsm", at_least=0.0, output=tmp_path / "run")
    assert run.info["aggregates"]["models"][0]["clean_accuracy"]["value"] == 1


def test_undisturbed_puts_everything_back() -> None:
    net = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.Linear(2, 2)).train()
    net[1].eval()
    net[0].bias.requires_grad_(False)
    with pytest.raises(KeyError), undisturbed(net):
        assert not any(m.training for m in net.modules()) and not any(p.requires_grad for p in net.parameters())
        raise KeyError
    assert [m.training for m in net] == [True, False, True]
    assert [p.requires_grad for p in net.parameters()] == [True, False, True, True]
    with undisturbed(lambda x: x):
        pass
