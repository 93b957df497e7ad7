"""The rendered world of road signs as a data set: any number of images, with all that is known of each."""

from __future__ import annotations

import hashlib

import torch
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.data import Data
from robustlab.threat.model import ThreatModel
from robustlab.worlds.road_signs import CLASSES, FACTORS, VERSION, Scenes, draw, faces, prepare, render

_DEFAULT_LIMIT = {"train": 20_000, "val": 2_000, "test": 4_000}
_CHUNK = 128
_SIZES = (8, 512)


def load(split: str, limit: int | None = None, size: int = 32, seed: int = 0) -> Data:
    """The first `limit` images of a split (default 20,000 train, 2,000 val, 4,000 test), rendered on the CPU.

    size: side in pixels, 8 to 512. Images are rounded to k/255, as a camera's file would be. The hash names the world
    (version, seed, split, size), not its pixels. Takes about 1 s for 1,500 images of 32 x 32 on one core.

    >>> data = load("test", 2)
    >>> data.images.shape, data.classes[0], sorted(data.factors)[:3]
    (torch.Size([2, 3, 32, 32]), 'stop', ['background', 'blur', 'distance'])
    """
    if not _SIZES[0] <= size <= _SIZES[1]:
        raise UserError(f"road-signs are drawn at {_SIZES[0]} to {_SIZES[1]} pixels; got size {size}.")
    ids = torch.arange(_DEFAULT_LIMIT[split] if limit is None else limit)
    scenes = draw(seed, split, ids)
    name = f"road-signs version {VERSION} seed {seed} {split} {size}"
    return Data(
        name="road-signs",
        split=split,
        images=_images(scenes, size),
        labels=scenes.label,
        ids=ids,
        classes=CLASSES,
        hash=hashlib.sha256(name.encode()).hexdigest()[:16],
        threat=ThreatModel(norm="linf", eps=8 / 255),
        factors=scenes.factors(),
        meanings=FACTORS,
        source={
            "name": "road-signs",
            "split": split,
            "limit": limit,
            "seed": seed,
            "size": size,
            "ids": [],
            "classes": [],
        },
    )


@torch.no_grad()
def _images(scenes: Scenes, size: int, batch_size: int = _CHUNK) -> Tensor:
    """(N, 3, size, size) rounded to k/255."""
    prepared = prepare(faces(), size)
    images = torch.empty(len(scenes), 3, size, size)
    for chunk in torch.arange(len(scenes)).split(batch_size):
        images[chunk] = (render(prepared, scenes.take(chunk)) * 255).round() / 255
    return images
