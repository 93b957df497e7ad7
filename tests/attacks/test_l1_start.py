"""Where attacks start in l1: few values, each moved by much."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustlab.attacks import APGD
from robustlab.base.draws import keys
from robustlab.threat.geometry import distance, random_start

KEYS = keys(0, torch.arange(40), "start")


def images(shape: tuple[int, ...] = (3, 32, 32)) -> Tensor:
    """Random images; every other row of each is black, as most of an MNIST image is."""
    x = torch.rand(40, *shape, generator=torch.Generator().manual_seed(2))
    x[..., ::2, :] = 0
    return x


@pytest.mark.parametrize("eps", [2.0, 12.0, 36.0])
def test_it_spends_the_budget_on_few_values_inside_the_box(eps: float) -> None:
    x = images()
    start = random_start(x, "l1", eps, KEYS)
    assert torch.allclose(distance(start - x, "l1"), torch.full((40,), eps, dtype=torch.float64), rtol=1e-4)
    assert (distance(start - x, "l1") <= eps).all() and start.min() >= 0 and start.max() <= 1
    moved = distance(start - x, "l0")
    assert (moved >= 2).all() and (moved <= 12 * eps).all()  # of 3,072
    assert (start - x).abs().flatten(1).amax(1).min() > 0.2


def test_it_depends_on_its_key_alone_and_on_nothing_in_the_batch() -> None:
    x = images()
    start = random_start(x, "l1", 12.0, KEYS)
    assert torch.equal(random_start(x[7:8], "l1", 12.0, KEYS[7:8])[0], start[7])
    assert not torch.equal(random_start(x[7:8], "l1", 12.0, KEYS[8:9])[0], start[7])


def test_no_budget_is_the_clean_image_and_a_huge_one_the_noise_inside_the_box() -> None:
    x = images((1, 4, 4))
    assert torch.equal(random_start(x, "l1", 0.0, KEYS), x)
    free = random_start(x, "l1", 1e6, KEYS)
    assert torch.equal(free, random_start(x, "l1", 1e5, KEYS)) and free.min() >= 0 and free.max() <= 1


class Steps(nn.Module):
    """Two classes: the other one gains with every value of an eighth of the image that rises above 0.2; below it, flat.

    So the gradient is zero around a dark image, and where all values have moved a little.
    """

    def forward(self, x: Tensor) -> Tensor:
        gain = torch.relu(x.flatten(1)[:, :128] - 0.2).sum(1)
        return torch.stack([torch.full_like(gain, 0.8), gain], 1)


def test_apgd_gets_off_a_plain_on_which_small_moves_change_nothing() -> None:
    x, y = torch.zeros(16, 1, 32, 32), torch.zeros(16, dtype=torch.long)
    outcome = APGD(norm="l1", eps=4.0, steps=40, restarts=5).run(Steps(), x, y, ids=torch.arange(16))
    assert outcome.success.all()
