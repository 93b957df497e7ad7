"""`folder:PATH`: real files in real folders."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from robustlab.base.errors import RunError, UserError
from robustlab.data import Data, Loaded, load_data
from robustlab.data.sheet import write_sheet
from robustlab.data.streamed import LazyImages
from robustlab.threat.model import ThreatModel


def picture(path: Path, number: int, size: tuple[int, int] = (6, 4), mode: str = "RGB") -> None:
    """A file whose first pixel says its number."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((size[1], size[0], 3), number, dtype=np.uint8)
    Image.fromarray(pixels).convert(mode).save(path)


def fill(root: Path, classes: dict[str, int], first: int = 0) -> int:
    for name, count in classes.items():
        for i in range(count):
            picture(root / name / f"{i}.png", first)
            first += 1
    return first


def numbers(data: Data) -> list[int]:
    return [round(v * 255) for v in data.images[:][:, 0, 0, 0].tolist()]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    fill(tmp_path / "photos", {"cat": 20, "dog": 12, "emu": 8})
    return tmp_path / "photos"


def test_class_folders(photos: Path) -> None:
    data = load_data(f"folder:{photos}")
    assert isinstance(data.images, LazyImages) and data.images.shape == (40, 3, 4, 6)
    assert data.classes == ("cat", "dog", "emu") and data.threat == ThreatModel("linf", 8 / 255)
    names = sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.png"))
    for id, label, number in zip(data.ids.tolist(), data.labels.tolist(), numbers(data), strict=True):
        assert names[id].startswith(data.classes[label])
        with Image.open(photos / names[id]) as file:
            assert file.getpixel((0, 0)) == (number,) * 3


def test_the_first_are_a_fair_sample_and_always_the_same(photos: Path) -> None:
    some = load_data(f"folder:{photos}", limit=12)
    assert len(some.labels.unique()) == 3
    every = load_data(f"folder:{photos}")
    assert every.ids[:12].tolist() == some.ids.tolist() and numbers(every)[:12] == numbers(some)
    assert sorted(every.ids.tolist()) == list(range(40))


def test_ids_and_classes_are_chosen_before_anything_is_read(photos: Path) -> None:
    every = load_data(f"folder:{photos}")
    (photos / "cat" / "0.png").write_bytes(b"not read")
    emus = load_data(f"folder:{photos}", classes=["emu"], limit=5)
    assert emus.labels.tolist() == [2] * 5
    assert emus.ids.tolist() == every.ids[every.labels == 2][:5].tolist()
    wanted = every.ids[every.labels == 1][:3].tolist()
    assert load_data(f"folder:{photos}", ids=wanted[::-1]).ids.tolist() == wanted
    with pytest.raises(UserError, match="no sample with id 77; it has 40"):
        load_data(f"folder:{photos}", ids=[77])
    with pytest.raises(UserError, match="Did you mean 'emu'"):
        load_data(f"folder:{photos}", classes=["emus"])
    with pytest.raises(UserError, match="selection of ids and classes is empty"):
        load_data(f"folder:{photos}", ids=wanted, classes=["cat"])


def test_the_hash_is_that_of_the_content(photos: Path, tmp_path: Path) -> None:
    before = load_data(f"folder:{photos}", limit=10)
    shutil.copytree(photos, tmp_path / "elsewhere")
    again = load_data(f"folder:{tmp_path / 'elsewhere'}", limit=10)
    assert again.hash == before.hash and again.ids.tolist() == before.ids.tolist()
    assert load_data(f"folder:{photos}", limit=11).hash != before.hash
    assert load_data(f"folder:{photos}", limit=10, size=4).hash != before.hash
    same_size = Image.new("RGB", (6, 4), (1, 1, 1))  # not selected, but its size changes
    unread = next(i for i in range(40) if i not in before.ids.tolist())
    name = sorted(p.relative_to(photos).as_posix() for p in photos.rglob("*.png"))[unread]
    same_size.save(photos / name, compress_level=0)
    assert load_data(f"folder:{photos}", limit=10).hash != before.hash


def test_what_is_found_and_what_is_left_out(tmp_path: Path) -> None:
    root = tmp_path / "set"
    for i, name in enumerate(("a/1.PNG", "a/deep/er/2.jpeg", "b/3.WebP", "b/4.tif")):
        picture(root / name, i)
    for name in ("a/.hidden.png", ".git/5.png", "__MACOSX/a/6.png", "a/Thumbs.db"):
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("no image")
    picture(root / "logo.png", 9)
    (root / "a" / "labels.csv").write_text("x")
    (root / "annotations").mkdir()
    (root / "annotations" / "1.xml").write_text("x")
    (root / "c").mkdir()
    data = load_data(f"folder:{root}")
    assert len(data) == 4 and sorted(data.labels.tolist()) == [0, 0, 1, 1]
    assert data.classes == ("a", "b", "c")  # an empty folder names a class, one with other files does not
    text = " ".join(data.notes)
    assert "left out 1 image beside the class folders: logo.png." in text
    assert "left out 2 files without the ending of an image: a/labels.csv, annotations/1.xml." in text


