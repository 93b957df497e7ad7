from __future__ import annotations

import pytest
import torch
from torch import fx

from robustlab.errors import UserError
from robustlab.models import ARCHITECTURES
from robustlab.models.classifier import Classifier
from robustlab.models.loading import build


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("classes", "shape"), [(16, (3, 32, 32)), (2, (1, 28, 28)), (43, (3, 40, 24)), (5, (4, 65, 9))]
)
def test_any_size_channels_and_classes(architecture: str, classes: int, shape: tuple[int, int, int]) -> None:
    model = build(architecture, classes, shape, {}).eval()
    x = torch.rand(2, *shape, requires_grad=True)
    logits = model(x)
    assert logits.shape == (2, classes)
    logits[:, 0].sum().backward()
    assert x.grad is not None and bool(x.grad.abs().sum() > 0)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_can_be_traced(architecture: str) -> None:
    model = Classifier(build(architecture, 16, (3, 32, 32), {}), [0.5], [0.25]).eval()
    x = torch.rand(3, 3, 32, 32)
    assert torch.equal(fx.symbolic_trace(model)(x), model(x))


def test_sizes() -> None:
    count = {a: sum(p.numel() for p in build(a, 16, (3, 32, 32), {}).parameters()) for a in ARCHITECTURES}
    assert count["cnn"] < 250_000 and 260_000 < count["resnet20"] < 290_000


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_initial_weights_are_a_function_of_the_seed(architecture: str) -> None:
    state = torch.random.get_rng_state()
    a, b, c = (Classifier(build(architecture, 4, (3, 16, 16), {}, seed)).hash() for seed in (0, 0, 1))
    assert a == b != c
    assert torch.equal(torch.random.get_rng_state(), state)


def test_what_cannot_be_built() -> None:
    with pytest.raises(UserError, match="Did you mean 'resnet20'"):
        build("resnet-20", 4, (3, 32, 32), {})
    with pytest.raises(UserError, match="at least 8 x 8"):
        build("cnn", 4, (3, 4, 32), {})
    with pytest.raises(UserError, match="depht"):
        build("resnet20", 4, (3, 32, 32), {"depht": 3})
