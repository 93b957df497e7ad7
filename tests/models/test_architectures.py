from __future__ import annotations

from pathlib import Path

import pytest
import torch
import torchvision
from torch import fx, nn

from robustlab.base.errors import UserError
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.models import ARCHITECTURES
from robustlab.models.classifier import Classifier
from robustlab.models.loading import build


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize(
    ("classes", "shape"),
    [(16, (3, 32, 32)), (2, (1, 28, 28)), (43, (3, 40, 24)), (1000, (3, 8, 8)), (5, (4, 65, 9))],
)
def test_any_size_channels_and_classes(architecture: str, classes: int, shape: tuple[int, int, int]) -> None:
    if architecture == "vit" and shape[1] % 4:
        with pytest.raises(UserError, match="multiples of 4; got 65 x 9"):
            build(architecture, classes, shape, {})
        return
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
    assert count["cnn"] < 250_000 and 260_000 < count["resnet20"] < 290_000 and count["vit"] < 700_000


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
    with pytest.raises(UserError, match="at least 8 x 8"):
        build("resnet18", 4, (3, 32, 7), {})
    with pytest.raises(UserError, match="width 96 and 5 heads"):
        build("vit", 4, (3, 32, 32), {"heads": 5})


def test_resnet18_is_torchvisions_behind_another_stem() -> None:
    """The same residual scales: with torchvision's weights in them they say the same."""
    ours, theirs = build("resnet18", 10, (3, 32, 32), {"width": 64}), torchvision.models.resnet18(num_classes=10)
    theirs.conv1, theirs.maxpool = nn.Conv2d(3, 64, 3, 1, 1, bias=False), nn.Identity()
    values = [value for key, value in theirs.state_dict().items()]
    ours.load_state_dict(dict(zip(ours.state_dict(), values, strict=True)))
    x = torch.rand(2, 3, 32, 32)
    assert torch.allclose(ours.eval()(x), theirs.eval()(x), atol=1e-5)


def test_a_vit_is_attacked(tmp_path: Path) -> None:
    """Nothing on the way from PGD to the run folder wants convolutions or BatchNorm."""
    model = Classifier(build("vit", 5, (3, 16, 24), {}), [0.5], [0.25]).eval()
    images = torch.rand(6, 3, 16, 24, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        labels = model(images).argmax(1)
    quiet = Listener(say=lambda text: None)
    run = evaluate({"vit": model}, (images, labels), "pgd", output=tmp_path / "run", curve=[], listener=quiet)
    found = run.info["aggregates"]["models"][0]
    assert found["clean_accuracy"]["value"] == 1 and found["robust_accuracy"]["value"] < 1
    assert run.info["models"][0]["search_copy"]["used"]


def test_vit_sees_where_a_patch_is_and_all_patches_at_once() -> None:
    model = build("vit", 4, (1, 8, 8), {"depth": 1}).eval()
    x = torch.zeros(1, 1, 8, 8, requires_grad=True)
    (g,) = torch.autograd.grad(model(x)[0, 0], x)
    assert bool((g.unfold(2, 4, 4).unfold(3, 4, 4).abs().sum((-1, -2)) > 0).all())
    corner, middle = torch.zeros(2, 1, 1, 8, 8)
    corner[..., :4, :4] = 1
    middle[..., 4:, 4:] = 1
    assert not torch.allclose(model(corner), model(middle))
