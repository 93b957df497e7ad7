"""Shuffling, augmentation and the learning rate: each a pure function, so that a resumed run repeats itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

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


def cut_out(x: Tensor, ids: Tensor, seed: int, epoch: int, side: int) -> Tensor:
    """Each image with a square of `side` pixels in its mean colour (DeVries and Taylor 2017, arXiv:1708.04552).

    The square's centre is anywhere in the image, so that a part of it may be outside. x: (B, C, H, W).
    """
    if not side:
        return x
    u = uniform(keys(seed, ids, "cutout", epoch), (2,))
    hidden = []
    for length, at in zip(x.shape[2:], u.T, strict=True):
        first = (at * length).long() - side // 2
        place = torch.arange(length, device=x.device)
        hidden.append((place >= first[:, None]) & (place < first[:, None] + side))
    square = hidden[0][:, None, :, None] & hidden[1][:, None, None, :]
    return torch.where(square, x.mean((2, 3), keepdim=True), x)


def own_shares(ids: Tensor, seed: int, epoch: int, alpha: float) -> Tensor:
    """(B,) in [0.5, 1]: what is left of each image in a mixup (Zhang et al. 2018, arXiv:1710.09412).

    Drawn from Beta(alpha, alpha), an own one for each image; the larger part is always the image's. ids: (B,).
    """
    from scipy.special import betaincinv

    u = uniform(keys(seed, ids, "mixup", epoch), (1,))[:, 0].double().cpu().numpy()
    share = torch.from_numpy(betaincinv(alpha, alpha, u)).float().to(ids.device)
    return torch.maximum(share, 1 - share)


def partners(ids: Tensor, seed: int, epoch: int) -> Tensor:
    """(B,): the position in the batch of the image that each one is mixed with. ids: (B,), of the whole batch."""
    return keys(seed, ids, "partner", epoch).argsort()


def learning_rate(
    step: int, steps: int, peak: float, warmup: float, schedule: str = "cosine", drops: Sequence[float] = ()
) -> float:
    """Up to `peak` in a line over the share `warmup` of the steps, and then as `schedule` says.

    cosine: down to 0 along a cosine. cyclic: down to 0 in a line (Wong et al. 2020). piecewise: a tenth of
    what it was at each of `drops`, shares of all steps. constant: no further change.
    Taken in the middle of each step, so that any number of steps, also 1, gives a rate above 0.

    >>> [round(learning_rate(i, 4, 1.0, 0.5), 3) for i in range(4)]
    [0.25, 0.75, 0.854, 0.146]
    >>> [round(learning_rate(i, 4, 1.0, 0.0, "piecewise", [0.5, 0.75]), 3) for i in range(4)]
    [1.0, 1.0, 0.1, 0.01]
    """
    t = (step + 0.5) / steps
    if t < warmup:
        return peak * t / warmup
    if schedule == "piecewise":
        return float(peak * 0.1 ** sum(t >= drop for drop in drops))
    return peak * SCHEDULES[schedule]((t - warmup) / (1 - warmup))


# the share of the peak, by the share of the steps after the warm-up
SCHEDULES: dict[str, Callable[[float], float]] = {
    "cosine": lambda t: 0.5 * (1 + math.cos(math.pi * t)),
    "cyclic": lambda t: 1 - t,
    "constant": lambda t: 1.0,
}
