"""What training does to weights beside the optimiser's steps: a moving average, and AWP."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor, nn

from robustlab.base.module_state import kept_state
from robustlab.base.processes import World

M = TypeVar("M", bound=nn.Module)


class Average(Generic[M]):
    """A moving average of a module's weights, as a module of its own: `module`.

    decay: the share that stays in each step (Izmailov et al. 2018 average as well, arXiv:1803.05407); at the beginning
    it is smaller, (1 + step) / (10 + step), or the first weights would stay for long. Counters are copied.

    >>> net = nn.Linear(1, 1)
    >>> average = Average(net, decay=0.5)
    >>> _ = net.weight.data.add_(1.0)
    >>> average.update(net)
    >>> round(float((average.module.weight - net.weight).detach()), 4)  # after the first step, a tenth is old
    -0.1
    """

    def __init__(self, module: M, decay: float) -> None:
        self.decay, self.steps = decay, 0
        self.module: M = copy.deepcopy(module).requires_grad_(False)

    def update(self, module: nn.Module) -> None:
        """Take the weights of the module in, after a step of its optimiser."""
        decay = min(self.decay, (1 + self.steps) / (10 + self.steps))
        self.steps += 1
        with torch.no_grad():
            for there, here in zip(_tensors(self.module), _tensors(module), strict=True):
                if there.is_floating_point():
                    there.lerp_(here, 1 - decay)
                else:
                    there.copy_(here)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds of it."""
        return {"steps": self.steps, "module": self.module.state_dict()}

    def restore(self, state: dict[str, Any]) -> None:
        """Go on from what `state` gave."""
        self.steps = state["steps"]
        self.module.load_state_dict(state["module"])


def _tensors(module: nn.Module) -> list[Tensor]:
    return [*module.parameters(), *module.buffers()]


@contextmanager
def worst_nearby(
    module: nn.Module, kernels: list[nn.Parameter], size: float, loss: Callable[[], Tensor], world: World
) -> Iterator[None]:
    """The kernels where the loss is larger, meanwhile: AWP (Wu et al. 2020, arXiv:2004.05884, eqs. 8 to 11).

    Each kernel moves by `size` times its own norm along its gradient; then it is put back, exactly (before the
    optimiser's step, so that weight decay acts on it as it is; the authors put it back after). loss: computes it once
    more, a mean over the batch, which is averaged over the processes: a training step more. BatchNorm's statistics do
    not see that pass.
    """
    with kept_state(module):
        gradients = torch.autograd.grad(loss(), kernels, allow_unused=True)
    world.average([gradient for gradient in gradients if gradient is not None])
    before = [kernel.detach().clone() for kernel in kernels]
    with torch.no_grad():
        for kernel, gradient in zip(kernels, gradients, strict=True):
            if gradient is not None:
                kernel.add_(gradient * (size * kernel.norm() / gradient.norm().clamp_min(1e-20)))
    try:
        yield
    finally:
        with torch.no_grad():
            for kernel, old in zip(kernels, before, strict=True):
                kernel.copy_(old)
