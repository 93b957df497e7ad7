from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from robustlab.base.errors import UserError
from robustlab.data import load_data

RNG = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def write(folder: Path, **arrays: Any) -> str:
    """An npz with train and test, changed by `arrays` (None removes a key); returns its name as a user types it."""
    content: dict[str, Any] = {
        "train_images": pixels(60, 9, 7, 3),
        "train_labels": np.arange(60) % 3,
        "test_images": pixels(12, 9, 7, 3),
        "test_labels": np.arange(12) % 4,
    }
    content |= arrays
    np.savez_compressed(folder / "set.npz", **{key: value for key, value in content.items() if value is not None})
    return f"npz:{folder / 'set.npz'}"


def test_images_are_channels_first_in_the_unit_box(tmp_path: Path) -> None:
    images = pixels(12, 9, 7, 3)
    images[0, 0, 0] = [0, 255, 51]
    data = load_data(write(tmp_path, test_images=images))
    assert data.images.shape == (12, 3, 9, 7) and data.images.dtype == torch.float32
    assert data.images[0, :, 0, 0].tolist() == pytest.approx([0.0, 1.0, 0.2])
    assert np.array_equal((data.images * 255).round().byte().permute(0, 2, 3, 1).numpy(), images)
    assert data.labels.dtype == data.ids.dtype == torch.int64
    assert data.classes == ("0", "1", "2", "3")
    assert (data.threat.norm, data.threat.eps) == ("linf", 8 / 255)


def test_grey_images_and_column_labels(tmp_path: Path) -> None:
    labels = np.arange(12)[:, None].astype(np.uint8) % 2
    data = load_data(write(tmp_path, test_images=pixels(12, 28, 28), test_labels=labels), limit=5)
    assert data.images.shape == (5, 1, 28, 28)
    assert data.labels.tolist() == [0, 1, 0, 1, 0]


def test_limit_takes_the_first_and_changes_neither_ids_nor_hash(tmp_path: Path) -> None:
    name = write(tmp_path)
    for split in ("train", "val", "test"):
        whole, part = load_data(name, split), load_data(name, split, limit=3)
        assert len(part) == 3 and part.hash == whole.hash
        assert torch.equal(part.ids, whole.ids[:3]) and torch.equal(part.images, whole.images[:3])


def test_hash_follows_content(tmp_path: Path) -> None:
    images, labels = pixels(12, 9, 7, 3), np.arange(12) % 4
    before = load_data(write(tmp_path, test_images=images, test_labels=labels)).hash
    images[11, 8, 6, 2] ^= 1
    other_pixel = load_data(write(tmp_path, test_images=images, test_labels=labels)).hash
    labels[11] = 0
    other_label = load_data(write(tmp_path, test_images=images, test_labels=labels)).hash
    assert len({before, other_pixel, other_label}) == 3
    assert load_data(write(tmp_path, test_images=images, test_labels=labels.astype(np.uint8))).hash == other_label


def test_own_validation_split_is_used(tmp_path: Path) -> None:
    images = pixels(5, 9, 7, 3)
    name = write(tmp_path, val_images=images, val_labels=np.zeros(5, int))
    assert np.array_equal((load_data(name, "val").images * 255).round().byte().permute(0, 2, 3, 1).numpy(), images)
    assert len(load_data(name, "train")) == 60


def test_without_validation_a_tenth_of_training_is_held_out(tmp_path: Path) -> None:
    name = write(tmp_path)
    train, val = load_data(name, "train"), load_data(name, "val", seed=5)
    assert (len(train), len(val)) == (54, 6)
    assert sorted([*train.ids.tolist(), *val.ids.tolist()]) == list(range(60))
    assert train.hash != val.hash


def test_tracks_are_never_split(tmp_path: Path) -> None:
    labels = np.repeat(np.arange(4), 40)
    tracks = np.concatenate([np.repeat(np.arange(8), 5), np.repeat(np.arange(4), 10), np.arange(40), np.zeros(40, int)])
    order = RNG.permutation(160)
    name = write(tmp_path, train_images=pixels(160, 4, 4), train_labels=labels[order], train_tracks=tracks[order])
    train, val = load_data(name, "train"), load_data(name, "val")
    sides = [{(int(labels[order][i]), int(tracks[order][i])) for i in data.ids} for data in (train, val)]
    assert not sides[0] & sides[1]
    held = [sum(label == one for label, _ in sides[1]) for one in range(4)]
    assert held == [1, 1, 4, 0]  # a tenth of 8, 4 and 40 tracks, rounded up; a single track stays in training
    assert len(train) + len(val) == 160


