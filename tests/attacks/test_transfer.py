"""Attacks that are crafted on one model and judged on another, and the views that make them transfer."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import APGD, APGDT, DIFGSM, FGSM, MIFGSM, NIFGSM, PGD, SINIFGSM, TIFGSM, Square
from robustlab.attacks.losses import margin
from robustlab.attacks.mi_fgsm import diverse, smooth
from robustlab.base.draws import keys
from robustlab.base.errors import UserError
from robustlab.models.ensemble import Ensemble
from robustlab.oracle import Oracle
from robustlab.threat.geometry import distance

from .conftest import answered, small_net

METHODS = [MIFGSM, NIFGSM, SINIFGSM, DIFGSM, TIFGSM]


class Counted(nn.Module):
    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner, self.images, self.graded = inner, 0, 0

    def forward(self, x: Tensor) -> Tensor:
        self.images += len(x)
        self.graded += len(x) * x.requires_grad
        out: Tensor = self.inner(x)
        return out


@pytest.mark.parametrize("attack", [*METHODS, PGD, APGD, FGSM])
def test_the_target_sees_the_last_point_only(attack: type[PGD]) -> None:
    target, surrogate = Counted(small_net(seed=0)), Counted(small_net(seed=1))
    x, y = answered(target.inner)
    target.images = 0
    method = attack(eps=0.1)
    outcome = method.run(target, x, y, surrogate=surrogate)
    assert (target.images, target.graded) == (len(x), 0)
    assert surrogate.images == surrogate.graded == len(x) * method.steps * method.views
    assert (outcome.forwards == method.steps * method.views + 1).all()
    with torch.no_grad():
        assert torch.equal(target(outcome.images).argmax(1) != y, outcome.success)
    assert distance(outcome.images - x, "linf").max() <= 0.1 + 1e-6
    # the same images whatever the target is: nothing of it was used
    again = method.run(small_net(seed=2), x, y, surrogate=surrogate)
    assert torch.equal(again.images, outcome.images)


def test_what_is_crafted_is_the_best_point_for_the_likeliest_class() -> None:
    net = small_net()
    x, y = answered(net)
    with torch.no_grad():
        second = net(x).scatter(1, y[:, None], -torch.inf).argmax(1)
    aimed = APGDT(eps=0.1, steps=10).run(net, x, y, surrogate=net)
    assert torch.equal(aimed.target, second) and (aimed.forwards == 1 + 10 + 1).all()
    best = margin(net(Square(eps=0.1, steps=40).run(net, x, y, surrogate=net).images), y)
    first = margin(net(Square(eps=0.1, steps=1).run(net, x, y, surrogate=net).images), y)
    assert (best >= first - 1e-6).all() and (best > first).any()


def test_a_black_box_target_needs_to_give_labels_only() -> None:
    target = small_net()
    x, y = answered(target)
    only = Oracle(target, gives="labels", classes=4)
    assert MIFGSM(eps=0.2).run(only, x, y, surrogate=small_net(seed=1)).success.any()
    with pytest.raises(UserError, match="needs gradient"):
        MIFGSM(eps=0.2).run(only, x, y)


def test_targeted_transfer_counts_the_target_class() -> None:
    target = small_net()
    x, y = answered(target)
    outcome = MIFGSM(eps=0.3, targeted=True).run(target, x, y, targets=(y + 1) % 4, surrogate=target)
    with torch.no_grad():
        assert torch.equal(target(outcome.images).argmax(1) == (y + 1) % 4, outcome.success)
    assert outcome.success.any()


def test_the_plain_options_are_mi_fgsm() -> None:
    net = small_net()
    x, y = answered(net)
    plain = MIFGSM(eps=0.05, stop_at_success=False)(net, x, y)
    for other in (NIFGSM(nesterov=False, eps=0.05), DIFGSM(diversity=0.0, eps=0.05), TIFGSM(kernel=0, eps=0.05)):
        assert torch.equal(replace(other, stop_at_success=False)(net, x, y), plain)


def test_nesterov_asks_ahead_and_ends_at_its_point() -> None:
    """On a linear model all gradients agree: asking ahead changes nothing about where it ends."""
    net = nn.Sequential(nn.Flatten(), nn.Linear(192, 2))
    x = 0.3 + 0.4 * torch.rand(9, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    y = net(x).argmax(1)
    plain, ahead = (attack(eps=1e-3, loss="margin").run(net, x, y, surrogate=net) for attack in (MIFGSM, NIFGSM))
    assert torch.allclose(plain.images, ahead.images, atol=1e-6)


def test_scales_average_the_gradients_of_darker_copies() -> None:
    net = small_net()
    x, y = answered(net, 5)
    leaf = x.clone().requires_grad_(True)
    loss = sum(nn.functional.cross_entropy(net(leaf / 2**i), y, reduction="sum") for i in range(5)) / 5
    (g,) = torch.autograd.grad(loss, leaf)  # type: ignore[arg-type]
    outcome = SINIFGSM(eps=1e-4, steps=1, stop_at_success=False).run(net, x, y)
    inside = (x > 1e-3) & (x < 1 - 1e-3) & (g.abs() > 1e-7)
    assert torch.equal((outcome.images - x).sign()[inside], g.sign()[inside])


def test_diverse_images_are_smaller_shifted_and_differ_by_row() -> None:
    x = torch.ones(400, 1, 20, 20)
    key = keys(0, torch.arange(400))
    shown = diverse(x, key, 1.0)
    mass = shown.flatten(1).mean(1)
    assert ((mass > 1 / 1.1**2 - 0.03) & (mass <= 1 + 1e-6)).all() and mass.std() > 0.01
    edges = torch.stack([shown[:, 0, :, 0].mean(1) < 0.5, shown[:, 0, :, -1].mean(1) < 0.5])
    assert edges[0].any() and edges[1].any()  # black on the left of some, on the right of others
    half = diverse(x, key, 0.5)
    kept = (half == x).flatten(1).all(1)
    assert 150 < kept.sum() < 250
    assert torch.equal(diverse(x, key, 0.0), x)


def test_smoothing_keeps_sums_and_spreads_a_point() -> None:
    g = torch.zeros(2, 3, 15, 15)
    g[:, 1, 7, 7] = 1.0
    out = smooth(g, 5)
    assert torch.isclose(out.sum(), torch.tensor(2.0)) and (out[0, 1, 5:10, 5:10] > 0).all()
    assert (out[:, 0] == 0).all() and (out[0, 1] > 0).sum() == 25
    assert torch.allclose(out[0, 1], out[0, 1].T)


def test_ensembles_average_logits() -> None:
    nets = [small_net(seed=s) for s in (1, 2)]
    x, _ = answered(nets[0], 4)
    assert torch.allclose(Ensemble(nets)(x), (nets[0](x) + nets[1](x)) / 2)
    with pytest.raises(UserError, match="same classes"):
        Ensemble([small_net(3), small_net(4)])(x)
    with pytest.raises(UserError, match="at least one"):
        Ensemble([])


@pytest.mark.parametrize("bad", [{"diversity": 1.5}, {"kernel": 4}, {"scales": 0}, {"decay": -1.0}])
def test_bad_options(bad: dict[str, float]) -> None:
    with pytest.raises(UserError, match="diversity|kernel|scales"):
        MIFGSM(**bad)  # type: ignore[arg-type]
