"""From uint8 arrays, as the files hold them, to `Data`: holdout, hash, selection and conversion."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt
import torch

from robustlab.base.draws import keys
from robustlab.base.errors import UserError
from robustlab.data import Data
from robustlab.threat.model import ThreatModel

Bytes = npt.NDArray[np.uint8]
Integers = npt.NDArray[np.int64]


def holdout(split: str, labels: Integers, tracks: Integers | None = None) -> Integers:
    """The indices of `train` or `val` in an official training set that has no validation split of its own.

    A tenth is held out, chosen by a draw keyed by the index, and so the same for everybody. With tracks (N,), frames
    that show one physical object, a tenth of each class's (label, track) groups is held out whole: frames of one
    object on both sides would make validation flattering. A class with one track stays in training. The order is keyed,
    too: some sets lie sorted by class, and the first N of a split should be a fair sample of it.

    >>> len(holdout("val", np.zeros(100, np.int64))), len(holdout("train", np.zeros(100, np.int64)))
    (10, 90)
    """
    held = np.zeros(len(labels), dtype=bool)
    if tracks is None:
        order = keyed_order(np.arange(len(labels)))
        held[order[: _tenth(len(labels))]] = True
    else:
        for label in np.unique(labels):
            own = np.unique(tracks[labels == label])
            chosen = own[keyed_order(own, int(label))][: _tenth(len(own)) if len(own) > 1 else 0]
            held |= (labels == label) & np.isin(tracks, chosen)
    chosen = np.flatnonzero(held if split == "val" else ~held)
    return chosen[keyed_order(chosen)]


def keyed_order(values: npt.NDArray[np.integer], *parts: int) -> Integers:
    """The order of `values` by a key drawn for each."""
    key = keys(0, torch.from_numpy(values.astype(np.int64)), *parts, "holdout").numpy()
    return np.argsort(key, kind="stable").astype(np.int64)


def content_hash(parts: Iterable[bytes | Bytes | Integers]) -> str:
    """The first 32 hex digits of the parts' SHA-256."""
    digest = hashlib.sha256()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else np.ascontiguousarray(part).data)
    return digest.hexdigest()[:32]


def first(ids: Integers, limit: int | None, where: str) -> Integers:
    """The first `limit` ids; an empty selection is a UserError that says `where` it came up."""
    if len(ids) == 0:
        raise UserError(f"{where} has no samples: nothing to select from.")
    return ids[:limit]


def from_arrays(
    name: str,
    split: str,
    images: Bytes,
    labels: Integers,
    ids: Integers,
    limit: int | None,
    classes: tuple[str, ...],
    threat: ThreatModel,
) -> Data:
    """The first `limit` of `ids` as Data.

    images: (N, H, W) or (N, H, W, C) uint8 and labels (N,) int64 of an official split, of which `ids` are this split.
    Only what is selected is converted; the hash covers images and labels of all `ids`.
    """
    if images.ndim == 3:
        images = images[..., None]
    chosen = first(ids, limit, f"{name}, split {split},")
    pieces = np.array_split(ids, len(ids) // 4096 + 1)  # fancy indexing copies: not the whole set at once
    shape = np.array([len(ids), *images.shape[1:]], dtype=np.int64)
    fingerprint = content_hash([shape, *(images[piece] for piece in pieces), labels[ids]])
    pixels = torch.from_numpy(np.ascontiguousarray(images[chosen].transpose(0, 3, 1, 2)))
    return Data(
        name=name,
        split=split,
        images=pixels.to(torch.float32).div_(255),
        labels=torch.from_numpy(labels[chosen]),
        ids=torch.from_numpy(chosen),
        classes=classes,
        hash=fingerprint,
        threat=threat,
    )


def _tenth(count: int) -> int:
    return -(-count // 10)
