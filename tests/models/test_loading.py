from __future__ import annotations

import sys
import warnings
from pathlib import Path

import pytest
import torch

from robustlab.base.errors import UserError
from robustlab.models import load_model
from robustlab.models.card import ModelCard, card_text, read_model_card
from robustlab.models.loading import build
from robustlab.models.weights import packed_weights

FACTORY = """
import torch
from neighbour import OUTPUTS

def make():
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, OUTPUTS))

def text():
    return "no module"

def broken():
    return torch.nn.Linear(12, missing)

constant = 3
"""


@pytest.fixture
def mine(tmp_path: Path) -> Path:
    (tmp_path / "neighbour.py").write_text("OUTPUTS = 3\n")
    (tmp_path / "mine.py").write_text(FACTORY)
    yield tmp_path / "mine.py"
    sys.modules.pop("neighbour", None)


def test_a_factory_in_a_file(mine: Path) -> None:
    path = list(sys.path)
    model = load_model(f"{mine}:make", mean=[0.5], std=[0.25], classes=["a", "b", "c"], shape=(3, 2, 2))
    assert model(torch.rand(2, 3, 2, 2)).shape == (2, 3)
    assert (model.classes, model.shape, model.training) == (("a", "b", "c"), (3, 2, 2), False)
    assert model.hash() == load_model(f"{mine}:make", mean=[0.5], std=[0.25]).hash()
    assert sys.path == path


def test_weights_for_a_factory(mine: Path, tmp_path: Path) -> None:
    other = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    torch.save(other.state_dict(), tmp_path / "w.pth")
    model = load_model(f"{mine}:make", weights=tmp_path / "w.pth")
    assert torch.equal(model.module[1].weight, other[1].weight)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("{folder}/none.py:make", "no file"),
        ("{folder}/mine.py:mkae", r"no function 'mkae'. Did you mean 'make'\?"),
        ("{folder}/mine.py:constant", "cannot be called"),
        ("{folder}/mine.py:text", "must return a torch.nn.Module, it returned a str"),
        ("{folder}/mine.py:broken", r"NameError: .*missing.* \(line 12\)"),
        ("{folder}/mine.py", "names a file but no function"),
        ("{folder}/bad.py:make", r"cannot be imported: ZeroDivisionError: .*\(line 2\)"),
        ("{folder}/syntax.py:make", "cannot be imported: SyntaxError"),
        ("road-signs/cnm", "Did you mean 'road-signs/cnn'"),
        ("resnet20", "is an architecture, not a trained model"),
        ("resnet50", "Did you mean 'torchvision:resnet50'"),
        ("{folder}/none.toml", "no model card"),
    ],
)
def test_names_that_mean_nothing(mine: Path, name: str, message: str) -> None:
    (mine.parent / "bad.py").write_text("x = 1\ny = x / 0\n")
    (mine.parent / "syntax.py").write_text("def make(:\n")
    with pytest.raises(UserError, match=message):
        load_model(name.format(folder=mine.parent))


def test_a_model_card(tmp_path: Path) -> None:
    module = build("cnn", 4, (1, 12, 12), {"width": 4}, seed=3)
    (tmp_path / "w.safetensors").write_bytes(packed_weights(module))
    classes = ["a", 'quote " and \\', "c", "ü"]
    card = ModelCard(
        name="mine",
        architecture="cnn",
        weights="w.safetensors",
        mean=[0.5],
        std=[0.25],
        classes=classes,
        shape=(1, 12, 12),
        options={"width": 4},
        recipe={"defense": {"k": 2.0}},
    )
    (tmp_path / "model.toml").write_bytes(card_text(card))
    assert read_model_card(tmp_path / "model.toml") == card
    model = load_model(str(tmp_path / "model.toml"))
    x = torch.rand(2, 1, 12, 12)
    assert torch.equal(model(x), module.eval()((x - 0.5) / 0.25)) and model.classes == tuple(classes)
    assert load_model(str(tmp_path / "model.toml"), mean=[0.0], std=[1.0]).hash() != model.hash()


SHORT = """
architecture = "cnn"
weights = "w.safetensors"
classes = 4
shape = [1, 12, 12]
options = {width = 4}
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with a short card and its weights."""
    (tmp_path / "w.safetensors").write_bytes(packed_weights(build("cnn", 4, (1, 12, 12), {"width": 4}, seed=3)))
    (tmp_path / "model.toml").write_text(SHORT)
    return tmp_path


