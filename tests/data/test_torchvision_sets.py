"""Small sets written in the layouts that torchvision reads; the real ones where they are."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path

import numpy as np
import pytest
import scipy.io
import torch
import torchvision.datasets
from PIL import Image

from robustlab.base.errors import RunError, UserError
from robustlab.data import load_data
from robustlab.data.torchvision_sets import GTSRB_CLASSES

RNG = np.random.default_rng(0)


def pixels(*shape: int) -> np.ndarray:
    return RNG.integers(0, 256, shape, dtype=np.uint8)


def write_idx(path: Path, array: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">i4").tobytes() + array.tobytes())


def write_mnist(root: Path, folder: str) -> np.ndarray:
    test = pixels(20, 28, 28)
    for prefix, images in (("train", pixels(50, 28, 28)), ("t10k", test)):
        write_idx(root / folder / "raw" / f"{prefix}-images-idx3-ubyte", images)
        write_idx(root / folder / "raw" / f"{prefix}-labels-idx1-ubyte", np.arange(len(images), dtype=np.uint8) % 10)
    return test


@pytest.mark.parametrize(("name", "folder", "eps"), [("mnist", "MNIST", 0.3), ("fashion-mnist", "FashionMNIST", 0.1)])
def test_mnist_layout(tmp_path: Path, name: str, folder: str, eps: float) -> None:
    images = write_mnist(tmp_path, folder)
    data = load_data(name, limit=7, data_root=tmp_path)
    assert np.array_equal((data.images * 255).round().byte().numpy(), images[:7, None])
    assert data.labels.tolist() == data.ids.tolist() == [0, 1, 2, 3, 4, 5, 6]
    assert len(data.classes) == 10 and data.classes[3] == {"mnist": "3", "fashion-mnist": "Dress"}[name]
    assert (data.threat.norm, data.threat.eps) == ("linf", eps)
    assert data.hash == load_data(name, data_root=tmp_path).hash

    train, val = (load_data(name, split, data_root=tmp_path) for split in ("train", "val"))
    assert (len(train), len(val)) == (45, 5)
    assert sorted([*train.ids.tolist(), *val.ids.tolist()]) == list(range(50))
    assert len({data.hash, train.hash, val.hash}) == 3


def test_the_environment_names_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_mnist(tmp_path, "MNIST")
    monkeypatch.setenv("ROBUSTLAB_DATA", str(tmp_path))
    assert len(load_data("mnist")) == 20
    monkeypatch.delenv("ROBUSTLAB_DATA")
    with pytest.raises(UserError, match="data_root .* ROBUSTLAB_DATA. Expected there: MNIST/raw"):
        load_data("mnist")


@pytest.mark.parametrize(
    ("name", "place"),
    [
        ("mnist", "MNIST/raw"),
        ("fashion-mnist", "FashionMNIST/raw"),
        ("cifar10", "cifar-10-batches-py"),
        ("cifar100", "cifar-100-python"),
        ("svhn", "test_32x32.mat"),
        ("gtsrb", "gtsrb/GTSRB"),
    ],
)
def test_missing_files_are_named(tmp_path: Path, name: str, place: str) -> None:
    with pytest.raises(UserError, match=f"(?s)'{name}' was not found.*{place}.*data_root.*download=True"):
        load_data(name, data_root=tmp_path)
    assert not list(tmp_path.rglob("*"))  # nothing was made or fetched


def test_broken_files_are_named(tmp_path: Path) -> None:
    write_mnist(tmp_path, "MNIST")
    path = tmp_path / "MNIST" / "raw" / "t10k-images-idx3-ubyte"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(UserError, match="is broken.*MNIST/raw"):
        load_data("mnist", data_root=tmp_path)


def test_a_failing_download_is_an_error_of_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torchvision.datasets.MNIST, "mirrors", [(tmp_path / "nowhere").as_uri() + "/"])
    with pytest.raises(RunError, match=f"'mnist' could not be downloaded to {tmp_path}"):
        load_data("mnist", data_root=tmp_path, download=True)


def test_download_takes_what_is_there(tmp_path: Path) -> None:
    write_mnist(tmp_path, "MNIST")
    assert len(load_data("mnist", data_root=tmp_path, download=True)) == 20


def checked(path: Path, content: object) -> list[str]:
    """Pickles `content`; the entry [name, md5] by which torchvision knows the file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pickle.dumps(content))
    return [path.name, hashlib.md5(path.read_bytes()).hexdigest()]


def test_cifar10_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, images = tmp_path / "cifar-10-batches-py", pixels(6, 3, 32, 32)
    cifar = torchvision.datasets.CIFAR10
    names = [f"class{k}" for k in range(10)]
    batch = {"data": images.reshape(6, -1), "labels": [0, 1, 2, 3, 4, 9]}
    monkeypatch.setattr(cifar, "test_list", [checked(folder / "test_batch", batch)])
    monkeypatch.setattr(cifar, "train_list", [])
    meta_name, meta_md5 = checked(folder / "batches.meta", {"label_names": names})
    monkeypatch.setattr(cifar, "meta", {"filename": meta_name, "key": "label_names", "md5": meta_md5})
    data = load_data("cifar10", data_root=tmp_path)
    assert np.array_equal((data.images * 255).round().byte().numpy(), images)
    assert data.labels.tolist() == [0, 1, 2, 3, 4, 9] and data.classes == tuple(names)


