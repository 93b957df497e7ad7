"""Data sets: images in [0, 1] with labels, stable ids, class names, a content hash and a default threat.

`load_data` is the one way in; the sets it knows are in `DATA`. Importing this module imports no torch.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Self, cast, get_args

from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.lazy import locate
from robustlab.base.typed import check_whole

if TYPE_CHECKING:
    from torch import Tensor

    from robustlab.data.streamed import LazyImages
    from robustlab.threat.model import ThreatModel
    from robustlab.worlds import Factor

DATA: dict[str, str] = {
    "road-signs": "robustlab.data.road_signs:load",
    "mnist": "robustlab.data.torchvision_sets:load",
    "fashion-mnist": "robustlab.data.torchvision_sets:load",
    "cifar10": "robustlab.data.torchvision_sets:load",
    "cifar100": "robustlab.data.torchvision_sets:load",
    "svhn": "robustlab.data.torchvision_sets:load",
    "gtsrb": "robustlab.data.torchvision_sets:load",
    "npz": "robustlab.data.npz:load",  # typed as npz:PATH
    "folder": "robustlab.data.image_folder:load",  # typed as folder:PATH
}
WITH_PATH = ("npz", "folder")
SQUARE = ("road-signs", "gtsrb")  # their images can be had in any size, as those of a folder
Split = Literal["train", "val", "test"]
SPLITS: tuple[str, ...] = get_args(Split)


@dataclass(frozen=True, eq=False)
class Data:
    """A selection of one split of a data set.

    images: (N, C, H, W) float32 in [0, 1]; of a folder, `LazyImages`: `images[index]` is a tensor either way, and
    `loaded()` has them all in memory. labels, ids: (N,) int64; an id is the index in the split's own order and does not
    depend on what else was selected; a label is -1 where there are none. hash: hex, of the whole split, whatever the
    selection (of a folder: see there). factors: what is known of how each image came about, name -> (N,) float32.
    meanings: labels, units and kinds of the factors, in the order in which they are shown, where they are known.
    notes: what was left out or is odd, for the run's warnings.
    """

    name: str
    split: str
    images: Tensor | LazyImages
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    hash: str
    threat: ThreatModel
    factors: dict[str, Tensor] = field(default_factory=dict)
    meanings: Mapping[str, Factor] = field(default_factory=dict)
    source: dict[str, Any] | None = None  # how `load_data` can load it again; set there
    notes: tuple[str, ...] = ()
    relabelled: bool = False  # labels are no longer the set's own: see `robustlab.data.matching`

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Self:
        """The samples at `index`: (M,) int64 positions in this selection, or an (N,) bool mask. Loads nothing."""
        from torch import Tensor

        return replace(
            self,
            images=self.images[index] if isinstance(self.images, Tensor) else self.images.only(index),
            labels=self.labels[index],
            ids=self.ids[index],
            factors={name: values[index] for name, values in self.factors.items()},
        )

    def loaded(self) -> Loaded:
        """The same with all images in memory: take a part first where the whole is too large."""
        if isinstance(self, Loaded):
            return self
        values = {each.name: getattr(self, each.name) for each in fields(self)}
        return Loaded(**values | {"images": self.images[:]})


@dataclass(frozen=True, eq=False)
class Loaded(Data):
    """Data whose images are a tensor for certain."""

    images: Tensor


def load_data(
    name: str,
    split: str = "test",
    limit: int | None = None,
    *,
    ids: Sequence[int] = (),
    classes: Sequence[str] = (),
    data_root: str | os.PathLike[str] | None = None,
    download: bool = False,
    seed: int = 0,
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    workers: int | None = None,
    skip_bad: bool = False,
    divided: bool = False,
) -> Data:
    """The first `limit` samples (None: all) of a split, in the split's own order; see also `Data`.

    name: a key of `DATA`, or `npz:PATH` or `folder:PATH`. ids, classes: only these samples, or those of these classes
    (by name or number). data_root: where torchvision's sets lie; default: the environment variable ROBUSTLAB_DATA.
    download: let torchvision fetch what is missing there. seed: of a rendered world; files have one fixed order and one
    fixed validation split whatever the seed. size: side in pixels for `road-signs` and `gtsrb` (default 32); side or
    (height, width) for `folder:PATH`, whose images are scaled until they cover it and cropped around their centre.
    For `folder:PATH` only: channels, 1 or 3 (default: 3 unless all images are grey); workers, threads that decode
    (default: as many as processors, at most 4); skip_bad: leave out files that are no images; divided: where there
    are no folders train and test, `test` is the tenth that `train` and `val` leave out instead of everything (give it
    for a model that was trained on the folder). Raises UserError.

    >>> data = load_data("road-signs", "test", limit=4)
    >>> data.images.shape, data.ids.tolist()
    (torch.Size([4, 3, 32, 32]), [0, 1, 2, 3])
    """
    from robustlab.data.selection import select

    kind, path = check_name(name), name.partition(":")[2]
    if split not in SPLITS:
        raise UserError(f"split is one of {', '.join(SPLITS)}; got '{split}'.{did_you_mean(split, SPLITS)}")
    if isinstance(limit, int) and limit < 1:
        raise UserError(f"limit counts samples and must be at least 1 (or be left out for all); got {limit}.")
    check_whole("limit", limit, 1)
    check_whole("seed", seed, 0)
    check_workers(workers)
    check_size(name, size)

    load = locate(DATA[kind])
    source: dict[str, Any] = {"name": name, "split": split, "limit": limit, "seed": seed, "size": size}
    source |= {"ids": list(ids), "classes": list(classes)}
    if kind == "folder":
        choice: dict[str, Any] = {"ids": ids, "classes": classes, "size": size, "channels": channels}
        data = load(path, split, limit, workers=workers, skip_bad=skip_bad, divided=divided, **choice)
        source |= {"size": list(data.images.shape[2:]), "channels": data.images.shape[1], "skip_bad": skip_bad}
        source |= data.source or {}
        return replace(cast(Data, data), source=source)
    first = None if ids or classes else limit  # a choice by id or class looks at the whole split
    if kind == "road-signs":
        data = load(split, first, size=size or 32, seed=seed)
    elif kind == "npz":
        data = load(path, split, first)
    else:
        root = data_root if data_root is not None else os.environ.get("ROBUSTLAB_DATA") or None
        data = load(kind, split, first, root=None if root is None else Path(root), download=download, size=size)
    return select(replace(cast(Data, data), source=source), ids=ids, classes=classes, limit=limit)


def check_workers(workers: int | None) -> None:
    """A `UserError` for a number of threads that cannot be meant."""
    if workers is not None and not 1 <= workers <= 1024:
        raise UserError(f"workers is a number of threads from 1 to 1024; got {workers}.")


def check_name(name: str) -> str:
    """The kind of data that a name means, a key of `DATA`; a name that means nothing is a `UserError`.

    >>> check_name("npz:digits.npz")
    'npz'
    """
    kind, colon, _ = name.partition(":")
    if kind not in DATA or bool(colon) != (kind in WITH_PATH):
        raise UserError(_unknown(name))
    return kind


def check_size(name: str, size: int | tuple[int, int] | None) -> None:
    """A `UserError` where this data set cannot be had in this size."""
    kind = name.partition(":")[0]
    if size is None:
        return
    if kind not in (*SQUARE, "folder"):
        raise UserError(
            f"size can be chosen for road-signs, gtsrb and folder:PATH only; '{name}' comes in the size of its files."
        )
    if isinstance(size, tuple) and kind != "folder":
        raise UserError(f"{name} is square: size is one side in pixels; got {size[0]}x{size[1]}.")
    if min(size if isinstance(size, tuple) else (size,)) < 1:
        raise UserError(f"size is a side in pixels and must be at least 1; got {size}.")


def _unknown(name: str) -> str:
    known = [f"{kind}:PATH" if kind in WITH_PATH else kind for kind in DATA]
    if name.endswith(".npz"):
        hint = f" Did you mean 'npz:{name}'?"
    elif Path(name).is_dir():
        hint = f" Did you mean 'folder:{name}'?"
    else:
        hint = did_you_mean(name, known)
    return f"unknown data '{name}'; known are {', '.join(known)}.{hint}"
