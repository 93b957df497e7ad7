"""Choosing samples: by id, by class, the first N."""

from __future__ import annotations

import unicodedata
from collections.abc import Sequence

import torch
from torch import Tensor

from robustlab.base.errors import UserError, did_you_mean
from robustlab.base.words import listed, some
from robustlab.data import Data


def composed(name: str) -> str:
    r"""The name with letters and their marks in one (Unicode form C): a Mac writes folder names with them apart.

    Not form K, which also merges what people tell apart: x and a superscript 2 would be the class x2.

    >>> len("u\u0308"), len(composed("u\u0308"))
    (2, 1)
    """
    return unicodedata.normalize("NFC", name)


def class_index(name: str, classes: Sequence[str]) -> int:
    """The index of a class given by name or by number.

    >>> class_index("yield", ["stop", "yield"]), class_index("0", ["stop", "yield"])
    (1, 0)
    """
    if (found := [k for k, each in enumerate(classes) if each == name])[1:]:
        numbers = listed([*map(str, found)], "or")
        raise UserError(f"{len(found)} classes are called {name!r}: give the number of one, {numbers}.")
    if found:
        return found[0]
    same = [k for k, each in enumerate(classes) if composed(each) == composed(name)]
    if len(same) == 1:
        return same[0]
    if name.isdecimal() and int(name) < len(classes):
        return int(name)
    raise UserError(f"There is no class {name!r}.{did_you_mean(name, classes)} Classes: {some(classes, 20)}.")


def select(data: Data, *, ids: Sequence[int] = (), classes: Sequence[str] = (), limit: int | None = None) -> Data:
    """The samples with these ids and of these classes (empty: all), then the first `limit`, in the set's order."""
    index = positions(f"{data.name} ({data.split})", data.ids, data.labels, data.classes, ids, classes)[:limit]
    return data if len(index) == len(data) else data.take(index)


def positions(
    where: str, there: Tensor, labels: Tensor, names: Sequence[str], ids: Sequence[int], classes: Sequence[str]
) -> Tensor:
    """The positions of the samples with these ids and of these classes (empty: all), in their order.

    there, labels: (N,) int64, the ids and classes of all samples; names: of the classes.
    """
    mask = torch.ones(len(there), dtype=torch.bool)
    if ids:
        if missing := sorted(set(ids) - set(there.tolist())):
            raise UserError(f"{where} has no sample with id {missing[0]}; it has {len(there)}.")
        mask &= torch.isin(there, torch.tensor(list(ids)))
    if classes:
        mask &= torch.isin(labels, torch.tensor([class_index(name, names) for name in classes]))
    if not mask.any():
        raise UserError("No sample is left: the selection of ids and classes is empty.")
    return mask.nonzero()[:, 0]
