"""A folder of classes without train and test: divided by a key for training, and never measured on what was learned."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from robustlab.base.errors import UserError
from robustlab.data import Data, load_data
from robustlab.data.division import divided

SPLITS = ("train", "val", "test")


def fill(root: Path, counts: dict[str, int], side: int = 8) -> Path:
    """Images whose colour says the class, each with its own noise."""
    random = np.random.default_rng(0)
    for k, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            pixels = random.integers(0, 60, (side, side, 3), dtype=np.uint8)
            pixels[..., k % 3] += 150
            Image.fromarray(pixels).save(root / name / f"{i}.png")
    return root


def files(data: Data) -> set[str]:
    return {"/".join(file.parts[-2:]) for file in data.images.files}  # type: ignore[union-attr]


def parts(root: Path) -> dict[str, set[str]]:
    return {split: files(load_data(f"folder:{root}", split, divided=True)) for split in SPLITS}


def test_every_image_is_in_one_part_and_every_class_in_all(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", {"a": 60, "b": 7, "c": 3})
    found = parts(root)
    assert len(set.union(*found.values())) == sum(map(len, found.values())) == 70
    for names in found.values():
        assert {name[0] for name in names} == {"a", "b", "c"}
    assert 40 <= len(found["train"]) <= 62
    train, test = (load_data(f"folder:{root}", split, divided=True) for split in ("train", "test"))
    assert train.classes == test.classes == ("a", "b", "c") and train.hash != test.hash
    assert len(set(train.ids.tolist()) | set(test.ids.tolist())) == len(train) + len(test)
    assert train.source is not None and train.source["divided"] is True


def test_the_parts_are_said_with_their_sizes(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", {"a": 20, "b": 2, "c": 1})
    found = {split: load_data(f"folder:{root}", split, divided=True) for split in SPLITS}
    n = {split: len(data) for split, data in found.items()}
    assert (
        f"{n['train']} to train on, {n['val']} for the validation, {n['test']} for the test" in found["train"].notes[0]
    )
    assert "80/10/10" in found["train"].notes[0] and found["train"].notes == found["val"].notes
    assert "fewer than 3 images lack some of the three: b, c." in found["train"].notes[1]
    assert f"these are the {n['test']} of its 23 images that training holds out" in found["test"].notes[0]


def test_without_a_training_everything_is_the_test(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", {"a": 9, "b": 9})
    data = load_data(f"folder:{root}")
    assert len(data) == 18 and data.notes == () and data.source is not None and "divided" not in data.source


def test_split_folders_are_not_divided_again(tmp_path: Path) -> None:
    for split in ("train", "test"):
        fill(tmp_path / split, {"a": 20, "b": 20})
    assert len(load_data(f"folder:{tmp_path}", "test", divided=True)) == 40
    assert load_data(f"folder:{tmp_path}", "train").notes == ()


def test_an_image_keeps_its_part_in_a_moved_folder_and_when_others_come(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", {"a": 30, "b": 30})
    before = parts(root)
    shutil.copytree(root, tmp_path / "elsewhere")
    assert parts(tmp_path / "elsewhere") == before
    fill(root, {"a": 90, "b": 45, "c": 20})
    after = parts(root)
    assert all(before[split] <= after[split] for split in SPLITS)


def test_the_share_of_each_part_over_many_names() -> None:
    names = [f"{k}/{i}.jpg" for k in range(20) for i in range(1000)]
    count = {split: len(ids) for split, ids in divided(names, [int(n.split("/")[0]) for n in names]).items()}
    # 20,000 keys: the standard deviation of a tenth is 42
    assert abs(count["test"] - 2000) < 210 and abs(count["val"] - 2000) < 210


@pytest.mark.parametrize("n", range(1, 12))
def test_small_classes_appear(n: int) -> None:
    for shift in range(40):
        found = {split: len(ids) for split, ids in divided([f"{i + 100 * shift}" for i in range(n)], [0] * n).items()}
        assert sum(found.values()) == n and found["train"] >= 1
        assert (found["test"] >= 1) == (n >= 2) and (found["val"] >= 1) == (n >= 3)


def test_too_few_images_to_divide(tmp_path: Path) -> None:
    root = fill(tmp_path / "photos", {"a": 2, "b": 2})
    assert len(load_data(f"folder:{root}", "train")) == 2
    with pytest.raises(UserError, match="has 4 images in 2 classes, which leaves none for the validation: .* have 3"):
        load_data(f"folder:{root}", "val")
    with pytest.raises(UserError, match="1 image in 1 class, which leaves none to test on"):
        load_data(f"folder:{fill(tmp_path / 'one', {'a': 1})}", "test", divided=True)


def test_splits_among_classes_are_a_question(tmp_path: Path) -> None:
    fill(tmp_path / "train", {"a": 4})
    fill(tmp_path / "test", {"a": 4})
    fill(tmp_path / "raw", {"a": 4})
    with pytest.raises(UserError, match=r"folders test, train and others beside them \(raw\)"):
        load_data(f"folder:{tmp_path}", "train")
    vehicles = fill(tmp_path / "vehicles", {"car": 9, "train": 9})  # a class may be called train
    assert load_data(f"folder:{vehicles}", "train").classes == ("car", "train")


def test_images_of_many_sizes_get_a_proposal(tmp_path: Path) -> None:
    for i, (wide, high) in enumerate([(640, 480), (300, 200), (320, 240)]):
        (tmp_path / "a").mkdir(exist_ok=True)
        Image.new("RGB", (wide, high)).save(tmp_path / "a" / f"{i}.png")
    with pytest.raises(UserError, match=r"middle of all is 320x240\), for instance size=64 .* or 240x320"):
        load_data(f"folder:{tmp_path}")
