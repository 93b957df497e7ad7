"""What an attack returns for images in another type than float32, in which it searches."""

from __future__ import annotations

import torch
from torch import Tensor

from robustlab.threat.geometry import column, distance
from robustlab.threat.model import allowed


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
