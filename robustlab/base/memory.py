"""Errors of the machine: batches that halve where memory runs out, and what is said where that does not help."""

from __future__ import annotations

import gc
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TypeVar

import torch

from robustlab.base.errors import RunError, spelled
from robustlab.base.words import first_line

T = TypeVar("T")

_MEMORY = re.compile("out of memory|can't allocate memory|not enough memory|bad_alloc|ALLOC_FAILED", re.IGNORECASE)
_DEVICE = re.compile("CUDA error|CUBLAS|CUDNN", re.IGNORECASE)


def out_of_memory(error: BaseException) -> bool:
    """Did memory run out? On a CPU torch says so in a plain RuntimeError.

    >>> out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory")), out_of_memory(ValueError("x"))
    (True, False)
    """
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_MEMORY.search(str(error)))


def of_the_machine(error: BaseException) -> bool:
    """Is it the machine that failed? Such an error says nothing about model and samples."""
    return out_of_memory(error) or (isinstance(error, RuntimeError) and bool(_DEVICE.search(str(error))))


@dataclass
class Batches:
    """The batch size of a piece of work: it halves where memory runs out, and stays there.

    >>> Batches(8, print).fit(lambda size: [0] * size)
    [0, 0, 0, 0, 0, 0, 0, 0]
    """

    size: int
    told: Callable[[str], None]

    def fit(self, work: Callable[[int], T]) -> T:
        """`work(size)`, done again from its start with half of the size as often as memory runs out."""
        while True:
            try:
                return work(self.size)
            except Exception as error:
                if not out_of_memory(error):
                    raise
                if self.size == 1:
                    raise RunError(
                        "Memory runs out with a batch of one image. What is finished is kept: go on with"
                        f" {spelled('resume', True)} on another device or a larger machine, or use smaller images."
                    ) from error
            self.size //= 2  # only here is the error gone, and with it the frames that hold the tensors
            gc.collect()
            torch.cuda.empty_cache()
            self.told(f"Out of memory: going on with batches of {self.size}.")


@contextmanager
def machine_failures() -> Iterator[None]:
    """An error of the machine becomes a `RunError` that says how to go on."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if isinstance(error, RunError) or not of_the_machine(error):
            raise
        raise RunError(
            f"The machine could not go on: {first_line(error)}. What is finished is kept: go on with"
            f" {spelled('resume', True)}, with a smaller {spelled('batch_size')} or on another device."
        ) from error
