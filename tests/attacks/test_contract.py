"""What every attack of the registry promises, whatever it does inside."""

from __future__ import annotations

import copy
import importlib.util
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import ATTACKS, attack_class
from robustlab.attacks.losses import LOSSES
from robustlab.attacks.row_attack import RowAttack
from robustlab.base.errors import UserError
from robustlab.oracle import Oracle
from robustlab.threat.geometry import distance

from .conftest import answered, quick, small_net

# its solver is compiled anew in each process, for minutes, by a package that is not among our dependencies
COMPILED = [
    pytest.mark.slow,
    pytest.mark.skipif(importlib.util.find_spec("numba") is None, reason="brendel-bethge needs numba"),
]


def _param(method: str, *rest: str) -> Any:
    return pytest.param(method, *rest, marks=COMPILED if method == "brendel-bethge" else [])


METHODS = [_param(method) for method in ATTACKS]
CASES = [_param(method, norm) for method in ATTACKS for norm in attack_class(method).norms]
EPS = {"linf": 0.05, "l2": 0.6, "l1": 4.0, "l0": 20.0}
WEAK = ("square", "ti-fgsm")  # few queries without a gradient; a kernel nearly as wide as these images
AIMED = ["deepfool", *(method for method in ATTACKS if attack_class(method).aims)]  # they choose their own targets
ROWS = [method for method in ATTACKS if issubclass(attack_class(method), RowAttack)]
MINIMUM = [method for method in ATTACKS if attack_class(method).keep == "smallest"]


def build(method: str, norm: str = "", **more: Any) -> Any:
    norm = norm or attack_class(method).norms[0]
    return quick(method, norm=norm, **{"eps": EPS[norm], **more})


