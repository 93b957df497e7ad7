"""Norms, projections and random starts against closed forms and brute force."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import brentq

from robustlab.base.draws import keys
from robustlab.base.errors import UserError
from robustlab.threat.geometry import distance, project, random_start, steepest
from robustlab.threat.model import BUDGET_NORMS, ThreatModel, parse_eps


@pytest.mark.parametrize(
    ("text", "value"), [("8/255", 8 / 255), ("0.5", 0.5), (0.25, 0.25), ("1e-3", 1e-3), (" 2 / 4 ", 0.5)]
)
def test_eps_as_typed(text: str | float, value: float) -> None:
    assert parse_eps(text) == value


@pytest.mark.parametrize("text", ["", "8/0", "-1", "x", "nan", "inf", "8/255/2", "--1"])
def test_bad_eps(text: str) -> None:
    with pytest.raises(UserError, match="eps must be"):
        parse_eps(text)


def test_bad_threats() -> None:
    with pytest.raises(UserError, match="Did you mean 'linf'"):
        ThreatModel(norm="lin")  # type: ignore[arg-type]
    with pytest.raises(UserError, match="Did you mean 8/255"):
        ThreatModel(eps=8)


def test_distances() -> None:
    delta = torch.tensor([[[0.3, -0.4], [0.0, 0.0]]])
    assert [round(float(distance(delta, n)), 6) for n in ("linf", "l2", "l1", "l0")] == [0.4, 0.5, 0.7, 2]


@pytest.mark.parametrize("norm", BUDGET_NORMS)
@pytest.mark.parametrize("eps", [0.0, 0.01, 0.5, 3.0])
def test_projection_is_inside_and_idempotent(norm: str, eps: float) -> None:
    g = torch.Generator().manual_seed(0)
    clean = torch.rand(16, 3, 5, 7, generator=g)
    points = clean + torch.randn(16, 3, 5, 7, generator=g)
    inside = project(points, clean, norm, eps)
    assert inside.min() >= 0 and inside.max() <= 1
    assert distance(inside - clean, norm).max() <= eps + 1e-6 * max(1, eps)
    assert torch.allclose(project(inside, clean, norm, eps), inside, atol=1e-6)
    if eps == 0:
        assert torch.equal(inside, clean)


@pytest.mark.parametrize("norm", BUDGET_NORMS)
def test_points_inside_stay(norm: str) -> None:
    clean = torch.rand(4, 3, 4, 4)
    near = (clean + 1e-3 * torch.randn_like(clean)).clamp(0, 1)
    assert torch.allclose(project(near, clean, norm, 1.0), near, atol=1e-6)


@given(seed=st.integers(0, 10_000), eps=st.floats(0.01, 4.0))
@settings(max_examples=60, deadline=None)
def test_l1_projection_is_the_nearest_point_of_ball_and_box(seed: int, eps: float) -> None:
    g = np.random.default_rng(seed)
    x, v = g.random(12), g.random(12) * 4 - 2
    got = project(torch.tensor(v)[None], torch.tensor(x)[None], "l1", eps)[0].numpy()
    d = v - x
    room = np.where(d > 0, 1 - x, x)

    def size(t: float) -> float:
        return float(np.minimum(np.maximum(np.abs(d) - t, 0), room).sum())

    t = 0.0 if size(0.0) <= eps else brentq(lambda t: size(t) - eps, 0.0, np.abs(d).max(), xtol=1e-13)
    wanted = x + np.sign(d) * np.minimum(np.maximum(np.abs(d) - t, 0), room)
    assert np.allclose(got, wanted, atol=2e-6)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_random_starts_fill_the_ball_and_depend_on_their_key(norm: str) -> None:
    clean = torch.full((400, 1, 2, 2), 0.5)
    key = keys(0, torch.arange(400), "start")
    start = random_start(clean, norm, 0.4, key)
    size = distance(start - clean, norm)
    assert size.max() <= 0.4 + 1e-6
    # uniform in a ball of dimension 4: the share of the volume within half the radius is 1/16
    assert abs((size <= 0.2).double().mean().item() - 1 / 16) < 0.04
    assert abs((start - clean).mean().item()) < 0.02
    assert torch.equal(random_start(clean[5:6], norm, 0.4, key[5:6]), start[5:6])


@pytest.mark.parametrize("norm", BUDGET_NORMS)
@pytest.mark.parametrize("scale", [1e-30, 1e-10, 1.0, 1e6])
@pytest.mark.parametrize("size", [0.05, 2.0])
def test_steepest_steps_have_their_length_whatever_the_scale_of_the_gradient(
    norm: str, scale: float, size: float
) -> None:
    g = torch.randn(6, 3, 8, 8, generator=torch.Generator().manual_seed(1)) * scale
    step = steepest(g, torch.full_like(g, 0.5), norm, size)
    assert torch.allclose(distance(step, norm), torch.full((6,), size, dtype=torch.float64), rtol=1e-5)
    assert ((step * g).flatten(1).sum(1) > 0).all()
    assert torch.equal(steepest(torch.zeros_like(g), torch.full_like(g, 0.5), norm, size), torch.zeros_like(g))


def test_l1_steps_go_along_the_largest_gradients_as_far_as_the_box_lets_them() -> None:
    g = torch.arange(100, 0, -1.0).view(1, 1, 1, 100)
    x = torch.full((1, 1, 1, 100), 0.5)
    x[..., 0], x[..., 1] = 1.0, 0.8
    assert torch.allclose(steepest(g, x, "l1", 1.0)[0, 0, 0, :5], torch.tensor([0.0, 0.2, 0.5, 0.3, 0.0]))
