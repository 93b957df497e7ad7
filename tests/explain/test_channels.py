"""What a channel responds to, against loops over plain hooks on a CNN, a ResNet and a transformer, and closed forms."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.explain import channel_changes, find_layer, strengths, top_images
from robustlab.models import load_model

NETS = pytest.mark.parametrize("name", ["road-signs/cnn", "road-signs/resnet20", "road-signs/vit"])


def by_hand(model: nn.Module, x: Tensor) -> Tensor:
    """(N, C, h, w) the output of the layer that is found, image by image; tokens without the class token."""
    layer, found = find_layer(model, x), []
    for image in x:
        held: list[Tensor] = []
        handle = layer.module.register_forward_hook(lambda m, given, out, held=held: held.append(out.detach().clone()))
        model(image[None])
        handle.remove()
        out = held[0][0]
        if layer.outside is not None:
            out = out[layer.outside :].T.reshape(-1, *layer.grid)
        found.append(out)
    return torch.stack(found)


@NETS
def test_agrees_with_a_computation_by_hand(name: str) -> None:
    model, x = load_model(name), torch.rand(7, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    wanted = by_hand(model, x)
    mean, peak = strengths(model, x, batch_size=3)
    assert torch.allclose(mean, wanted.abs().mean((2, 3)), atol=1e-5)
    assert torch.allclose(peak, wanted.amax((2, 3)), atol=1e-4)
    found = top_images(model, x, count=4, top=3, batch_size=3)
    assert [each.channel for each in found] == wanted.abs().mean((0, 2, 3)).argsort(descending=True)[:4].tolist()
    for each in found:
        own = wanted[:, each.channel]
        best = [i for i in own.amax((1, 2)).argsort(descending=True)[:3].tolist() if float(own[i].max()) > 0]
        assert each.rows.tolist() == best and len(best) > 0
        for row, inside, value in zip(best, each.inside, each.peaks, strict=True):
            assert float(value) == pytest.approx(float(own[row].max()), abs=1e-4)
            large = F.interpolate(own[row][None, None], (32, 32), mode="bilinear", align_corners=False)[0, 0]
            assert float((inside != (large >= large.max() / 2)).float().mean()) < 0.01  # rounding at the line
            assert 0 < float(inside.float().mean()) < 1


def red_and_green() -> nn.Module:
    """Channel 0 is red, channel 1 three times green, channel 2 always negative."""
    net = nn.Sequential(nn.Conv2d(3, 3, 1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(3, 2))
    with torch.no_grad():
        net[0].weight.copy_(torch.tensor([[1.0, 0, 0], [0, 3, 0], [0, 0, -1]])[:, :, None, None])
        net[0].bias.copy_(torch.tensor([0, 0, -9.0]))
    return net


def test_the_region_is_where_the_channel_is_high_and_channels_below_zero_have_none() -> None:
    x = torch.zeros(3, 3, 8, 8)
    x[1, 0, :4, :4], x[2, 0, 4:, 4:], x[0, 1, :, :2] = 1.0, 0.5, 1.0
    found = top_images(red_and_green(), x, layer="0", count=3, top=2)
    assert [each.channel for each in found] == [2, 1, 0]
    negative, green, red = found
    assert len(negative.rows) == 0 and negative.inside.shape == (0, 8, 8) and negative.strength == 9
    assert green.rows.tolist() == [0] and green.peaks.tolist() == [3.0]  # in the other images it is zero
    assert red.rows.tolist() == [1, 2] and torch.equal(red.inside[0], x[1, 0] > 0)
    assert torch.equal(red.inside[1], x[2, 0] > 0)


def test_changes_are_paired_and_beside_each_other() -> None:
    clean = torch.tensor([[1.0, 5.0, 3.0], [2.0, 5.0, 4.0]])
    adv = torch.tensor([[9.0, 5.0, 3.0], [2.0, 5.0, 4.0]])
    one, two, kept = channel_changes(clean, {"adv": adv, "noise": clean}, [1, 0])
    assert (one["channel"], one["clean"]["mean"], one["adv"]["mean"]) == (1, 5.0, 0.0)
    assert (two["channel"], two["clean"]["mean"], two["adv"]["mean"], two["adv"]["n"]) == (0, 1.5, 4.0, 2)
    assert two["adv"]["low"] < 0 < two["adv"]["high"] and two["noise"]["mean"] == 0
    assert kept["channel"] is None and (kept["adv"]["mean"], kept["noise"]["mean"]) == (0.75, 1.0)  # 1 of 2, and both


def test_where_a_tie_decides_no_channel_is_kept() -> None:
    dead, clear = torch.zeros(2, 3), torch.tensor([[1.0, 5.0, 3.0], [4.0, 4.0, 1.0]])
    assert channel_changes(dead, {"adv": dead}, [0])[-1]["adv"]["n"] == 0
    assert channel_changes(clear, {"adv": clear}, [0])[-1]["adv"] == {"mean": 1, "low": None, "high": None, "n": 1}
    assert channel_changes(clear, {"adv": clear}, [0, 1])[-1]["adv"]["n"] == 2  # of the second image both 4 are in
    assert channel_changes(clear, {"adv": clear}, [0, 1, 2])[-1]["adv"]["n"] == 0


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda net, x: top_images(net, x, count=0), "count"),
        (lambda net, x: top_images(net, x, top=0), "top"),
        (lambda net, x: top_images(net, x, layer="3"), "A heatmap needs"),
        (lambda net, x: channel_changes(torch.ones(2, 3), {}, [3]), "0 to 2"),
        (lambda net, x: channel_changes(torch.ones(2, 3), {}, [-1]), "0 to 2"),
        (lambda net, x: channel_changes(torch.ones(2, 3), {}, [1, 1]), "each once"),
    ],
)
def test_bad_input_is_said(call: Callable[..., Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        call(red_and_green(), torch.rand(2, 3, 8, 8))