def test_links_are_followed_but_not_in_circles(photos: Path, tmp_path: Path) -> None:
    picture(tmp_path / "other" / "x.png", 1)
    os.symlink(tmp_path / "other", photos / "fox")
    os.symlink(photos, photos / "emu" / "round")
    data = load_data(f"folder:{photos}")
    assert data.classes == ("cat", "dog", "emu", "fox") and len(data) == 41


def test_numbers_are_sorted_as_numbers(tmp_path: Path) -> None:
    fill(tmp_path, {str(k): 1 for k in (10, 9, 1, 0)})
    data = load_data(f"folder:{tmp_path}")
    assert data.classes == ("0", "1", "9", "10")
    assert dict(zip(numbers(data), data.labels.tolist(), strict=True)) == {0: 3, 1: 2, 2: 1, 3: 0}


def test_split_folders(tmp_path: Path) -> None:
    end = fill(tmp_path / "train", {"a": 30, "b": 30})
    fill(tmp_path / "test", {"b": 6, "c": 4}, end)
    splits = {split: load_data(f"folder:{tmp_path}", split) for split in ("train", "val", "test")}
    assert {data.classes for data in splits.values()} == {("a", "b", "c")}
    found = {split: set(numbers(data)) for split, data in splits.items()}
    assert found["test"] == set(range(60, 70)) and len(found["val"]) == 6
    assert found["train"] | found["val"] == set(range(60)) and not found["train"] & found["val"]
    assert set(splits["test"].labels.tolist()) == {1, 2}
    assert len({data.hash for data in splits.values()}) == 3


def test_a_validation_folder_of_its_own(tmp_path: Path) -> None:
    end = fill(tmp_path / "train", {"a": 10})
    end = fill(tmp_path / "valid", {"a": 3}, end)
    fill(tmp_path / "test", {"a": 2}, end)
    found = [set(numbers(load_data(f"folder:{tmp_path}", split))) for split in ("train", "val", "test")]
    assert found == [set(range(10)), set(range(10, 13)), set(range(13, 15))]
    (tmp_path / "val").mkdir()
    shutil.copy(tmp_path / "test" / "a" / "0.png", tmp_path / "val" / "0.png")
    with pytest.raises(UserError, match="more than one folder for its validation: test, train, val, valid"):
        load_data(f"folder:{tmp_path}")


def test_without_a_test_folder_validation_is_the_test(tmp_path: Path) -> None:
    """As ImageNet lies; the images that choose the checkpoint then come out of train."""
    end = fill(tmp_path / "train", {"a": 20})
    fill(tmp_path / "val", {"a": 5}, end)
    train, val, test = (set(numbers(load_data(f"folder:{tmp_path}", split))) for split in ("train", "val", "test"))
    assert test == set(range(20, 25)) and len(val) == 2 and train | val == set(range(20)) and not train & val


def test_what_is_measured_on_is_never_trained_on(photos: Path, tmp_path: Path) -> None:
    trained = load_data(f"folder:{photos}", "train").ids.tolist()
    held_out = load_data(f"folder:{photos}", "test", divided=True).ids.tolist()
    assert held_out and not set(trained) & set(held_out)
    fill(tmp_path / "half" / "train", {"a": 3})
    with pytest.raises(UserError, match="no folder test, only train.*half/train"):
        load_data(f"folder:{tmp_path / 'half'}")


def test_images_without_class_folders_have_no_labels(tmp_path: Path) -> None:
    for i in range(5):
        picture(tmp_path / f"{i}.png", i)
    data = load_data(f"folder:{tmp_path}")
    assert data.labels.tolist() == [-1] * 5 and data.classes == () and sorted(numbers(data)) == [0, 1, 2, 3, 4]
    written = write_sheet(data, tmp_path / "look", images=True, count=5)
    assert written[0].is_file()
    assert sorted((tmp_path / "look" / "factors.csv").read_text().split()) == [
        *(f"{i},-1," for i in range(5)),
        "id,label,class",
    ]


