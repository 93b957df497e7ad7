"""A little world of coloured patterns, nets that are trained on it in a second, and what an audit says of them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import nn

import robustlab
from robustlab.attacks.suite import Suite, load_suite
from robustlab.base.errors import RunError
from robustlab.evaluation.listener import Listener
from robustlab.runs import read_run

EPS = 25 / 255
CLASSES = 4


def patterns(n: int, classes: int = CLASSES, shape: tuple[int, int, int] = (3, 8, 8), seed: int = 0) -> Any:
    """n 8-bit images of `classes` smooth patterns under noise, and their labels."""
    dice = torch.Generator().manual_seed(0)
    coarse = torch.rand(classes, shape[0], 3, 3, generator=dice)
    templates = F.interpolate(coarse, size=shape[1:], mode="bilinear", align_corners=True)
    dice.manual_seed(seed + 1)
    y = torch.randint(classes, (n,), generator=dice)
    noise = 0.12 * torch.randn(n, *shape, generator=dice)
    strength = 0.35 + 0.65 * torch.rand(n, 1, 1, 1, generator=dice)
    x = (0.5 + strength * (templates[y] - 0.5) + noise).clamp(0, 1)
    return (255 * x).round() / 255, y


def conv(classes: int = CLASSES, channels: int = 3, width: int = 12) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(channels, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, width, 3, padding=1, stride=2),
        nn.ReLU(),
        nn.Flatten(),
        nn.LazyLinear(classes),
    )


def trained(
    make: Callable[[], nn.Module], data: Any = None, steps: int = 60, eps: float = 0.0, rate: float = 3e-3
) -> nn.Module:
    """A net in eval mode, trained on patterns; with eps on what one gradient step makes of them."""
    x, y = data or patterns(512)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = make()
        net(x[:8])
        adam = torch.optim.Adam(net.parameters(), lr=rate)
        for step in range(steps):
            at = torch.arange(step * 128, step * 128 + 128) % len(x)
            shown = x[at]
            if eps:
                shown = (shown + eps * (2 * torch.rand_like(shown) - 1)).clamp(0, 1).requires_grad_(True)
                (slope,) = torch.autograd.grad(F.cross_entropy(net(shown), y[at]), shown)
                shown = (shown + 1.25 * eps * slope.sign()).detach()
                shown = torch.clamp(shown, x[at] - eps, x[at] + eps).clamp(0, 1)
            adam.zero_grad()
            F.cross_entropy(net(shown), y[at]).backward()
            adam.step()
    return net.eval()


@cache
def plain_net() -> nn.Module:
    return trained(conv)


@pytest.fixture
def world() -> SimpleNamespace:
    """How patterns and nets are made; `plain` is a net that is trained once."""
    return SimpleNamespace(patterns=patterns, conv=conv, trained=trained, plain=plain_net)


@pytest.fixture
def audited(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """A function: audited(model, data, suite, **options) -> {check: (status, measured, numbers)}."""

    def audit(model: nn.Module, data: Any = None, suite: Any = None, **options: Any) -> dict[str, Any]:
        if not isinstance(suite, Suite):
            suite = load_suite(attacks=suite) if isinstance(suite, list) else load_suite(suite, norm="linf", eps=EPS)
        others = options.pop("others", {})
        quiet = Listener(say=lambda text: None)
        x, y = data or patterns(80, seed=1)
        given: dict[str, Any] = {"audit": 32, "curve": [], "keep": 0} | options
        try:
            robustlab.evaluate(
                {"net": model, **others}, (x, y), suite, output=tmp_path / "run", listener=quiet, **given
            )
        except RunError:
            pass  # the numbers are there all the same
        checks = read_run(tmp_path / "run").info["audit"]["net"]["checks"]
        return {check["name"]: check for check in checks}

    return audit
