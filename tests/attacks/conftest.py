"""Small models and data on which attacks are tested."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import attack_class
from robustlab.base.cards import card_names

SUITES = card_names("attacks", "attack")


def small_net(classes: int = 4, channels: int = 3, seed: int = 0) -> nn.Sequential:
    """A BatchNorm convolution net with random weights, in eval mode."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        net = nn.Sequential(
            nn.Conv2d(channels, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(128, classes),
        )
        net(torch.rand(64, channels, 8, 8))  # gives BatchNorm statistics
    return net.eval()


def answered(net: nn.Module, n: int = 40, channels: int = 3, size: tuple[int, int] = (8, 8)) -> tuple[Tensor, Tensor]:
    """Random images with the net's own answers as labels: all are classified right."""
    x = torch.rand(n, channels, *size, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        return x, net(x).argmax(1)


@pytest.fixture
def net() -> nn.Sequential:
    return small_net()


@pytest.fixture
def sample(net: nn.Sequential) -> tuple[Tensor, Tensor]:
    return answered(net)


STEPS = {"square": 120, "fab-t": 12, "apgd": 25, "apgd-t": 15, "fmn": 30, "ddn": 30}  # enough for these nets
SEARCHES: dict[str, dict[str, Any]] = {
    "cw": {"steps": 20, "binary_search_steps": 3, "step_size": 0.05},
    "ead": {"steps": 20, "binary_search_steps": 2, "initial_const": 10.0, "step_size": 0.02},
}


def quick(method: str, **more: Any) -> Any:
    """An attack of the registry with few steps."""
    few = {"steps": STEPS[method]} if method in STEPS else SEARCHES.get(method, {})
    return attack_class(method)(**few | more)
