"""The second look at finished points: budget, box, criterion, 8 bits."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from robustlab.evaluation.judging import judge, to_8bit
from robustlab.threat.geometry import distance
from robustlab.threat.model import ThreatModel


def brightness(x: Tensor) -> Tensor:
    """Class 1 where the mean is over one half."""
    mean = x.flatten(1).mean(1)
    return torch.stack([0.5 - mean, mean - 0.5], 1)


def look(
    points: Tensor, clean: Tensor, eps: float, norm: str = "linf", targeted: bool = False
) -> dict[str, list[bool]]:
    y = torch.zeros(len(points), dtype=torch.long)
    threat = ThreatModel(norm, eps, targeted)  # type: ignore[arg-type]
    verdict = judge(brightness, points, clean, y, y + 1 if targeted else y - 1, threat, 2)
    return {key: getattr(verdict, key).tolist() for key in ("success", "inside", "success_8bit", "leaves_8bit")}


def test_budget_and_box() -> None:
    clean = torch.full((4, 1, 2, 2), 0.95)
    points = clean + torch.tensor([0.04, 0.0500005, 0.051, -0.06]).view(4, 1, 1, 1)
    assert look(points, clean, 0.05)["inside"] == [True, False, False, False]
    assert look(points[:2].clamp(max=1), clean[:2], 0.05)["inside"] == [True, True]  # 5e-7 over is rounding
    assert look(clean + 0.03, clean, 0.05, "l2")["inside"] == [False] * 4
    nan = look(torch.full((1, 1, 2, 2), torch.nan), clean[:1], 0.05)
    assert nan["inside"] == [False]


def test_success_and_target() -> None:
    clean = torch.full((2, 1, 2, 2), 0.49)
    points = clean + torch.tensor([0.005, 0.02]).view(2, 1, 1, 1)
    assert look(points, clean, 0.05)["success"] == [False, True]
    assert look(points, clean, 0.05, targeted=True)["success"] == [False, True]


def test_what_rounding_undoes() -> None:
    clean = torch.full((2, 1, 2, 2), 127 / 255)
    points = torch.full((2, 1, 2, 2), 0.5002)  # rounds to 128 / 255, class 1
    points[1] = 0.50001
    points[1, 0, 0, 0] = 0.49995 + 1e-4
    seen = look(points, clean, 0.01)
    assert seen["success"] == [True, True] and seen["success_8bit"] == [True, True]
    near = torch.full((1, 1, 2, 2), 127.4 / 255)
    assert torch.equal(to_8bit(near, clean[:1], ThreatModel(eps=1 / 255)), clean[:1])


@given(seed=st.integers(0, 999), k=st.integers(0, 20), on_grid=st.booleans())
@settings(max_examples=60, deadline=None)
def test_linf_rounding_stays_in_the_ball_and_is_the_nearest_such_value(seed: int, k: int, on_grid: bool) -> None:
    g = torch.Generator().manual_seed(seed)
    clean = torch.rand(1, 1, 6, 6, generator=g)
    if on_grid:
        clean = (clean * 255).round() / 255
    eps = k / 255 + (0 if on_grid else 0.5 / 255)  # off the grid, half a level always leaves a value in the ball
    points = (clean + (2 * torch.rand(clean.shape, generator=g) - 1) * eps).clamp(0, 1)
    rounded = to_8bit(points, clean, ThreatModel(eps=eps))
    assert torch.allclose((rounded * 255).round() / 255, rounded, atol=1e-7)
    assert distance(rounded - clean, "linf").max() <= eps + 1e-6
    levels = torch.arange(256).double() / 255
    allowed = (levels - clean.double().view(-1, 1)).abs() <= eps + 1e-6
    gap = (levels - points.double().view(-1, 1)).abs().masked_fill(~allowed, 9).amin(1)
    assert torch.allclose((rounded.double() - points).abs().view(-1), gap, atol=1e-6)


@pytest.mark.parametrize("norm", ["l2", "l1"])
def test_other_norms_round_inwards_where_the_nearest_grid_leaves_the_ball(norm: str) -> None:
    g = torch.Generator().manual_seed(0)
    clean = (torch.rand(8, 3, 6, 6, generator=g) * 255).round() / 255
    points = (clean + 0.02 * torch.randn(clean.shape, generator=g)).clamp(0, 1)
    for eps in (distance(points - clean, norm).max().item(), 9.0 if norm == "l2" else 99.0):
        rounded = to_8bit(points, clean, ThreatModel(norm, eps))  # type: ignore[arg-type]
        assert torch.allclose((rounded * 255).round() / 255, rounded, atol=1e-7)
        assert (distance(rounded - clean, norm) <= eps + 1e-6 * max(1, eps)).all()
    assert torch.allclose(rounded, (points * 255).round() / 255)  # a large ball: the nearest grid value
