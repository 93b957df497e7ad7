"""Every method against a computation of its own on three kinds of networks, closed forms, and what is left behind."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.base.pictures import coloured
from robustlab.explain import (
    METHODS,
    Heatmaps,
    draw,
    find_layer,
    guided_grad_cam,
    integrated_gradients,
    occlusion,
    saliency,
    strongest_channels,
)
from robustlab.models import load_model
from robustlab.models.classifier import Classifier
from robustlab.models.cnn import cnn


def small_cnn() -> nn.Module:
    return Classifier(cnn(10, (3, 16, 16), width=8).eval(), [0.5], [0.2])


def resnet() -> nn.Module:
    return load_model("road-signs/resnet20")


def vit() -> nn.Module:
    from torchvision.models import VisionTransformer

    net = VisionTransformer(16, 4, num_layers=2, num_heads=2, hidden_dim=16, mlp_dim=32, num_classes=10).eval()
    nn.init.normal_(net.heads.head.weight)  # torchvision begins with zeros
    return Classifier(net, [0.5], [0.2])


KINDS = pytest.mark.parametrize("make", [small_cnn, resnet, vit])


@pytest.fixture(autouse=True)
def _seeded() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def close(found: Tensor, wanted: Tensor) -> bool:
    """Equal up to rounding, and not because both are zero."""
    largest = float(wanted.abs().max())
    return found.shape == wanted.shape and largest > 0 and float((found - wanted).abs().max()) < 2e-4 * largest


def gradient(model: nn.Module, image: Tensor, k: int) -> Tensor:
    x = image[None].clone().requires_grad_(True)
    return torch.autograd.grad(model(x)[0, k], x)[0][0]


@KINDS
def test_saliency(make: Callable[[], nn.Module]) -> None:
    model, x = make(), torch.rand(3, 3, 16, 16)
    wanted = torch.stack([gradient(model, x[i], i).abs().max(0).values for i in range(3)])
    assert close(saliency(model, x, torch.arange(3), batch_size=2).maps, wanted)


@KINDS
def test_integrated_gradients(make: Callable[[], nn.Module]) -> None:
    model, x, steps, start = make(), torch.rand(2, 3, 16, 16), 8, 0.2
    import numpy as np

    places, weights = np.polynomial.legendre.leggauss(steps)
    wanted = torch.zeros(2, 16, 16)
    for i in range(2):
        for at, weight in zip((places + 1) / 2, weights / 2, strict=True):
            off = x[i] - start
            wanted[i] += float(weight) * (gradient(model, start + float(at) * off, i) * off).sum(0)
    found = integrated_gradients(model, x, torch.arange(2), steps=steps, baseline=start, signed=True, batch_size=3)
    assert close(found.maps, wanted) and float(wanted.min()) < 0
    cut = integrated_gradients(model, x, torch.arange(2), steps=steps, baseline=start)
    assert close(cut.maps, wanted.clamp_min(0))


def test_integrated_gradients_sum_to_the_difference_of_the_logits() -> None:
    model, x, k = vit(), torch.rand(2, 3, 16, 16), torch.tensor([3, 1])  # smooth, so that few steps are exact
    found = integrated_gradients(model, x, k, steps=50, signed=True)
    with torch.no_grad():
        change = (model(x) - model(torch.zeros_like(x))).gather(1, k[:, None])[:, 0]
    assert torch.allclose(found.maps.sum((1, 2)), change, rtol=0.01, atol=0.01)


@KINDS
@pytest.mark.parametrize(("window", "stride"), [(6, 3), (5, 4)])
def test_occlusion(make: Callable[[], nn.Module], window: int, stride: int) -> None:
    model, x = make(), torch.rand(2, 3, 16, 16)
    wanted = torch.zeros(2, 16, 16)
    starts = range(0, stride * (math.ceil((16 - window) / stride) + 1), stride)
    with torch.no_grad():
        for i in range(2):
            k = int(model(x[i : i + 1]).argmax())
            sure, total, count = float(model(x[i : i + 1]).softmax(1)[0, k]), torch.zeros(16, 16), torch.zeros(16, 16)
            for top in starts:
                for left in starts:
                    y = x[i : i + 1].clone()
                    y[:, :, top : top + window, left : left + window] = 0.5
                    total[top : top + window, left : left + window] += sure - float(model(y).softmax(1)[0, k])
                    count[top : top + window, left : left + window] += 1
            wanted[i] = total / count
        classes = model(x).argmax(1)
    found = occlusion(model, x, classes, window=window, stride=stride, signed=True, batch_size=9).maps
    assert float((found - wanted).abs().max()) < 1e-4 * float(wanted.abs().max()) + 1e-6 and float(wanted.max()) > 0
    assert torch.equal(
        occlusion(model, x, classes, window=window, stride=stride, batch_size=9).maps, found.clamp_min(0)
    )


class Guided(torch.autograd.Function):
    """A ReLU whose gradient is cut off at zero as well."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return x.clamp_min(0)

    @staticmethod
    def backward(ctx: Any, given: Tensor) -> Tensor:  # type: ignore[override]
        return given * (given > 0) * (ctx.saved_tensors[0] > 0)


