"""The recipes of adversarial training: closed forms, the papers' formulas, and what crafting must not do."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from robustlab.attacks import PGD
from robustlab.attacks.driver import drive
from robustlab.attacks.lockstep import lockstep
from robustlab.base.draws import keys, normal, uniform
from robustlab.base.errors import UserError
from robustlab.defenses import DEFENSES, make_defense, parameters
from robustlab.defenses.adversarial import Adversarial
from robustlab.defenses.batch import Batch
from robustlab.defenses.distillation import Distillation
from robustlab.defenses.fast_at import FastAT
from robustlab.defenses.mart import MART
from robustlab.defenses.noise import GaussianNoise
from robustlab.defenses.trades import TRADES, Apart, divergence
from robustlab.oracle import Oracle
from robustlab.threat.geometry import distance

EPS = 8 / 255


def batch(n: int = 32, **others: object) -> Batch:
    generator = torch.Generator().manual_seed(0)
    # away from the edges of the box, so that nothing is clipped
    x = 0.3 + 0.4 * torch.rand(n, 3, 4, 4, generator=generator)
    return replace(Batch(x, torch.arange(n) % 3, keys(0, torch.arange(n), "test"), 1.0), **others)


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))


def deep() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.Tanh(), nn.Dropout(), nn.Flatten(), nn.Linear(96, 3)]
    return nn.Sequential(*layers).train()


@pytest.mark.parametrize("norm", ["linf", "l2", "l1"])
def test_lockstep_is_the_driver_without_judging(norm: str) -> None:
    given, net = batch(12), deep()
    attack = PGD(norm=norm, eps={"linf": EPS, "l2": 0.5, "l1": 3.0}[norm], steps=4)
    near = lockstep(attack, net, given.x, given.y, given.key)
    driven = drive(attack, Oracle(net), given.x, given.y, given.key, keep="last", batch_size=12)
    assert torch.equal(near, driven.images)
    assert bool((distance(near - given.x, norm) <= attack.eps + 1e-6).all())


def test_fast_at_on_a_linear_net_is_its_closed_form() -> None:
    given, net = batch(), linear()
    start = (2 * uniform(keys(0, given.key, 0 * given.y, 0 * given.y, "start"), (3, 4, 4)) - 1) * EPS
    p = net(given.x + start).softmax(1) - torch.eye(3)[given.y]
    step = (p @ net[1].weight).sign().view_as(given.x) * 1.25 * EPS
    expected = given.x + (start + step).clamp(-EPS, EPS)
    assert torch.allclose(FastAT(eps=EPS).perturb(net, given), expected, atol=1e-6)


@pytest.mark.parametrize("method", [m for m in DEFENSES if "eps" in parameters({"method": m})])
def test_crafting_keeps_the_budget_and_leaves_the_model_as_it_was(method: str) -> None:
    given, net = batch(), deep()
    net[2].eval()
    net[5].bias.requires_grad_(False)
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    defense = make_defense({"method": method, "eps": EPS})
    near = defense.perturb(net, given)
    assert not near.requires_grad and near.shape == given.x.shape and not torch.equal(near, given.x)
    assert float((near - given.x).abs().max()) <= EPS * (3 if method == "n-fgsm" else 1) + 1e-6
    assert net.training and not net[2].training and all(p.grad is None for p in net.parameters())
    assert not net[5].bias.requires_grad and net[5].weight.requires_grad
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    part = Batch(given.x[5:9], given.y[5:9], given.key[5:9], 1.0)
    assert torch.allclose(defense.perturb(net, part), near[5:9], atol=1e-6)  # neighbours do not matter
    # eps 0 gives the image, but for one-step noise around it, which is 0 as well
    assert torch.equal(replace(defense, eps=0.0).perturb(net, given), given.x)


def test_more_steps_do_more_harm() -> None:
    given, net = batch(64), deep().eval()

    def harm(steps: int) -> float:
        near = Adversarial(eps=0.1, steps=steps).perturb(net, given)
        return float(F.cross_entropy(net(near), given.y).detach())

    clean = float(F.cross_entropy(net(given.x), given.y).detach())
    assert clean < harm(1) < harm(4) <= harm(20) + 1e-4


def test_the_ramp() -> None:
    given, net = batch(), linear()
    defense = Adversarial(eps=EPS, ramp=4.0)
    far = {
        e: float((defense.perturb(net, replace(given, epoch=e)) - given.x).abs().max()) for e in (0.0, 2.0, 4.0, 9.0)
    }
    assert far[0.0] == 0 and far[2.0] == pytest.approx(EPS / 2, rel=1e-4) and far[4.0] == far[9.0]


def test_trades_by_hand() -> None:
    given, net = batch(), deep().eval()
    near = given.x + 0.02
    logits, loss = TRADES(beta=3.0).loss(net, given, near)
    p, q = net(given.x).softmax(1), net(near).softmax(1)
    by_hand = F.cross_entropy(net(given.x), given.y) + 3.0 * (p * (p / q).log()).sum(1).mean()
    assert torch.allclose(loss, by_hand, atol=1e-6) and torch.equal(logits, net(near))
    # the attack is on the divergence, from close to the image: where that is all, its size shows it
    apart = Apart(eps=EPS, steps=1, step_size=1e-9, clean=net(given.x).log_softmax(1).detach())
    start = lockstep(apart, net, given.x, given.y, given.key) - given.x
    noise = normal(keys(0, given.key, 0 * given.y, 0 * given.y, "start"), (3, 4, 4))
    assert torch.allclose(start, 0.001 * noise, atol=1e-6)
    before = divergence(net(given.x + 0.001 * noise), p.log()).mean()
    after = divergence(net(TRADES(eps=EPS).perturb(net, given)), p.log()).mean()
    assert float(after.detach()) > 20 * float(before.detach())


def test_trades_has_no_nan_where_one_class_is_certain() -> None:
    given = batch(3)
    certain = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    certain[1].weight.data.mul_(1e5)
    defense = TRADES(eps=EPS)
    near = defense.perturb(certain, given)
    _, loss = defense.loss(certain, given, near)
    loss.backward()
    assert bool(torch.isfinite(near).all()) and bool(torch.isfinite(certain[1].weight.grad).all())


def test_mart_by_hand() -> None:
    given, net = batch(), deep().eval()
    near = given.x + 0.02
    _, loss = MART(beta=5.0).loss(net, given, near)
    p, q = net(given.x).softmax(1), net(near).softmax(1)
    right, wrong = (
        q[range(32), given.y],
        torch.stack([max(q[i, j] for j in range(3) if j != given.y[i]) for i in range(32)]),
    )
    boosted = -right.log() - (1.0001 - wrong).log()
    weighed = (p * (p / q).log()).sum(1) * (1 - p[range(32), given.y])
    assert torch.allclose(loss, (boosted + 5 * weighed).mean(), atol=1e-5)


def test_the_attack_is_on_the_mixture() -> None:
    given, net = batch(64), linear()
    mixed = replace(given, other=(given.y + 1) % 3, share=torch.full((64,), 0.6))

    def harm(near: torch.Tensor) -> float:
        return float(mixed.losses(net(near)).mean().detach())

    for defense in (Adversarial(eps=EPS, steps=5), FastAT(eps=EPS)):
        assert harm(defense.perturb(net, mixed)) > harm(defense.perturb(net, given)) + 1e-4 > harm(given.x)


def test_noise_has_its_size_and_is_not_clipped() -> None:
    near = GaussianNoise(sigma=0.5).perturb(linear(), batch(2000))
    noise = near - batch(2000).x
    assert float(noise.std()) == pytest.approx(0.5, rel=0.01) and abs(float(noise.mean())) < 0.005
    assert float(near.min()) < -0.5 and float(near.max()) > 1.5


def test_distillation_learns_what_the_teacher_says(monkeypatch: pytest.MonkeyPatch) -> None:
    given, net = batch(), linear()
    alone = Distillation(temperature=10.0).loss(net, given, given.x)[1]
    assert torch.allclose(alone, F.cross_entropy(net(given.x) / 10, given.y), atol=1e-6)
    monkeypatch.setattr("robustlab.defenses.distillation.load_model", lambda name: net)
    taught = Distillation(temperature=10.0, teacher="it").loss(net, given, given.x)[1]
    p = (net(given.x) / 10).softmax(1)
    assert torch.allclose(
        taught, -(p * p.log()).sum(1).mean(), atol=1e-6
    )  # the student that is the teacher: its entropy


def test_labels_that_are_smoothed_and_mixed() -> None:
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1))
    y, other, share = torch.tensor([0, 1, 2, 0]), torch.tensor([1, 1, 0, 2]), torch.tensor([0.5, 0.6, 0.9, 1.0])
    given = Batch(logits, y, y, 0.0, 0.3, other, share)
    spread = lambda labels: 0.7 * torch.eye(3)[labels] + 0.1  # noqa: E731
    target = share[:, None] * spread(y) + (1 - share[:, None]) * spread(other)
    assert torch.allclose(given.cross_entropy(logits), -(target * logits.log_softmax(1)).sum(1).mean(), atol=1e-6)


@pytest.mark.parametrize(
    ("table", "said"),
    [
        ({"method": "pgd-at", "steps": 0}, "steps of at least 1"),
        ({"method": "pgd-at", "norm": "l7"}, "norm is one of linf, l2, l1"),
        ({"method": "pgd-at", "eps": 8}, r"Did you mean 8/255"),
        ({"method": "pgd-at", "ramp": -1.0}, "ramp of at least 0"),
        ({"method": "fast-at", "alpha": 0.0}, "alpha above 0"),
        ({"method": "fast-at", "steps": 3}, "unknown key 'steps'"),
        ({"method": "trades", "beta": -1.0}, "beta of at least 0"),
        ({"method": "gaussian-noise", "sigma": -1.0}, "sigma of at least 0"),
        ({"method": "distillation", "temperature": 0.0}, "temperature above 0"),
        ({"method": "trade"}, "Did you mean 'trades'"),
    ],
)
def test_bad_tables(table: dict[str, object], said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_defense(table)


def test_a_step_size_may_be_a_fraction() -> None:
    assert make_defense({"method": "pgd-at", "step_size": "2/255"}).attack(0.5).step_length == 1 / 255
    assert math.isclose(make_defense({"method": "trades"}).attack(1.0).step_length, EPS / 4)
