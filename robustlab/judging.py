"""Judging finished points: in float32 by the given module, inside the budget and the box, and once more in 8 bits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from robustlab.threat import NORMS, ThreatModel, distance

TOLERANCE = 1e-6  # of max(1, eps): what rounding to float32 may add to a distance


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the target says of n points; every field has n entries.

    fooled: the criterion of the threat model holds. inside: within eps and the box. fooled_8bit: still fooled after
    rounding to 8 bits; leaves_8bit: the rounded image is outside the ball (never for linf).
    """

    prediction: Tensor
    confidence: Tensor
    fooled: Tensor
    inside: Tensor
    fooled_8bit: Tensor
    leaves_8bit: Tensor
    sizes: dict[str, Tensor]


def logits_of(model: Callable[[Tensor], Tensor], images: Tensor, batch_size: int) -> Tensor:
    """(n, K) float32 logits, batch by batch, without a gradient."""
    with torch.no_grad():
        return torch.cat([model(part).float() for part in images.split(batch_size)])


def to_8bit(points: Tensor, clean: Tensor, threat: ThreatModel) -> Tensor:
    """Points on the grid k / 255. In linf: the nearest grid value inside the ball, where the ball holds one.

    >>> to_8bit(torch.tensor([[0.499]]), torch.tensor([[128 / 255]]), ThreatModel(eps=1 / 255)).mul(255).tolist()
    [[127.0]]
    """
    grid = (points.double() * 255).round()
    if threat.norm == "linf":
        slack = 255 * TOLERANCE
        low = ((clean.double() - threat.eps) * 255 - slack).ceil().clamp_min(0)
        high = ((clean.double() + threat.eps) * 255 + slack).floor().clamp_max(255)
        grid = torch.where(low <= high, torch.clamp(grid, low, high), grid)
    return (grid / 255).to(points.dtype)


def judge(
    model: Callable[[Tensor], Tensor],
    points: Tensor,
    clean: Tensor,
    labels: Tensor,
    targets: Tensor,
    threat: ThreatModel,
    batch_size: int,
) -> Verdict:
    """Look at n finished points once more. points, clean: (n, C, H, W) in [0, 1]; targets: (n,), read when targeted."""

    def fooled(logits: Tensor) -> Tensor:
        predicted = logits.argmax(1)
        return predicted == targets if threat.targeted else predicted != labels

    logits = logits_of(model, points, batch_size)
    sizes = {norm: distance(points - clean, norm) for norm in NORMS}
    allowed = threat.eps + TOLERANCE * max(1.0, threat.eps)
    flat = points.flatten(1)
    rounded = to_8bit(points, clean, threat)
    return Verdict(
        prediction=logits.argmax(1),
        confidence=logits.softmax(1).amax(1),
        fooled=fooled(logits),
        inside=(sizes[threat.norm] <= allowed) & (flat.amin(1) >= 0) & (flat.amax(1) <= 1),
        fooled_8bit=fooled(logits_of(model, rounded, batch_size)),
        leaves_8bit=distance(rounded - clean, threat.norm) > allowed,
        sizes=sizes,
    )
