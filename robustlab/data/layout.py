"""Which files of a folder are the images of a split, and of what class: see `robustlab.data.image_folder`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from robustlab.base.errors import UserError
from robustlab.base.words import counted, some
from robustlab.data.arrays import Integers, holdout, keyed_order
from robustlab.data.decoding import ENDINGS
from robustlab.data.division import listing, part

SPLIT_FOLDERS = {"train": "train", "val": "val", "valid": "val", "validation": "val", "test": "test"}
_SHOWN = 3  # files that a message names


@dataclass(frozen=True)
class Split:
    """folder: of the split, under the root. files: relative to it, sorted. labels: one a file. ids: of the split."""

    folder: str
    files: list[str]
    labels: list[int]
    ids: Integers
    classes: tuple[str, ...]
    notes: tuple[str, ...]
    divided: bool = False  # no split folders: divided by a key, see `robustlab.data.division`


def root_of(path: str) -> Path:
    if not path:
        raise UserError("folder needs a path: folder:PATH, for instance folder:photos, with photos/<class>/*.png.")
    root = Path(path).expanduser()
    if not root.is_dir():
        hint = f" Did you mean 'npz:{path}'?" if path.endswith(".npz") else ""
        what = "is a file" if root.exists() else "does not exist"
        raise UserError(f"folder:PATH names a folder with images; {path} {what}.{hint}")
    return root


def find_split(root: Path, split: str, name: str, divided: bool = False) -> Split:
    """The files of a split, their labels, and the class names of the whole set.

    divided: where there are no split folders, `test` is what training holds out, and not everything.
    """
    files, others = _files(root)
    if not files:
        kinds = ", ".join(sorted(ENDINGS))
        saw = f"; it holds {counted(len(others), 'other file')} ({few(others)})" if others else ", and no other files"
        raise UserError(f"{name} holds no images ({kinds}){saw}.")
    tops = {file.partition("/")[0] for file in files if "/" in file}
    if not tops or not tops <= SPLIT_FOLDERS.keys():
        return _whole(root, files, others, split, name, divided or split != "test")

    by_split = {SPLIT_FOLDERS[top]: top for top in sorted(tops)}
    if len(by_split) < len(tops):
        raise UserError(f"{name} has more than one folder for its validation: {', '.join(sorted(tops))}. Keep one.")
    if "test" not in by_split and "val" in by_split:
        by_split["test"] = by_split.pop("val")
    source = "train" if split == "val" and "val" not in by_split else split
    if source not in by_split:
        raise UserError(
            f"{name} has no folder {source}, only {', '.join(sorted(tops))}. Add it, or name one of them:"
            f" {name}/{min(tops)}."
        )
    folder = by_split[source]
    mine = [file.partition("/")[2] for file in files if file.startswith(f"{folder}/")]
    # a class that only another split has is a class, too: labels must mean the same in all of them
    names = _class_names({file.split("/")[1] for file in files if file.count("/") > 1})
    mine, labels, beside = _labelled(mine, names)
    held_out = source == "train" and "val" not in by_split
    ids = holdout(split, np.array(labels)) if held_out else np.arange(len(mine), dtype=np.int64)
    if not held_out:
        ids = ids[keyed_order(ids)]
    beside += [file for file in files if "/" not in file]
    notes = _notes(name, beside, [file for file in others if file.startswith(f"{folder}/")])
    return Split(folder, mine, labels, ids, names, notes)


def files_hash(name: str) -> str:
    """The hash of the names of all images of a folder without split folders; empty where it has those."""
    found = find_split(root_of(name.partition(":")[2]), "test", name)
    return "" if found.folder else listing(found.files)


def _whole(root: Path, files: list[str], others: list[str], split: str, name: str, divided: bool) -> Split:
    """A folder without split folders."""
    tops = {file.partition("/")[0] for file in files if "/" in file}
    kinds = {SPLIT_FOLDERS[top] for top in tops if top in SPLIT_FOLDERS}
    if divided and "train" in kinds and len(kinds) > 1:
        splits, rest = sorted(tops & SPLIT_FOLDERS.keys()), sorted(tops - SPLIT_FOLDERS.keys())
        raise UserError(
            f"{name} has the folders {', '.join(splits)} and others beside them ({few(rest)}), so it is not plain"
            " whether these are splits or classes. Move the ones away, or put the classes into folders train and test."
        )
    elsewhere = {file.partition("/")[0] for file in others if "/" in file}
    empty = {entry.name for entry in os.scandir(root) if entry.is_dir() and not _hidden(entry.name)} - elsewhere
    names = _class_names(tops | empty) if tops else ()
    files, labels, beside = _labelled(files, names)
    ids, notes = np.arange(len(files), dtype=np.int64), _notes(name, beside, others)
    if divided:
        ids, said = part(split, files, labels, [shown(each) for each in names], name)
        notes = (*said, *notes)
    return Split("", files, labels, ids[keyed_order(ids)], names, notes, divided)


def _hidden(name: str) -> bool:
    return name.startswith(".") or name in ("__MACOSX", "Thumbs.db", "desktop.ini")


def _class_names(folders: set[str]) -> tuple[str, ...]:
    """Sorted; integers by value.

    >>> _class_names({"10", "9"}), _class_names({"stop", "10"})
    (('9', '10'), ('10', 'stop'))
    """
    numbers = all(folder.isdecimal() for folder in folders)
    return tuple(sorted(folders, key=lambda folder: (int(folder), folder) if numbers else (0, folder)))


def _labelled(files: Sequence[str], names: tuple[str, ...]) -> tuple[list[str], list[int], list[str]]:
    """The files in class folders and the class number of each, and the files beside; all with -1 without classes."""
    number = {name: k for k, name in enumerate(names)}
    label = {file: number.get(file.partition("/")[0], -1) if "/" in file else -1 for file in files}
    kept = [file for file in files if label[file] >= 0 or not names]
    return kept, [label[file] for file in kept], [file for file in files if label[file] < 0 and names]


def _notes(name: str, beside: list[str], others: list[str]) -> tuple[str, ...]:
    notes = []
    if beside:
        notes.append(f"{name}: left out {counted(len(beside), 'image')} beside the class folders: {few(beside)}.")
    if others:
        notes.append(f"{name}: left out {counted(len(others), 'file')} without the ending of an image: {few(others)}.")
    return tuple(notes)


def _files(root: Path) -> tuple[list[str], list[str]]:
    """The images below a folder, and the other files: sorted, relative, with `/`. Links are followed once."""
    images: list[str] = []
    others: list[str] = []

    def walk(folder: Path, prefix: str, above: frozenset[str]) -> None:
        real = os.path.realpath(folder)
        if real in above:
            return
        try:
            entries = [(entry.name, entry.is_dir()) for entry in os.scandir(folder) if not _hidden(entry.name)]
        except OSError as error:
            raise UserError(f"The folder {folder} cannot be read ({error.strerror}).") from error
        for name, is_folder in entries:
            if is_folder:
                walk(folder / name, f"{prefix}{name}/", above | {real})
            else:
                known = os.path.splitext(name)[1].lower() in ENDINGS
                (images if known else others).append(prefix + name)

    walk(root, "", frozenset())
    return sorted(images), sorted(others)


def few(names: Sequence[str]) -> str:
    return some([*map(shown, names)], _SHOWN)


def shown(name: str) -> str:
    """A file's name as text that can be stored: bytes that are not UTF-8 are replaced."""
    return name.encode(errors="surrogateescape").decode(errors="replace")
