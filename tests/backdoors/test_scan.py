"""Images with a patch and a wrong label are found; on clean data nothing stands out; what cannot be scanned is said."""

from __future__ import annotations

import base64
import csv
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np
import pytest
import torch

from robustlab.backdoors.scan import Power, Scan, scan, scanner, standing_out
from robustlab.backdoors.scan_files import said
from robustlab.base.errors import UserError
from robustlab.base.intervals import share
from robustlab.cli import main
from robustlab.data import load_data
from robustlab.defenses.filters.base import Scores

POISONS = 20


def written(path: Path, poisons: int = 0, each: int = 200, classes: int = 4) -> str:
    """Classes are quadrants that are bright; `poisons` of class 0 come from the others and have a patch in a corner."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(classes), each)
    images = rng.integers(0, 90, (len(labels), 16, 16, 1))
    for image, label in zip(images, labels, strict=True):
        row, column = 8 * (label // 2) + 1, 8 * (label % 2) + 1
        image[row : row + 5, column : column + 5] += rng.integers(90, 150)
    bad = np.arange(each, each + poisons)  # of class 1
    images[bad, 13:, 13:] = np.array([[255, 0, 255], [0, 255, 0], [255, 0, 255]])[:, :, None]
    labels[bad] = 0
    arrays = {"train_images": images.astype(np.uint8), "train_labels": labels}
    clean = {"val_images": images[2::5].astype(np.uint8), "val_labels": labels[2::5]}
    np.savez(path, **arrays, **clean)  # type: ignore[arg-type]
    return f"npz:{path}"


def test_patched_images_are_ranked_first_and_their_class_stands_out(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, folder = written(tmp_path / "bad.npz", POISONS), tmp_path / "out"
    assert main(["scan", "--data", data, "--epochs", "3", "--output", str(folder), "--json"]) == 0
    found = msgspec.json.decode(capsys.readouterr().out)
    assert found["standing_out"] == [0]
    rows = list(csv.DictReader((folder / "suspicious.csv").read_text().splitlines()))
    bad = {str(i) for i in range(200, 200 + POISONS)}
    assert len(rows) == 800 and len(bad & {row["id"] for row in rows[:40]}) >= 0.8 * POISONS
    kept = {row["id"] for row in csv.DictReader((folder / "kept.csv").read_text().splitlines())}
    assert len(bad & kept) <= 0.2 * POISONS and len(kept) == 800 - found["dropped"]
    assert found["power"]["planted_found"]["n"] == 20
    assert (folder / "model" / "model.toml").is_file() and b"stands out" in (folder / "scan.html").read_bytes()
    assert str(tmp_path).encode() not in (folder / "scan.html").read_bytes()  # it is shown to strangers
    assert base64.b64encode((folder / "sheet.png").read_bytes()) in (folder / "scan.html").read_bytes()

    # the folder stays as it is
    before = (folder / "suspicious.csv").read_bytes()
    assert main(["scan", "--data", data, "--output", str(folder)]) == 2
    assert (folder / "suspicious.csv").read_bytes() == before

    # the model that was trained can be given; then no power is measured
    again = tmp_path / "again"
    assert main(["scan", "--data", data, "--model", str(folder / "model"), "--output", str(again)]) == 0
    assert "No power was measured" in capsys.readouterr().out
    assert (again / "suspicious.csv").read_bytes() == before


def test_on_clean_data_nothing_stands_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    assert main(["scan", "--data", written(tmp_path / "clean.npz"), "--epochs", "1", "--output", str(folder)]) == 0
    said = capsys.readouterr().out
    assert "Nothing stands out" in said and "of 20 badnets poisons planted" in said and "cleanlab" in said
    assert len((folder / "kept.csv").read_text().splitlines()) == 801


def test_classes_with_images_far_out_stand_out() -> None:
    labels = torch.arange(5).repeat_interleave(100)
    scores = torch.rand(500, generator=torch.Generator().manual_seed(0))
    assert standing_out(labels, scores) == []
    two = scores.clone()
    two[:8], two[100:112] = 9.0, 9.0
    assert standing_out(labels, two) == [0, 1]
    two[100:105] = 0.5
    assert standing_out(labels, two) == [0]  # 7 are not enough
    alike = scores + 9 * (torch.arange(500) % 10 == 0)
    assert standing_out(labels, alike) == []


def test_clean_classes_do_not_stand_out() -> None:
    labels = torch.arange(10).repeat_interleave(100)
    for seed in range(10):
        scores = torch.rand(1000, generator=torch.Generator().manual_seed(seed)).log().neg()
        assert standing_out(labels, scores) == []


def test_a_trigger_that_was_not_learned_is_said() -> None:
    data = load_data("road-signs", "val", 40).loaded()
    labels = torch.arange(40) % 2
    found = Scores(torch.zeros(40), {}, torch.zeros(40) > 0, "nothing")
    for hits, learned in ((3, False), (10, True)):
        power = Power(1, share(1, 20), 0.5, share(hits, 20), False)
        lines = said(Scan(replace(data, labels=labels), found, torch.arange(40), torch.arange(40), [], 0.9, power))
        assert any("did not learn the planted trigger" in line for line in lines) is not learned


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--filter", "robust"], "no filter"),
        (["--filter", "strip"], "needs classifier"),
        (["--filter", "random"], "looks at no image"),
        (["--limit", "0"], "--limit"),
        (["--model", "nobody"], "nobody"),
        (["--model", "road-signs/cnn", "--epochs", "2"], "--epochs"),
        (["--model", "road-signs/cnn"], "expects"),
    ],
)
def test_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], said: str) -> None:
    folder = tmp_path / "out"
    assert main(["scan", "--data", written(tmp_path / "x.npz", each=20), "--output", str(folder), *words]) == 2
    error = capsys.readouterr().err
    assert said in error.splitlines()[-1] and not folder.exists()


def test_too_few_images_in_a_class(tmp_path: Path) -> None:
    data = load_data(written(tmp_path / "x.npz", each=8), "train")
    with pytest.raises(UserError, match="has 8 images, and a scan needs 12"):
        scan(data)
    with pytest.raises(UserError, match="has one"):
        scan(data.take(data.labels == 0))
    with pytest.raises(UserError, match="Choose one of spectral, spectre, robust-z, activation-clustering"):
        scanner("abl")


@pytest.mark.browser
def test_the_page_has_no_barriers(tmp_path: Path, barriers: Callable[[Path], list[str]]) -> None:
    data = written(tmp_path / "small.npz", each=25)
    assert main(["scan", "--data", data, "--epochs", "1", "--output", str(tmp_path / "out")]) == 0
    assert barriers(tmp_path / "out" / "scan.html") == []