@pytest.mark.parametrize(("method", "norm"), CASES)
def test_what_comes_out(method: str, norm: str, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    """Images inside the budget and the box, successes that are true and not rare, the same again for the same seed."""
    x, y = sample
    attack = build(method, norm)
    outcome = attack.run(net, x, y, seed=5)
    assert outcome.images.shape == x.shape and outcome.images.dtype == x.dtype
    assert outcome.images.min() >= 0 and outcome.images.max() <= 1
    inside = distance(outcome.images - x, norm) <= EPS[norm] + 1e-6 * max(1, EPS[norm])
    with torch.no_grad():
        wrong = net(outcome.images).argmax(1) != y
    # an attack on the distance shows what it found outside the budget, and does not call it a success
    assert inside.all() or method in MINIMUM
    assert torch.equal(wrong & inside, outcome.success)
    assert outcome.success.float().mean() > (0.1 if method in WEAK else 0.5)
    assert torch.equal(outcome.rank >= 0, outcome.success)
    with torch.random.fork_rng():
        torch.manual_seed(99)
        assert torch.equal(attack(net, x, y, seed=5), outcome.images)


@pytest.mark.parametrize(("method", "norm"), CASES)
def test_more_eps_succeeds_no_less_and_none_not_at_all(
    method: str, norm: str, net: nn.Module, sample: tuple[Tensor, Tensor]
) -> None:
    x, y = sample
    outcomes = [build(method, norm, eps=f * EPS[norm]).run(net, x, y) for f in (0, 0.1, 0.3, 1, 2)]
    assert torch.equal(outcomes[0].images, x) or method in MINIMUM
    assert not outcomes[0].success.any()
    successes = [int(outcome.success.sum()) for outcome in outcomes[1:]]
    assert successes == sorted(successes) and successes[0] < successes[-1]


@pytest.mark.parametrize(("method", "norm"), CASES)
def test_batch_size_decides_nothing(method: str, norm: str, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    x, y = (part[:12] for part in sample)
    one, other = (build(method, norm).run(net, x, y, batch_size=size) for size in (5, 12))
    assert torch.equal(one.success, other.success) and torch.equal(one.rank, other.rank)
    counted = ("forwards", "backwards") if method in ROWS else ()  # foolbox charges each sample for its batch
    for name in counted:  # a step to the boundary itself may fall on either side by rounding
        apart = (getattr(one, name) - getattr(other, name)).abs()
        assert apart.max() <= (2 if method in MINIMUM else 0) and (apart > 0).sum() <= 2


@pytest.mark.parametrize("method", METHODS)
def test_the_classifier_is_left_as_it_was(method: str, sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    net = small_net().train()
    net[1].eval()  # a submodule in another mode than the whole
    net[5].bias.requires_grad_(False)
    net[0].weight.grad = torch.ones_like(net[0].weight)
    hooked: list[int] = []
    net[0].register_forward_hook(lambda *a: hooked.append(1))
    before = copy.deepcopy(net.state_dict())
    modes = [m.training for m in net.modules()]
    build(method)(net, x, y)
    assert hooked and len(net[0]._forward_hooks) == 1
    assert [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == [True] * 5 + [False]
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight)) and net[5].weight.grad is None
    after = net.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)


@pytest.mark.parametrize("method", METHODS)
def test_the_classifier_is_left_as_it_was_after_an_exception(method: str, sample: tuple[Tensor, Tensor]) -> None:
    class Breaks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner, self.calls = small_net(), 0

        def forward(self, x: Tensor) -> Tensor:
            self.calls += 1
            if self.calls == 2:
                raise RuntimeError("no more")
            return self.inner(x)  # type: ignore[no-any-return]

    net = Breaks().train()
    with pytest.raises(RuntimeError, match="no more"):
        build(method)(net, *sample)
    assert net.training and net.inner.training and all(p.requires_grad and p.grad is None for p in net.parameters())


@pytest.mark.parametrize(("method", "norm"), CASES)
@pytest.mark.parametrize(("classes", "channels", "size"), [(2, 1, (8, 8)), (3, 2, (8, 5)), (1000, 3, (9, 14))])
def test_classes_channels_and_sizes(method: str, norm: str, classes: int, channels: int, size: tuple[int, int]) -> None:
    net = small_net(classes, channels)
    x, y = answered(net, 6, channels, size)
    losses = LOSSES if method in ROWS and norm == attack_class(method).norms[0] else [None]  # whatever the norm
    for loss in losses:
        adversarial = build(method, norm, **({"loss": loss} if loss else {}))(net, x, y)
        assert adversarial.shape == x.shape
        assert not torch.equal(adversarial, x)


@pytest.mark.parametrize("method", AIMED)
def test_what_chooses_its_own_targets_takes_none(method: str) -> None:
    with pytest.raises(UserError, match="chooses its own targets"):
        build(method, targeted=True)


@pytest.mark.parametrize(("method", "norm"), [case for case in CASES if case.values[0] not in AIMED])
def test_targeted(method: str, norm: str, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    targets = (y + 1) % 4
    outcome = build(method, norm, targeted=True, eps=3 * EPS[norm]).run(net, x, y, targets=targets)
    with torch.no_grad():
        reached = net(outcome.images).argmax(1) == targets
    if method in MINIMUM:
        reached &= distance(outcome.images - x, norm) <= 3 * EPS[norm]
    assert torch.equal(reached, outcome.success) and reached.any()
    assert torch.equal(outcome.target, targets)


@pytest.mark.parametrize("method", METHODS)
def test_no_samples(method: str, net: nn.Module) -> None:
    outcome = build(method).run(net, torch.zeros(0, 3, 8, 8), torch.zeros(0, dtype=torch.long))
    assert len(outcome.images) == len(outcome.success) == 0


@pytest.mark.parametrize("method", METHODS)
def test_works_under_no_grad_and_inference_mode(method: str, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    wanted = build(method)(net, x, y)
    with torch.no_grad():
        assert torch.equal(build(method)(net, x, y), wanted)
    with torch.inference_mode():
        assert torch.equal(build(method)(net, x, y), wanted)


@pytest.mark.parametrize("method", METHODS)
def test_what_cannot_be_attacked_is_said(method: str, net: nn.Module, sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    attack = build(method)
    with pytest.raises(UserError, match=r"lie in \[0, 1\].*Classifier"):
        attack(net, x * 4 - 2, y)
    with pytest.raises(UserError, match=r"shape \(N, C, H, W\)"):
        attack(net, x[0], y)
    with pytest.raises(UserError, match="40 images and 3 labels"):
        attack(net, x, y[:3])
    if method not in AIMED:
        with pytest.raises(UserError, match="needs targets"):
            build(method, targeted=True)(net, x, y)
        with pytest.raises(UserError, match="one an image"):
            build(method, targeted=True)(net, x, y, targets=y[:1])
        with pytest.raises(UserError, match="equals its label"):
            build(method, targeted=True)(net, x, y, targets=y)
    with pytest.raises(UserError, match="untargeted"):
        attack(net, x, y, targets=y)
    if attack.needs != "labels":
        given = "scores" if attack.needs == "gradient" else "labels"
        with pytest.raises(UserError, match=f"gives only {given}"):
            attack(Oracle(net, gives=given, classes=4), x, y)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="steps|loss must be one of ce, margin, dlr, got 'cee'"):
        build(method, **({"loss": "cee"} if method in ROWS else {"steps": 0}))
