"""A search copy has the model's gradients as well as its logits, whatever is lost when a module is rebuilt."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import PGD
from robustlab.attacks.losses import LOSSES
from robustlab.models import agreement
from robustlab.models.agreement import answers
from robustlab.models.search_copy import LIMITS, make_search_copy


def conv_net() -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        net = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(4),
            nn.Flatten(),
            nn.Linear(128, 4),
        )
        net(torch.rand(64, 3, 8, 8))  # gives BatchNorm statistics
    return net.eval()


IMAGES = torch.rand(16, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class Coarse(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        return (x * 7).round() / 7

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return g


class Spike(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (x > 0.5).float()

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> Tensor:  # type: ignore[override]
        return g / (1 + ctx.saved_tensors[0].abs()) ** 2


class Scaled(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, factor: float) -> Tensor:
        ctx.factor = factor
        return x.view_as(x)

    @staticmethod
    def backward(ctx: Any, g: Tensor) -> tuple[Tensor, None]:  # type: ignore[override]
        return g * ctx.factor, None


def no_grad(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        return net(x)  # type: ignore[no-any-return]


def shifted(net: nn.Module, x: Tensor) -> Tensor:
    with torch.no_grad():
        mean = x.mean((2, 3), keepdim=True)
    return net(x - 3 * mean)  # type: ignore[no-any-return]


class Wrapped(nn.Module):
    def __init__(self, before: Callable[[nn.Module, Tensor], Tensor]) -> None:
        super().__init__()
        self.net, self.before = conv_net(), before

    def forward(self, x: Tensor) -> Tensor:
        return self.before(self.net, x)


def hooked_backward() -> nn.Module:
    net = Wrapped(lambda net, x: net(x * 1))
    net.net.register_full_backward_hook(lambda module, given, out: (-given[0],))
    return net


LOST: dict[str, Callable[[], nn.Module]] = {  # what torch.fx does not see in a forward pass
    "rounding with a straight-through gradient": lambda: Wrapped(lambda net, x: net(Coarse.apply(x))),
    "half of it": lambda: Wrapped(lambda net, x: net((x + Coarse.apply(x)) / 2)),
    "spikes with a surrogate gradient": lambda: Wrapped(lambda net, x: net(Spike.apply(x))),
    "reversal": lambda: Wrapped(lambda net, x: net(Scaled.apply(x, -1.0))),
    "gradient scaled to next to nothing": lambda: Wrapped(lambda net, x: net(Scaled.apply(x, 1e-6))),
    "gradient scaled to nothing": lambda: Wrapped(lambda net, x: net(Scaled.apply(x, 0.0))),
    "everything under no_grad": lambda: Wrapped(no_grad),
    "a part under no_grad": lambda: Wrapped(shifted),
    "a backward hook": hooked_backward,
}
KEPT: dict[str, Callable[[], nn.Module]] = {
    "plain": conv_net,
    "straight-through by detach": lambda: Wrapped(lambda net, x: net(x + ((x * 7).round() / 7 - x).detach())),
    "no gradient at all": lambda: Wrapped(lambda net, x: net((x * 7).round() / 7)),
    "in place": lambda: Wrapped(lambda net, x: net(x.sub_(0.5).div_(0.25))),
}


def gradient(model: nn.Module, images: Tensor) -> Tensor | None:
    """Of the cross-entropy, by plain autograd."""
    leaf = images.clone().requires_grad_(True)
    loss = LOSSES["ce"](model(leaf.clone()), torch.zeros(len(images), dtype=torch.long), None).sum()
    return torch.autograd.grad(loss, leaf)[0] if loss.requires_grad else None


@pytest.mark.parametrize("name", [*LOST, *KEPT])
def test_a_copy_has_the_gradients_of_the_model(name: str) -> None:
    model = (LOST | KEPT)[name]().eval()
    made = make_search_copy(model, IMAGES)
    assert made.module is not None and made.describe()["used"]
    assert made.folded is (name in KEPT)
    traced = name in LOST and "hook" not in name  # torch.fx refuses a backward hook by itself
    assert ("gradients are not the model's" in made.unfolded) is traced
    wanted, got = gradient(model, IMAGES), gradient(made.module, IMAGES)
    if wanted is None or got is None:
        assert wanted is got
    else:
        assert torch.allclose(wanted, got, atol=1e-6)


def test_bfloat16_hides_nothing_that_was_lost() -> None:
    made = make_search_copy(LOST["half of it"]().eval(), IMAGES, "bfloat16")
    assert not made.folded and made.precision == "bfloat16"


class Uncopied(nn.Module):
    """Its copy is another model, which loses the gradient."""

    def __init__(self, lose: bool = False) -> None:
        super().__init__()
        self.net, self.lose = conv_net(), lose

    def __deepcopy__(self, memo: object) -> Uncopied:
        return Uncopied(lose=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x.detach() if self.lose else x)  # type: ignore[no-any-return]


def test_no_copy_where_a_plain_one_disagrees_too() -> None:
    made = make_search_copy(Uncopied().eval(), IMAGES)
    assert made.module is None and "gradients are not the model's" in made.reason
    assert made.describe()["gradient_cosine"] == 0


def test_around_the_images_as_well() -> None:
    """On 8-bit images rounding to 8 bits changes nothing; a copy without it would be noticed beside them."""
    images = (IMAGES * 255).round() / 255
    model = Wrapped(lambda net, x: net((x * 255).round() / 255 * 1)).eval()
    (at, around), (plain_at, plain_around) = answers(model, images), answers(model.net, images)
    assert torch.allclose(at.logits, plain_at.logits, atol=1e-5)
    found = agreement.agreement([around], [plain_around])
    assert found.difference > 1e-4 and found.cosine == 0


def test_one_image_in_eight_is_enough() -> None:
    model = conv_net()
    wanted = answers(model, IMAGES)
    assert wanted[0].gradient is not None
    broken = wanted[0].gradient.clone()
    broken[:2] *= -1
    found = agreement.agreement(wanted[:1], [agreement.Answer(wanted[0].logits, broken)])
    assert found.cosine < LIMITS["float32"].cosine


def test_a_run_says_so_and_finds_what_the_model_shows(tmp_path: Any) -> None:
    from robustlab.evaluation.evaluate import evaluate
    from robustlab.evaluation.listener import Listener

    model, said = LOST["rounding with a straight-through gradient"]().eval(), []
    y = model(IMAGES).argmax(1)
    options: dict[str, Any] = {"audit": 0, "keep": 0, "curve": [], "listener": Listener(say=said.append)}
    robust = []
    for search_copy in (True, False):
        run = evaluate(
            {"net": model}, (IMAGES, y), "fgsm", output=tmp_path / str(search_copy), search_copy=search_copy, **options
        )
        robust.append(run.info["aggregates"]["models"][0]["robust_accuracy"])
    assert robust[0] == robust[1] and robust[0]["value"] < 1
    assert any("the search copy is a plain one" in text for text in said)
    assert PGD(eps=8 / 255).run(model, IMAGES, y).success.any()
