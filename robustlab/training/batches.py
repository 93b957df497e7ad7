"""Shuffling, augmentation and the learning rate: each a pure function, so that a resumed run repeats itself."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.base.draws import keys, uniform


def shuffled(ids: Tensor, seed: int, epoch: int, batch_size: int) -> tuple[Tensor, ...]:
    """Positions in batches that differ in size by at most one: no tiny last batch upsets BatchNorm."""
    order = keys(seed, ids, "order", epoch).argsort()
    return torch.tensor_split(order, math.ceil(len(ids) / batch_size))


def augmented(x: Tensor, ids: Tensor, seed: int, epoch: int, shift: int, flip: bool) -> Tensor:
    """Each image moved by up to `shift` pixels each way, edges repeated; with `flip`, half of them mirrored.

    x: (B, C, H, W). ids: (B,) int64. The same image in the same epoch moves the same way, whatever the batch.
    """
    if not (shift or flip):
        return x
    u = uniform(keys(seed, ids, "augment", epoch), (3,))
    high, wide = x.shape[2:]
    rows = torch.arange(high, device=x.device) + (u[:, :1] * (2 * shift + 1)).long()
    columns = torch.arange(wide, device=x.device).expand(len(x), wide)
    if flip:
        columns = torch.where(u[:, 1:2] < 0.5, columns, wide - 1 - columns)
    columns = columns + (u[:, 2:] * (2 * shift + 1)).long()
    padded = F.pad(x, (shift,) * 4, mode="replicate")
    image = torch.arange(len(x), device=x.device)[:, None, None]
    return padded[image, :, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def learning_rate(step: int, steps: int, peak: float, warmup: float) -> float:
    """One cycle: up to `peak` in a line over the share `warmup` of the steps, then down to 0 along a cosine.

    Taken in the middle of each step, so that any number of steps, also 1, gives a rate above 0.

    >>> [round(learning_rate(i, 4, 1.0, 0.5), 3) for i in range(4)]
    [0.25, 0.75, 0.854, 0.146]
    """
    t = (step + 0.5) / steps
    if t < warmup:
        return peak * t / warmup
    return peak * 0.5 * (1 + math.cos(math.pi * (t - warmup) / (1 - warmup)))