@pytest.mark.parametrize("make", [small_cnn, resnet])
def test_guided_grad_cam(make: Callable[[], nn.Module], monkeypatch: pytest.MonkeyPatch) -> None:
    model, x, k = make(), torch.rand(2, 3, 16, 16), torch.tensor([2, 5])
    with pytest.warns(UserWarning, match="edges"):
        found = guided_grad_cam(model, x, k)
    cam = draw("grad-cam", model, x, k).maps
    monkeypatch.setattr(nn.ReLU, "forward", lambda self, x: Guided.apply(x))
    wanted = torch.stack([gradient(model, x[i], int(k[i])).abs().max(0).values for i in range(2)])
    assert close(found.maps, cam * wanted)


def test_guided_grad_cam_needs_relus() -> None:
    with pytest.warns(UserWarning, match="edges"), pytest.raises(UserError, match="ReLU"):
        guided_grad_cam(vit(), torch.rand(1, 3, 16, 16), torch.tensor([0]))


@KINDS
def test_strongest_channels(make: Callable[[], nn.Module]) -> None:
    model, x = make(), torch.rand(3, 3, 16, 16)
    found = strongest_channels(model, x, count=5, batch_size=2)
    held: list[Tensor] = []
    with torch.no_grad(), found.layer.module.register_forward_hook(lambda m, g, out: held.append(out.clone())):
        model(x)
    out = held[0]
    if found.layer.outside is not None:
        out = out[:, found.layer.outside :].permute(0, 2, 1).reshape(3, out.shape[2], *found.layer.grid)
    for i in range(3):
        strength = [float(channel.abs().mean()) for channel in out[i]]
        order = sorted(range(len(strength)), key=lambda c: -strength[c])[:5]
        assert found.index[i].tolist() == order
        assert torch.allclose(found.outputs[i], out[i][order], atol=1e-5)
    assert found.contact_sheet(0).shape[1] == 66 and float(found.contact_sheet(0).max()) <= 1


def test_a_sheet_has_rows_of_eight_and_no_more_channels_than_there_are() -> None:
    model, x = small_cnn(), torch.rand(1, 3, 16, 16)
    assert strongest_channels(model, x, count=10).contact_sheet(0).shape == (3, 132, 528)
    assert strongest_channels(model, x, count=1000).index.shape == (1, 32)
    assert find_layer(model, x).name == strongest_channels(model, x).layer.name


def hooks_and_modes(net: nn.Module) -> Any:
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in net.modules()]
    return hooks, [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()]


@pytest.mark.parametrize("name", METHODS)
def test_the_contract(name: str) -> None:
    """Shape, range, the state that is left, no gradients needed from outside, batches that decide nothing."""
    net = cnn(4, (3, 16, 16), width=8).train()
    net[0].weight.requires_grad_(False)
    x, classes = torch.rand(5, 3, 16, 16), torch.tensor([0, 1, 2, 3, 0])
    before, values = hooks_and_modes(net), [v.clone() for v in net.state_dict().values()]
    with warnings.catch_warnings(), torch.no_grad():
        warnings.filterwarnings("ignore", "Guided")
        whole = draw(name, net, x, classes, layer=None)
        parts = draw(name, net, x, classes, layer=None, batch_size=2)
        with torch.inference_mode():
            draw(name, net, x + 0, classes, layer=None)
    assert isinstance(whole, Heatmaps) and whole.maps.shape == (5, 16, 16) and whole.maps.dtype == torch.float32
    assert float(whole.maps.min()) >= 0 and not whole.maps.requires_grad
    assert float((whole.maps - parts.maps).abs().max()) <= 1e-4 * float(whole.maps.max())
    assert hooks_and_modes(net) == before
    assert all(map(torch.equal, values, net.state_dict().values())) and all(p.grad is None for p in net.parameters())
    if METHODS[name].of_class:
        with pytest.raises(UserError, match="between 0 and 3"):
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", "Guided")
                draw(name, net, x, classes + 1)


def test_unknown_names_and_bad_numbers_are_said() -> None:
    net, x, k = cnn(4, (3, 8, 8), width=4), torch.rand(1, 3, 8, 8), torch.tensor([0])
    for call, message in (
        (lambda: draw("gradcam", net, x, k), "Did you mean 'grad-cam'"),
        (lambda: occlusion(net, x, k, window=9), "shorter side"),
        (lambda: occlusion(net, x, k, window=2, stride=3), "every pixel is covered"),
        (lambda: occlusion(net, x, k, fill=128), r"\[0, 1\]"),
        (lambda: integrated_gradients(net, x, k, baseline=-1), r"\[0, 1\]"),
        (lambda: integrated_gradients(net, x, k, steps=0), "steps"),
        (lambda: strongest_channels(net, x, count=0), "count"),
        (lambda: saliency(nn.Sequential(Rounds(), net), x, k), "no gradient"),
    ):
        with pytest.raises(UserError, match=message):
            call()


class Rounds(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.detach().round()


def test_occlusion_needs_no_gradient() -> None:
    net = nn.Sequential(Rounds(), nn.Flatten(), nn.Linear(192, 4))
    assert occlusion(net, torch.rand(2, 3, 8, 8), torch.tensor([0, 1])).maps.shape == (2, 8, 8)


def test_colours_have_one_scale() -> None:
    maps = torch.tensor([[[0.0, 1.0]], [[0.0, 0.5]]])
    found = coloured(maps, 1.0)
    assert found.shape == (2, 3, 1, 2) and torch.equal(found[0, :, 0, 0], found[1, :, 0, 0])
    assert float(found[0, :, 0, 1].sum()) > float(found[1, :, 0, 1].sum()) > float(found[1, :, 0, 0].sum())
    assert F.mse_loss(coloured(maps * 0, 0.0)[0], found[0, :, :, :1].expand(-1, -1, 2)).item() == 0
