"""Data sets: images in [0, 1] with labels, stable ids, class names, a content hash and a default threat.

`load_data` is the one way in; the sets it knows are in `DATA`. Importing this module imports no torch.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, cast

from robustlab.errors import UserError, did_you_mean

if TYPE_CHECKING:
    from torch import Tensor

    from robustlab.threat import ThreatModel

DATA: dict[str, str] = {
    "road-signs": "robustlab.data.road_signs:load",
    "mnist": "robustlab.data.torchvision_sets:load",
    "fashion-mnist": "robustlab.data.torchvision_sets:load",
    "cifar10": "robustlab.data.torchvision_sets:load",
    "cifar100": "robustlab.data.torchvision_sets:load",
    "svhn": "robustlab.data.torchvision_sets:load",
    "gtsrb": "robustlab.data.torchvision_sets:load",
    "npz": "robustlab.data.npz:load",  # typed as npz:PATH
}
SPLITS = ("train", "val", "test")


@dataclass(frozen=True, eq=False)
class Data:
    """A selection of one split of a data set.

    images: (N, C, H, W) float32 in [0, 1]. labels, ids: (N,) int64; an id is the index in the split's own order and
    does not depend on what else was selected. hash: hex, of the whole split, whatever the selection. factors: what is
    known of how each image came about, name -> (N,) float32.
    """

    name: str
    split: str
    images: Tensor
    labels: Tensor
    ids: Tensor
    classes: tuple[str, ...]
    hash: str
    threat: ThreatModel
    factors: dict[str, Tensor] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, index: Tensor) -> Data:
        """The samples at `index`: (M,) int64 positions in this selection, or an (N,) bool mask."""
        return replace(
            self,
            images=self.images[index],
            labels=self.labels[index],
            ids=self.ids[index],
            factors={name: values[index] for name, values in self.factors.items()},
        )


def load_data(
    name: str,
    split: str = "test",
    limit: int | None = None,
    *,
    data_root: str | os.PathLike[str] | None = None,
    download: bool = False,
    seed: int = 0,
    size: int | None = None,
) -> Data:
    """The first `limit` samples (None: all) of a split, in the split's own order.

    name: a key of `DATA`, or `npz:PATH`. data_root: where torchvision's sets lie; default: the environment variable
    ROBUSTLAB_DATA. download: let torchvision fetch what is missing there. seed: of a rendered world; files have one
    fixed order and one fixed validation split whatever the seed. size: side in pixels, for `road-signs` and `gtsrb`
    (default 32). Raises UserError.

    >>> data = load_data("road-signs", "test", limit=4)
    >>> data.images.shape, data.ids.tolist()
    (torch.Size([4, 3, 32, 32]), [0, 1, 2, 3])
    """
    kind, colon, path = name.partition(":")
    if kind not in DATA or bool(colon) != (kind == "npz"):
        raise UserError(_unknown(name))
    if split not in SPLITS:
        raise UserError(f"split is one of {', '.join(SPLITS)}; got '{split}'.{did_you_mean(split, SPLITS)}")
    if limit is not None and limit < 1:
        raise UserError(f"limit counts samples and must be at least 1 (or be left out for all); got {limit}.")
    if size is not None and kind not in ("road-signs", "gtsrb"):
        raise UserError(f"size can be chosen for road-signs and gtsrb only; '{name}' comes in the size of its files.")
    if size is not None and size < 1:
        raise UserError(f"size is a side in pixels and must be at least 1; got {size}.")

    module, _, function = DATA[kind].partition(":")
    load = getattr(import_module(module), function)
    if kind == "road-signs":
        data = load(split, limit, size=size or 32, seed=seed)
    elif kind == "npz":
        data = load(path, split, limit)
    else:
        root = data_root if data_root is not None else os.environ.get("ROBUSTLAB_DATA") or None
        data = load(kind, split, limit, root=None if root is None else Path(root), download=download, size=size)
    return cast(Data, data)


def _unknown(name: str) -> str:
    known = [f"{kind}:PATH" if kind == "npz" else kind for kind in DATA]
    hint = f" Did you mean 'npz:{name}'?" if name.endswith(".npz") else did_you_mean(name, known)
    return f"unknown data '{name}'; known are {', '.join(known)}.{hint}"
