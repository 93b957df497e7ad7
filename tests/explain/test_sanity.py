"""The sanity checks: what follows the model passes, edges and the maps of another model do not."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.data import load_data
from robustlab.explain.sanity import STEPS, Check, checks, deletion, drawn_by, insertion, randomisation, randomised
from robustlab.models import load_model
from robustlab.oracle import answers


@pytest.fixture(scope="module")
def model() -> nn.Module:
    return load_model("road-signs/cnn")


@pytest.fixture(scope="module")
def images() -> Tensor:
    return load_data("road-signs", "test", 16).loaded().images


@pytest.fixture(scope="module")
def classes(model: nn.Module, images: Tensor) -> Tensor:
    return answers(model, images)


def sobel(model: nn.Module, x: Tensor, classes: Tensor) -> Tensor:
    """Edges of the image: looks like an explanation, and knows nothing of the model."""
    kernel = torch.tensor([[-1.0, 0.0, 1.0], [-2.0, 0.0, 2.0], [-1.0, 0.0, 1.0]])
    both = torch.stack([kernel, kernel.T])[:, None]
    return F.conv2d(F.pad(x.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate"), both).norm(dim=1)


def test_edges_posing_as_an_explanation_fail(model: nn.Module, images: Tensor, classes: Tensor) -> None:
    found = randomisation(sobel, model, images, classes)
    assert found.passed is False and found.value["mean"] == pytest.approx(1.0)
    assert all(value == pytest.approx(1.0) for _, value in found.curve)


def test_edges_with_signs_that_follow_the_model_fail(model: nn.Module, images: Tensor, classes: Tensor) -> None:
    """Integrated gradients on a black ground are like that: the plain correlation alone would let them pass."""

    def signed(given: nn.Module, x: Tensor, k: Tensor) -> Tensor:
        seed = int(next(given.parameters()).abs().sum() * 1e6)
        signs = torch.rand(x.shape[2:], generator=torch.Generator().manual_seed(seed)).sub(0.5).sign()
        return sobel(given, x, k) * signs

    found = randomisation(signed, model, images, classes, stages=1)
    assert found.passed is False and found.value["mean"] == pytest.approx(1.0)


def test_grad_cam_passes_and_the_model_is_left_as_it_was(model: nn.Module, images: Tensor, classes: Tensor) -> None:
    before = copy.deepcopy(model.state_dict())
    found = randomisation(drawn_by("grad-cam", signed=True), model, images, classes)
    assert found.passed is True and 1 < len(found.curve) <= 6
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_maps_of_a_random_model_do_not_pass_as_faithful(model: nn.Module, images: Tensor, classes: Tensor) -> None:
    other = randomised(model, seed=1)
    draw = drawn_by("grad-cam", signed=True)
    found = checks(lambda given, x, k: draw(other, x, k), model, images, classes)
    assert [check.name for check in found] == ["randomised layers", "deletion", "insertion"]
    assert [check.passed for check in found] == [False, False, False]  # nor are its hot places those of the model


class Corner(nn.Module):
    """Class 1 is the brightness of the upper left quarter."""

    def forward(self, x: Tensor) -> Tensor:
        score = 20 * x[:, :, :8, :8].mean((1, 2, 3)) - 8
        return torch.stack([-score, score], 1)


def judged(maps: Tensor) -> list[Check]:
    x = torch.rand(8, 3, 16, 16, generator=torch.Generator().manual_seed(0)) / 4
    x[:, :, :8, :8] += 0.5
    ones = torch.ones(8, dtype=torch.long)
    return [judge(Corner(), x, ones, maps) for judge in (deletion, insertion)]


def test_deletion_and_insertion_know_the_truth_and_its_opposite() -> None:
    truth = torch.zeros(8, 16, 16)
    truth[:, :8, :8] = 1
    for check in judged(truth):
        assert check.passed is True and check.value["n"] == 8 and len(check.curve) == STEPS + 1
    assert [check.passed for check in judged(1 - truth)] == [False, False]


def test_the_ends_of_the_curves_are_the_whole_images() -> None:
    first, second = judged(torch.rand(8, 16, 16, generator=torch.Generator().manual_seed(1)))
    sharp, grey = first.curve[0][1], first.curve[-1][1]
    assert sharp is not None and grey is not None and sharp > 0.9 > 0.6 > grey
    assert second.curve[-1][1] == pytest.approx(sharp)


def test_zero_maps_are_counted_and_one_map_is_too_few() -> None:
    maps = torch.zeros(8, 16, 16)
    maps[0, 0, 0] = 1
    for check in judged(maps):
        assert check.passed is None and check.zero == 7 and check.value["n"] == 1
