"""On a linear classifier of two classes every attack's best result is known exactly."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linprog, minimize
from torch import Tensor, nn

from robustlab.attacks import APGD, FGSM, FMN, MIFGSM, PGD, attack_class
from robustlab.attacks.fab import to_boundary
from robustlab.attacks.losses import LOSSES
from robustlab.base.draws import keys
from robustlab.threat.geometry import distance, random_start

from .conftest import answered, small_net

D = 48  # 3 x 4 x 4


@pytest.fixture
def linear() -> tuple[nn.Module, Tensor]:
    """Logits (0, w x + b) and w."""
    w = torch.randn(D, generator=torch.Generator().manual_seed(3))
    net = nn.Sequential(nn.Flatten(), nn.Linear(D, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.stack([torch.zeros(D), w]))
        net[1].bias.copy_(torch.tensor([0.0, -w.sum().item() / 2]))
    return net, w


def points(net: nn.Module, low: float = 0.3, high: float = 0.7) -> tuple[Tensor, Tensor]:
    """Images far enough from the box that it does not bind, with the net's own labels."""
    x = low + (high - low) * torch.rand(200, 3, 4, 4, generator=torch.Generator().manual_seed(4))
    return x, net(x).argmax(1)


def margins(net: nn.Module, x: Tensor, y: Tensor) -> Tensor:
    z = net(x)
    return (z.gather(1, y[:, None]) - z.gather(1, 1 - y[:, None]))[:, 0].detach()


def dual(w: Tensor, norm: str) -> float:
    return {"linf": w.abs().sum(), "l2": w.norm(), "l1": w.abs().max()}[norm].item()


@pytest.mark.parametrize("attack", [FGSM, PGD, MIFGSM, APGD])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.12), ("l1", 0.2)])
def test_success_exactly_where_the_margin_is_under_eps_times_the_dual_norm(
    linear: tuple[nn.Module, Tensor], attack: type[PGD], norm: str, eps: float
) -> None:
    net, w = linear
    x, y = points(net)
    outcome = attack(norm=norm, eps=eps, loss="margin").run(net, x, y)  # type: ignore[arg-type]
    margin, reach = margins(net, x, y), eps * dual(w, norm)
    assert 0 < outcome.success.sum() < len(x)
    # equal steps of many values, projected, spread some of the l1 budget beyond the largest weight
    assert outcome.success[margin < (0.95 if norm == "l1" and attack is APGD else 0.999) * reach].all()
    assert not outcome.success[margin > 1.001 * reach].any()


def test_fgsm_is_the_closed_form_for_every_sample(linear: tuple[nn.Module, Tensor]) -> None:
    net, w = linear
    x, y = points(net, 0.0, 1.0)
    away = torch.where(y == 1, -1.0, 1.0)[:, None] * w.sign()
    wanted = (x + 0.1 * away.view_as(x)).clamp(0, 1)
    assert torch.allclose(FGSM(eps=0.1)(net, x, y), wanted, atol=1e-6)


def test_pgd_reaches_the_corner_and_keeps_the_last_point_where_it_fails(linear: tuple[nn.Module, Tensor]) -> None:
    net, w = linear
    x, y = points(net)
    outcome = PGD(eps=0.01, steps=20).run(net, x, y)
    failed = ~outcome.success
    away = torch.where(y == 1, -1.0, 1.0)[:, None] * w.sign()
    wanted = (x + 0.01 * away.view_as(x)).clamp(0, 1)
    assert torch.allclose(outcome.images[failed], wanted[failed], atol=1e-6)


def test_pgd_l1_fills_the_largest_weights_up_to_the_box(linear: tuple[nn.Module, Tensor]) -> None:
    """The best l1 point spends eps on the weights in falling order, each only as far as the box lets it."""
    net, w = linear
    x, y = points(net, 0.6, 1.0)
    eps = 1.2
    outcome = PGD(norm="l1", eps=eps, steps=100, stop_at_success=False, random_start=False).run(net, x, y)
    flat, away = x.flatten(1), torch.where(y == 1, -1.0, 1.0)[:, None] * w.sign()
    room = torch.where(away > 0, 1 - flat, flat)
    order = w.abs().argsort(descending=True)
    spent = torch.minimum(room[:, order], (eps - room[:, order].cumsum(1) + room[:, order]).clamp_min(0))
    best = margins(net, x, y) - (spent * w.abs()[order]).sum(1)
    keeps = ~outcome.success
    start, reached = margins(net, x, y)[keeps], margins(net, outcome.images, y)[keeps]
    assert keeps.any()
    assert (reached >= best[keeps] - 1e-4).all()  # nothing can be better than the closed form
    assert ((reached - best[keeps]) <= 0.05 * (start - best[keeps])).all()  # fixed steps end near it


