"""`folder:PATH`: image files in class folders, decoded when they are needed.

PATH/<class>/**/*.png (or .jpg, .bmp, .webp, .tif, .ppm, .pgm, .gif), or the same under PATH/train, PATH/val (also
valid, validation) and PATH/test. Hidden files are passed over. Classes are the names of the class folders of all
splits, sorted, by value where all are integers.

- Without split folders everything is the test split, as long as nobody trains on it: `train` and `val` are keyed parts
  of each class, and `test` with `divided` is the tenth that they leave out (see `robustlab.data.division`).
- `val` without a folder of its own is a keyed tenth of train. Without a test folder the val folder is the test split,
  as in ImageNet, and `val` comes out of train.
- Images without class folders are taken, too, with the label -1: they can be attacked with the model's own answers.

Ids are indices in the sorted relative names of the split; the order is keyed, so that the first N are a fair sample.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch

from robustlab.base.errors import UserError, spelled
from robustlab.base.reading import read_bounded
from robustlab.base.words import counted, first_line
from robustlab.data import Data
from robustlab.data.arrays import Integers, content_hash
from robustlab.data.decoding import FILE_BYTES, decode
from robustlab.data.layout import Split, few, find_split, root_of, shown
from robustlab.data.selection import positions
from robustlab.data.streamed import LazyImages, default_workers
from robustlab.threat.model import ThreatModel


def load(
    path: str,
    split: str,
    limit: int | None,
    *,
    ids: Sequence[int] = (),
    classes: Sequence[str] = (),
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
    divided: bool = False,
) -> Data:
    """The first `limit` samples of a split, of these ids and classes; see `robustlab.data.load_data`. Raises UserError.

    Every selected file is read and decoded once, to know that it can be, and then again whenever it is needed. The hash
    covers the relative names and sizes of all files of the split, the bytes of the selected ones, and the shape that
    they are brought to; it does not depend on where the folder lies. The default threat is linf 8/255.
    """
    name = f"folder:{path}"
    root = root_of(path)
    found = find_split(root, split, name, divided)
    if not len(found.ids):
        raise UserError(f"{name}, split {split}, has no images in class folders: nothing to select from.")
    there = torch.from_numpy(found.ids)
    labels = torch.tensor(found.labels)[there]
    index = positions(f"{name} ({split})", there, labels, found.classes, ids, classes)[:limit]
    order = found.ids[index.numpy()]
    with ThreadPoolExecutor(workers or default_workers()) as pool:
        looks = list(pool.map(_look, [root / found.folder / found.files[i] for i in order]))
    notes, good = list(found.notes), [look for look in looks if not look.problem]
    if len(good) < len(looks):
        bad = sorted(f"{shown(found.files[i])} ({k.problem})" for i, k in zip(order, looks, strict=True) if k.problem)
        if not skip_bad or not good:
            without = f"Fix or remove them, or leave them out with {spelled('skip_bad', True)}."
            what = without if good else "Nothing is left."
            raise UserError(f"{name}: {counted(len(bad), 'file')} cannot be read as an image: {few(bad)}. {what}")
        notes.append(f"{name}: left out {counted(len(bad), 'file')} that cannot be read as an image: {few(bad)}.")
    order = order[np.array([not look.problem for look in looks])]
    files = [found.files[i] for i in order]
    shape = _shape(name, files, good, size, channels)
    return Data(
        name=name,
        split=split,
        images=LazyImages([root / found.folder / file for file in files], shape, workers),
        labels=torch.tensor([found.labels[i] for i in order]),
        ids=torch.from_numpy(order),
        classes=tuple(shown(name) for name in found.classes),
        hash=_fingerprint(root, found, order, good, shape),
        threat=ThreatModel("linf", 8 / 255),
        source={"divided": True} if found.divided else None,
        notes=tuple(notes),
    )


@dataclass(frozen=True)
class _Look:
    """What reading one file showed: its bytes' SHA-256, whether it is grey, (height, width), or what is wrong."""

    digest: bytes = b""
    grey: bool = False
    size: tuple[int, int] = (0, 0)
    problem: str = ""


def _look(file: Path) -> _Look:
    content = b""
    try:
        content = read_bounded(file, FILE_BYTES)
        image = decode(content)
    except MemoryError:
        raise
    except OSError as error:  # Pillow's own message repeats the address of a buffer
        return _Look(problem=error.strerror or ("empty" if not content else _short(error)))
    except Exception as error:  # Pillow's readers raise many kinds on broken files
        return _Look(problem=_short(error))
    return _Look(hashlib.sha256(content).digest(), image.mode == "L", (image.height, image.width))


def _short(error: Exception) -> str:
    text = first_line(error)
    return "no image" if text.startswith("cannot identify image file") else text


def _shape(
    name: str, files: list[str], looks: list[_Look], size: int | tuple[int, int] | None, channels: int | None
) -> tuple[int, int, int]:
    """(C, H, W) for all: 1 channel if every file is grey or the model wants it."""
    if channels not in (1, 3):
        channels = 1 if all(look.grey for look in looks) else 3
    if size is None:
        size = looks[0].size
        other = next((k for k, look in enumerate(looks) if look.size != size), None)
        if other is not None:
            one, two = (f"{shown(files[k])} has {_wide(looks[k].size)}" for k in (0, other))
            raise UserError(f"{name}: its images differ in size ({one}, {two}; width x height). {_proposal(looks)}")
    high, wide = (size, size) if isinstance(size, int) else size
    return channels, high, wide


def _proposal(looks: Sequence[_Look]) -> str:
    """A size for images that differ in theirs: the middle one, or smaller where that is large."""
    high, wide = (int(np.median([look.size[side] for look in looks])) for side in (0, 1))
    middle = f"the middle of all is {_wide((high, wide))}"
    least = max(1, min(64, high, wide))
    other = f" (quick to train), or {high}x{wide}" if least < min(high, wide) else ""
    return (
        f"Choose one with {spelled('size')}, N or HxW ({middle}), for instance {spelled('size', least)}{other}: each"
        " image is scaled until it covers that size, and cropped around its centre."
    )


def _fingerprint(root: Path, found: Split, order: Integers, looks: list[_Look], shape: tuple[int, ...]) -> str:
    def parts() -> Iterator[bytes | Integers]:
        yield np.array(shape, dtype=np.int64)
        for i in sorted(found.ids.tolist()):
            file = found.files[i]
            yield f"{file}\0{(root / found.folder / file).stat().st_size}\n".encode(errors="surrogateescape")
        for k in np.argsort(order):
            yield looks[k].digest

    return content_hash(parts())


def _wide(size: tuple[int, int]) -> str:
    return f"{size[1]}x{size[0]}"
