"""What a training minimises, as one module: of one process, and of several."""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from robustlab.base.processes import World
from robustlab.defenses.base import Defense
from robustlab.defenses.batch import Batch


class Objective(nn.Module):
    """A model and what it is trained to: from a batch, and what is learned from, to logits and loss.

    l1: weight of the absolute values of the kernels in the loss. It is one module, so that one forward and one backward
    pass of DistributedDataParallel is a whole step, of TRADES, too.
    """

    def __init__(self, model: nn.Module, defense: Defense, kernels: Sequence[nn.Parameter], l1: float) -> None:
        super().__init__()
        self.model, self.defense = model, defense
        self.kernels, self.l1 = list(kernels), l1

    def forward(self, batch: Batch, near: Tensor) -> tuple[Tensor, Tensor]:
        logits, loss = self.defense.loss(self.model, batch, near)
        return logits, loss + (self.l1 * sum(p.abs().sum() for p in self.kernels) if self.l1 else 0.0)


def together(objective: Objective, world: World, all_used: bool) -> nn.Module:
    """The same, but a backward pass leaves the mean of the gradients of all processes.

    all_used: does every parameter take part in every step?
    """
    if world.size == 1:
        return objective
    return DistributedDataParallel(objective, find_unused_parameters=not all_used)


@contextmanager
def quiet() -> Iterator[None]:
    """Without what DistributedDataParallel warns of: it looks at strides, and for parameters that are not used."""
    with warnings.catch_warnings():
        for text in ("Grad strides do not match bucket view strides", "find_unused_parameters=True was specified"):
            warnings.filterwarnings("ignore", text)
        yield
