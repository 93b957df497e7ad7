"""Does a model answer the same again: at once, from the same state, and among other images?"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from robustlab.base.errors import UserError
from robustlab.base.module_state import Buffers


@dataclass(frozen=True)
class Repeats:
    """What was seen of a batch. first: the outputs (N, K); state: they depend on what was asked before.

    again, elsewhere: the largest difference of an output in a second evaluation, and in batches of half the size in
    reversed order; 0 where it says nothing (a single image, or another reason that is found first).
    """

    first: Tensor
    again: float
    state: bool
    elsewhere: float

    @property
    def slack(self) -> float:
        """What rounding may do."""
        return max(1e-4, 16 * torch.finfo(self.first.dtype).eps) * (1 + float(self.first.abs().max()))

    @property
    def randomised(self) -> bool:
        return self.again > self.slack and not self.state

    @property
    def batch(self) -> bool:
        """Does the answer to an image depend on the other images?"""
        return self.elsewhere > self.slack


def repeats(model: nn.Module, images: Tensor, answer: Callable[[Tensor], Tensor]) -> Repeats:
    """Ask four times at most. answer: the outputs (n, K) of the model, in eval mode, for (n, C, H, W).

    >>> net = nn.Sequential(nn.BatchNorm2d(3, track_running_stats=False), nn.Flatten()).eval()
    >>> found = repeats(net, torch.rand(4, 3, 2, 2), net)
    >>> found.randomised, found.state, found.batch
    (False, False, True)
    """
    before = Buffers(model)
    try:
        with torch.no_grad():
            first = answer(images)
            again = float((answer(images) - first).abs().max())
            state = False
            if before.restore() and again > 0:  # from the same state the same answers: then the state is the reason
                state = float((answer(images) - first).abs().max()) <= 0.1 * again
                before.restore()
            found = Repeats(first, again, state, 0.0)
            if found.randomised or state or len(images) < 2:
                return found
            halves = []
            try:
                for part in images.flip(0).split((len(images) + 1) // 2):
                    halves.append(answer(part))
                    before.restore()
            except UserError:  # it takes batches of one size only, as the run will say if it meets another
                return found
            return Repeats(first, again, state, float((torch.cat(halves).flip(0) - first).abs().max()))
    finally:
        before.restore()
