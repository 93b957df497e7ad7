"""A folder of classes without split folders, divided for training by a key of each image's name.

An image keeps its part when the folder is moved, and when images are added to a class that has three: what a model was
trained on never gets into its test.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from robustlab.base.errors import UserError
from robustlab.base.words import counted
from robustlab.data.arrays import Integers, content_hash
from robustlab.data.selection import composed

RULE = "80/10/10"
_TEST, _VAL = 0.1, 0.2  # keys below the first are for the test, those up to the second for the validation


def divided(files: Sequence[str], labels: Sequence[int]) -> dict[str, Integers]:
    """The indices of `train`, `val` and `test`, sorted: about 80, 10 and 10 % of each class.

    files: relative names, which the keys are drawn from. A class of 3 has one image in each part, one of 2 none for the
    validation, and a single image is trained on.

    >>> {split: len(ids) for split, ids in divided([f"cat/{i}.png" for i in range(1000)], [0] * 1000).items()}
    {'train': 808, 'val': 91, 'test': 101}
    """
    shares = np.array([_key(file) for file in files])
    classes = np.array(labels, dtype=np.int64)
    parts: dict[str, list[Integers]] = {"train": [], "val": [], "test": []}
    for label in np.unique(classes):
        own = np.flatnonzero(classes == label)
        own = own[np.argsort(shares[own], kind="stable")]
        n = len(own)
        test = min(max(int((shares[own] < _TEST).sum()), int(n > 1)), max(0, n - 1 - int(n > 2)))
        val = min(max(int((shares[own] < _VAL).sum()) - test, int(n > 2)), n - 1 - test)
        for split, ids in zip(("test", "val", "train"), np.split(own, [test, test + val]), strict=True):
            parts[split].append(ids)
    return {split: np.sort(np.concatenate(ids)).astype(np.int64) for split, ids in parts.items()}


def _key(file: str) -> float:
    """In [0, 1), from the name alone; one way or another of storing an accent is the same name."""
    digest = hashlib.sha256(composed(file).encode(errors="surrogateescape")).digest()
    return int.from_bytes(digest[:6]) / 2**48


def part(
    split: str, files: Sequence[str], labels: Sequence[int], names: Sequence[str], where: str
) -> tuple[Integers, tuple[str, ...]]:
    """The ids of one split, and remarks for its user; UserError where no image is left for it.

    names: of the classes. where: the data's name.
    """
    parts = divided(files, labels)
    count = {key: len(ids) for key, ids in parts.items()}
    if not count[split]:
        what = {"train": "to train on", "val": "for the validation", "test": "to test on"}[split]
        raise UserError(
            f"{where} has {counted(len(files))} in {len(names)}"
            f" class{'es' * (len(names) != 1)}, which leaves none {what}: at least one class must have 3. Add"
            " images, or divide them yourself: PATH/train/<class>, PATH/val/<class> and PATH/test/<class>."
        )
    if split == "test":
        note = f"these are the {count['test']} of its {len(files)} images that training holds out"
        return parts[split], (f"{where} has no folders train and test: {note} ({RULE} by a key of their names).",)
    notes = [
        f"{where} has no folders train and test: its {len(files)} images are divided {RULE} by a key of their names,"
        f" class by class: {count['train']} to train on, {count['val']} for the validation, {count['test']} for the"
        " test."
    ]
    each = np.bincount(np.array(labels, dtype=np.int64).clip(0), minlength=len(names))
    if small := [name for name, n in zip(names, each, strict=False) if n < 3]:
        notes.append(f"{where}: classes of fewer than 3 images lack some of the three: {', '.join(small[:5])}.")
    return parts[split], tuple(notes)


def listing(files: Sequence[str]) -> str:
    """A hash of the names of all files: the same folder elsewhere, or in another size, has the same."""
    return content_hash(f"{file}\n".encode(errors="surrogateescape") for file in sorted(map(composed, files)))


def same_folder(one: str, other: str) -> bool:
    """Do two names `folder:PATH` mean the same place?"""
    places = [os.path.realpath(Path(name.partition(":")[2]).expanduser()) for name in (one, other)]
    return places[0] == places[1]
