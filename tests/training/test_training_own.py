"""Training what is not in the registry: a function in one's own file, torchvision's networks, the model of a card."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from robustlab.base.errors import UserError
from robustlab.data import Data
from robustlab.models import load_model
from robustlab.models.card import read_model_card
from robustlab.threat.model import ThreatModel
from robustlab.training import Recipe, Trained, recipe_for, train

NETS = """
import torch
from torch import nn
from robustlab.models import Classifier
from own_parts import head

class Views(nn.Module):
    "As tutorials write it: a view, which strides of channels_last do not allow."
    def __init__(self, classes, shape):
        super().__init__()
        assert isinstance(shape, tuple)
        self.conv = nn.Conv2d(shape[0], 8, 3, padding=1)
        self.head = head(8 * shape[1] * shape[2], classes)
    def forward(self, x):
        x = torch.relu(self.conv(x))
        return self.head(x.view(x.size(0), -1))

def make(classes, shape):
    return Views(classes, shape)

def fixed():
    return Views(5, (1, 8, 8))

def three(num_classes=1000):
    return Views(num_classes, (1, 8, 8))

def normalised(classes):
    return Classifier(Views(classes, (1, 8, 8)), mean=[0.25], std=[0.5])

def dropped(classes, dropout=0.0):
    return nn.Sequential(nn.Flatten(), nn.Dropout(dropout), nn.Linear(64, classes))

def lazy(classes):
    return nn.Sequential(nn.Flatten(), nn.LazyLinear(classes))

def softmax(classes):
    return nn.Sequential(nn.Flatten(), nn.Linear(64, classes), nn.Softmax(1))

def parameterless():
    return nn.Sequential(nn.AdaptiveAvgPool2d((3, 1)), nn.Flatten())

def picky(classes):
    class Picky(nn.Linear):
        def forward(self, x):
            if self.training:
                raise ValueError("cannot train")
            return super().forward(x.flatten(1))
    return Picky(64, classes)