def test_svhn_layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    images = pixels(5, 3, 32, 32)
    labels = np.array([[1], [10], [3], [4], [9]], np.uint8)  # SVHN's files call the digit 0 ten
    scipy.io.savemat(tmp_path / "test_32x32.mat", {"X": images.transpose(2, 3, 1, 0), "y": labels})
    md5 = hashlib.md5((tmp_path / "test_32x32.mat").read_bytes()).hexdigest()
    monkeypatch.setattr(torchvision.datasets.SVHN, "split_list", {"test": ["", "test_32x32.mat", md5]})
    data = load_data("svhn", data_root=tmp_path)
    assert np.array_equal((data.images * 255).round().byte().numpy(), images)
    assert data.labels.tolist() == [1, 0, 3, 4, 9]


def write_gtsrb(root: Path) -> Path:
    base = root / "gtsrb"
    for label, tracks in ((0, 3), (14, 2)):
        folder = base / "GTSRB" / "Training" / f"{label:05d}"
        folder.mkdir(parents=True)
        for track in range(tracks):
            for frame in range(4):
                image = np.full((20 + frame, 25, 3), [10 * track, 40 + frame, label], np.uint8)
                Image.fromarray(image).save(folder / f"{track:05d}_{frame:05d}.ppm")
    images = base / "GTSRB" / "Final_Test" / "Images"
    images.mkdir(parents=True)
    rows = ["Filename;Width;Height;Roi.X1;Roi.Y1;Roi.X2;Roi.Y2;ClassId"]
    for number, label in enumerate((14, 0, 14)):
        Image.fromarray(np.full((30, 50, 3), [label, 100, number], np.uint8)).save(images / f"{number:05d}.ppm")
        rows.append(f"{number:05d}.ppm;50;30;5;5;45;25;{label}")
    (base / "GT-final_test.csv").write_text("\n".join(rows) + "\n")
    return images


def test_gtsrb_layout(tmp_path: Path) -> None:
    folder = write_gtsrb(tmp_path)
    data = load_data("gtsrb", data_root=tmp_path)
    assert data.images.shape == (3, 3, 32, 32) and data.labels.tolist() == [14, 0, 14]
    assert torch.equal((data.images[1, :, 5, 5] * 255).round(), torch.tensor([0.0, 100.0, 1.0]))
    assert data.classes == GTSRB_CLASSES and data.classes[14] == "stop" and len(set(data.classes)) == 43
    assert load_data("gtsrb", data_root=tmp_path, size=48).images.shape == (3, 3, 48, 48)
    assert len({load_data("gtsrb", data_root=tmp_path, size=size).hash for size in (24, 32)}) == 2

    part = load_data("gtsrb", data_root=tmp_path, limit=1)
    assert part.hash == data.hash and torch.equal(part.images, data.images[:1])
    Image.fromarray(pixels(30, 50, 3)).save(folder / "00002.ppm")
    assert load_data("gtsrb", data_root=tmp_path, limit=1).hash != data.hash


def test_gtsrb_validation_holds_whole_tracks(tmp_path: Path) -> None:
    write_gtsrb(tmp_path)
    train, val = (load_data("gtsrb", split, data_root=tmp_path) for split in ("train", "val"))
    assert (len(train), len(val)) == (12, 8)  # one of three tracks and one of two, four frames each
    track = [{(int(label), round(float(image[0, 0, 0]) * 255)) for label, image in zip(d.labels, d.images, strict=True)}
             for d in (train, val)]  # fmt: skip
    assert len(track[0]) == 3 and len(track[1]) == 2 and not track[0] & track[1]


def test_real_mnist(data_root: Path) -> None:
    data = load_data("mnist", limit=100, data_root=data_root)
    assert data.labels[:10].tolist() == [7, 2, 1, 0, 4, 1, 4, 9, 5, 9]
    with (data_root / "MNIST" / "raw" / "t10k-images-idx3-ubyte").open("rb") as file:
        raw = np.frombuffer(file.read(16 + 784), np.uint8)[16:]
    assert np.array_equal((data.images[0] * 255).round().byte().numpy().ravel(), raw)


def test_real_fashion_mnist_splits(data_root: Path) -> None:
    train, val, test = (load_data("fashion-mnist", split, data_root=data_root) for split in ("train", "val", "test"))
    assert (len(train), len(val), len(test)) == (54_000, 6_000, 10_000)
    assert not set(train.ids.tolist()) & set(val.ids.tolist())
    shares = torch.bincount(val.labels, minlength=10) / len(val)
    assert 0.08 < shares.min() and shares.max() < 0.12
