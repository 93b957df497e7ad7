"""The active test: examples exist by construction, sound suites find them, weak or misled ones do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks.suite import Suite, load_suite
from robustlab.base.memory import Batches
from robustlab.data import Loaded
from robustlab.evaluation.studies.audit import active as module
from robustlab.evaluation.studies.audit.active import active
from robustlab.evaluation.studies.audit.planted import Images, last_linear, plant, ridge
from robustlab.evaluation.studies.audit.rows import Ran
from robustlab.evaluation.studies.audit.subject import CleanPass, Subject
from robustlab.threat.geometry import distance
from robustlab.threat.model import allowed

EPS = 25 / 255


def only(*attacks: str, norm: str = "linf", eps: float = EPS, **more: Any) -> Suite:
    return load_suite(attacks=attacks, norm=norm, eps=eps, **more)


class Rounded(nn.Module):
    """No gradient anywhere, but its answers follow the image."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net((6 * x).round() / 6)  # type: ignore[no-any-return]


@pytest.fixture
def subject(world: Any) -> Callable[..., Subject]:
    """subject(net, suite): the patterns that the net gets right."""

    def make(net: nn.Module, suite: Suite, n: int = 40) -> Subject:
        x, y = world.patterns(60, seed=1)
        with torch.no_grad():
            right = (net(x).argmax(1) == y).nonzero()[:n, 0]
        x, y = x[right], y[right]
        return Subject(
            model=net,
            search=None,
            suite=suite,
            x=x,
            y=y,
            ids=right,
            targets=(y + 1) % 4 if suite.threat.targeted else None,
            classes=4,
            others=[],
            clean=CleanPass(len(x), len(x), ()),
            ran=Ran(suite, {}),
            some=Loaded("patterns", "test", x, y, right, tuple("abcd"), "", suite.threat),
            own_labels=False,
            elsewhere=False,
            evaluations=1,
            seed=0,
            batches=Batches(128, print),
        )

    return make


def images_of(subject: Subject) -> Images:
    return Images(subject.x, subject.y, subject.ids, subject.targets)


@pytest.mark.parametrize("targeted", [False, True])
@pytest.mark.parametrize(("norm", "eps"), [("linf", EPS), ("l2", 1.0), ("l1", 8.0)])
def test_an_example_exists_inside_the_budget(
    norm: str, eps: float, targeted: bool, world: Any, subject: Callable[..., Subject]
) -> None:
    suite = only("pgd", norm=norm, eps=eps, targeted=targeted)
    net, images = world.plain(), images_of(subject(world.plain(), suite))
    model, points, apart = plant(net, images, suite.threat, 0, 16)
    assert int(apart.sum()) >= 30
    with torch.no_grad():
        clean, there = model(images.x), model(points).argmax(1)
        said = net(images.x)
    assert torch.allclose(clean, said, atol=1e-4)  # the model's own outputs
    assert bool((distance(points - images.x, norm) <= allowed(eps)).all())
    assert bool((points >= 0).all() and (points <= 1).all())
    wanted = there != images.y if images.targets is None else there == images.targets
    assert bool(wanted[apart].all())


def test_what_lies_behind_the_last_layer_still_acts(world: Any, subject: Callable[..., Subject]) -> None:
    net = nn.Sequential(world.plain(), nn.Softmax(1))
    images = images_of(subject(net, only("pgd")))
    model, points, apart = plant(net, images, only("pgd").threat, 0, 128)
    with torch.no_grad():
        assert torch.allclose(model(points).sum(1), torch.ones(len(points)))
        assert bool((model(points).argmax(1) != images.y)[apart].all())


def test_a_linear_model_in_closed_form(world: Any, subject: Callable[..., Subject]) -> None:
    """The score is linear in the pixels, so that one step of FGSM reaches its largest value in the ball."""
    net = world.trained(lambda: nn.Sequential(nn.Flatten(), nn.LazyLinear(4)), rate=1e-2)
    suite = only("fgsm", eps=0.02)
    found = active(subject(net, suite))
    assert (found.status, found.numbers["found"]["value"], found.numbers["not_planted"]) == ("pass", 1.0, 0)
    images = images_of(subject(net, suite))
    model, points, _ = plant(net, images, suite.threat, 0, 128)
    slope = model.heads.weight.view_as(images.x)
    best = (images.x + 0.02 * slope.sign()).clamp(0, 1)

    def score(x: Tensor) -> Tensor:
        return ((x - images.x) * slope).flatten(1).sum(1)

    assert bool((score(best) >= score(points)).all())
    assert bool((score(points) > model.heads.threshold).all())


def test_the_ridge_is_that_of_the_normal_equations() -> None:
    dice = torch.Generator().manual_seed(0)
    inner, edge = torch.randn(3, 5, 7, generator=dice), torch.randn(3, 2, 7, generator=dice)
    for i in range(3):
        r = 0.1 * inner[i].square().sum(1).mean()
        direct = torch.linalg.solve(inner[i].T @ inner[i] + r * torch.eye(7), edge[i].T).T
        assert torch.allclose(ridge(inner, edge)[i], direct / direct.norm(dim=1, keepdim=True), atol=1e-5)