net = nn.Sequential(nn.Flatten(), nn.Linear(64, 3))
"""
ONE = Recipe(epochs=1, batch_size=32, lr=0.05, shift=1, check_size=4)


def stripes(n: int, split: str) -> Data:
    """Three classes of 1 x 8 x 8 images: horizontal, vertical and diagonal stripes with noise."""
    generator = torch.Generator().manual_seed({"train": 0, "val": 1}[split])
    labels = torch.arange(n) % 3
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    patterns = torch.stack([i % 2, j % 2, (i + j) // 2 % 2]).float()
    images = (0.3 + 0.4 * patterns[labels][:, None] + 0.1 * torch.randn(n, 1, 8, 8, generator=generator)).clamp(0, 1)
    names = ("flat", "upright", "slant")
    return Data("stripes", split, images, labels, torch.arange(n), names, f"s-{split}", ThreatModel(eps=0.05))


DATA = (stripes(96, "train"), stripes(30, "val"))


def fit(output: Path, recipe: Recipe = ONE, model: str = "cnn", data: Any = DATA, **options: Any) -> Trained:
    return train(model, data, recipe, output=output, device="cpu", **options)


@pytest.fixture
def nets(tmp_path: Path) -> Path:
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "own_parts.py").write_text("from torch import nn\nhead = nn.Linear\n")
    (tmp_path / "code" / "nets.py").write_text(NETS)
    return tmp_path / "code" / "nets.py"


def test_a_function_of_ones_own(nets: Path, tmp_path: Path) -> None:
    done = fit(tmp_path / "out", replace(ONE, epochs=8, shift=0), f"{nets}:make")
    assert done.history[-1]["val_accuracy"] > 0.9
    card = read_model_card(tmp_path / "out" / "model.toml")
    assert (card.architecture, card.options) == ("../code/nets.py:make", {"classes": 3, "shape": [1, 8, 8]})
    assert card.mean is None and card.names == list(DATA[0].classes)
    model = load_model(str(tmp_path / "out"))
    assert model.hash() == card.hash and not model.normalised
    (tmp_path / "code").rename(tmp_path / "gone")
    with pytest.raises(UserError, match=r"names the factory .*nets.py:make.*Put it back, or change the line"):
        load_model(str(tmp_path / "out"))


def test_random_weights_follow_from_the_seed_alone(nets: Path, tmp_path: Path) -> None:
    torch.manual_seed(3)
    state = torch.random.get_rng_state()
    hashes = []
    for k, seed in enumerate((0, 0, 1)):
        hashes.append(fit(tmp_path / str(k), ONE, f"{nets}:make", seed=seed).card.hash)
        torch.rand(7)
    torch.random.set_rng_state(state)
    hashes.append(fit(tmp_path / "again", ONE, f"{nets}:make").card.hash)
    assert hashes[0] == hashes[1] == hashes[3] != hashes[2] and torch.equal(torch.random.get_rng_state(), state)


def test_a_normalisation_of_its_own_is_kept_and_none_is_added(nets: Path, tmp_path: Path) -> None:
    card = fit(tmp_path / "out", ONE, f"{nets}:normalised").card
    assert (card.mean, card.std) == ([0.25], [0.5])
    model = load_model(str(tmp_path / "out"))
    assert model.hash() == card.hash and not any("module.module" in key for key in model.state_dict())


@pytest.mark.parametrize("function", ["three", "dropped", "lazy"])
def test_other_forms(nets: Path, tmp_path: Path, function: str) -> None:
    recipe = replace(ONE, dropout=0.25) if function == "dropped" else ONE
    card = fit(tmp_path / "out", recipe, f"{nets}:{function}").card
    assert load_model(str(tmp_path / "out")).hash() == card.hash
    wanted = {
        "three": {"num_classes": 3},
        "dropped": {"classes": 3, "dropout": 0.25},
        "lazy": {"classes": 3},
        "net": {},
    }
    assert card.options == wanted[function]


@pytest.mark.parametrize(
    ("function", "message"),
    [
        ("fixed", r"nets.py:fixed gives 5 outputs, and stripes has 3 classes \(flat, upright, slant\).*def make\("),
        ("parameterless", "has no parameters that could be trained"),
        ("make?", "has no function 'make\\?'. Did you mean 'make'"),
        ("picky", "failed while it was trained: ValueError: cannot train"),
    ],
)
def test_what_cannot_be_trained(nets: Path, tmp_path: Path, function: str, message: str) -> None:
    with pytest.raises((UserError, RuntimeError), match=message):
        fit(tmp_path / "out", ONE, f"{nets}:{function}")


def test_outputs_that_are_probabilities_are_warned_of(nets: Path, tmp_path: Path) -> None:
    assert any("probabilities" in text for text in fit(tmp_path / "out", ONE, f"{nets}:softmax").warnings)


def test_a_changed_file_is_another_training(nets: Path, tmp_path: Path) -> None:
    fit(tmp_path / "out", ONE, f"{nets}:make")
    config = json.loads((tmp_path / "out" / "run.json").read_text())["config"]
    assert len(config["code"]) == 32 and config["architecture"] == "../code/nets.py:make"
    assert fit(tmp_path / "out", ONE, f"{nets}:make", resume=True).best_epoch == 1
    nets.write_text(NETS.replace("torch.relu", "torch.tanh"))  # the same weights, another function
    with pytest.raises(UserError, match="cannot be resumed|code"):
        fit(tmp_path / "out", ONE, f"{nets}:make", resume=True)


@pytest.mark.parametrize("function", ["make", "normalised"])
def test_a_card_is_trained_further_from_its_weights(nets: Path, tmp_path: Path, function: str) -> None:
    first = fit(tmp_path / "a", ONE, f"{nets}:{function}").card
    still = replace(ONE, lr=0.0, l1=0.0)  # nothing is learned, so the weights stay those it starts from
    second = fit(tmp_path / "deep" / "b", still, str(tmp_path / "a" / "model.toml")).card
    assert second.hash == first.hash and second.mean == first.mean
    assert second.architecture == f"../../code/nets.py:{function}"
    assert load_model(str(tmp_path / "deep" / "b")).hash() == first.hash


def test_a_card_without_weights_starts_afresh_with_its_options(tmp_path: Path) -> None:
    fit(tmp_path / "a", ONE)
    card = tmp_path / "a" / "model.toml"
    text = card.read_text().replace('weights = "model.safetensors"\n', "") + "\n[options]\nwidth = 8\n"
    (tmp_path / "a" / "narrow.toml").write_text(text)
    assert fit(tmp_path / "b", ONE, str(tmp_path / "a" / "narrow.toml")).card.options == {"width": 8}
    with pytest.raises(UserError, match="does not fit"):
        fit(tmp_path / "c", ONE, str(card), data=tuple(two_classes(each) for each in DATA))


def two_classes(data: Data) -> Data:
    return replace(data.take(data.labels < 2), classes=data.classes[:2])


@pytest.mark.parametrize("name", ["torchvision:squeezenet1_1", "timm:test_resnet"])
def test_models_of_other_packages(tmp_path: Path, name: str) -> None:
    larger = [torch.nn.functional.interpolate(d.images[:20].expand(-1, 3, -1, -1), size=32) for d in DATA]  # type: ignore[index]
    data = tuple(replace(d.take(torch.arange(20)), images=x) for d, x in zip(DATA, larger, strict=True))
    done = train(name, data, replace(ONE, check_size=2), output=tmp_path, size=None, device="cpu")
    assert done.card.architecture == name and load_model(str(tmp_path)).hash() == done.card.hash


def test_one_class_cannot_be_learned(tmp_path: Path) -> None:
    one = tuple(replace(d, labels=d.labels * 0, classes=("cat",)) for d in DATA)
    with pytest.raises(UserError, match="has one class, and training needs at least 2"):
        fit(tmp_path / "out", ONE, data=one)


def test_what_a_name_means(nets: Path, tmp_path: Path) -> None:
    fit(tmp_path / "out", replace(ONE, dropout=0.5, lr=0.03))
    card = str(tmp_path / "out" / "model.toml")
    plan = recipe_for(str(tmp_path / "out"), overrides={"epochs": 2})
    assert (plan.architecture, plan.recipe.init, plan.recipe.lr, plan.recipe.dropout) == (card, card, 0.03, 0.5)
    assert recipe_for(card, recipe="n-fgsm").recipe.init == card
    own = recipe_for("net.py:make", data="folder:photos")
    assert (own.architecture, own.data, own.recipe) == ("net.py:make", "folder:photos", Recipe())
    with pytest.raises(UserError, match=r"Name the function .* net.py:FUNCTION"):
        recipe_for("net.py")
