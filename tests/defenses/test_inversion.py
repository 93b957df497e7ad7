"""Trigger inversion and repairs, on a classifier with a backdoor that is built by hand."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.defenses.inversion import anomaly_index, invert_triggers, stamped
from robustlab.defenses.repairs import fine_pruning, fine_tuning, prune
from robustlab.defenses.representations import representations


class Backdoored(nn.Module):
    """Logits are the brightness of four rows; one corner pixel raises class 2."""

    def forward(self, x: Tensor) -> Tensor:
        rows = x[:, 0].mean(2) * 10
        return rows + x[:, 0, 0, :1] * torch.tensor([0.0, 0.0, 30.0, 0.0])


def images(n: int = 64) -> Tensor:
    x = torch.rand(n, 1, 4, 8, generator=torch.Generator().manual_seed(0)) * 0.5
    x[torch.arange(n), 0, torch.arange(n) % 4] += 0.3
    x[:, 0, 0, 0] = 0
    return x


def test_inversion_finds_the_backdoor() -> None:
    found = invert_triggers(Backdoored(), images(), steps=200)
    assert found.flagged == [2] and int(found.norms.argmin()) == 2
    assert float(found.success.min()) > 0.9
    assert int(found.masks[2].flatten().argmax()) == 0  # the corner
    moved = stamped(images(), found.masks[2], found.patterns[2])
    assert float((Backdoored()(moved).argmax(1) == 2).float().mean()) == pytest.approx(float(found.success[2]))


def test_inversion_repeats_and_leaves_the_model_alone() -> None:
    net = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(32), nn.Linear(32, 3))
    before = {key: value.clone() for key, value in net.state_dict().items()}
    first, second = (invert_triggers(net, images(), steps=10) for _ in range(2))
    assert torch.equal(first.masks, second.masks) and net.training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert all(p.grad is None and p.requires_grad for p in net.parameters())
    one = invert_triggers(net, images(), [2, 1, 0], steps=10)
    assert torch.equal(one.masks.flip(0), first.masks)  # a class does not depend on the others


def test_larger_norms_are_no_anomaly() -> None:
    assert float(anomaly_index(torch.tensor([50.0, 51, 49, 50, 400]))[4]) < -2


def net() -> nn.Sequential:
    """Two channels see the image; the third sees a full corner only and overrules them."""
    model = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Flatten(), nn.Linear(96, 2)).eval()
    with torch.no_grad():
        for p in model.parameters():
            p.zero_()
        conv, linear = model[0], model[3]
        assert isinstance(conv, nn.Conv2d) and isinstance(linear, nn.Linear)
        conv.weight[:, 0, 0, 0] = torch.tensor([1.0, 1.0, 1.0])
        conv.bias[2] = -0.9  # type: ignore[index]
        linear.weight[0, :16], linear.weight[1, 16:32] = 1, 1  # the upper against the lower half
        linear.weight[0, 32:48], linear.weight[1, 48:64] = 1, 1
        linear.weight[1, 64] = 1000.0
    return model


def halves(n: int = 40) -> tuple[Tensor, Tensor]:
    labels = torch.arange(n) % 2
    x = torch.rand(n, 1, 4, 8, generator=torch.Generator().manual_seed(1)) * 0.3
    for half in (0, 1):
        x[labels == half, :, 2 * half : 2 * half + 2] += 0.4
    return x, labels


def test_pruning_takes_the_channel_that_sleeps_on_clean_images() -> None:
    model, (x, y) = net(), halves()
    triggered = x[y == 0].clone()
    triggered[:, 0, 0, 0] = 1
    assert bool((model(triggered).argmax(1) == 1).all())
    pruned, gone = prune(model, x, y, drop=0.0)
    assert gone[0] == 2 and bool((pruned(triggered).argmax(1) == 0).all())
    assert bool((pruned(x).argmax(1) == y).all())
    assert bool((model(triggered).argmax(1) == 1).all())  # the given one is as it was
    assert float(representations(pruned, x, "0")[:, 64:].abs().max()) == 0


def test_fine_tuning_repeats_and_keeps_the_given_model() -> None:
    model, (x, y) = net(), halves()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    first, second = (fine_tuning(model, x, y, epochs=2) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first.parameters(), second.parameters(), strict=True))
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items()) and not first.training
    assert not torch.equal(first.state_dict()["3.weight"], before["3.weight"])
    assert float((fine_pruning(model, x, y, epochs=1)(x).argmax(1) == y).float().mean()) == 1


def test_bad_input() -> None:
    x, y = halves()
    with pytest.raises(UserError, match="3 or more of 0 to 3"):
        invert_triggers(Backdoored(), images(), [0, 1])
    with pytest.raises(UserError, match="goal is in"):
        invert_triggers(Backdoored(), images(), goal=2)
    with pytest.raises(UserError, match="got 'conv'.*There are: 0"):
        prune(net(), x, y, "conv")
    with pytest.raises(UserError, match="2 clean images"):
        fine_tuning(net(), x[:1], y[:1])
    with pytest.raises(UserError, match="40 images and 39 labels"):
        fine_tuning(net(), x, y[:-1])
    with pytest.raises(UserError, match="drop is a share"):
        prune(net(), x, y, drop=2)
