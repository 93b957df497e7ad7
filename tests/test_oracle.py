"""The oracle counts and gives no more than it is asked to."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from robustlab.base.errors import UserError
from robustlab.oracle import Oracle, undisturbed


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
