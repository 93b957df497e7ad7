"""`robustlab explain`: a page, pictures and numbers; files of one's own; bad input is said."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustlab.cli import main
from robustlab.data import load_data

CNN = ("explain", "road-signs/cnn")


def test_images_of_a_data_set_under_attack(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    words = ["--ids", "3,17", "--attack", "fgsm", "--eps", "4/255", "--judge", "6", "--output", str(folder), "--json"]
    assert main([*CNN, *words]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["images"] == ["road-signs 3", "road-signs 17"] and found["attack"] == "fgsm"
    assert found["threat"] == "linf eps 4/255"
    rows = {(row["method"], row["version"]): row for row in found["shift"]}
    assert set(rows) == {(m, v) for m in ("grad-cam", "activations") for v in ("adv", "same", "noise")}
    assert rows["activations", "adv"]["spearman"]["n"] == found["shift_n"] == 6
    assert rows["activations", "adv"]["ssim"] == rows["activations", "same"]["ssim"]  # they know no class
    assert {(row["method"], row["check"]) for row in found["checks"]} == {
        (m, c) for m in ("grad-cam", "activations") for c in ("randomised layers", "deletion", "insertion")
    }
    assert json.loads((folder / "explain.json").read_text()) == found
    names = {path.name for path in (folder / "images").iterdir()}
    assert {"000-clean.png", "001-attacked.png", "000-grad-cam-same.png", "001-channels.png"} <= names
    assert {"000-grad-cam-same-over.png", "000-activations-change-over.png"} <= names
    page = (folder / "explain.html").read_text()
    assert "at random places" in page and "http-equiv" in page and str(tmp_path) not in page
    uris = re.findall(r"data:image/png;base64,([^\"]+)", page)
    assert {base64.b64decode(uri) for uri in uris} == {path.read_bytes() for path in (folder / "images").iterdir()}


def test_channels_with_their_top_images_and_how_they_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("robustlab.cli.explain.SEARCHED", 20)
    folder = tmp_path / "out"
    words = ["--ids", "3", "--methods", "saliency", "--channels", "3", "--attack", "fgsm", "--judge", "0", "--json"]
    assert main(["explain", "road-signs/vit", *words, "--output", str(folder)]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["layer"] is not None and [len(each["images"]) for each in found["channels"]] == [6, 6, 6]
    assert all(each["peaks"] == sorted(each["peaks"], reverse=True) for each in found["channels"])
    channels = [each["channel"] for each in found["channels"]]
    assert [row["channel"] for row in found["channel_changes"]] == [*channels, None]
    assert all(row["noise"]["n"] == row["adv"]["n"] == 1 for row in found["channel_changes"])  # --judge 0: these images
    page = (folder / "explain.html").read_text()
    assert "among 20 " in page and "receptive field" in page and found["channels"][0]["images"][0] in page
    with Image.open(folder / "images" / f"channel-{channels[0]:04d}.png") as shown:
        assert shown.size == (6 * (96 + 4), 100)


def test_image_files_of_ones_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    image = load_data("road-signs", "test", 1).loaded().images[0]
    pixels = (image.permute(1, 2, 0).numpy() * 255).round().astype(np.uint8)
    Image.fromarray(pixels).resize((50, 40)).save(tmp_path / "mine.png")
    words = ["--methods", "saliency", "--output", str(tmp_path / "out"), str(tmp_path / "mine.png")]
    assert main([*CNN, *words]) == 0
    assert "could not be judged" in capsys.readouterr().out  # one image is too few
    with Image.open(tmp_path / "out" / "images" / "000-clean.png") as shown:
        assert shown.size == (32, 32)
    assert "mine.png" in (tmp_path / "out" / "explain.html").read_text()


def test_a_network_without_places_has_no_layer_to_look_at(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "net.py").write_text(
        "import torch\n\ndef build():\n    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))\n"
    )
    assert main(["explain", f"{tmp_path / 'net.py'}:build", "--output", str(tmp_path / "out")]) == 2
    assert "No layer of the model gives a map" in capsys.readouterr().err


def test_layers_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*CNN, "--list-layers"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].startswith("layer") and any(line.split() == ["17", "4", "x", "4"] for line in lines)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--methods", "gradcam"], "Did you mean 'grad-cam'"),
        (["--methods", ","], "at least"),
        (["--ids", "3;17"], "with commas"),
        (["--ids", "99999999"], "no sample with id 99999999"),
        (["--layer", "nowhere"], "no layer 'nowhere'"),
        (["--layer", "20"], "A heatmap needs"),
        (["--methods", "saliency", "--layer", "17"], "means nothing"),
        (["--channels", "-1"], "--channels"),
        (["--attack", "pdg"], "Did you mean 'pgd'"),
        (["--eps", "4/255"], "give an attack"),
        (["missing.png"], "no image file"),
        (["text.png"], "no image that can be read: its content is of no known format"),
        (["text.png", "--ids", "3"], "not both"),
    ],
)
def test_bad_input_is_said(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "text.png").write_text("no image at all")
    assert main([*CNN, *words, "--output", "out"]) == 2
    assert message in capsys.readouterr().err and not (tmp_path / "out").exists()


def test_a_folder_that_holds_something_is_refused_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    monkeypatch.setattr("robustlab.models.loading.load_model", None)  # it is not even loaded
    assert main([*CNN, "--output", str(tmp_path)]) == 2
    assert "Choose another output" in capsys.readouterr().err and list(tmp_path.iterdir()) == [tmp_path / "mine.txt"]


@pytest.mark.browser
def test_the_page_has_no_barriers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, barriers: Callable[[Path], list[str]]
) -> None:
    monkeypatch.setattr("robustlab.cli.explain.SEARCHED", 10)
    words = "--ids 3 --attack fgsm --methods grad-cam --judge 2 --channels 2 --output".split()
    assert main([*CNN, *words, str(tmp_path / "out")]) == 0
    assert barriers(tmp_path / "out" / "explain.html") == []
