"""A step of a training asks for no number, which would wait for a GPU. (Counted on a CPU, by the kind of operation.)"""

from __future__ import annotations

import sys
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from robustlab.training.session import Session, Told
from robustlab.training.start import begin
from tests.training.test_training import DATA, SMALL

WAITING = {"aten::_local_scalar_dense", "aten::nonzero", "aten::equal", "aten::masked_select"}
EXTRAS: dict[str, Any] = {
    "ema": 0.9,
    "awp": 0.01,
    "clip": 0.5,
    "mixup": 1.0,
    "smoothing": 0.1,
    "cutout": 3,
    "flip": True,
}


class Waits(TorchDispatchMode):
    """The files from which operations come whose result the host has to know."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[str] = Counter()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.name().partition(".")[0]
        masks = name.startswith("aten::index") and any(
            isinstance(i, Tensor) and i.dtype is torch.bool
            for arg in args
            if isinstance(arg, list | tuple)
            for i in arg
        )
        if name in WAITING or masks:
            frame = sys._getframe()
            while "robustlab" not in frame.f_code.co_filename and frame.f_back is not None:
                frame = frame.f_back
            self.found[Path(frame.f_code.co_filename).name] += 1
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("extras", [{}, EXTRAS], ids=["bare", "extras"])
@pytest.mark.parametrize("method", ["", "n-fgsm", "pgd-at", "trades", "mart"])
def test_a_step_waits_for_nothing(method: str, extras: dict[str, Any]) -> None:
    defense = {"method": method, "eps": 0.1} if method else {}
    recipe = replace(SMALL, defense=defense | ({"steps": 2} if method not in ("", "n-fgsm") else {}), **extras)
    start = begin("cnn", DATA[0], recipe, 0, Path())
    session = Session(start, *DATA, recipe, DATA[0].threat, 0, torch.device("cpu"), Told())
    session._step(torch.arange(16), 2, 1.0)
    with Waits() as waits:
        session._step(torch.arange(16), 2, 1.1)
    waits.found.pop("module_state.py", None)  # buffers are compared on CPUs only
    assert not waits.found
    with Waits() as waits:
        torch.ones(2).sum().item()
    assert waits.found.total() == 1
