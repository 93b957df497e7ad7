"""What objects of other libraries need around them: seeds of their random numbers, and their fields in a record."""

from __future__ import annotations

import hashlib
import math
import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import Tensor

from robustlab.oracle import forked

_ADDRESS = re.compile(r" at 0x[0-9a-fA-F]+")


@contextmanager
def seeded(device: torch.device, seed: int, ids: Tensor) -> Iterator[None]:
    """The generators of torch, NumPy and Python seeded by a call's seed and its samples, and put back afterwards.

    >>> with seeded(torch.device("cpu"), 0, torch.arange(3)):
    ...     first = torch.rand(2), np.random.rand(), random.random()
    >>> with seeded(torch.device("cpu"), 0, torch.arange(3)):
    ...     bool((torch.rand(2) == first[0]).all()), np.random.rand() == first[1], random.random() == first[2]
    (True, True, True)
    """
    numpy, python = np.random.get_state(), random.getstate()
    with forked(device, seed, ids.tolist()):
        start = int(torch.randint(2**31, (1,)))
        np.random.seed(start)
        random.seed(start)
        try:
            yield
        finally:
            np.random.set_state(numpy)
            random.setstate(python)


def recorded(value: Any) -> Any:
    """A field of a foreign object as run.json holds it: the same in every process."""
    if value is None or isinstance(value, bool | int | str) or (isinstance(value, float) and math.isfinite(value)):
        return value
    if isinstance(value, Tensor | np.ndarray):
        digest = hashlib.sha256(np.asarray(value).tobytes()).hexdigest()[:16]
        return f"{type(value).__name__} {tuple(value.shape)} {digest}"
    return _ADDRESS.sub("", repr(value))