def test_gradients_that_are_zero_find_little_and_scores_find_much(world: Any, subject: Callable[..., Subject]) -> None:
    net = Rounded(world.plain())
    misled = active(subject(net, only("fgsm", "pgd:steps=5,restarts=2")))
    assert (misled.status, misled.numbers["cut"]) == ("fail", False)
    assert misled.numbers["found"]["high"] < 0.5
    assert active(subject(net, only("square:steps=600"))).status == "pass"


@pytest.mark.parametrize("attack", ["fmn:steps=30", "fab-t:steps=30", "apgd-t:steps=20", "square:steps=600"])
def test_attacks_of_all_kinds(attack: str, world: Any, subject: Callable[..., Subject]) -> None:
    assert active(subject(world.plain(), only(attack))).status == "pass"


def test_the_answer_is_the_same_whatever_the_batch_and_the_order(world: Any, subject: Callable[..., Subject]) -> None:
    first = subject(world.plain(), only(f"pgd:steps=5,step_size={EPS / 8}"))
    turn = torch.arange(len(first)).flip(0)
    other = replace(first, x=first.x[turn], y=first.y[turn], ids=first.ids[turn], batches=Batches(7, print))
    found = active(first)
    assert 0 < found.numbers["found"]["value"] < 1
    assert found == active(first) == active(other)


def test_the_model_is_left_as_it_was(world: Any, subject: Callable[..., Subject]) -> None:
    net = world.trained(world.conv, steps=20)
    net.zero_grad()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    active(subject(net, only("pgd:steps=3")))
    assert all(torch.equal(before[key], value) for key, value in net.state_dict().items())
    assert all(not part._forward_hooks and not part.training for part in net.modules())
    assert all(p.requires_grad and p.grad is None for p in net.parameters())


class Twice(nn.Module):
    """Two views of each image through the same last layer."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + self.net(x.flip(3))  # type: ignore[no-any-return]


class Beside(nn.Module):
    """A way to the outputs around the last layer."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) + x.flatten(1)[:, :4]  # type: ignore[no-any-return]


def test_the_last_layer_counts_only_if_the_answers_follow_from_it(world: Any) -> None:
    net, (x, _) = world.plain(), world.patterns(6)
    assert last_linear(net, x) is net[-1]
    assert last_linear(nn.Sequential(net, nn.Softmax(1)), x) is net[-1]
    without = nn.Sequential(nn.Conv2d(3, 4, 8), nn.Flatten())
    assert last_linear(Twice(net), x) is last_linear(Beside(net), x) is last_linear(without, x) is None


@pytest.mark.parametrize("around", [Twice, Beside])
def test_else_the_outputs_are_the_features(around: Any, world: Any, subject: Callable[..., Subject]) -> None:
    given = subject(around(world.plain()), only("pgd:steps=10", eps=0.02))
    model, points, apart = plant(given.model, images_of(given), given.suite.threat, 0, 128)
    assert model.layer is None and int(apart.sum()) >= 8
    with torch.no_grad():
        assert torch.allclose(model(given.x), given.logits, atol=1e-4)
        assert bool((model(points).argmax(1) != given.y)[apart].all())
    assert active(given).status in ("pass", "not run")


def test_when_it_cannot_be_asked(world: Any, subject: Callable[..., Subject]) -> None:
    net = world.plain()
    few = active(subject(net, only("pgd"), n=7))
    wide = active(subject(net, only("pgd", eps=0.5)))
    noisy = active(replace(subject(net, only("pgd")), evaluations=10))
    assert {few.status, wide.status, noisy.status} == {"not run"}
    assert "there are 7" in few.measured and "more than twice the budget apart" in wide.measured
    assert "varies" in noisy.measured


def test_what_is_cut_is_said_and_never_a_failure(
    world: Any, subject: Callable[..., Subject], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LOOKS", 30)
    found = active(subject(Rounded(world.plain()), only("pgd:steps=10", "square:steps=5000")))
    assert found.status == "warn" and found.numbers["cut"] and found.numbers["found"]["value"] < 0.9
    assert "cut to 30 looks" in found.measured and "pgd and square" in found.measured
    none = active(subject(Rounded(world.plain()), only("pgd:steps=30", "fgsm", "square:steps=5000")))
    assert none.status == "warn" and "The suite (pgd) found" in none.measured
    short = active(subject(Rounded(world.plain()), only("pgd:steps=10")))
    assert short.status == "fail" and not short.numbers["cut"]
    sound = active(subject(world.plain(), only("pgd:steps=10", "square:steps=5000")))
    assert sound.status == "pass" and not sound.numbers["cut"] and "cut" not in sound.measured
