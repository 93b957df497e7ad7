"""Judging finished points: in float32 by the given module, inside the budget and the box, and once more in 8 bits.

A randomised model is asked several times. It is right where at least half of its answers are, and wrong where more
than half are (with a target: more than half are the target).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields

import torch
import torch.nn.functional as F
from torch import Tensor

from robustlab.base.module_state import kept_state
from robustlab.oracle import ask, most
from robustlab.threat.geometry import column, distance
from robustlab.threat.model import NORMS, TOLERANCE, ThreatModel, allowed


@dataclass(frozen=True, eq=False)
class Verdict:
    """What the target says of n points; every field has n entries.

    success: what the threat model asks for. inside: within eps and the box. success_8bit: still a success after
    rounding to 8 bits, and still inside the ball; leaves_8bit: no rounded image inside the ball was found.
    """

    prediction: Tensor
    confidence: Tensor
    success: Tensor
    inside: Tensor
    success_8bit: Tensor
    leaves_8bit: Tensor
    sizes: dict[str, Tensor]


def logits_of(model: Callable[[Tensor], Tensor], images: Tensor, batch_size: int) -> Tensor:
    """(n, K) float32 logits, batch by batch, without a gradient. Buffers that the model changes are put back."""
    with torch.no_grad(), kept_state(model):
        return torch.cat([ask(model, part).float() for part in images.split(batch_size)])


def looks_of(model: Callable[[Tensor], Tensor], images: Tensor, batch_size: int, evaluations: int) -> Tensor:
    """(evaluations, n, K): `logits_of`, as often as the model is to be asked."""
    return torch.stack([logits_of(model, images, batch_size) for _ in range(evaluations)])


def answers(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """(n,) the class that the looks (evaluations, n, K) answer with, and its mean probability.

    The label where at least half of them do, otherwise the most frequent other class, the lowest among equals.

    >>> z = F.one_hot(torch.tensor([[0, 1], [2, 2], [1, 2]]), 3).float()
    >>> answers(z, torch.tensor([1, 2]))[0].tolist()
    [0, 2]
    """
    said = logits.argmax(2)
    wrong = most(said != labels)
    others = F.one_hot(said, logits.shape[2]).sum(0).scatter(1, labels[:, None], -1)
    answer = torch.where(wrong, others.argmax(1), labels)
    return answer, logits.softmax(2).mean(0).gather(1, answer[:, None])[:, 0]


def own_answers(logits: Tensor) -> Tensor:
    """(n,) the most frequent answer of the looks (evaluations, n, K), the lowest class among equals."""
    return F.one_hot(logits.argmax(2), logits.shape[2]).sum(0).argmax(1)


def to_8bit(points: Tensor, clean: Tensor, threat: ThreatModel) -> Tensor:
    """Points on the grid k / 255 and, if that can be, inside the ball.

    linf: the nearest grid value inside the ball, value by value. Other norms: the nearest grid value; where that image
    leaves the ball, each value is rounded towards the clean image instead, which shortens every difference.

    >>> to_8bit(torch.tensor([[0.499]]), torch.tensor([[128 / 255]]), ThreatModel(eps=1 / 255)).mul(255).tolist()
    [[127.0]]
    """
    exact, origin = points.double() * 255, clean.double() * 255
    grid, slack = exact.round(), 255 * TOLERANCE
    if threat.norm == "linf":
        low = (origin - 255 * threat.eps - slack).ceil().clamp_min(0)
        high = (origin + 255 * threat.eps + slack).floor().clamp_max(255)
        grid = torch.where(low <= high, torch.clamp(grid, low, high), grid)
    else:
        outside = distance((grid - origin) / 255, threat.norm) > allowed(threat.eps)
        inward = torch.where(exact > origin, (exact + slack).floor(), (exact - slack).ceil())
        grid = torch.where(column(outside, grid), inward, grid)
    return (grid / 255).to(points.dtype)


def judge(
    model: Callable[[Tensor], Tensor],
    points: Tensor,
    clean: Tensor,
    labels: Tensor,
    targets: Tensor,
    threat: ThreatModel,
    batch_size: int,
    evaluations: int = 1,
) -> Verdict:
    """Look at n finished points once more. points, clean: (n, C, H, W) in [0, 1]; targets: (n,), read when targeted.

    evaluations: how often the model is asked, if it is randomised; the majority decides.
    """
    parts = zip(*(each.split(batch_size) for each in (points, clean, labels, targets)), strict=True)
    verdicts = [_judge(model, x, x0, y, t, threat, evaluations) for x, x0, y, t in parts]
    joined = {f.name: torch.cat([getattr(v, f.name) for v in verdicts]) for f in fields(Verdict) if f.name != "sizes"}
    return Verdict(**joined, sizes={norm: torch.cat([v.sizes[norm] for v in verdicts]) for norm in NORMS})


def _judge(
    model: Callable[[Tensor], Tensor],
    points: Tensor,
    clean: Tensor,
    labels: Tensor,
    targets: Tensor,
    threat: ThreatModel,
    evaluations: int,
) -> Verdict:
    """`judge` for one batch: distances are summed in float64, which a whole chunk of large images has no room for."""

    def success(logits: Tensor) -> Tensor:
        predicted = logits.argmax(2)
        wrong = most(predicted == targets if threat.targeted else predicted != labels)
        return wrong & torch.isfinite(logits).all(2).all(0)

    logits = looks_of(model, points, len(points), evaluations)
    prediction, confidence = answers(logits, labels)
    sizes = {norm: distance(points - clean, norm) for norm in NORMS}
    radius = allowed(threat.eps)
    flat = points.flatten(1)
    rounded = to_8bit(points, clean, threat)
    leaves = distance(rounded - clean, threat.norm) > radius
    return Verdict(
        prediction=prediction,
        confidence=confidence,
        success=success(logits),
        inside=(sizes[threat.norm] <= radius) & (flat.amin(1) >= 0) & (flat.amax(1) <= 1),
        success_8bit=success(looks_of(model, rounded, len(points), evaluations)) & ~leaves,
        leaves_8bit=leaves,
        sizes=sizes,
    )
