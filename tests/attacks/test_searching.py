"""search="auto": the same answers as on the model alone, up to rounding, and never those of older weights."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import FGSM, FMN, PGD, DeepFool, attack_class, searching
from robustlab.attacks.searching import searched
from robustlab.base.errors import UserError
from robustlab.oracle import Oracle

from .conftest import answered, small_net


@pytest.fixture
def copies(monkeypatch: pytest.MonkeyPatch) -> list[nn.Module | None]:
    """The copies that are made during a test, None where there could be none."""
    made: list[nn.Module | None] = []
    real = searching.make_search_copy

    def noted(*given: Any) -> Any:
        found = real(*given)
        made.append(found.module)
        return found

    monkeypatch.setattr(searching, "make_search_copy", noted)
    return made


def step(net: nn.Sequential) -> None:
    optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
    x, y = answered(net)
    nn.functional.cross_entropy(net(x), (y + 1) % 4).backward()
    optimizer.step()
    optimizer.zero_grad()


def in_place(net: nn.Sequential) -> None:
    net[5].weight.data.mul_(-1)  # through .data: no version counter notices


def other_layer(net: nn.Sequential) -> None:
    net[5] = small_net(seed=7)[5]


def other_statistics(net: nn.Sequential) -> None:
    net[1].running_mean.add_(0.1)
    net[1].running_var.mul_(0.5)


def loaded(net: nn.Sequential) -> None:
    net.load_state_dict(small_net(seed=3).state_dict())


@pytest.mark.parametrize("change", [step, in_place, other_layer, other_statistics, loaded])
def test_it_searches_and_judges_on_the_weights_of_now(
    change: Callable[[nn.Sequential], None], net: nn.Sequential, copies: list[nn.Module | None]
) -> None:
    x, y = answered(net)
    attack = PGD(eps=0.05, steps=10)
    attack(net, x, y, search="auto")
    change(net)
    with torch.no_grad():
        y = net(x).argmax(1)
    fast, plain = (attack.run(net, x, y, search=search) for search in ("auto", None))
    assert torch.equal(fast.success, plain.success) and fast.success.any()
    assert (fast.backwards - plain.backwards).abs().max() <= 1
    first, second = copies
    assert first is not None and second is not None
    with torch.no_grad():
        assert torch.allclose(second(x), net(x), atol=1e-4) and not torch.allclose(first(x), net(x), atol=1e-2)
        assert torch.equal(net(fast.images).argmax(1) != y, fast.success)


@pytest.mark.parametrize("method", ["apgd-t", "fmn", "square", "di-fgsm"])
def test_every_kind_of_attack_takes_it(
    method: str, net: nn.Sequential, sample: tuple[Tensor, Tensor], copies: list[nn.Module | None]
) -> None:
    attack = attack_class(method)(eps=0.05, steps=20)
    fast, plain = (attack.run(net, *sample, search=search) for search in ("auto", None))
    assert len(copies) == 1 and copies[0] is not None
    assert (fast.success ^ plain.success).sum() <= 1 and fast.success.any()


def test_it_is_really_searched_on(net: nn.Sequential, sample: tuple[Tensor, Tensor]) -> None:
    asked = []
    net.register_forward_hook(lambda *given: asked.append(len(given[2])))
    attack = PGD(eps=1e-4, steps=30)  # too small to succeed
    attack(net, *sample)
    alone = sum(asked)
    asked.clear()
    # of a rebuilt copy the hook is not part: what is left are the comparison and the verdict on each last point
    attack(net, *sample, search="auto")
    assert alone >= 31 * len(sample[0]) and sum(asked) <= len(sample[0]) + 3 * searching.COMPARED


class Odd(nn.Module):
    """A net with something that a copy cannot have."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.net, self.kind = small_net(), kind

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.net(x)
        return logits + 0.1 * torch.randn_like(logits) if self.kind == "random" else logits

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        if self.kind == "uncopyable":
            raise TypeError("no")
        found = Odd(self.kind)
        if self.kind == "another":
            nn.init.zeros_(found.net[0].weight)  # type: ignore[arg-type]
        return found