def test_size_and_channels(tmp_path: Path) -> None:
    picture(tmp_path / "a" / "1.png", 1, (8, 4), "L")
    picture(tmp_path / "a" / "2.png", 2, (8, 4), "L")
    name = f"folder:{tmp_path}"
    assert load_data(name).images.shape == (2, 1, 4, 8)
    assert load_data(name, channels=3).images.shape == (2, 3, 4, 8)
    picture(tmp_path / "b" / "3.png", 3, (5, 9))
    with pytest.raises(UserError, match=r"differ in size \(.*[ab]/.\.png has (8x4|5x9).*size, N or HxW"):
        load_data(name)
    assert load_data(name, size=7).images.shape == (3, 3, 7, 7)
    data = load_data(name, size=(6, 5), channels=1)
    assert data.images.shape == (3, 1, 6, 5) and sorted(numbers(data)) == [1, 2, 3]


def test_files_that_are_no_images(photos: Path) -> None:
    good = (photos / "cat" / "1.png").read_bytes()
    for name, content in (("cat/a.png", b"junk"), ("cat/b.jpg", b""), ("dog/c.png", good[:-30]), ("emu/d.gif", b"GIF")):
        (photos / name).write_bytes(content)
    name = f"folder:{photos}"
    with pytest.raises(
        UserError, match=r"4 files cannot be read as an image: cat/a.png \(no image\), cat/b.jpg \(empty\)"
    ):
        load_data(name)
    data = load_data(name, skip_bad=True)
    assert len(data) == 40 and sorted(numbers(data)) == list(range(40))
    assert any("left out 4 files that cannot be read as an image: cat/a.png" in note for note in data.notes)
    ids = data.ids.tolist()
    assert load_data(name, limit=2, skip_bad=True).ids.tolist()[0] in ids
    for file in photos.rglob("*.png"):
        file.write_bytes(b"junk")
    with pytest.raises(UserError, match="Nothing is left"):
        load_data(name, skip_bad=True)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda root: None, "does not exist"),
        (lambda root: root.mkdir(), "holds no images .* and no other files"),
        (lambda root: root.write_text("x"), "is a file"),
        (lambda root: [root.mkdir(), (root / "a.txt").write_text("x")], r"1 other file \(a.txt\)"),
    ],
)
def test_folders_that_are_none(make: Callable[[Path], object], message: str, tmp_path: Path) -> None:
    make(tmp_path / "set")
    with pytest.raises(UserError, match=message):
        load_data(f"folder:{tmp_path / 'set'}")


def test_a_name_without_a_path() -> None:
    with pytest.raises(UserError, match="folder needs a path"):
        load_data("folder:")
    with pytest.raises(UserError, match="workers is a number of threads from 1 to 1024; got 0"):
        load_data("folder:x", workers=0)


def test_a_forgotten_prefix(photos: Path) -> None:
    with pytest.raises(UserError, match=f"Did you mean 'folder:{photos}'"):
        load_data(str(photos))
    with pytest.raises(UserError, match=f"Did you mean 'folder:{photos}'"):
        load_data(f"npz:{photos}")


def test_names_of_any_bytes(tmp_path: Path) -> None:
    try:
        picture(tmp_path / os.fsdecode(b"a\xff") / "1.png", 1)
    except OSError:
        pytest.skip("this file system takes UTF-8 names only")
    data = load_data(f"folder:{tmp_path}")
    assert data.classes[0].encode() and numbers(data) == [1]


def test_images_stay_on_the_disk_and_index_as_a_tensor_does(photos: Path) -> None:
    data = load_data(f"folder:{photos}", workers=3)
    all_at_once = data.images[:]
    assert all_at_once.dtype == torch.float32 and isinstance(data.loaded(), Loaded)
    mask = data.labels == 1
    for index in (3, -1, slice(2, 9), slice(0, 0), torch.tensor([5, 0, 5]), torch.tensor([], dtype=torch.int64), mask):
        assert torch.equal(data.images[index], all_at_once[index])
    some = data.take(torch.tensor([7, 2])).take(torch.tensor([1]))
    assert isinstance(some.images, LazyImages) and torch.equal(some.loaded().images, all_at_once[[2]])
    assert len(list(data.images)) == len(data) == 40
    with pytest.raises(IndexError):
        data.images[40]
    for file in photos.rglob("*.png"):
        file.unlink()
    with pytest.raises(RunError, match=r"could be read before and cannot be read now.*resume=True"):
        data.images[:2]


def test_data_in_memory_load_as_what_they_are() -> None:
    data = load_data("road-signs", limit=3)
    assert isinstance(data.images, torch.Tensor)
    assert data.loaded().images.data_ptr() == data.images.data_ptr()  # nothing is copied
    some = data.loaded().take(torch.tensor([2]))
    assert isinstance(some, Loaded) and some.loaded() is some and some.hash == data.hash
