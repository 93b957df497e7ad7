"""The search copy is used only where it says what the model says."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import PGD
from robustlab.base.errors import UserError
from robustlab.models.cnn import cnn
from robustlab.models.resnet import resnet20
from robustlab.models.search_copy import make_search_copy


def trained_statistics(net: nn.Module) -> nn.Module:
    """BatchNorm statistics that are not the initial ones, so that folding them wrongly shows."""
    net.train()
    for _ in range(3):
        net(torch.rand(32, 3, 32, 32))
    return net.eval()


@pytest.mark.parametrize("build", [cnn, resnet20])
def test_folded_copy_agrees_in_logits_and_gradients(build: type) -> None:
    net = trained_statistics(build(10, (3, 32, 32)))
    before = copy.deepcopy(net.state_dict())
    x = torch.rand(16, 3, 32, 32)
    made = make_search_copy(net, x)
    assert made.module is not None and made.folded and made.difference is not None and made.difference < 1e-5
    assert not any(isinstance(m, nn.BatchNorm2d) for m in made.module.modules())  # type: ignore[attr-defined]
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    y = torch.arange(16) % 10
    grads = []
    for model in (net, made.module):
        leaf = x.clone().requires_grad_(True)
        loss = nn.functional.cross_entropy(model(leaf), y, reduction="sum")
        grads.append(torch.autograd.grad(loss, leaf)[0])
    assert (grads[0].sign() == grads[1].sign()).float().mean() > 0.999


def test_bfloat16_copy_attacks_and_the_model_judges() -> None:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = trained_statistics(cnn(10, (3, 32, 32), width=8))
        x = torch.rand(16, 3, 32, 32)
    y = net(x).argmax(1)
    made = make_search_copy(net, x, "bfloat16")
    assert made.module is not None and made.precision == "bfloat16"
    outcome = PGD(eps=0.5, steps=10, loss="margin").run(net, x, y, search=made.module)
    with torch.no_grad():
        assert torch.equal(net(outcome.images).argmax(1) != y, outcome.success)
    assert outcome.success.any()


class Noisy(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)[:, :3] + torch.randn(len(x), 3)


class Branches(nn.Module):
    """Control flow that depends on the data: torch.fx cannot trace it."""

    def __init__(self) -> None:
        super().__init__()
        self.net = nn.Sequential(nn.Flatten(), nn.Linear(12, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if x.sum() > 0 else self.net(-x)  # type: ignore[no-any-return]


class Uncopyable(nn.Module):
    def __deepcopy__(self, memo: object) -> nn.Module:
        raise TypeError("cannot be copied")

    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(1)


def test_models_that_cannot_be_sped_up() -> None:
    x = torch.rand(4, 3, 2, 2)
    noisy = make_search_copy(Noisy(), x)
    assert noisy.module is None and "differ" in noisy.reason
    branches = make_search_copy(Branches(), x)
    assert branches.module is not None and not branches.folded
    uncopyable = make_search_copy(Uncopyable(), x)
    assert uncopyable.module is None and "cannot be copied" in uncopyable.reason
    assert uncopyable.describe()["used"] is False


def test_nan_is_no_agreement() -> None:
    assert make_search_copy(nn.Sequential(nn.Flatten(), nn.ReLU()), torch.full((2, 1, 1, 2), torch.nan)).module is None


def test_unknown_precision() -> None:
    with pytest.raises(UserError, match="float32 or bfloat16"):
        make_search_copy(nn.Flatten(), torch.rand(1, 1, 1, 2), "float16")  # type: ignore[arg-type]
