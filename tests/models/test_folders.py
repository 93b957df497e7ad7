"""The folder of a training names its model."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from robustlab.base.errors import UserError
from robustlab.cli import main
from robustlab.models import load_model
from robustlab.models.zoo import zoo_card, zoo_path


def test_a_folder_means_the_card_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    card, path = zoo_card("road-signs/cnn"), zoo_path("road-signs/cnn")
    Path("out").mkdir()
    shutil.copy(path, "out/model.toml")
    shutil.copy(path.parent / card.weights, "out")
    model = load_model("out/")
    assert model.name == "out/model.toml" and model.hash() == load_model("road-signs/cnn").hash()


def test_a_folder_without_a_card_is_one_message(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("empty").mkdir()
    with pytest.raises(UserError, match=r"empty is a folder without a model\.toml"):
        load_model("empty")
    assert main(["attack", "empty"]) == 2
    assert "Give the folder of a finished `robustlab train`" in capsys.readouterr().err


def test_the_zoo_comes_before_a_folder_of_that_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("road-signs/cnn").mkdir(parents=True)
    assert load_model("road-signs/cnn").name == "road-signs/cnn"
