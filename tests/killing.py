"""A process that dies before its k-th touch of a file under an output folder."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

from robustlab.base.files import directory, lock

TOUCHES = {"open", "mkdir", "link", "rename", "unlink", "rmdir", "write", "fsync", "listdir"}


class Counting:
    """The module os, as the modules that write see it."""

    def __init__(self, at: int, die: Callable[[], Any]) -> None:
        self.at, self.die, self.count = at, die, 0

    def __getattr__(self, name: str) -> Any:
        real = getattr(os, name)
        if name not in TOUCHES:
            return real

        def touch(*args: Any, **options: Any) -> Any:
            self.count += 1
            if self.count == self.at:
                self.die()
            return real(*args, **options)

        return touch


def die_at(at: int, die: Callable[[], Any] = lambda: os._exit(9)) -> Counting:
    """From now on, count what is done to files; `die` before the one with this number (0: never)."""
    counting = Counting(at, die)
    directory.os = lock.os = counting  # type: ignore[attr-defined]
    return counting
