"""Images and classes of all shapes, from the files on the disk to the numbers of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

import robustlab
from robustlab.cli import main
from robustlab.data import load_data
from robustlab.evaluation.inputs import default_batch_size, default_chunk_size
from robustlab.evaluation.listener import Listener
from robustlab.models import load_model
from robustlab.models.classifier import Classifier
from robustlab.training import Recipe, train

QUIET = Listener(say=lambda text: None)


class Brightness(nn.Module):
    """Output k is largest for images whose mean is nearest to k / (K - 1)."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.register_buffer("levels", torch.linspace(0, 1, outputs))

    def forward(self, x: Tensor) -> Tensor:
        return -((x.flatten(1).mean(1, keepdim=True) - self.levels) ** 2)  # type: ignore[no-any-return, operator]


def photo(path: Path, level: float, size: tuple[int, int], grey: bool) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    shape = size if grey else (*size, 3)
    Image.fromarray(np.full(shape, round(level * 255), np.uint8)).save(path)


def attacked(model: nn.Module, data: Any, folder: Path, **options: Any) -> Any:
    options = {"audit": 0, "curve": []} | options
    return robustlab.evaluate({"net": model}, data, "pgd", output=folder, listener=QUIET, **options)


@pytest.mark.parametrize("grey", [True, False])
@pytest.mark.parametrize("size", [(6, 6), (5, 9)])
@pytest.mark.parametrize("outputs", [2, 1000])
def test_a_folder_through_a_run(grey: bool, size: tuple[int, int], outputs: int, tmp_path: Path) -> None:
    wanted = {0: 0.0, outputs - 1: 1.0} | ({400: 0.4, 333: 1 / 3} if outputs == 1000 else {})
    for k, level in wanted.items():
        for i in range(2):
            photo(tmp_path / "set" / str(k) / f"{i}.png", level, size, grey)
    data = load_data(f"folder:{tmp_path / 'set'}")
    assert data.images.shape == (2 * len(wanted), 1 if grey else 3, *size)
    stored = attacked(Brightness(outputs), data, tmp_path / "run", chunk_size=3)
    (numbers,) = stored.info["aggregates"]["models"]
    assert numbers["clean_accuracy"]["value"] == 1 and numbers["clean_accuracy"]["n"] == len(data)
    # steps of 1/999 are crossed by 8/255, half of the range is not
    assert numbers["robust_accuracy"]["value"] == (1 if outputs == 2 else 0)
    assert {line.label for line in stored.lines} == set(wanted)
    assert stored.info["data"]["shape"] == [1 if grey else 3, *size]


def test_lazy_and_loaded_give_the_same_run(tmp_path: Path) -> None:
    for i in range(30):
        photo(tmp_path / "set" / str(i % 3) / f"{i}.png", i / 30, (6, 7), False)
    data = load_data(f"folder:{tmp_path / 'set'}")
    runs = [
        attacked(Brightness(3), each, tmp_path / name, chunk_size=8)
        for name, each in (("a", data), ("b", data.loaded()))
    ]
    assert (tmp_path / "a" / "samples.jsonl").read_bytes() == (tmp_path / "b" / "samples.jsonl").read_bytes()
    assert (tmp_path / "a" / "data.jsonl").read_bytes() == (tmp_path / "b" / "data.jsonl").read_bytes()
    assert runs[0].info["config_hash"] == runs[1].info["config_hash"]


def test_one_image_of_one_class(tmp_path: Path) -> None:
    photo(tmp_path / "set" / "bright" / "1.png", 1, (3, 3), False)
    model = Classifier(Brightness(3), classes=["dark", "middle", "bright"], shape=(3, 3, 3))
    stored = attacked(model, load_data(f"folder:{tmp_path / 'set'}"), tmp_path / "run")
    assert [line.label for line in stored.lines] == [2, 2] and stored.info["data"]["classes"] == [
        "dark",
        "middle",
        "bright",
    ]
    assert stored.info["aggregates"]["models"][0]["clean_accuracy"] == {**_share(1), "n": 1}


def _share(n: int) -> dict[str, float]:
    from robustlab.base.intervals import wilson

    low, high = wilson(n, n)
    return {"value": 1.0, "low": low, "high": high}


def test_the_labels_of_a_run_are_part_of_its_configuration(tmp_path: Path) -> None:
    """Which output a class stands for follows from the model's names, which its hash does not cover."""
    for k, name in enumerate(("a", "b")):
        photo(tmp_path / "set" / name / "1.png", k, (3, 3), False)
    data = load_data(f"folder:{tmp_path / 'set'}")
    runs = [
        attacked(Classifier(Brightness(2), classes=names), data, tmp_path / "".join(names))
        for names in (["a", "b"], ["b", "a"])
    ]
    accuracies = [run.info["aggregates"]["models"][0]["clean_accuracy"]["value"] for run in runs]
    assert accuracies == [1, 0] and runs[0].info["config_hash"] != runs[1].info["config_hash"]


