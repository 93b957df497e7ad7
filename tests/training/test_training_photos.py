"""What a newcomer does: photos in class folders, `train`, `attack`; nothing that was learned from is measured on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from robustlab import load_data, load_model
from robustlab.__main__ import main
from robustlab.evaluation.evaluate import evaluate
from robustlab.evaluation.listener import Listener
from robustlab.models.card import read_model_card
from robustlab.models.suitable import suitable
from robustlab.training import Recipe, train

SMALL = Recipe(epochs=1, batch_size=16, check_size=4)


def photos(root: Path, count: int = 20, sides: tuple[int, ...] = (9, 12)) -> Path:
    """Two classes of images that differ in colour and, with several sides, in size."""
    random = np.random.default_rng(0)
    for k, name in enumerate(("cat", "dog")):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            high, wide = random.choice(sides), random.choice(sides)
            pixels = random.integers(0, 60, (high, wide, 3), dtype=np.uint8)
            pixels[..., k] += 150
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


@pytest.fixture(scope="module")
def once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Photos, and a training on them."""
    root = tmp_path_factory.mktemp("newcomer")
    train("cnn", f"folder:{photos(root / 'photos')}", SMALL, output=root / "out", size=8, device="cpu")
    return root


@pytest.fixture
def trained(once: Path, tmp_path: Path) -> Path:
    """The model card of a copy of the training, beside a copy of its photos."""
    shutil.copytree(once, tmp_path, dirs_exist_ok=True)
    card = tmp_path / "out" / "model.toml"
    card.write_text(card.read_text().replace(str(once), str(tmp_path)))
    return card


def attacked(model: Path, data: Any, output: Path) -> dict[str, Any]:
    said: list[str] = []
    listener = Listener(say=said.append)
    run = evaluate(str(model), data, "fgsm", output=output, listener=listener, audit=0, keep=0, device="cpu")
    return {"ids": [line["id"] for line in run.data_lines], "said": "\n".join(said), **run.info}


def test_the_card_remembers_data_size_and_division(trained: Path) -> None:
    card = read_model_card(trained)
    assert card.shape == (3, 8, 8) and card.split == "80/10/10" and len(card.files) == 32
    (warning,) = json.loads((trained.parent / "run.json").read_text())["warnings"]
    assert "40 images are divided 80/10/10" in warning


def test_only_what_was_held_out_is_attacked(trained: Path, tmp_path: Path) -> None:
    folder = tmp_path / "photos"
    held_out = load_data(f"folder:{folder}", "test", divided=True, size=8).ids.tolist()
    shutil.copytree(folder, tmp_path / "copy")
    for k, path in enumerate((folder, tmp_path / "copy", tmp_path / "out" / ".." / "photos")):
        run = attacked(trained, f"folder:{path}", tmp_path / f"run{k}")
        assert run["ids"] == held_out and "40 images that training holds out" in run["said"]
        assert run["data"]["source"]["divided"] is True and run["data"]["shape"] == [3, 8, 8]


def test_another_folder_and_another_model_see_everything(trained: Path, tmp_path: Path) -> None:
    other = f"folder:{photos(tmp_path / 'new', count=7)}"
    run = attacked(trained, other, tmp_path / "run")
    assert len(run["ids"]) == 14 and f"{other} has other files, which all count as new" in run["said"]
    card = trained.read_text().replace('split = "80/10/10"\n', "")
    (trained.parent / "stranger.toml").write_text(card)  # as one that was trained elsewhere
    run = attacked(trained.parent / "stranger.toml", f"folder:{tmp_path / 'photos'}", tmp_path / "run2")
    assert len(run["ids"]) == 40 and "held out" not in run["said"] and "new" not in run["said"]


def test_learned_images_that_somebody_loads_are_warned_of(trained: Path, tmp_path: Path) -> None:
    everything = load_data(f"folder:{tmp_path / 'photos'}", size=8)
    run = attacked(trained, everything, tmp_path / "run")
    assert len(run["ids"]) == 40 and "was trained on images of" in run["said"] and "divided=True" in run["said"]


def test_the_command_needs_no_size_the_second_time(
    trained: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    words = ["attack", str(trained), "--suite", "fgsm", "--audit", "0", "--device", "cpu"]
    assert main([*words, "--output", str(tmp_path / "run"), "--save-adversarial"]) == 0
    assert "images that training holds out" in capsys.readouterr().err
    assert main(["verify", str(tmp_path / "run")]) == 0


def test_of_two_models_one_that_learned_decides(trained: Path, tmp_path: Path) -> None:
    name, stranger = f"folder:{tmp_path / 'photos'}", load_model("road-signs/cnn")
    assert suitable(name, [stranger]) == {"size": (32, 32), "channels": 3, "divided": False}
    both = suitable(name, [stranger, load_model(str(trained))])
    assert both["divided"] and suitable("mnist", [stranger])["size"] is None
