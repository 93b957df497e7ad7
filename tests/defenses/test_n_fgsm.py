from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from robustlab.base.draws import keys, uniform
from robustlab.base.errors import UserError
from robustlab.defenses import DEFENSES, make_defense, parameters
from robustlab.defenses.batch import Batch
from robustlab.defenses.n_fgsm import NFGSM

EPS = 8 / 255


def batch(n: int = 32, epoch: float = 1.0) -> Batch:
    generator = torch.Generator().manual_seed(0)
    # away from the edges of the box, so that nothing is clipped
    x = 0.3 + 0.4 * torch.rand(n, 3, 4, 4, generator=generator)
    return Batch(x, torch.arange(n) % 3, keys(0, torch.arange(n), "test"), epoch)


def linear() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Flatten(), nn.Linear(48, 3))


def test_linear_model_closed_form() -> None:
    # on a linear net the gradient of the cross-entropy is W^T (softmax - onehot), at the noisy point
    given = batch()
    net = linear()
    noisy = given.x + (2 * uniform(given.key, (3, 4, 4)) - 1) * 2 * EPS
    p = net(noisy).softmax(1) - torch.eye(3)[given.y]
    step = (p @ net[1].weight).sign().view_as(given.x) * EPS
    assert torch.allclose(NFGSM(eps=EPS).perturb(net, given), noisy + step, atol=1e-6)


def test_leaves_the_ball_but_not_the_pixel_range() -> None:
    given = batch()
    far = (NFGSM(eps=EPS).perturb(linear(), given) - given.x).abs()
    assert EPS < float(far.max()) <= 3 * EPS + 1e-6 and float((far > EPS).float().mean()) > 0.4
    edge = NFGSM(eps=0.2).perturb(linear(), replace(given, x=given.x.round()))
    assert float(edge.min()) == 0 and float(edge.max()) == 1


def test_no_noise_is_fgsm_and_alpha_scales_the_step() -> None:
    given = batch()
    step = (NFGSM(eps=EPS, k=0, alpha=1.25).perturb(linear(), given) - given.x).abs()
    assert torch.allclose(step, torch.full_like(step, 1.25 * EPS), atol=1e-6)


def test_a_sample_does_not_depend_on_its_batch() -> None:
    given = batch()
    net = nn.Sequential(nn.BatchNorm2d(3), linear()).train()
    whole = NFGSM(eps=EPS).perturb(net, given)
    part = NFGSM(eps=EPS).perturb(net, Batch(given.x[5:9], given.y[5:9], given.key[5:9], 1.0))
    assert torch.equal(whole[5:9], part)


def test_the_model_is_left_as_it_was() -> None:
    given = batch()
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Dropout(), linear()).train()
    net[1].eval()
    net[2][1].bias.requires_grad_(False)
    before = {k: v.clone() for k, v in net.state_dict().items()}
    state = torch.random.get_rng_state()
    NFGSM(eps=EPS).perturb(net, given)
    assert net.training and net[0].training and not net[1].training
    assert all(p.grad is None for p in net.parameters())
    assert [p.requires_grad for p in net.parameters()] == [True, True, True, False]
    assert all(torch.equal(v, before[k]) for k, v in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_training_sees_batchnorm_once_a_batch() -> None:
    given = batch()
    net = nn.Sequential(nn.BatchNorm2d(3), linear()).train()
    defense = NFGSM(eps=EPS)
    _, loss = defense.loss(net, given, defense.perturb(net, given))
    loss.backward()
    assert int(net[0].num_batches_tracked) == 1
    assert all(p.grad is not None for p in net.parameters())


def test_ramp() -> None:
    given = batch()
    net, defense = linear(), NFGSM(eps=EPS, ramp=4.0)

    def loss(epoch: float) -> float:
        now = replace(given, epoch=epoch)
        return float(defense.loss(net, now, defense.perturb(net, now))[1].detach())

    at = {epoch: loss(epoch) for epoch in (0.0, 2.0, 4.0, 9.0)}
    clean = float(nn.functional.cross_entropy(net(given.x), given.y).detach())
    assert at[0.0] == pytest.approx(clean) and clean < at[2.0] < at[4.0] == at[9.0]


def test_registry_and_errors() -> None:
    assert make_defense({"method": "n-fgsm", "eps": "4/255", "k": 1.0}) == NFGSM(eps=4 / 255, k=1.0)
    for name in DEFENSES:
        made = make_defense({"method": name, **({"eps": "8/255"} if "eps" in parameters({"method": name}) else {})})
        assert made.threat is None or made.threat.eps == EPS
    with pytest.raises(UserError, match="Did you mean 'n-fgsm'"):
        make_defense({"method": "nfgsm"})
    with pytest.raises(UserError, match="'epss'. Did you mean 'eps'"):
        make_defense({"method": "n-fgsm", "epss": 0.1})
    with pytest.raises(UserError, match="alpha of at least 0"):
        NFGSM(alpha=-1.0)