def test_batches_and_units_shrink_with_the_image() -> None:
    cpu, gpu = torch.device("cpu"), torch.device("cuda")
    assert [default_batch_size(3 * s * s, cpu) for s in (8, 64, 128, 224, 2000)] == [128, 128, 32, 10, 8]
    assert [default_batch_size(3 * s * s, gpu) for s in (8, 64, 224)] == [512, 512, 41]
    assert [default_chunk_size(3 * s * s) for s in (8, 128, 224, 2000)] == [512, 512, 167, 8]


def test_the_chunk_size_that_was_used_is_recorded(tmp_path: Path) -> None:
    photo(tmp_path / "set" / "0" / "1.png", 1, (200, 300), False)
    stored = attacked(Brightness(2), load_data(f"folder:{tmp_path / 'set'}"), tmp_path / "run")
    assert stored.info["config"]["chunk_size"] == 139 and stored.info["operational"]["batch_size"] == 8


def test_training_on_a_folder(tmp_path: Path) -> None:
    for split, count in (("train", 24), ("test", 4)):
        for i in range(count):
            photo(tmp_path / "set" / split / ("day" if i % 2 else "night") / f"{i}.jpg", i % 2, (40, 50), False)
    name = f"folder:{tmp_path / 'set'}"
    recipe = Recipe(epochs=1, batch_size=8, check_size=2, lr=0.01)
    done = train("cnn", name, recipe, output=tmp_path / "out", device="cpu", size=16)
    assert done.card.classes == ["day", "night"] and tuple(done.card.shape) == (3, 16, 16)
    again = train("cnn", load_both(name), recipe, output=tmp_path / "in-memory", device="cpu")
    assert done.card.hash == again.card.hash

    run = tmp_path / "run"
    words = [
        "attack",
        str(tmp_path / "out" / "model.toml"),
        "--attack",
        "fgsm",
        "--no-curve",
        "--output",
        str(run),
        "--quiet",
    ]
    assert main(words) == 0  # the data of the card, in the size of the model
    info = json.loads((run / "run.json").read_text())
    assert info["data"]["n"] == 4 and info["data"]["shape"] == [3, 16, 16]


def load_both(name: str) -> tuple[Any, Any]:
    return load_data(name, "train", size=16).loaded(), load_data(name, "val", 1000, size=16).loaded()


def test_the_command_and_a_folder(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    signs = load_data("road-signs", limit=4)
    for i, label in enumerate(signs.labels.tolist()):
        path = tmp_path / "set" / signs.classes[label].title().replace(" ", "_") / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        pixels = (signs.images[i] * 255).round().byte().permute(1, 2, 0).numpy()
        Image.fromarray(pixels).save(path)
    (tmp_path / "set" / "broken").mkdir()
    (tmp_path / "set" / "broken" / "1.png").write_text("no image")
    words = [
        "attack",
        "road-signs/cnn",
        "--data",
        f"folder:{tmp_path / 'set'}",
        "--attack",
        "fgsm",
        "--no-curve",
        "--quiet",
    ]
    words += ["--output", str(tmp_path / "run")]
    assert main(words) == 2 and not (tmp_path / "run").exists()
    assert "1 file cannot be read as an image: broken/1.png (no image)" in capsys.readouterr().err
    assert main([*words, "--skip-bad", "--workers", "2"]) == 0
    info = json.loads((tmp_path / "run" / "run.json").read_text())
    right = (load_model("road-signs/cnn")(signs.images).argmax(1) == signs.labels).float().mean().item()
    assert info["aggregates"]["models"][0]["clean_accuracy"]["value"] == right > 0.5
    assert any("broken/1.png" in warning for warning in info["warnings"])
    assert info["data"]["classes"] == list(signs.classes)
    assert (
        main(
            ["data", f"folder:{tmp_path / 'set'}", "--skip-bad", "--size", "20x30", "--output", str(tmp_path / "look")]
        )
        == 0
    )
    assert "broken/1.png" in capsys.readouterr().err and (tmp_path / "look" / "sheet.png").is_file()


@pytest.mark.parametrize(("names", "warned"), [(None, True), (["0", "1", "2"], True), (["7", "8", "9"], False)])
def test_fewer_numbers_than_outputs_are_said(names: list[str] | None, warned: bool, tmp_path: Path) -> None:
    images = np.full((6, 4, 4), 128, np.uint8)
    arrays = {"test_images": images, "test_labels": np.arange(6) % 3}
    arrays |= {} if names is None else {"class_names": np.array(names)}
    np.savez(tmp_path / "set.npz", **arrays, train_images=images, train_labels=np.arange(6) % 3)
    stored = attacked(Brightness(20), load_data(f"npz:{tmp_path / 'set.npz'}"), tmp_path / "run")
    said = [text for text in stored.info["warnings"] if "numbers its classes 0 to 2, net has 20 outputs" in text]
    assert len(said) == warned
