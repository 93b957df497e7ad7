from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.models.classifier import Classifier, check


def linear(outputs: int = 3) -> nn.Sequential:
    return nn.Sequential(nn.Flatten(), nn.Linear(12, outputs))


X, Y = torch.rand(8, 3, 2, 2, generator=torch.Generator().manual_seed(0)), torch.arange(8) % 3


class Answer(nn.Module):
    """Returns what it was given, whatever it is shown."""

    def __init__(self, answer: object) -> None:
        super().__init__()
        self.answer = answer

    def forward(self, x: Tensor) -> object:
        return self.answer


def test_normalises_inside() -> None:
    net = linear()
    model = Classifier(net, [0.1, 0.2, 0.3], [0.5, 0.6, 0.7], shape=(3, 2, 2))
    mean, std = torch.tensor([0.1, 0.2, 0.3]).view(3, 1, 1), torch.tensor([0.5, 0.6, 0.7]).view(3, 1, 1)
    assert torch.allclose(model(X), net((X - mean) / std), atol=1e-6)
    assert torch.equal(Classifier(net)(X), net(X))


def test_normalisation_that_cannot_be() -> None:
    with pytest.raises(UserError, match="come together"):
        Classifier(linear(), mean=[0.5])
    with pytest.raises(UserError, match="std must be positive"):
        Classifier(linear(), [0.5], [0.0])
    with pytest.raises(UserError, match="1 or 3 values"):
        Classifier(linear(), [0.5, 0.5], [1.0, 1.0], shape=(3, 2, 2))
    with pytest.raises(UserError, match="nn.Module"):
        Classifier(lambda x: x)  # type: ignore[arg-type]


def test_names_that_occur_twice_get_their_numbers() -> None:
    model = Classifier(linear(), classes=["crane", "goose", "crane"])
    assert model.classes == ("crane (0)", "goose", "crane (2)")
    model.classes = ("a", "b", "b")
    assert model.classes == ("a", "b (1)", "b (2)")
    model.classes = None
    assert model.classes is None


def test_hash_is_that_of_all_weights_and_the_normalisation() -> None:
    net = linear()
    model = Classifier(net, [0.5], [0.25])
    before = model.hash()
    assert before == Classifier(net, [0.5], [0.25]).hash()
    assert before != Classifier(net, [0.5], [0.3]).hash()
    with torch.no_grad():
        net[1].bias[0] += 1e-6
    assert model.hash() != before


def test_check_passes_a_good_model_and_leaves_it_as_it_was() -> None:
    net = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Dropout(), nn.Linear(12, 3))
    net[2].eval()
    before = {key: value.clone() for key, value in net.state_dict().items()}
    state = torch.random.get_rng_state()
    assert check(Classifier(net, classes=["a", "b", "c"], shape=(3, 2, 2)), X, Y).warnings == []
    assert net.training and not net[2].training
    assert all(torch.equal(value, before[key]) for key, value in net.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)


@pytest.mark.parametrize(
    ("images", "message"),
    [
        (X * 255, r"\[0, 1\]"),
        (X - 0.5, r"\[0, 1\]"),
        (X.clone().index_fill_(0, torch.tensor([3]), float("nan")), r"\[0, 1\]"),
        ((X * 255).byte(), "floats"),
        (X[0], r"\(N, C, H, W\)"),
        (X[:, :1], r"expects images of shape \(3, 2, 2\)"),
    ],
)
def test_check_refuses_images(images: Tensor, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(Classifier(linear(), shape=(3, 2, 2)), images, Y)


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ({"a": X, "b": X}, "returned a dict"),
        (torch.zeros(8), "one number an image"),
        (torch.zeros(1, 3), r"shape \(8, K\)"),
        (torch.zeros(8, 1), "one a class is needed"),
        (torch.zeros(8, 3, dtype=torch.int64), "float logits"),
        (torch.full((8, 3), float("inf")), "NaN or infinite"),
        (torch.zeros(8, 2), "labels go from 0 to 2"),
        (torch.zeros(8, 4), "3 class names"),
    ],
)
def test_check_refuses_outputs(answer: object, message: str) -> None:
    with pytest.raises(UserError, match=message):
        check(Classifier(Answer(answer), classes=["a", "b", "c"]), X, Y)


def test_check_names_what_a_module_raises() -> None:
    with pytest.raises(UserError, match=r"cannot take images of shape \(8, 3, 2, 2\): RuntimeError"):
        check(Classifier(nn.Sequential(nn.Flatten(), nn.Linear(5, 3))), X, Y)


def test_check_warns_of_probabilities() -> None:
    (warning,) = check(Classifier(nn.Sequential(linear(), nn.Softmax(1))), X, Y).warnings
    assert "probabilities" in warning


def test_check_warns_of_randomness() -> None:
    class Noisy(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.flatten(1)[:, :3] + torch.randn(len(x), 3)

    (warning,), randomised = check(Classifier(Noisy()), X, Y)
    assert randomised
    assert "randomised" in warning
