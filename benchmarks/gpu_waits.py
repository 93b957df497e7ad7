"""How often a step of an attack waits for the device, and where."""

from __future__ import annotations

import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

HERE = Path(__file__).resolve().parents[1]
WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select"}
INDEXING = {"aten::index", "aten::index_put", "aten::index_put_"}


class Ops(TorchDispatchMode):
    """Counts the operations that would make the host wait for a GPU, by the line of this project that calls them.

    A CPU waits for nothing; there this is the nearest thing to a count. Copies to the host are not seen: a `tolist()`
    of a tensor is none of these operations.
    """

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        masks = name in INDEXING and any(isinstance(i, Tensor) and i.dtype is torch.bool for i in args[1])
        if name in WAITING or masks:
            self.found[f"{_line()} {name.removeprefix('aten::')}"] += 1
        return func(*args, **(kwargs or {}))


def _line() -> str:
    """The innermost line of robustlab that is being executed."""
    frame = sys._getframe()
    while frame is not None and "robustlab/" not in frame.f_code.co_filename.replace(str(HERE), ""):
        frame = frame.f_back  # type: ignore[assignment]
    return "elsewhere" if frame is None else f"{Path(frame.f_code.co_filename).relative_to(HERE)}:{frame.f_lineno}"


@contextmanager
def counted(device: torch.device) -> Iterator[Counter[str]]:
    """What waits while the block runs: as CUDA says, or on a CPU the operations that would."""
    if device.type != "cuda":
        with Ops() as ops:
            yield ops.found
        return
    found: Counter[str] = Counter()
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.cuda.set_sync_debug_mode("warn")
        try:
            yield found
        finally:
            torch.cuda.set_sync_debug_mode("default")
    for one in said:
        if "synchronizing" in str(one.message):
            path = Path(one.filename)
            found[f"{path.relative_to(HERE) if path.is_relative_to(HERE) else path.name}:{one.lineno}"] += 1


def per_step(attack: Callable[[int], Any], device: torch.device, few: int = 6, many: int = 16) -> dict[str, float]:
    """Waits in one steady step, by line: what `many` steps have more than `few`, by the number of steps between.

    attack: runs so many steps, of which none differs from another.
    """
    attack(few)  # what happens once only is behind us
    with counted(device) as first:
        attack(few)
    with counted(device) as second:
        attack(many)
    each = {line: (second[line] - first[line]) / (many - few) for line in second | first}
    return {line: count for line, count in sorted(each.items(), key=lambda item: -item[1]) if count > 0}
