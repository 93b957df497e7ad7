"""On a linear classifier of two classes every attack's best result is known exactly."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import FGSM, MIFGSM, PGD
from robustlab.attacks.losses import LOSSES
from robustlab.draws import keys
from robustlab.threat import random_start

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


@pytest.mark.parametrize("attack", [FGSM, PGD, MIFGSM])
@pytest.mark.parametrize(("norm", "eps"), [("linf", 0.03), ("l2", 0.12), ("l1", 0.2)])
def test_success_exactly_where_the_margin_is_under_eps_times_the_dual_norm(
    linear: tuple[nn.Module, Tensor], attack: type[PGD], norm: str, eps: float
) -> None:
    net, w = linear
    x, y = points(net)
    outcome = attack(norm=norm, eps=eps, loss="margin").run(net, x, y)  # type: ignore[arg-type]
    margin, reach = margins(net, x, y), eps * dual(w, norm)
    assert 0 < outcome.success.sum() < len(x)
    assert outcome.success[margin < 0.999 * reach].all()
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
    outcome = PGD(norm="l1", eps=eps, steps=100, stop_when_fooled=False, random_start=False).run(net, x, y)
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
        fooled = net(adv).argmax(1) != y
    assert outcome.success.any() and (outcome.success | ~fooled).all()
    assert torch.allclose(outcome.images[~outcome.success], adv[~outcome.success], atol=1e-6)
