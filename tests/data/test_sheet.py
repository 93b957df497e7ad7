"""The contact sheet and the export, read back from the disk."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from robustlab.base.errors import UserError
from robustlab.data import Data, load_data
from robustlab.data.sheet import write_sheet
from robustlab.threat.model import ThreatModel


def _read(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as image:
        return np.asarray(image).copy()


@pytest.fixture(scope="module")
def signs() -> Data:
    return load_data("road-signs", "test", limit=40)


def _plain(images: torch.Tensor) -> Data:
    n = len(images)
    index = torch.arange(n)
    return Data("made", "val", images, index % 2, index, ("even", "odd"), "0" * 16, ThreatModel())


def test_images_and_factors_are_those_of_the_data(signs: Data, tmp_path: Path) -> None:
    part = signs.take(torch.tensor([3, 17, 5]))
    written = write_sheet(part, tmp_path / "a" / "b", images=True, count=3)
    assert [p.name for p in written] == ["sheet.png", "factors.csv", "00003.png", "00017.png", "00005.png"]
    for i, path in enumerate(written[2:]):
        pixels = torch.from_numpy(_read(path)).permute(2, 0, 1)
        assert torch.equal(pixels, (part.images[i] * 255).round().byte())
    with written[1].open(encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == [3, 17, 5]
    assert [row["class"] for row in rows] == [part.classes[y] for y in part.labels.tolist()]
    for name, values in part.factors.items():
        assert [float(row[name]) for row in rows] == pytest.approx(values.tolist(), rel=1e-5)


def test_the_sheet_shows_every_image_enlarged(signs: Data, tmp_path: Path) -> None:
    (path,) = write_sheet(signs, tmp_path, count=len(signs))
    sheet = _read(path)
    small = (signs.images[7] * 255).round().byte().permute(1, 2, 0).numpy()
    line = np.repeat(np.repeat(small, 2, 0), 2, 1)[20].tobytes()  # 32 pixels are shown twice as large
    assert any(line in row.tobytes() for row in sheet)


def test_large_images_are_reduced_on_the_sheet_only(tmp_path: Path) -> None:
    data = _plain(torch.full((2, 3, 300, 600), 0.2))
    sheet, _, one, _ = write_sheet(data, tmp_path, images=True, count=2)
    assert _read(one).shape == (300, 600, 3)
    red = _read(sheet)[:, :, 0] == 51
    assert red.sum() == 2 * 80 * 160


def test_count_limits_what_is_written(signs: Data, tmp_path: Path) -> None:
    assert len(write_sheet(signs, tmp_path, images=True, count=5)) == 2 + 5


@pytest.mark.parametrize("channels", [1, 2, 4])
def test_other_channels_become_grey(channels: int, tmp_path: Path) -> None:
    data = _plain(torch.full((3, channels, 10, 14), 0.2))
    written = write_sheet(data, tmp_path, images=True, count=3)
    picture = _read(written[2])
    assert picture.shape == (10, 14)
    assert np.unique(picture).tolist() == [51]


def test_nothing_is_overwritten(signs: Data, tmp_path: Path) -> None:
    write_sheet(signs, tmp_path, count=4)
    before = (tmp_path / "sheet.png").read_bytes()
    with pytest.raises(UserError, match="sheet.png"):
        write_sheet(signs, tmp_path, images=True, count=8)
    assert (tmp_path / "sheet.png").read_bytes() == before
    assert not (tmp_path / "factors.csv").exists()


def test_bad_input_is_told(signs: Data, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="at least 1"):
        write_sheet(signs, tmp_path, count=0)
    (tmp_path / "file").write_text("here first")
    with pytest.raises(UserError, match="folder"):
        write_sheet(signs, tmp_path / "file", count=1)


def test_a_class_without_images_has_no_row(signs: Data, tmp_path: Path) -> None:
    one = signs.take(signs.labels == signs.labels[0])
    (path,) = write_sheet(one, tmp_path / "one", count=1)
    (more,) = write_sheet(replace(signs, name="other"), tmp_path / "all", count=len(signs))
    assert len(_read(path)) < len(_read(more)) / 4