@pytest.mark.parametrize("kind", ["random", "uncopyable", "another"])
def test_without_a_faithful_copy_nothing_changes(kind: str, sample: tuple[Tensor, Tensor]) -> None:
    net = Odd(kind)
    outcomes = []
    for search in ("auto", None):
        with torch.random.fork_rng():
            torch.manual_seed(5)
            outcomes.append(PGD(eps=0.03, steps=10).run(net, *sample, search=search))
    assert torch.equal(outcomes[0].images, outcomes[1].images)
    assert torch.equal(outcomes[0].forwards, outcomes[1].forwards)


@pytest.mark.parametrize(
    "oracle",
    [
        lambda net: Oracle(net, gives="scores"),
        lambda net: Oracle(net, query_budget=100),
        lambda net: Oracle(net, evaluations=3),
        lambda net: Oracle(lambda x: net(x)),
    ],
)
def test_a_target_of_which_less_is_to_be_seen_is_not_copied(
    oracle: Callable[[nn.Module], Oracle], net: nn.Sequential, copies: list[nn.Module | None]
) -> None:
    assert searched("auto", oracle(net), answered(net)[0], 128, 1000) is None and not copies
    assert searched("auto", Oracle(net), answered(net)[0], 128, 1000) is not None and len(copies) == 1


def test_short_work_is_not_worth_a_copy(
    net: nn.Sequential, sample: tuple[Tensor, Tensor], copies: list[nn.Module | None]
) -> None:
    FGSM()(net, *sample, search="auto")
    assert not copies


def test_what_does_not_search_on_a_copy_makes_none(
    net: nn.Sequential, sample: tuple[Tensor, Tensor], copies: list[nn.Module | None]
) -> None:
    DeepFool(eps=0.05)(net, *sample, search="auto")
    assert not copies


def test_the_classifier_is_left_as_it_was(sample: tuple[Tensor, Tensor]) -> None:
    net = small_net().train()
    net[1].eval()
    net[5].bias.requires_grad_(False)
    net[0].weight.grad = torch.ones_like(net[0].weight)
    before, modes = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
    state = torch.random.get_rng_state()
    PGD(steps=20)(net, *sample, search="auto")
    assert [m.training for m in net.modules()] == modes
    assert [p.requires_grad for p in net.parameters()] == [True] * 5 + [False]
    assert torch.equal(net[0].weight.grad, torch.ones_like(net[0].weight)) and net[5].weight.grad is None
    assert all(torch.equal(before[k], v) for k, v in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


def test_works_under_no_grad_and_inference_mode(net: nn.Sequential, sample: tuple[Tensor, Tensor]) -> None:
    attack = PGD(steps=10)
    wanted = attack(net, *sample, search="auto")
    for mode in (torch.no_grad, torch.inference_mode):
        with mode():
            assert torch.equal(attack(net, *sample, search="auto"), wanted)


def test_a_surrogate_is_copied_too(
    net: nn.Sequential, sample: tuple[Tensor, Tensor], copies: list[nn.Module | None]
) -> None:
    fast, plain = (
        PGD(eps=0.05, steps=10).run(net, *sample, surrogate=small_net(seed=1), search=search)
        for search in ("auto", None)
    )
    assert len(copies) == 1 and copies[0] is not None
    assert (fast.images - plain.images).abs().mean() < 1e-3
    with torch.no_grad():
        assert torch.equal(net(fast.images).argmax(1) != sample[1], fast.success)


def test_what_is_wrong_is_said_as_ever(net: nn.Sequential, sample: tuple[Tensor, Tensor]) -> None:
    x, y = sample
    with pytest.raises(UserError, match="search must be"):
        PGD()(net, x, y, search="fast")
    for search in ("auto", small_net()):
        with pytest.raises(UserError, match="label"):
            PGD()(net, x, y + 4, search=search)
    with pytest.raises(RuntimeError, match="cannot"):

        class Broken(nn.Module):
            def forward(self, x: Tensor) -> Tensor:
                raise RuntimeError("cannot")

        FMN()(Broken(), x, y, search="auto")
