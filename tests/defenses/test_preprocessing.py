"""Preprocessing defenses against what they should do exactly, and the gradient that attacks see through them."""

from __future__ import annotations

import io
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.ndimage import median_filter
from torch import Tensor, nn

from robustlab.attacks import PGD
from robustlab.base.errors import UserError
from robustlab.defenses import BPDA, JPEG, BitDepth, Median, RandomResize, jpeg_gradient
from robustlab.defenses.base import Defense, defended
from robustlab.defenses.jpeg_gradient import soft_jpeg
from robustlab.models.classifier import Classifier, check
from robustlab.models.search_copy import make_search_copy
from robustlab.oracle import Oracle, forked

NET = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 6 * 6, 3))


@pytest.fixture
def images() -> Tensor:
    return torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def bare() -> Classifier:
    return Classifier(NET, shape=(3, 8, 8), classes=["a", "b", "c"], name="net")


def test_bit_depth_of_known_values() -> None:
    x = torch.tensor([0.0, 0.16, 0.17, 0.49, 0.51, 0.84, 1.0])
    assert BitDepth(bits=1).squeeze(x).tolist() == [0, 0, 0, 0, 1, 1, 1]
    assert BitDepth(bits=2).squeeze(x).mul(3).round().tolist() == [0, 0, 1, 1, 2, 3, 3]
    grid = torch.arange(256) / 255
    assert torch.allclose(BitDepth(bits=8).squeeze(grid), grid, atol=1e-7)
    assert all(len(BitDepth(bits=bits).squeeze(grid).unique()) == 2**bits for bits in range(1, 9))


@pytest.mark.parametrize("size", [2, 3, 5])
def test_median_is_scipys(images: Tensor, size: int) -> None:
    expected = median_filter(images.numpy(), size=(1, 1, size, size), mode="reflect")
    assert np.array_equal(Median(size=size).smooth(images).numpy(), expected)


@pytest.mark.parametrize(("quality", "channels"), [(75, 3), (10, 3), (50, 1)])
def test_jpeg_is_pillows(images: Tensor, quality: int, channels: int) -> None:
    x = images[:, :channels]
    found = JPEG(quality=quality).compress(x)
    for image, out in zip(x, found, strict=True):
        file = io.BytesIO()
        pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
        Image.fromarray(pixels if channels == 3 else pixels[:, :, 0]).save(file, format="JPEG", quality=quality)
        read = np.asarray(Image.open(file)).reshape(8, 8, channels)
        assert np.array_equal(out.permute(1, 2, 0).mul(255).round().numpy(), read)
    assert not torch.equal(found, x)


