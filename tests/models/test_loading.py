from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from robustlab.errors import UserError
from robustlab.models import load_model
from robustlab.models.card import ModelCard, read_model_card, write_model_card
from robustlab.models.loading import build
from robustlab.models.weights import save_weights

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
    save_weights(module, tmp_path / "w.safetensors")
    classes = ["a", 'quote " and \\', "c", "ü"]
    card = ModelCard(
        "mine",
        "cnn",
        "w.safetensors",
        [0.5],
        [0.25],
        classes,
        (1, 12, 12),
        {"width": 4},
        recipe={"defense": {"k": 2.0}},
    )
    write_model_card(card, tmp_path / "model.toml")
    assert read_model_card(tmp_path / "model.toml") == card
    model = load_model(str(tmp_path / "model.toml"))
    x = torch.rand(2, 1, 12, 12)
    assert torch.equal(model(x), module.eval()((x - 0.5) / 0.25)) and model.classes == tuple(classes)
    assert load_model(str(tmp_path / "model.toml"), mean=[0.0], std=[1.0]).hash() != model.hash()


def test_a_card_with_a_typo(tmp_path: Path) -> None:
    (tmp_path / "model.toml").write_text('name = "x"\nweight = "w"\n')
    with pytest.raises(UserError, match="'weight'. Did you mean 'weights'"):
        load_model(str(tmp_path / "model.toml"))
