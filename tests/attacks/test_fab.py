"""FAB-T: its step to the boundary of a linear model, and what its queries cost."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks.driver import drive
from robustlab.attacks.fab import FABT, to_boundary
from robustlab.oracle import Oracle
from robustlab.threat.geometry import distance
from robustlab.threat.model import BUDGET_NORMS

from .conftest import answered, small_net

BATCH, D = 24, 3072


def planes(scale: float = 1.0, share: float = 0.5) -> tuple[Tensor, Tensor, Tensor]:
    """Images, normals of very different values, and gaps that ask for `share` of what the box allows."""
    g = torch.Generator().manual_seed(0)
    x = torch.rand(BATCH, D, generator=g).round(decimals=2)  # ties
    w = torch.randn(BATCH, D, generator=g) ** 3 * scale
    w[:, ::7] = 0
    up = torch.where(torch.arange(BATCH) % 2 == 0, 1.0, -1.0)
    room = torch.where(w * up[:, None] > 0, 1 - x, x)
    return x, w, (w.abs() * room).double().sum(1).float() * share * up


@pytest.mark.parametrize("norm", BUDGET_NORMS)
@pytest.mark.parametrize("scale", [1e-25, 1.0, 1e12])
@pytest.mark.parametrize("share", [1e-4, 0.1, 0.6, 0.999])
def test_it_ends_on_the_plane_whatever_the_scale_of_the_gradient(norm: str, scale: float, share: float) -> None:
    x, w, gap = planes(scale, share)
    move = to_boundary(x, w, gap, norm)
    gained = (w.double() * move.double()).sum(1)
    assert torch.allclose(gained / gap.double(), torch.ones(BATCH, dtype=torch.float64), rtol=1e-4)
    assert (x + move).min() >= -1e-6 and (x + move).max() <= 1 + 1e-6


@pytest.mark.parametrize("share", [1e-3, 0.1, 0.6])
def test_no_move_can_be_shorter(share: float) -> None:
    """The conditions of optimality. linf, l2: what the box does not stop moves by the same t, by the same t |w_i|.
    l1: whatever moves has a weight at least as large as whatever could move on."""
    x, w, gap = planes(1.0, share)
    room = torch.where(w * gap.sign()[:, None] > 0, 1 - x, x) * (w != 0)
    for norm in ("linf", "l2"):
        rate = to_boundary(x, w, gap, norm).abs() / (w.abs() if norm == "l2" else 1)
        going = (rate * (w.abs() if norm == "l2" else 1) < room - 1e-5) & (w != 0)
        largest, least = rate.masked_fill(~going, 0).amax(1), rate.masked_fill(~going, torch.inf).amin(1)
        assert going.any(1).all() and torch.allclose(largest, least, rtol=1e-3)
    move = to_boundary(x, w, gap, "l1").abs()
    moves, could = w.abs().masked_fill(move < 1e-6, torch.inf).amin(1), w.abs().masked_fill(move > room - 1e-6, 0)
    assert (could.amax(1) <= moves * (1 + 1e-5)).all()


@pytest.mark.parametrize("norm", BUDGET_NORMS)
def test_a_row_moves_alike_in_any_batch(norm: str) -> None:
    x, w, gap = planes()
    gap = gap * torch.linspace(0.001, 1.9, BATCH)  # some need many steps, some are out of reach
    together = to_boundary(x, w, gap, norm)
    for i in range(0, BATCH, 5):
        assert torch.equal(to_boundary(x[i : i + 1], w[i : i + 1], gap[i : i + 1], norm)[0], together[i])


@pytest.mark.parametrize("norm", BUDGET_NORMS)
def test_one_normal_serves_several_points(norm: str) -> None:
    x, w, gap = planes()
    both = to_boundary(torch.cat([x, 1 - x]), w, torch.cat([gap, -gap / 2]), norm)
    assert torch.equal(both[:BATCH], to_boundary(x, w, gap, norm))
    assert torch.equal(both[BATCH:], to_boundary(1 - x, w, -gap / 2, norm))


@pytest.mark.parametrize("norm", BUDGET_NORMS)
@pytest.mark.parametrize("gap", [0.0, 1e-30, 1e30])
def test_nothing_is_nan_at_the_edges(norm: str, gap: float) -> None:
    x = torch.tensor([[0.0, 1.0, 0.5, 0.2]]).repeat(3, 1)
    w = torch.tensor([[0.0, 0.0, 0.0, 0.0], [1e-30, -1e-38, 0.0, 1.0], [1.0, -1.0, 1e-20, 0.0]])
    for sign in (1, -1):
        move = to_boundary(x, w, torch.full((3,), sign * gap), norm)
        assert torch.isfinite(move).all() and ((x + move) >= 0).all() and ((x + move) <= 1).all()
        assert (move[0] == 0).all()


@pytest.fixture(scope="module")
def target() -> tuple[nn.Sequential, Tensor, Tensor]:
    net = small_net()
    return net, *answered(net, n=12)


@pytest.mark.parametrize("norm", BUDGET_NORMS)
def test_points_that_are_judged_only_change_nothing_but_the_cost(
    norm: str, target: tuple[nn.Sequential, Tensor, Tensor]
) -> None:
    """With quantum 2 every row gets a gradient at every query, with 1 only those that need it."""
    net, x, y = target
    attack, ids = FABT(norm=norm, steps=15, classes=2), torch.arange(12)  # type: ignore[arg-type]
    lean, full = (drive(attack, Oracle(net), x, y, ids, quantum=quantum) for quantum in (1, 2))
    assert torch.equal(lean.success, full.success) and lean.success.all()
    sizes = [distance(outcome.images - x, norm) for outcome in (lean, full)]
    assert torch.allclose(*sizes, rtol=1e-4)
    assert torch.equal(lean.forwards, full.forwards) and torch.equal(lean.backwards, full.backwards)


def test_a_step_costs_at_most_two_forward_passes_and_mostly_one_gradient(
    target: tuple[nn.Sequential, Tensor, Tensor],
) -> None:
    net, x, y = target
    counted = Oracle(net)
    attack = FABT(steps=40, classes=1)
    outcome = attack.run(counted, x, y)
    assert (outcome.forwards <= 2 * 40 + 2).all()  # the clean look and the last point besides
    assert (outcome.backwards >= 40).all() and outcome.backwards.double().mean() < 1.25 * 40
    assert counted.backwards == outcome.backwards.sum()  # none is computed that is not charged


def test_a_budget_ends_a_sample_at_its_first_point_inside(target: tuple[nn.Sequential, Tensor, Tensor]) -> None:
    net, x, y = target
    free = FABT(steps=30, classes=2).run(net, x, y)
    eps = distance(free.images - x, "linf").median().item() * 1.01
    bound = replace(FABT(steps=30, classes=2), eps=eps).run(net, x, y)
    assert math.isfinite(eps) and (bound.success >= (distance(free.images - x, "linf") <= eps)).all()
    assert (bound.backwards[bound.success] < free.backwards[bound.success]).all()
