"""One process, or several under torchrun: who does which chunks, and who writes the shared files."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

import torch
import torch.distributed as dist

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
            # gloo on CPU and GPU alike: processes only wait for each other, results travel as files
            dist.init_process_group("gloo", timeout=timedelta(days=7))
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

    def agree(self, value: T) -> T:
        """The first process's value, in every process."""
        if self.size > 1:
            held = [value]
            dist.broadcast_object_list(held, src=0)
            return held[0]
        return value

    def wait(self) -> None:
        """Until every process is here."""
        if self.size > 1:
            dist.barrier()
