"""What an attack is called with, checked, and what it returns, in the type of the images that were given."""

from __future__ import annotations

from typing import ClassVar, Protocol

import torch
from torch import Tensor

from robustlab.base.errors import UserError
from robustlab.base.given import check_classes, check_module
from robustlab.base.typed import check_whole
from robustlab.oracle import Access, Oracle
from robustlab.threat.geometry import column, distance
from robustlab.threat.model import allowed


class Called(Protocol):
    """What has to be known of an attack to check its call."""

    needs: ClassVar[Access]

    @property
    def targeted(self) -> bool: ...


def check_call(
    attack: Called,
    oracles: tuple[Oracle, Oracle],
    images: Tensor,
    labels: Tensor,
    targets: Tensor | None,
    seed: int,
    batch_size: int,
) -> None:
    """Raise a `UserError` for what cannot be attacked. oracles: who judges, and who is asked."""
    name = type(attack).__name__
    check_whole("seed", seed, 0)
    check_whole("batch_size", batch_size, 1)
    for oracle in oracles:
        check_module(oracle.model, images.device)
    given = {"labels": labels} if targets is None else {"labels": labels, "targets": targets}
    expected = {what: (int(each.min()), int(each.max())) for what, each in given.items() if len(each)}
    for what, ends in expected.items():
        check_classes(*ends, None, what)
    for oracle in oracles:
        oracle.expected = expected
    if attack.targeted and targets is None:
        raise UserError(f"A targeted {name} needs targets: attack(model, images, labels, targets=...).")
    if not attack.targeted and targets is not None:
        raise UserError(f"targets were given to an untargeted attack; write {name}(targeted=True, ...).")
    if targets is not None and bool((targets.to(labels.device) == labels).any()):
        raise UserError("A target equals its label; leave those samples out, they are there already.")
    if not oracles[1].allows(attack.needs):
        raise UserError(f"{name} needs {attack.needs}, and the target gives only {oracles[1].gives}.")


def as_given(points: Tensor, x: Tensor, images: Tensor, norm: str, eps: float) -> Tensor:
    """Points (n, ...) in the type of `images`, still inside the ball and the box. x: the images in float32.

    float64: the change is added to the image that was given. float16 and bfloat16: each value is the nearest; where the
    image then leaves the ball, each is rounded towards the clean one, which shortens every difference.

    >>> x = torch.tensor([[0.7]], dtype=torch.bfloat16)
    >>> far = as_given(x.float() + 0.031, x.float(), x, "linf", 0.031)
    >>> far.dtype, bool((far.double() - x.double()).abs() <= 0.031)
    (torch.bfloat16, True)
    """
    if images.dtype is torch.float32:
        return points
    clean = images.detach().double()
    exact = (clean + (points.double() - x.double())).clamp(0, 1)
    back = exact.to(images.dtype)
    if torch.finfo(images.dtype).bits != 16:
        return back
    outside = distance(back.double() - clean, norm) > allowed(eps)
    further = (back.double() - clean).abs() > (exact - clean).abs()
    # the bits of floats that are not negative are in their order
    bits = back.abs().view(torch.int16)
    inward = torch.where(back > images, bits - 1, bits + 1).view(images.dtype)
    return torch.where(further & column(outside, further), inward, back)