def test_a_short_card(folder: Path) -> None:
    model = load_model(str(folder / "model.toml"))
    assert (model.classes, model.shape, model.normalised) == (None, (1, 12, 12), False)
    assert model(torch.rand(2, 1, 12, 12)).shape == (2, 4)
    assert model.source == {"name": str(folder / "model.toml"), "weights": None, "mean": None, "std": None}


def test_what_is_given_wins_over_the_card(folder: Path) -> None:
    (folder / "other.safetensors").write_bytes(packed_weights(build("cnn", 4, (1, 12, 12), {"width": 4}, seed=4)))
    path = str(folder / "model.toml")
    model = load_model(path, weights=folder / "other.safetensors", mean=[0.5], std=[0.2], classes=["a", "b", "c", "d"])
    assert model.normalised and model.classes == ("a", "b", "c", "d") and model.hash() != load_model(path).hash()
    assert model.source is not None and model.source["mean"] == [0.5]
    with pytest.raises(UserError, match="mean and std come together"):
        load_model(path, mean=[0.5])


def test_one_half_of_a_normalisation_keeps_the_other() -> None:
    model, own = load_model("road-signs/cnn", mean=[0.0, 0.0, 0.0]), load_model("road-signs/cnn")
    assert torch.equal(model.std, own.std) and not model.mean.any() and model.classes == own.classes


def test_a_card_for_a_factory_beside_it(mine: Path) -> None:
    (mine.parent / "model.toml").write_text(
        'architecture = "mine.py:sized"\noptions = {outputs = 5}\nmean = [0.5]\nstd = [0.25]\nclasses = 5\n'
    )
    with mine.open("a") as file:
        file.write(
            "def sized(outputs):\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, outputs))\n"
        )
    model = load_model(str(mine.parent / "model.toml"))
    x = torch.rand(2, 3, 2, 2)
    assert torch.equal(model(x), model.module((x - 0.5) / 0.25)) and model(x).shape == (2, 5)
    assert load_model(f"{mine}:make").module(x).shape == (2, 3)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("weights", "weight", r"unknown key 'weight'. Did you mean 'weights'\?"),
        ("classes = 4", "classes = 4.5", "classes.*int.*got .?float"),
        ("classes = 4", "classes = 1", "at least 2 classes, got 1"),
        ("classes = 4", "", "lacks classes: the architecture 'cnn'"),
        ('"w.safetensors"', '""', "lacks weights"),
        ("shape = [1, 12, 12]", "", "lacks shape"),
        ("[1, 12, 12]", "[12, 12]", "length 3"),
        ("[1, 12, 12]", "[1, 0, 12]", r"\[channels, height, width\] in pixels, got \[1, 0, 12\]"),
        ('"cnn"', '"cn"', "There is no model 'cn'"),
        ('architecture = "cnn"', "", "the key 'architecture' is missing"),
        ('"cnn"', '"none.py:make"', "names the factory none.py:make, and there is no file .*none.py"),
        ("w.safetensors", "none.safetensors", "no weights file .*none.safetensors"),
        ("w.safetensors", "model.toml", "cannot be read as weights"),
        ("width = 4", "width = 5", "of another shape"),
        ("width = 4", "wide = 4", "does not take the options"),
        ("= 4", "= = 4", "not valid TOML"),
    ],
)
def test_cards_with_mistakes(folder: Path, old: str, new: str, message: str) -> None:
    assert old in SHORT
    (folder / "model.toml").write_text(SHORT.replace(old, new, 1))
    with pytest.raises(UserError, match=message):
        load_model(str(folder / "model.toml"))


def test_files_that_are_no_model(tmp_path: Path) -> None:
    net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3))
    torch.save(net.state_dict(), tmp_path / "w.pth")
    with pytest.raises(UserError, match="looks like weights, which alone do not say what network"):
        load_model(str(tmp_path / "w.pth"))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # TorchScript is deprecated
        torch.jit.save(torch.jit.trace(net, torch.rand(1, 3, 2, 2)), str(tmp_path / "script.pt"))
    with pytest.raises(UserError, match="TorchScript module, which is not supported"):
        load_model(str(tmp_path / "script.pt"))