def test_class_names(tmp_path: Path) -> None:
    assert load_data(write(tmp_path, class_names=np.array(["stop", "go", "yield", "none"]))).classes[2] == "yield"


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "no test images": ({"test_images": None}, "no 'test_images'; it holds train_images, train_labels, test_labels.$"),
    "other key": ({"test_images": None, "test_image": pixels(12, 9, 7)}, "holds .* Did you mean 'test_image'"),
    "no test labels": ({"test_labels": None}, "no 'test_labels'"),
    "floats": ({"test_images": np.zeros((12, 9, 7, 3), np.float32)}, r"must be uint8.*float32.*round"),
    "flat": ({"test_images": pixels(12, 63)}, r"\(N, H, W\) or \(N, H, W, C\), got shape \(12, 63\)"),
    "channels first": ({"test_images": pixels(12, 3, 9, 7)}, r"looks like \(N, C, H, W\)"),
    "label count": ({"test_labels": np.zeros(11, int)}, "11 entries for 12 images"),
    "float labels": ({"test_labels": np.zeros(12)}, "must be integers, got float64"),
    "one-hot labels": ({"test_labels": np.eye(12, dtype=int)}, r"got shape \(12, 12\)"),
    "negative labels": ({"test_labels": np.full(12, -1)}, "from 0 on, got -1"),
    "empty": ({"test_images": pixels(0, 9, 7, 3), "test_labels": np.zeros(0, int)}, "no samples"),
    "pickled": ({"test_labels": np.array([None] * 12)}, "cannot be read"),
    "few names": ({"class_names": np.array(["a", "b"])}, "2 names, but labels go up to 3"),
    "names of numbers": ({"class_names": np.arange(4)}, "must be .* strings"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_content_is_named(tmp_path: Path, case: str) -> None:
    arrays, message = BAD[case]
    with pytest.raises(UserError, match=message):
        load_data(write(tmp_path, **arrays))


def test_bad_tracks_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="'train_tracks'.*59 entries for 60"):
        load_data(write(tmp_path, train_tracks=np.zeros(59, int)), "val")


def test_bad_files_are_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="needs a path"):
        load_data("npz:")
    with pytest.raises(UserError, match="missing.npz does not exist"):
        load_data(f"npz:{tmp_path / 'missing.npz'}")
    with pytest.raises(UserError, match="is a folder"):
        load_data(f"npz:{tmp_path}")
    (tmp_path / "text.npz").write_text("not an archive")
    with pytest.raises(UserError, match="not a readable .npz"):
        load_data(f"npz:{tmp_path / 'text.npz'}")
    np.save(tmp_path / "one.npy", pixels(3, 4, 4))
    with pytest.raises(UserError, match="single array"):
        load_data(f"npz:{tmp_path / 'one.npy'}")
    cut = Path(write(tmp_path)[4:])
    cut.write_bytes(cut.read_bytes()[:-100])
    with pytest.raises(UserError, match="not a readable .npz"):
        load_data(f"npz:{cut}")


def test_gtsrb_has_no_track_on_both_sides(data_root: Path) -> None:
    path = data_root / "gtsrb32.npz"
    train, val = load_data(f"npz:{path}", "train", limit=None), load_data(f"npz:{path}", "val")
    with np.load(path) as file:
        labels, tracks = file["train_labels"].astype(int), file["train_tracks"].astype(int)
    group = labels * 1000 + tracks
    assert not set(group[train.ids]) & set(group[val.ids])
    assert len(train) + len(val) == 39_209
    assert set(val.labels.tolist()) == set(range(43))
    assert np.array_equal(val.labels, labels[val.ids])


def test_pneumonia_has_its_own_validation(data_root: Path) -> None:
    data = load_data(f"npz:{data_root / 'pneumoniamnist.npz'}", "val")
    assert data.images.shape == (524, 1, 28, 28) and data.classes == ("0", "1")
