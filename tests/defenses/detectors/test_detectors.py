"""Detectors: closed forms, what they may assume, gradients, bad input."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from robustlab.base.errors import UserError
from robustlab.defenses.detectors import DETECTORS, Confidence, Energy, FeatureSqueezing, make_detector
from robustlab.defenses.detectors.base import scores_of
from robustlab.defenses.squeezing import BitDepth, Median


def net(channels: int = 3, classes: int = 4) -> nn.Sequential:
    torch.manual_seed(0)
    parts = nn.Conv2d(channels, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Dropout(0.5), nn.Flatten()
    return nn.Sequential(*parts, nn.Linear(6 * 36, classes))


def test_confidence_and_energy_of_known_logits() -> None:
    z = torch.tensor([[[1.0, 2.0, 0.5], [0.0, 0.0, 0.0], [40.0, -60.0, -70.0]]]).double()
    p = z[0].softmax(1).amax(1)
    assert torch.allclose(Confidence().score(z)[:2], -p.log()[:2])
    assert Confidence().score(z)[2].item() == pytest.approx(math.exp(-100) + math.exp(-110), rel=1e-12)  # p rounds to 1
    assert torch.allclose(Energy().score(z), -z[0].exp().sum(1).log())
    assert Energy(temperature=2.0).score(z)[0].item() == pytest.approx(
        -2 * math.log(sum(math.exp(v / 2) for v in (1.0, 2.0, 0.5)))
    )


def test_feature_squeezing_is_the_largest_l1_distance() -> None:
    model, x = net().eval(), torch.rand(5, 3, 8, 8)
    with torch.no_grad():
        p, *others = (model(view).double().softmax(1) for view in (x, BitDepth(5).squeeze(x), Median(2).smooth(x)))
    expected = torch.stack([(p - q).abs().sum(1) for q in others]).amax(0)
    assert torch.allclose(FeatureSqueezing()(model, x), expected)
    assert len(set(others[i][0, 0].item() for i in range(2)) | {p[0, 0].item()}) == 3


def test_bits_depend_on_the_channels() -> None:
    grey, colour = torch.rand(1, 1, 4, 4), torch.rand(1, 3, 4, 4)
    levels = {
        channels: set(FeatureSqueezing().views(x)[1].flatten().tolist()) for channels, x in ((1, grey), (3, colour))
    }
    assert levels[1] <= {0.0, 1.0}
    assert levels[3] == {v for v in BitDepth(5).squeeze(colour).flatten().tolist()} and len(levels[3]) > 2
    assert set(FeatureSqueezing(bits=1).views(colour)[1].flatten().tolist()) <= {0.0, 1.0}


@pytest.mark.parametrize("name", DETECTORS)
@pytest.mark.parametrize("channels", [1, 3])
def test_contract(name: str, channels: int) -> None:
    """Shape, one image at a time, a gradient, nothing random, and the classifier as it was."""
    model, detector, x = net(channels).train(), make_detector(name), torch.rand(6, channels, 8, 8)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    leaf = x.clone().requires_grad_(True)
    score = detector(model, leaf)
    (gradient,) = torch.autograd.grad(score.sum(), leaf)
    assert score.shape == (6,) and score.dtype == torch.float64 and bool(score.isfinite().all())
    assert bool((gradient.flatten(1).abs().sum(1) > 0).all())
    assert torch.allclose(scores_of(detector, model, x, 4), score.detach(), atol=1e-6)
    assert torch.allclose(scores_of(detector, model, x.flip(0), 6).flip(0), score.detach(), atol=1e-6)
    assert model.training and all(p.requires_grad and p.grad is None for p in model.parameters())
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("enrgy", "Did you mean 'energy'"),
        ("energy:temperature=0", "larger than 0"),
        ("energy:temp=2", "unknown key 'temp'"),
        ("energy:2", "key=value"),
        ("energy:", "key=value"),
        ("energy:temperature=1,temperature=2", "each once"),
        ("energy:temperature=warm", "temperature must be of the type"),
        ("feature-squeezing:bits=9", "bits of 1 to 8"),
        ("feature-squeezing:window=1", "at least 2"),
    ],
)
def test_bad_input(text: str, said: str) -> None:
    with pytest.raises(UserError, match=said):
        make_detector(text)
