"""Preprocessing in front of the classifier, all in this file: the card names it, and what is attacked has it."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from robustlab.__main__ import main
from robustlab.attacks import FGSM
from robustlab.base.errors import UserError
from robustlab.data import Data
from robustlab.defenses import DEFENSES
from robustlab.defenses.base import Defense
from robustlab.models import load_model
from robustlab.models.card import read_model_card
from robustlab.models.classifier import Classifier
from robustlab.training import recipe_for, train
from robustlab.training.checks import loss_and_accuracy
from tests.defenses.conftest import SMALL

TABLE = {"method": "toy-levels", "levels": 3}


class Levels(nn.Module):
    """Images rounded to a few grey levels; the gradient goes through as if nothing was rounded."""

    def __init__(self, levels: int) -> None:
        super().__init__()
        self.levels = levels

    def forward(self, x: Tensor) -> Tensor:
        rounded = (x * (self.levels - 1)).round() / (self.levels - 1)
        return x + (rounded - x).detach()


@dataclass(frozen=True)
class ToyLevels(Defense):
    levels: int = 4

    def wrap(self, classifier: Classifier) -> nn.Module:
        return nn.Sequential(Levels(self.levels), classifier)


@dataclass(frozen=True)
class ToyLayer(Defense):
    def wrap(self, classifier: Classifier) -> nn.Module:
        return nn.Sequential(nn.Conv2d(1, 1, 1), classifier)


@pytest.fixture(scope="module", autouse=True)
def registered() -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(DEFENSES, "toy-levels", f"{__name__}:ToyLevels")
        patch.setitem(DEFENSES, "toy-layer", f"{__name__}:ToyLayer")
        yield


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory, data: tuple[Data, Data]) -> Path:
    folder = tmp_path_factory.mktemp("toy-wrap") / "out"
    train("cnn", data, replace(SMALL, defense=TABLE), output=folder, device="cpu")
    return folder


def test_the_card_names_it_and_loading_applies_it(trained: Path, data: tuple[Data, Data]) -> None:
    card = read_model_card(trained / "model.toml")
    assert card.wrap == TABLE and "[wrap]" in (trained / "model.toml").read_text()
    model = load_model(str(trained))
    assert isinstance(model.module, nn.Sequential) and isinstance(model.module[0], Levels)
    assert model.hash() == card.hash and not model.training and not model.module[1].training
    assert (model.classes, model.shape, model.data) == (("flat", "upright"), (1, 8, 8), "stripes")
    x = torch.tensor([0.0, 0.5, 1.0])[torch.randint(0, 3, (4, 1, 8, 8))]
    assert torch.allclose(model(x), model(x + torch.where(x < 1, 0.1, -0.1)), atol=1e-4)
    # what was measured was measured behind it
    assert loss_and_accuracy(model, data[1].images, data[1].labels)[1] == card.measured[0].value > 0.9


def test_what_is_attacked_has_it(trained: Path, data: tuple[Data, Data]) -> None:
    # linf 0.2 does not leave a level where the images are right on it
    exact, labels = (data[1].images[:] * 2).round() / 2, data[1].labels
    text = (trained / "model.toml").read_text()
    (trained / "bare.toml").write_text(text.replace('\n[wrap]\nmethod = "toy-levels"\nlevels = 3\n', ""))
    for name, unmoved in (("model.toml", True), ("bare.toml", False)):
        model = load_model(str(trained / name))
        found = FGSM(eps=0.2)(model, exact, labels)
        assert float((found - exact).abs().max()) == pytest.approx(0.2)
        assert torch.allclose(model(found), model(exact), atol=1e-3) == unmoved


def test_it_is_trained_further_and_left_out_by_another_recipe(
    trained: Path, data: tuple[Data, Data], tmp_path: Path
) -> None:
    card = str(trained / "model.toml")
    still = replace(SMALL, epochs=1, lr=0.0, init=card)  # nothing is learned, so the weights are those before
    second = train("cnn", data, replace(still, defense=TABLE), output=tmp_path / "b", device="cpu").card
    assert second.wrap == TABLE and (second.mean, second.std) == (read_model_card(card).mean, read_model_card(card).std)
    a, b = (dict(load_model(str(folder)).named_parameters()) for folder in (trained, tmp_path / "b"))
    assert a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)
    assert train("cnn", data, still, output=tmp_path / "c", device="cpu").card.wrap == {}
    (trained / "short.toml").write_text(Path(card).read_text().partition("\n[recipe]")[0])  # as written by hand
    assert recipe_for(str(trained / "short.toml")).recipe.defense == TABLE
    assert recipe_for(str(trained / "short.toml"), recipe="plain").recipe.defense == {}


def test_the_command_attacks_the_written_card(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    images = torch.rand(6, 8, 8, 1).mul(255).byte().numpy()
    np.savez(tmp_path / "few.npz", test_images=images, test_labels=np.arange(6) % 2)
    words = ["attack", str(trained / "model.toml"), "--data", f"npz:{tmp_path / 'few.npz'}", "--suite", "fgsm"]
    assert main([*words, "--audit", "0", "--device", "cpu", "--output", str(tmp_path / "run")]) == 0
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    assert info["models"][0]["hash"] == read_model_card(trained / "model.toml").hash
    capsys.readouterr()


def test_cards_that_cannot_be(trained: Path, data: tuple[Data, Data], tmp_path: Path) -> None:
    text = (trained / "model.toml").read_text()
    for old, new, message in (
        ("toy-levels", "toy-level", "Did you mean 'toy-levels'"),
        ("levels = 3", "level = 3", "unknown key 'level'"),
    ):
        (trained / "odd.toml").write_text(text.replace(old, new))
        with pytest.raises(UserError, match=message):
            load_model(str(trained / "odd.toml"))
    with pytest.raises(UserError, match="ToyLayer adds parameters"):
        train("cnn", data, replace(SMALL, defense={"method": "toy-layer"}), output=tmp_path / "no", device="cpu")
