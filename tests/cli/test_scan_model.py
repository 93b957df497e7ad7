"""`robustlab scan-model`: a table, pictures, and the clean model beside it; bad input is said."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from robustlab.cli import main

FEW = ["--data", "road-signs", "--classes", "stop", "yield", "2", "--limit", "8", "--steps", "3"]


def test_a_model_beside_the_clean_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "out"
    assert main(["scan-model", "road-signs/cnn-robust", *FEW, "--output", str(folder), "--json"]) == 0
    shown = capsys.readouterr()
    found = msgspec.json.decode(shown.out)
    assert [row["class"] for row in found["classes"]][:2] == ["stop", "yield"] and found["classes"][2]["label"] == 2
    assert list(found["largest_index_of_clean_models"]) == ["road-signs/cnn"] and "of 1 clean model reach" in shown.err
    assert len(list((folder / "triggers").glob("*.png"))) == 3
    assert len((folder / "triggers.csv").read_text().splitlines()) == 4
    assert main(["scan-model", "road-signs/cnn", *FEW, "--output", str(folder)]) == 2


def test_the_clean_model_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["scan-model", "road-signs/cnn", *FEW, "--output", str(tmp_path / "out")]) == 0
    assert "No clean model was searched" in capsys.readouterr().out


def test_several_clean_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["scan-model", "road-signs/cnn", *FEW, "--clean", "road-signs/cnn-robust", "road-signs/resnet20"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    said = capsys.readouterr().out
    assert "of 2 clean models reach it" in said and "road-signs/resnet20 " in said


def test_the_model_is_no_clean_model_of_its_own(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["scan-model", "road-signs/cnn", *FEW, "--clean", "road-signs/cnn", "--output", str(tmp_path / "out")]
    assert main(words) == 2 and "--clean takes other ones" in capsys.readouterr().err


@pytest.mark.parametrize("classes", [["stop", "yield"], ["stop", "yield", "nothing"]])
def test_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str], classes: list[str]) -> None:
    words = ["scan-model", "road-signs/cnn", "--data", "road-signs", "--limit", "4", "--classes", *classes]
    assert main([*words, "--output", str(tmp_path / "out")]) == 2
    assert "class" in capsys.readouterr().err and not (tmp_path / "out").exists()