def test_random_resize_shrinks_and_pads(images: Tensor) -> None:
    assert torch.equal(RandomResize(smallest=1).shrink(images), images)
    x = torch.arange(1.0, 65).reshape(1, 1, 8, 8).expand(400, 1, 8, 8)
    with forked(torch.device("cpu"), 0):
        found = RandomResize(smallest=0.75).shrink(x)
    shapes = set()
    for one in found[:, 0]:
        rows, columns = (one.any(axis).nonzero()[:, 0] for axis in (1, 0))
        cut = one[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
        assert bool((cut > 0).all()) and cut.shape[0] == cut.shape[1] and set(cut.flatten().tolist()) <= set(range(65))
        nearest = ((torch.arange(len(cut)) + 0.5) * 8 / len(cut)).floor().long()
        assert torch.equal(cut, x[0, 0][nearest][:, nearest])
        shapes.add((len(cut), int(rows[0]), int(columns[0])))
    assert shapes == {(k, i, j) for k in (6, 7, 8) for i in range(9 - k) for j in range(9 - k)}
    wide = RandomResize(smallest=0.5).shrink(torch.ones(40, 1, 4, 8)).sum((1, 2, 3))
    assert set(wide.tolist()) <= {8.0, 18.0, 32.0}


@pytest.mark.parametrize(
    ("defense", "front", "near"),
    [
        (BitDepth(bits=2), "squeeze", lambda x: x),
        (Median(), "smooth", Median().smooth),
        (JPEG(quality=30), "compress", lambda x: soft_jpeg(x, 30)),
    ],
)
def test_the_gradient_is_the_models_at_the_preprocessed_point(
    images: Tensor, defense: Defense, front: str, near: Callable[[Tensor], Tensor]
) -> None:
    model = bare()
    behind = defended(model, defense)
    inside = getattr(defense, front)(images)
    assert torch.equal(behind(images), model(inside)) and not torch.allclose(model(images), model(inside))

    def gradient(net: nn.Module, at: Tensor) -> Tensor:
        leaf = at.clone().requires_grad_(True)
        return torch.autograd.grad(net(leaf)[:, 1].sum(), leaf)[0]

    leaf = images.clone().requires_grad_(True)
    through = torch.autograd.grad(near(leaf), leaf, gradient(model, inside))[0]
    assert torch.equal(gradient(behind, images), through) and float(through.norm()) > 0
    assert (behind.shape, behind.classes) == (model.shape, model.classes)
    assert check(behind, images, None) == ([], False)
    copy = make_search_copy(behind, images)
    assert copy.module is not None, copy.reason
    assert torch.allclose(gradient(copy.module, images), gradient(behind, images), atol=1e-6)


@pytest.mark.parametrize(("channels", "sides", "most"), [(1, (8, 8), 0.002), (3, (32, 32), 0.008), (3, (21, 10), 0.01)])
def test_soft_jpeg_rounded_is_nearly_pillows(
    channels: int, sides: tuple[int, int], most: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    smooth = torch.rand(4, channels, 4, 4, generator=torch.Generator().manual_seed(1))
    x = torch.nn.functional.interpolate(smooth, sides, mode="bilinear")
    exact = JPEG(quality=60).compress(x)
    assert float((soft_jpeg(x, 60) - exact).abs().mean()) < float((x - exact).abs().mean())
    monkeypatch.setattr(jpeg_gradient, "soft_round", torch.round)
    assert float((soft_jpeg(x, 60) - exact).abs().mean()) < most


def test_a_backward_function_of_ones_own() -> None:
    x = torch.tensor([[0.3, 0.8]], requires_grad=True)
    step = BPDA(lambda x: (x > 0.5).float(), backward=lambda x: torch.sigmoid(5 * (x - 0.5)))
    y = step(x)
    slope = torch.sigmoid(5 * (x - 0.5))
    assert y.tolist() == [[0.0, 1.0]]
    assert torch.allclose(torch.autograd.grad(y.sum(), x)[0], (5 * slope * (1 - slope)).detach())
    with pytest.raises(UserError, match=r"output is like that of the preprocessing, \(1, 1\); got \(1, 2\)"):
        BPDA(lambda x: x[:, :1])(x)
    assert BPDA(lambda x: x.round())(x.detach().bfloat16()).dtype == torch.bfloat16


def test_random_resize_is_noticed_and_its_gradient_averaged(images: Tensor) -> None:
    behind = defended(bare(), RandomResize(smallest=0.7))
    assert check(behind, images, None).randomised
    assert not check(defended(bare(), RandomResize(smallest=1)), images, None).randomised

    def gradient(eot: int, seed: int) -> Tensor:
        with forked(torch.device("cpu"), seed):
            return Oracle(behind).gradient(images, lambda z: z[:, 1], lambda x, i: x, eot=eot)[2]

    one, many = (torch.stack([gradient(eot, seed) for seed in range(8)]).std(0).mean() for eot in (1, 40))
    assert many < one / 4  # the root of 40 is 6.3
    with forked(torch.device("cpu"), 0):
        looks = [Oracle(behind).gradient(images, lambda z: z[:, 1], lambda x, i: x)[2] for _ in range(3)]
    assert torch.allclose(gradient(3, 0), torch.stack(looks).mean(0), atol=1e-7)
    shown = PGD(steps=3, eps="8/255", eot=4)(behind, images, torch.tensor([0, 1, 2, 0, 1]))
    assert shown.shape == images.shape


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: JPEG(quality=0), "quality of jpeg must be at least 1, got 0"),
        (lambda: JPEG(quality=96), "quality of 1 to 95, got 96"),
        (lambda: BitDepth(bits=9), "bits of 1 to 8, got 9"),
        (lambda: Median(size=1), "size of median must be at least 2"),
        (lambda: Median(size=16), "size of 2 to 15 pixels, got 16"),
        (lambda: RandomResize(smallest=0), r"in \(0, 1\]; got 0"),
        (lambda: RandomResize(smallest=float("nan")), r"in \(0, 1\]; got nan"),
        (lambda: JPEG().wrap(Classifier(NET, shape=(4, 8, 8))), "1 or 3 channels, and this model takes 4"),
        (lambda: JPEG().compress(torch.rand(1, 2, 8, 8)), "1 or 3 channels, got 2"),
    ],
)
def test_what_cannot_be(make: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make()  # type: ignore[operator]
