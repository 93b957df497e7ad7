"""One process, or several under torchrun: who does what, what all of them agree on, and who writes the shared files."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist
from torch import Tensor

from robustlab.base.errors import RunError

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """This process among `size`, as torchrun's environment variables say.

    >>> World(rank=1, size=2).share(["a", "b", "c", "d"])
    ['b', 'd']
    """

    rank: int = 0
    size: int = 1

    @classmethod
    def join(cls) -> World:
        size = int(os.environ.get("WORLD_SIZE", "1"))
        if size > 1 and not dist.is_initialized():
            # gloo for what lies in main memory and for waiting, NCCL for tensors on GPUs (its first use sets it up)
            several = dist.is_nccl_available() and torch.cuda.is_available()
            dist.init_process_group("cpu:gloo,cuda:nccl" if several else "gloo", timeout=timedelta(days=7))
        return cls(int(os.environ.get("RANK", "0")), size)

    @property
    def first(self) -> bool:
        return self.rank == 0

    def device(self, device: torch.device) -> torch.device:
        """This process's own GPU, where the device is `cuda` without a number."""
        if device.type == "cuda" and device.index is None and self.size > 1:
            return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))
        return device

    def share(self, items: Sequence[T]) -> list[T]:
        """Item i goes to the process i mod size."""
        return list(items[self.rank :: self.size])

    def places(self, n: int) -> Tensor:
        """This process's share of n positions, as a tensor: position i goes to the process i mod size.

        >>> World(rank=1, size=2).places(5).tolist()
        [1, 3]
        """
        return torch.arange(self.rank, n, self.size)

    def agree(self, value: T) -> T:
        """The first process's value, in every process."""
        if self.size > 1:
            held = [value]
            with others_there():
                dist.broadcast_object_list(held, src=0)
            return held[0]
        return value

    def sum(self, value: Tensor) -> Tensor:
        """The sum of a tensor over all processes, the same bits in each."""
        if self.size > 1:
            value = value.clone()
            with others_there():
                dist.all_reduce(value)
        return value

    def spread(self, tensor: Tensor) -> None:
        """Put the first process's values into a tensor."""
        if self.size > 1:
            with others_there():
                dist.broadcast(tensor, src=0)

    def average(self, tensors: Sequence[Tensor]) -> None:
        """Put the mean over all processes into the tensors, which are of one type and on one device."""
        if self.size > 1 and tensors:
            joined = self.sum(torch.cat([tensor.reshape(-1) for tensor in tensors])) / self.size
            for tensor, mean in zip(tensors, joined.split([tensor.numel() for tensor in tensors]), strict=True):
                tensor.copy_(mean.view(tensor.shape))

    def wait(self) -> None:
        """Until every process is here."""
        self.sum(torch.zeros(1))


ALONE = World()


@contextmanager
def others_there() -> Iterator[None]:
    """A `RunError` where the block fails because another process has ended."""
    try:
        yield
    except RuntimeError as error:  # gloo raises no kind of its own
        if not (isinstance(error, dist.DistError) or "gloo" in str(error)):
            raise
        raise RunError("Another process of this job has ended, so this one ends, too. That one says why.") from error
