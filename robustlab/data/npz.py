"""`npz:PATH`: images and labels in one NumPy archive.

Keys (MedMNIST's convention): `train_images`, `train_labels`, the same for `val_` and `test_`; images (N, H, W) or
(N, H, W, C) uint8, labels (N,) or (N, 1) integers. Optional: `train_tracks` (N,) integers, the physical object that a
frame shows, numbered within its class; `class_names` (K,) strings. Pickled content is refused.
"""

from __future__ import annotations

import math
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tokenize import TokenError
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.npyio import NpzFile

from robustlab.base.errors import UserError, did_you_mean, spelled
from robustlab.data import SPLITS, Data
from robustlab.data.arrays import Bytes, Integers, from_arrays, holdout
from robustlab.threat.model import ThreatModel

Array = npt.NDArray[Any]
_CONVENTION = {f"{split}_{what}" for split in SPLITS for what in ("images", "labels", "tracks")}
# of NumPy and zipfile on damaged files, and where a header is nested without end
_UNREADABLE = (
    *(ValueError, OSError, EOFError, zipfile.BadZipFile, zlib.error, NotImplementedError, RuntimeError),
    *(SyntaxError, TokenError, OverflowError, MemoryError),
)
_UNPACKED = 512 << 20  # bytes that an array may have whatever it was packed into; above that so many times
_TIMES = 50
MOST_CLASSES = 100_000


def load(path: str, split: str, limit: int | None) -> Data:
    """The first `limit` samples of a split. Raises UserError.

    Ids are indices in the file's own arrays. Without `val_*`, validation is held out of `train_*`: by (label, track)
    where there are tracks, else a keyed tenth (`robustlab.data.arrays.holdout`). The default threat is linf 8/255.
    """
    with _open(path) as archive:
        source = "train" if split == "val" and "val_images" not in archive.keys else split
        images = archive.images(f"{source}_images")
        labels = archive.labels(f"{source}_labels", len(images))
        if source == "train" and "val_images" not in archive.keys:
            tracks = archive.integers("train_tracks", len(images)) if "train_tracks" in archive.keys else None
            ids = holdout(split, labels, tracks)
        else:
            ids = np.arange(len(images), dtype=np.int64)
        classes = archive.classes()
    return from_arrays(f"npz:{path}", split, images, labels, ids, limit, classes, ThreatModel("linf", 8 / 255))


@contextmanager
def _open(path: str) -> Iterator[_Archive]:
    if not path:
        raise UserError("npz needs a path: npz:PATH, for instance npz:data/signs.npz.")
    place = Path(path).expanduser()
    if not place.is_file():
        here = f"does not exist. Where it lies elsewhere, say so: {spelled('data', f'npz:FOLDER/{place.name}')}."
        what = f"is a folder. Did you mean 'folder:{path}'?" if place.is_dir() else here
        raise UserError(f"npz:PATH names an .npz file; {path} {what}")
    try:
        handle = place.open("rb")
    except OSError as error:
        raise UserError(f"{path} cannot be opened: {error}") from error
    with handle:
        try:
            file = np.load(handle, allow_pickle=False)
        except _UNREADABLE as error:
            raise UserError(f"{path} is not a readable .npz file: {error}") from error
        if not isinstance(file, NpzFile):
            raise UserError(f"{path} holds a single array; expected an .npz archive with train_images and so on.")
        with file:
            yield _Archive(file, path)


class _Archive:
    """An open npz file whose arrays are read, and checked, one by one when asked for."""

    def __init__(self, file: NpzFile, path: str) -> None:
        self.file, self.path, self.keys = file, path, file.files

    def read(self, key: str) -> Array:
        if key not in self.keys:
            there = ", ".join(self.keys) or "nothing"
            hint = did_you_mean(key, [other for other in self.keys if other not in _CONVENTION])
            raise UserError(f"{self.path} has no '{key}'; it holds {there}.{hint}")
        try:
            self._check_claims(key)
            return np.asarray(self.file[key])
        except _UNREADABLE as error:
            raise UserError(f"'{key}' in {self.path} cannot be read: {error}") from error

    def _check_claims(self, key: str) -> None:
        """ValueError where an array claims to be far larger than the file."""
        archive = self.file.zip
        assert archive is not None  # it is open
        entry = archive.getinfo(key if key in archive.namelist() else f"{key}.npy")
        most = max(_UNPACKED, _TIMES * entry.compress_size)
        if entry.file_size > most:
            raise ValueError(f"{entry.compress_size:,} bytes would become {entry.file_size:,}")
        with archive.open(entry) as part:
            version = np.lib.format.read_magic(part)
            read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
            shape, _, dtype = read(part)
        if any(side < 0 for side in shape) or math.prod(shape) * max(dtype.itemsize, 1) > entry.file_size:
            raise ValueError(f"it claims the shape {shape} of {dtype}, and has {entry.file_size:,} bytes")

    def images(self, key: str) -> Bytes:
        images = self.read(key)
        if images.dtype != np.uint8:
            raise UserError(
                f"'{key}' in {self.path} must be uint8 (0 to 255), got {images.dtype}."
                " For floats in [0, 1] store (images * 255).round().astype('uint8')."
            )
        if images.ndim not in (3, 4) or 0 in images.shape[1:]:
            raise UserError(f"'{key}' in {self.path} must be (N, H, W) or (N, H, W, C), got shape {images.shape}.")
        if images.ndim == 4 and images.shape[1] <= 4 < images.shape[3]:
            raise UserError(
                f"'{key}' in {self.path} has shape {images.shape}, which looks like (N, C, H, W);"
                " expected (N, H, W, C): store images.transpose(0, 2, 3, 1)."
            )
        return images

    def integers(self, key: str, count: int | None) -> Integers:
        """(N,) int64 from (N,) or (N, 1); `count` is the number of images that they must match."""
        values = self.read(key)
        if not np.issubdtype(values.dtype, np.integer):
            raise UserError(f"'{key}' in {self.path} must be integers, got {values.dtype}.")
        if values.ndim == 2 and values.shape[1] == 1:
            values = values[:, 0]
        if values.ndim != 1:
            raise UserError(f"'{key}' in {self.path} must be (N,) or (N, 1), got shape {values.shape}.")
        if count is not None and len(values) != count:
            raise UserError(f"'{key}' in {self.path} has {len(values)} entries for {count} images.")
        return values.astype(np.int64)

    def labels(self, key: str, count: int | None) -> Integers:
        labels = self.integers(key, count)
        if len(labels) and labels.min() < 0:
            raise UserError(f"'{key}' in {self.path} must be class numbers from 0 on, got {labels.min()}.")
        return labels

    def classes(self) -> tuple[str, ...]:
        """`class_names`, else "0" to "K-1", with K from all labels in the file."""
        every = [self.labels(f"{split}_labels", None) for split in SPLITS if f"{split}_labels" in self.keys]
        count = max((int(labels.max()) + 1 for labels in every if len(labels)), default=0)
        if count > MOST_CLASSES:
            raise UserError(
                f"The labels in {self.path} go up to {count - 1}; at most {MOST_CLASSES:,} classes are taken. Number"
                " them from 0 on."
            )
        if "class_names" not in self.keys:
            return tuple(str(number) for number in range(count))
        names = self.read("class_names")
        if names.ndim != 1 or names.dtype.kind != "U":
            raise UserError(
                f"'class_names' in {self.path} must be (K,) strings, got {names.dtype} of shape {names.shape}."
            )
        if len(names) < count:
            raise UserError(f"'class_names' in {self.path} has {len(names)} names, but labels go up to {count - 1}.")
        return tuple(str(name) for name in names)
