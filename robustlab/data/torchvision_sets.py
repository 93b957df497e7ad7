"""Data sets that torchvision reads: mnist, fashion-mnist, cifar10, cifar100, svhn, gtsrb.

`test` is the official test set. `train` and `val` come from the official training set, a keyed tenth of which is
validation (GTSRB: by track, since thirty frames show one sign). Ids are indices in the official set that they come
from. Nothing is downloaded unless asked.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision.datasets
from PIL import Image

from robustlab.base.errors import RunError, UserError, spelled
from robustlab.data import Data
from robustlab.data.arrays import Bytes, Integers, content_hash, first, from_arrays, holdout
from robustlab.data.decoding import to_tensor
from robustlab.threat.model import ThreatModel

DIGITS = tuple("0123456789")
GTSRB_CLASSES = (
    *(f"speed limit {limit}" for limit in (20, 30, 50, 60, 70, 80)),
    *("end of speed limit 80", "speed limit 100", "speed limit 120", "no passing", "no passing over 3.5 t"),
    *("right of way at next crossing", "priority road", "yield", "stop", "no vehicles", "no vehicles over 3.5 t"),
    *("no entry", "general caution", "curve left", "curve right", "double curve", "bumpy road", "slippery road"),
    *("road narrows", "road work", "traffic signals", "pedestrians", "children crossing", "bicycles crossing"),
    *("ice or snow", "wild animals", "end of all limits", "turn right ahead", "turn left ahead", "ahead only"),
    *("straight or right", "straight or left", "keep right", "keep left", "roundabout", "end of no passing"),
    "end of no passing over 3.5 t",
)


@dataclass(frozen=True)
class _Source:
    dataset: str  # the class in torchvision.datasets
    place: str  # where its files lie under the data root
    eps: float  # default threat, linf
    classes: tuple[str, ...] | None = None  # None: torchvision knows them


SOURCES = {
    "mnist": _Source("MNIST", "MNIST/raw", 0.3, DIGITS),
    "fashion-mnist": _Source("FashionMNIST", "FashionMNIST/raw", 0.1),
    "cifar10": _Source("CIFAR10", "cifar-10-batches-py", 8 / 255),
    "cifar100": _Source("CIFAR100", "cifar-100-python", 8 / 255),
    "svhn": _Source("SVHN", "{split}_32x32.mat", 8 / 255, DIGITS),
    "gtsrb": _Source("GTSRB", "gtsrb/GTSRB", 8 / 255, GTSRB_CLASSES),
}


def load(name: str, split: str, limit: int | None, *, root: Path | None, download: bool, size: int | None) -> Data:
    """The first `limit` samples of a split of a set in `SOURCES`, which lies under `root`.

    size: GTSRB's crops, which differ in size, are scaled to it (bilinear, antialiased; default 32). Raises UserError
    where files are missing or broken, RunError where a download fails.
    """
    source = SOURCES[name]
    official = "test" if split == "test" else "train"
    if root is None:
        raise UserError(
            f"'{name}' is read from a folder, and none was given: name it with {spelled('data_root')}"
            f" or in the environment variable ROBUSTLAB_DATA. Expected there: {source.place.format(split=official)}."
        )
    dataset = _open(name, source, root, official, download)
    threat = ThreatModel("linf", source.eps)
    if name == "gtsrb":
        return _load_gtsrb(dataset, split, limit, size or 32, threat)

    images, labels = _arrays(dataset)
    ids = np.arange(len(labels), dtype=np.int64) if split == "test" else holdout(split, labels)
    classes = source.classes or tuple(str(label) for label in dataset.classes)
    return from_arrays(name, split, images, labels, ids, limit, classes, threat)


def _open(name: str, source: _Source, root: Path, official: str, download: bool) -> Any:
    make: Callable[..., Any] = getattr(torchvision.datasets, source.dataset)
    choice: dict[str, Any] = {"split": official} if name in ("svhn", "gtsrb") else {"train": official == "train"}
    try:
        return make(root=str(root), download=download, **choice)
    except (RuntimeError, OSError, ValueError, TypeError, AssertionError, EOFError, zlib.error) as error:
        if download:
            raise RunError(f"'{name}' could not be downloaded to {root}: {error}") from error
        raise UserError(
            f"'{name}' was not found, or is broken: expected torchvision's files in"
            f" {root / source.place.format(split=official)} ({error}). Point {spelled('data_root')}"
            f" to the right folder, or let it be fetched with {spelled('download', True)}."
        ) from error


def _arrays(dataset: Any) -> tuple[Bytes, Integers]:
    """(N, H, W) or (N, H, W, C) uint8 and (N,) int64 of a set that torchvision holds in memory."""
    images = np.asarray(dataset.data)
    if isinstance(dataset, torchvision.datasets.SVHN):
        images = images.transpose(0, 2, 3, 1)
    labels = dataset.labels if isinstance(dataset, torchvision.datasets.SVHN) else dataset.targets
    return images, np.asarray(labels, dtype=np.int64)


def _load_gtsrb(dataset: Any, split: str, limit: int | None, size: int, threat: ThreatModel) -> Data:
    """GTSRB lies as one file an image: only what is selected is decoded; the hash covers the files of the split."""
    files = [Path(file) for file, _ in dataset._samples]  # torchvision offers them no other way
    labels = np.array([label for _, label in dataset._samples], dtype=np.int64)
    if split == "test":
        ids = np.arange(len(labels), dtype=np.int64)
    else:
        tracks = np.array([int(file.name.split("_")[0]) for file in files])  # 00012_00029.ppm: track, frame
        ids = holdout(split, labels, tracks)
    chosen = first(ids, limit, f"gtsrb, split {split},")
    fingerprint = content_hash(
        [np.array([size, len(ids)], dtype=np.int64), *(files[i].read_bytes() for i in ids), labels[ids]]
    )
    pixels = torch.empty(len(chosen), 3, size, size)
    for row, index in enumerate(chosen):
        with Image.open(files[index]) as image:
            pixels[row] = to_tensor(image.convert("RGB").resize((size, size), Image.Resampling.BILINEAR), 3)
    return Data(
        name="gtsrb",
        split=split,
        images=pixels,
        labels=torch.from_numpy(labels[chosen]),
        ids=torch.from_numpy(chosen),
        classes=GTSRB_CLASSES,
        hash=fingerprint,
        threat=threat,
    )
