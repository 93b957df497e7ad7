"""The geometry of a threat model: distances, projections, steps and random starts in each norm.

Images are in [0, 1]; every point an attack proposes must lie in the box [0, 1] and within `eps` of the clean image.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from robustlab.base.draws import normal, uniform


def diameter(norm: str, values: int) -> float:
    """The distance between the two images of `values` values in [0, 1] that are farthest apart.

    >>> diameter("linf", 9), diameter("l2", 9), diameter("l1", 9)
    (1.0, 3.0, 9.0)
    """
    return {"linf": 1.0, "l2": math.sqrt(values)}.get(norm, float(values))


def column(v: Tensor, like: Tensor) -> Tensor:
    """(B,) reshaped to (B, 1, 1, ...) so that it multiplies `like`."""
    return v.view(-1, *[1] * (like.ndim - 1))


def distance(delta: Tensor, norm: str) -> Tensor:
    """(B,) float64 norms of (B, ...) perturbations, summed in float64; `l0` counts the values that differ."""
    flat = delta.flatten(1).double()
    if norm == "linf":
        return flat.abs().amax(1)
    if norm == "l2":
        return flat.square().sum(1).sqrt()
    if norm == "l1":
        return flat.abs().sum(1)
    return (flat != 0).sum(1).double()


def project(points: Tensor, clean: Tensor, norm: str, eps: float) -> Tensor:
    """Points moved back into the ball of radius `eps` around `clean` and into the box [0, 1].

    linf: the exact projection. l2: onto the ball, then clipped to the box (both hold, since `clean` is in the box).
    l1: onto the intersection of ball and box, exactly (Croce and Hein 2021, arXiv:2103.01208, section 2).
    points, clean: (B, ...). Returns a new tensor.
    """
    if norm == "linf":
        return torch.clamp(points, (clean - eps).clamp_(min=0), (clean + eps).clamp_(max=1))
    delta = points - clean
    root = math.sqrt(math.prod(delta.shape[1:]))  # rounding clean + delta to float32 adds to a norm in proportion to it
    if norm == "l2":
        length = delta.flatten(1).norm(dim=1).clamp_min(1e-30)
        radius = max(0.0, eps - 3e-8 * root)
        return (clean + delta * column((radius / length).clamp(max=1), delta)).clamp_(0, 1)
    slack = 1e-7 * root
    return (clean + _project_l1(delta, clean, max(0.0, eps - slack))).clamp_(0, 1)


def _project_l1(delta: Tensor, clean: Tensor, eps: float) -> Tensor:
    """argmin over z of |z - delta|_2 with |z|_1 <= eps and clean + z in [0, 1].

    By the KKT conditions |z_i| = min(max(|delta_i| - t, 0), room_i) for one threshold t >= 0 an image, where room_i is
    the way to the box in delta's direction. The sum over i falls with t and is linear between the 2 d breakpoints
    |delta_i| and |delta_i| - room_i, so sorting them and cumulating slopes gives t exactly.
    """
    size = delta.abs().flatten(1).double()
    x = clean.flatten(1).double()
    room = torch.where(delta.flatten(1) > 0, 1 - x, x)
    t = torch.zeros(len(size), dtype=torch.float64, device=size.device)
    outside = torch.minimum(size, room).sum(1) > eps
    if bool(outside.any()):
        a, b = size[outside], room[outside]
        breaks, order = torch.cat([a, a - b], 1).sort(dim=1, descending=True)
        slope = torch.where(order < a.shape[1], 1.0, -1.0).double().cumsum(1)  # of the sum, just below each breakpoint
        gaps = breaks[:, :-1] - breaks[:, 1:]
        total = torch.cat([torch.zeros_like(breaks[:, :1]), (slope[:, :-1] * gaps).cumsum(1)], 1)  # at each breakpoint
        k = ((total <= eps).sum(1, keepdim=True) - 1).clamp_min(
            0
        )  # the last breakpoint at which the sum is still <= eps
        at, value, rate = breaks.gather(1, k), total.gather(1, k), slope.gather(1, k)
        t[outside] = (at - (eps - value) / rate.clamp_min(1))[:, 0].clamp_min(0)
    kept = torch.minimum((size - t[:, None]).clamp_min(0), room)
    return (kept.view_as(delta) * delta.sign()).to(delta.dtype)


def shrink(delta: Tensor, norm: str, radius: Tensor) -> Tensor:
    """delta (B, ...) projected onto the ball of its own radius (B,) in linf, l2, l1 or l0."""
    flat = delta.flatten(1)
    r = radius.to(flat.dtype)[:, None]
    if norm == "linf":
        flat = flat.clamp(-r, r)
    elif norm == "l2":
        flat = flat * (r / flat.norm(dim=1, keepdim=True).clamp_min(1e-30)).clamp(max=1)
    else:
        size, order = flat.abs().sort(dim=1, descending=True)
        if norm == "l0":
            kept = torch.arange(flat.shape[1], device=flat.device) < r
            flat = flat * torch.zeros_like(flat, dtype=torch.bool).scatter_(1, order, kept)
        else:  # soft thresholding (Duchi et al. 2008, figure 1)
            total = size.cumsum(1)
            place = torch.arange(1, flat.shape[1] + 1, device=flat.device)
            last = ((size * place > total - r).sum(1, keepdim=True) - 1).clamp_min(0)
            t = ((total.gather(1, last) - r) / (last + 1)).clamp_min(0)
            flat = torch.where(total[:, -1:] > r, flat.sign() * (flat.abs() - t).clamp_min(0), flat)
    return flat.view_as(delta)


def steepest(gradient: Tensor, points: Tensor, norm: str, size: float) -> Tensor:
    """The step of length `size` along which the loss rises fastest, for each image on its own.

    linf: the sign. l2: the normalised gradient. l1: the values with the largest gradients, each by at most size / k and
    only as far as the box goes, where k is 1 % of the values (sparse steps as in SLIDE, Tramer and Boneh 2019,
    arXiv:1904.13000; what the box cuts off goes to the next values). A zero gradient gives a zero step.
    """
    if norm == "linf":
        return gradient.sign() * size
    flat = gradient.flatten(1)
    if norm == "l2":
        # dividing by the largest value first keeps the squares of very small gradients from underflowing
        flat = flat / flat.abs().amax(1, keepdim=True).clamp_min(1e-37)
        length: Tensor = flat.norm(dim=1, keepdim=True).clamp_min(1e-12)
        return (flat * (size / length)).view_as(gradient)
    x = points.flatten(1)
    cap = torch.where(flat > 0, 1 - x, x).clamp(0, size / max(1, flat.shape[1] // 100)) * (flat != 0)
    order = flat.abs().argsort(dim=1, descending=True)
    caps = cap.gather(1, order)
    spent = (size - (caps.cumsum(1) - caps)).clamp_min(0).minimum(caps)
    step = torch.zeros_like(flat).scatter_(1, order, spent)
    return (step * flat.sign()).view_as(gradient)


def random_start(clean: Tensor, norm: str, eps: float, key: Tensor) -> Tensor:
    """A random point of the ball around each image, inside the box.

    key: (B,) int64 from `draws.keys`. linf: uniform. l2: uniform in the ball (a normal direction times u^(1/d)), then
    clipped. l1: a normal draw projected onto ball and box, so that few values move, each by much (Croce and Hein 2021,
    arXiv:2103.01208, in their code). A uniform draw moves all values by so little that every try starts at about the
    same place, and where the box stops half of them it does not use the budget.
    """
    shape: Sequence[int] = clean.shape[1:]
    if norm == "linf":
        return (clean + (2 * uniform(key, shape) - 1) * eps).clamp_(0, 1)
    direction = normal(key, shape)
    if norm == "l1":
        return project(clean + direction, clean, "l1", eps)
    radius = uniform(key ^ 1, (1,)).double().pow(1 / math.prod(shape)).float()[:, 0] * eps
    direction /= column(direction.flatten(1).norm(dim=1).clamp_min(1e-12), clean)
    return (clean + direction * column(radius, clean)).clamp_(0, 1)