@pytest.mark.parametrize(
    ("method", "norm", "within"),
    [("fmn", "linf", 0.02), ("fmn", "l2", 0.01), ("fmn", "l1", 0.03), ("ddn", "l2", 0.01)]
    + [("fab-t", norm, 0.01) for norm in ("linf", "l2", "l1")],
)
def test_the_nearest_point_lies_at_margin_over_dual_norm(
    linear: tuple[nn.Module, Tensor], method: str, norm: str, within: float
) -> None:
    net, w = linear
    x, y = points(net)
    outcome = attack_class(method)(norm=norm, steps=200).run(net, x, y)
    least = margins(net, x, y) / dual(w, norm)
    found = distance(outcome.images - x, norm)
    assert outcome.success.all()
    assert (found >= least * (1 - 5e-4)).all()  # nothing is nearer than the closed form, up to rounding of the logits
    assert (found / least).median() < 1 + within and (found / least).quantile(0.95) < 1.1


@pytest.mark.parametrize(("method", "norm"), [("deepfool", "linf"), ("deepfool", "l2"), ("cw", "l2")])
def test_foolbox_finds_the_nearest_point_as_well(linear: tuple[nn.Module, Tensor], method: str, norm: str) -> None:
    """One step of DeepFool is exact on a plane, up to its overshoot."""
    net, w = linear
    x, y = points(net)
    outcome = attack_class(method)(norm=norm).run(net, x[:40], y[:40])
    least = margins(net, x[:40], y[:40]) / dual(w, norm)
    found = distance(outcome.images - x[:40], norm)
    assert outcome.success.all()
    assert (found >= least * (1 - 5e-4)).all() and (found / least).median() < 1.05


def test_ead_comes_near_the_least_l1_distance(linear: tuple[nn.Module, Tensor]) -> None:
    net, w = linear
    x, y = points(net)
    outcome = attack_class("ead")().run(net, x[:40], y[:40])
    least = margins(net, x[:40], y[:40]) / dual(w, "l1")
    found = distance(outcome.images - x[:40], "l1")
    assert outcome.success.all() and (found >= least * (1 - 5e-4)).all() and (found / least).median() < 1.2


def test_fmn_l0_needs_hardly_more_values_than_the_closed_form(linear: tuple[nn.Module, Tensor]) -> None:
    """The fewest values that turn a sample: those that gain most by going to the end of the box."""
    net, w = linear
    x, y = points(net)
    away = torch.where(y == 1, -1.0, 1.0)[:, None] * w.sign()
    gain = torch.where(away > 0, 1 - x.flatten(1), x.flatten(1)) * w.abs()
    fewest = (gain.sort(dim=1, descending=True).values.cumsum(1) < margins(net, x, y)[:, None]).sum(1) + 1
    outcome = FMN(norm="l0", steps=200).run(net, x, y)
    found = distance(outcome.images - x, "l0")
    assert outcome.success.all() and (found >= fewest).all() and (found / fewest).median() <= 1.25


