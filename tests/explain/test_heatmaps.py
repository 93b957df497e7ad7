"""Grad-CAM and activation maps against a computation of their own, closed forms, and the state that is left behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.base.errors import RunError, UserError
from robustlab.explain import activation_map, grad_cam
from robustlab.models import load_model
from robustlab.models.classifier import Classifier
from robustlab.models.cnn import cnn


def by_hand(model: nn.Module, layer: nn.Module, x: Tensor, classes: Tensor, to_map: Callable[[Tensor], Tensor]) -> Any:
    """Grad-CAM and mean absolute activation with plain hooks, image by image. to_map: output -> (C, h, w)."""
    cams, activations = [], []
    for image, k in zip(x, classes, strict=True):
        held = []

        def hold(module: nn.Module, given: Any, out: Tensor, held: list[Tensor] = held) -> Tensor:
            held.append(out.clone())
            return held[0].clone()

        handle = layer.register_forward_hook(hold)
        logits = model(image[None].clone().requires_grad_(True))
        handle.remove()
        (gradient,) = torch.autograd.grad(logits[0, int(k)], held[0])
        a, g = to_map(held[0][0].detach()), to_map(gradient[0])
        cam = sum(g[c].mean() * a[c] for c in range(len(a))).clamp_min(0)
        cams.append(F.interpolate(cam[None, None], x.shape[2:], mode="bilinear", align_corners=False)[0, 0])
        flat = sum(a[c].abs() for c in range(len(a))) / len(a)
        activations.append(F.interpolate(flat[None, None], x.shape[2:], mode="bilinear", align_corners=False)[0, 0])
    return torch.stack(cams), torch.stack(activations)


def close(found: Tensor, wanted: Tensor) -> bool:
    """Equal up to rounding, and not because both are zero."""
    largest = float(wanted.max())
    return found.shape == wanted.shape and largest > 0 and float((found - wanted).abs().max()) < 1e-4 * largest


class Tokens(nn.Module):
    """A small vision transformer; the class is read from a class token or from the mean of the patches."""

    def __init__(self, class_token: bool, patch: tuple[int, int] = (4, 4)) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 8, patch, patch)
        self.token = nn.Parameter(torch.zeros(1, 1, 8)) if class_token else None
        self.norm1, self.attention = nn.LayerNorm(8), nn.MultiheadAttention(8, 2, batch_first=True)
        self.norm2, self.mlp = nn.LayerNorm(8), nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8))
        self.norm, self.head = nn.LayerNorm(8), nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        x = self.patches(x).flatten(2).mT
        if self.token is not None:
            x = torch.cat([self.token.expand(len(x), -1, -1), x], 1)
        y = self.norm1(x)
        x = x + self.attention(y, y, y, need_weights=False)[0]
        x = self.norm(x + self.mlp(self.norm2(x)))
        return self.head(x[:, 0] if self.token is not None else x.mean(1))  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def _seeded() -> Any:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        yield


def test_agrees_with_a_computation_by_hand_on_a_cnn() -> None:
    model = Classifier(cnn(10, (3, 16, 16), width=8).eval(), [0.5], [0.2])
    x, classes = torch.rand(7, 3, 16, 16), torch.arange(7)
    for name in ("0", "9", None):  # the first is changed in place by what follows it
        found = grad_cam(model, x, classes, layer=name, batch_size=3)
        cams, activations = by_hand(model, found.layer.module, x, classes, lambda out: out)
        assert close(found.maps, cams)
        found = activation_map(model, x, layer=name, batch_size=3)
        assert close(found.maps, activations)
    assert (found.layer.name, found.layer.grid, found.maps.shape) == ("17", (4, 4), (7, 16, 16))


@pytest.mark.parametrize("name", ["resnet20", "vit"])
def test_agrees_with_a_computation_by_hand_on_the_zoo(name: str) -> None:
    model = load_model(f"road-signs/{name}")
    x = torch.rand(3, 3, 32, 32)
    classes = model(x).argmax(1)
    found = grad_cam(model, x, classes)
    layer = found.layer
    assert layer.grid == (8, 8) and (layer.outside is None) == (name == "resnet20")

    def to_map(out: Tensor) -> Tensor:
        return out if layer.outside is None else out[layer.outside :].T.reshape(-1, *layer.grid)

    cams, activations = by_hand(model, layer.module, x, classes, to_map)
    assert close(found.maps, cams) and not found.zero.all()
    assert close(activation_map(model, x).maps, activations)


@pytest.mark.parametrize(("size", "grid"), [((32, 32), (8, 8)), ((16, 40), (4, 10))])
@pytest.mark.parametrize("class_token", [True, False])
def test_tokens_become_a_map(class_token: bool, size: tuple[int, int], grid: tuple[int, int]) -> None:
    model = Tokens(class_token).eval()
    x, classes = torch.rand(5, 3, *size), torch.arange(5)
    found = grad_cam(model, x, classes)
    # after the last attention, the class token no longer looks at the patches
    assert (found.layer.name, found.layer.grid) == ("norm1" if class_token else "norm", grid)
    assert found.layer.outside == int(class_token)

    def to_map(out: Tensor) -> Tensor:
        return out[int(class_token) :].T.reshape(8, *grid)

    cams, activations = by_hand(model, found.layer.module, x, classes, to_map)
    assert close(found.maps, cams)
    assert close(activation_map(model, x).maps, activations)


def test_the_grid_of_patches_that_are_not_square_is_that_of_the_embedding() -> None:
    found = grad_cam(Tokens(True, (2, 8)), torch.rand(2, 3, 32, 32), torch.tensor([0, 1]))
    assert found.layer.grid == (16, 4)


def test_a_layer_that_the_class_does_not_depend_on_gives_zero_maps() -> None:
    found = grad_cam(Tokens(True), torch.rand(2, 3, 32, 32), torch.tensor([0, 1]), layer="norm")
    assert found.zero.all() and found.maps.shape == (2, 32, 32)


def pooled(weight: Tensor) -> nn.Module:
    """Channels as they are, averaged over the image, then linear: Grad-CAM is the weighted sum of the channels."""
    net = nn.Sequential(
        nn.Conv2d(3, 3, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2)
    )
    with torch.no_grad():
        net[0].weight.copy_(torch.eye(3)[:, :, None, None])
        net[0].bias.zero_()
        net[4].weight.copy_(weight)
    return net


def test_closed_form_and_zero_maps() -> None:
    x = torch.rand(4, 3, 6, 9)
    found = grad_cam(pooled(torch.tensor([[1.0, 2.0, 0.5], [-1.0, -2.0, -0.5]])), x, torch.tensor([0, 1, 0, 1]))
    want = (x[:, 0] + 2 * x[:, 1] + 0.5 * x[:, 2]) / 54
    assert torch.allclose(found.maps[::2], want[::2], atol=1e-7)
    assert found.maps[1::2].abs().max() == 0  # everything speaks against class 1
    assert found.zero.tolist() == [False, True, False, True]


def test_in_place_layers_change_nothing() -> None:
    net = cnn(4, (3, 8, 8), width=4).eval()
    kept = copy.deepcopy(net)
    for module in kept.modules():
        if isinstance(module, nn.ReLU):
            module.inplace = False
    x, classes = torch.rand(3, 3, 8, 8), torch.tensor([0, 1, 3])
    for name in ("1", "14", "15", "16"):
        assert torch.equal(grad_cam(net, x, classes, layer=name).maps, grad_cam(kept, x, classes, layer=name).maps)


def state(net: nn.Module) -> Any:
    hooks = [len(m._forward_hooks) + len(m._forward_pre_hooks) + len(m._backward_hooks) for m in net.modules()]
    values = [v.clone() for v in net.state_dict().values()]
    return hooks, [m.training for m in net.modules()], [p.requires_grad for p in net.parameters()], values


class Fails(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        if len(x) < 4:
            raise ValueError("too few")
        return x


@pytest.mark.parametrize("fails", [False, True])
def test_the_module_is_left_as_it_was(fails: bool) -> None:
    net = nn.Sequential(cnn(4, (3, 8, 8), width=4), Fails() if fails else nn.Identity()).train()
    net[0][1].eval()
    net[0][0].weight.requires_grad_(False)
    x, classes = torch.rand(6, 3, 8, 8), torch.zeros(6, dtype=torch.long)
    before = state(net)
    for draw in (lambda: grad_cam(net, x, classes, batch_size=4), lambda: activation_map(net, x, batch_size=4)):
        if fails:
            with pytest.raises(ValueError, match="too few"):  # at the second batch
                draw()
        else:
            draw()
        after = state(net)
        assert after[:3] == before[:3] and all(map(torch.equal, after[3], before[3]))
        assert all(p.grad is None for p in net.parameters()) and not x.requires_grad


def test_works_where_gradients_are_turned_off() -> None:
    net = cnn(4, (3, 8, 8), width=4).requires_grad_(False)
    x, classes = torch.rand(2, 3, 8, 8), torch.tensor([0, 1])
    want = grad_cam(net, x, classes).maps
    with torch.no_grad():
        assert torch.equal(grad_cam(net, x, classes).maps, want)
    with torch.inference_mode():
        assert torch.equal(grad_cam(net, x + 0, classes).maps, want)


def test_batches_decide_nothing() -> None:
    model, x = load_model("road-signs/cnn"), torch.rand(5, 3, 32, 32)
    classes = torch.arange(5)
    one, all_ = (grad_cam(model, x, classes, batch_size=size).maps for size in (1, 64))
    assert close(one, all_)


@pytest.mark.parametrize(
    ("classes", "message"),
    [([0, 1], "one an image"), ([0, 1, 10], "between 0 and 9"), ([0.0, 1.0, 2.0], "one an image")],
)
def test_classes_are_checked(classes: list[float], message: str) -> None:
    with pytest.raises(UserError, match=message):
        grad_cam(cnn(10, (3, 8, 8), width=4), torch.rand(3, 3, 8, 8), torch.tensor(classes))


def test_images_are_checked() -> None:
    with pytest.raises(UserError, match=r"\(N, C, H, W\)"):
        grad_cam(cnn(10, (3, 8, 8), width=4), torch.rand(3, 8, 8), torch.arange(3))


def test_nan_is_said() -> None:
    net = pooled(torch.full((2, 3), torch.nan))
    with pytest.raises(RunError, match="NaN"):
        grad_cam(net, torch.rand(2, 3, 6, 6), torch.tensor([0, 1]))