def test_fmn_l0_goes_on_where_the_box_is_in_the_way() -> None:
    """The largest weight points out of the box, so that the first value it takes does not move."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(6, 2))
    with torch.no_grad():
        net[1].weight.copy_(torch.tensor([[0.0] * 6, [-9.0, 1.0, 1.0, 1.0, 0.5, 0.5]]))
        net[1].bias.copy_(torch.tensor([0.0, -1.5]))
    x = torch.zeros(1, 1, 2, 3)
    outcome = FMN(norm="l0", steps=60).run(net, x, torch.tensor([0]))
    assert outcome.success.all() and distance(outcome.images - x, "l0").item() == 2


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_to_boundary_is_the_nearest_point_of_the_plane_inside_the_box(norm: str) -> None:
    generator = torch.Generator().manual_seed(0)
    d = 9
    for i in range(30):
        x, w = torch.rand(d, generator=generator), torch.randn(d, generator=generator)
        reach = (
            (w.clamp_min(0) * (1 - x) - w.clamp_max(0) * x).sum(),
            -(w.clamp_min(0) * x - w.clamp_max(0) * (1 - x)).sum(),
        )
        gap = (0.05 + 0.9 * torch.rand(1, generator=generator).item()) * reach[i % 2].item()
        move = to_boundary(x[None], w[None], torch.tensor([gap]), norm)[0]
        assert torch.isclose(w @ move, torch.tensor(gap), atol=1e-4)
        assert (x + move).min() >= -1e-6 and (x + move).max() <= 1 + 1e-6
        assert abs(distance(move[None], norm).item() - _least(x, w, gap, norm)) < 1e-3


def _least(x: Tensor, w: Tensor, gap: float, norm: str) -> float:
    """The same by scipy: a linear program, or for l2 a quadratic one."""
    d, a, b = len(x), w.numpy().astype(float), x.numpy().astype(float)
    if norm == "l2":
        constraint = {"type": "eq", "fun": lambda z: a @ z - gap, "jac": lambda z: a}
        bounds = list(zip(-b, 1 - b, strict=True))
        found = minimize(lambda z: z @ z, np.zeros(d), jac=lambda z: 2 * z, bounds=bounds, constraints=[constraint])
        return float(np.sqrt(found.fun))
    if norm == "linf":  # one bound t for all
        cost, upper = np.r_[np.zeros(d), 1.0], np.r_[np.c_[np.eye(d), -np.ones(d)], np.c_[-np.eye(d), -np.ones(d)]]
        bounds = [*zip(-b, 1 - b, strict=True), (0, None)]
        equal = np.r_[a, 0.0][None]
    else:  # a bound for each
        cost, upper = np.r_[np.zeros(d), np.ones(d)], np.r_[np.c_[np.eye(d), -np.eye(d)], np.c_[-np.eye(d), -np.eye(d)]]
        bounds = [*zip(-b, 1 - b, strict=True), *[(0, None)] * d]
        equal = np.r_[a, np.zeros(d)][None]
    return float(linprog(cost, upper, np.zeros(2 * d), equal, [gap], bounds).fun)


def test_to_boundary_goes_as_far_as_it_can_where_the_plane_is_out_of_reach() -> None:
    x, w = torch.tensor([[0.2, 0.9, 0.5]]), torch.tensor([[1.0, -1.0, 0.0]])
    for norm in ("linf", "l2", "l1"):
        assert torch.allclose(to_boundary(x, w, torch.tensor([9.0]), norm), torch.tensor([[0.8, -0.9, 0.0]]))


def test_losses_agree_with_their_equations() -> None:
    z = torch.tensor([[2.0, 1.0, 0.5, -1.0], [-1.0, -3.0, -2.0, -4.0]])
    y, t = torch.tensor([0, 0]), torch.tensor([2, 1])
    assert torch.allclose(LOSSES["margin"](z, y, None), torch.tensor([-1.0, -1.0]))
    assert torch.allclose(LOSSES["margin"](z, y, t), torch.tensor([-1.5, -2.0]))
    assert torch.allclose(LOSSES["dlr"](z, y, None), torch.tensor([-1 / 1.5, -1 / 2.0]))
    assert torch.allclose(LOSSES["dlr"](z, y, t), torch.tensor([-1.5 / (2 - (0.5 - 1) / 2), -2 / (-1 + (3 + 4) / 2)]))
    assert torch.allclose(LOSSES["ce"](z, y, t), -nn.functional.cross_entropy(z, t, reduction="none"))
    assert torch.equal(LOSSES["dlr"](z[:, :2], y, None), LOSSES["margin"](z[:, :2], y, None))
    assert torch.equal(LOSSES["dlr"](z[:, :3], y, t), LOSSES["margin"](z[:, :3], y, t))


def test_pgd_is_the_bare_loop_from_the_same_start() -> None:
    """The textbook loop, started at the same keyed points, ends at the same images where nothing fell on the way."""
    net = small_net()
    x, y = answered(net)
    ids, zero = torch.arange(len(x)), torch.zeros(len(x), dtype=torch.long)
    eps, size = 0.01, 0.004
    adv = random_start(x, "linf", eps, keys(3, ids, zero, zero, "start"))
    for _ in range(9):
        adv.requires_grad_(True)
        (g,) = torch.autograd.grad(nn.functional.cross_entropy(net(adv), y, reduction="sum"), adv)
        adv = (x + (adv.detach() + size * g.sign() - x).clamp(-eps, eps)).clamp(0, 1)
    outcome = PGD(eps=eps, steps=9, step_size=size).run(net, x, y, ids=ids, seed=3)
    with torch.no_grad():
        wrong = net(adv).argmax(1) != y
    assert outcome.success.any() and (outcome.success | ~wrong).all()
    assert torch.allclose(outcome.images[~outcome.success], adv[~outcome.success], atol=1e-6)
