"""Counter-based random numbers, keyed by (seed, sample id, ...).

A draw is a pure function of its key: no generator has a state, so batch size, order, resume and the number of
processes cannot change it, and no global seed is touched. The mixing function is splitmix64 (Steele, Lea and Flood
2014, "Fast splittable pseudorandom number generators") in wrapping int64 arithmetic, so CPU and GPU give the same bits.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Sequence

import torch
from torch import Tensor

# splitmix64's constants as signed 64-bit integers
_GOLDEN = -7046029254386353131
_M1 = -4658895280553007687
_M2 = -7723592293110705685


def _mix(z: Tensor) -> Tensor:
    z = (z ^ ((z >> 30) & 0x3FFFFFFFF)) * _M1  # the masks turn the arithmetic shift into a logical one
    z = (z ^ ((z >> 27) & 0x1FFFFFFFFF)) * _M2
    return z ^ ((z >> 31) & 0x1FFFFFFFF)


def _wrap(value: int) -> int:
    """The signed 64-bit integer with the same low bits."""
    return (value + 2**63) % 2**64 - 2**63


def keys(seed: int, ids: Tensor, *parts: Tensor | int | str) -> Tensor:
    """One int64 key for each id, from (seed, id, *parts); a string names a purpose.

    ids: (B,) int64. Each part is an integer, a string or a (B,) int64 tensor. Returns (B,) int64.

    >>> bool((keys(0, torch.arange(3), "start") != keys(0, torch.arange(3), "noise")).all())
    True
    """
    key = _mix(ids.long() + _wrap(seed * _GOLDEN))
    for part in parts:
        if isinstance(part, str):
            part = zlib.crc32(part.encode())
        step = part.long() * _GOLDEN if isinstance(part, Tensor) else _wrap(part * _GOLDEN)
        key = _mix(key + step)
    return key


def bits(key: Tensor, count: int) -> Tensor:
    """(B, count) int64 with all 64 bits random."""
    return _mix(key[:, None] + torch.arange(1, count + 1, device=key.device) * _GOLDEN)


def uniform(key: Tensor, shape: Sequence[int]) -> Tensor:
    """(B, *shape) float32, uniform on the 2**24 multiples of 2**-24 in [0, 1).

    >>> uniform(keys(0, torch.arange(2)), (3, 4)).shape
    torch.Size([2, 3, 4])
    """
    z = bits(key, math.prod(shape))
    return ((z >> 40) & 0xFFFFFF).to(torch.float32).mul_(2.0**-24).view(len(key), *shape)


def normal(key: Tensor, shape: Sequence[int]) -> Tensor:
    """(B, *shape) float32, standard normal (Box and Muller 1958)."""
    count = math.prod(shape)
    half = (count + 1) // 2
    u = uniform(key, (2, half))
    radius = torch.sqrt(-2 * torch.log1p(-u[:, 0]))
    angle = 2 * math.pi * u[:, 1]
    both = torch.cat([radius * torch.cos(angle), radius * torch.sin(angle)], 1)
    return both[:, :count].reshape(len(key), *shape)


def pixel_ids(images: Tensor) -> Tensor:
    """(N,) int64 ids from the images' own bits, for calls that have no ids.

    Equal images get equal ids. images: (N, C, H, W) float32.
    """
    raw = images.detach().float().contiguous().flatten(1).view(torch.int32).long()
    place = torch.arange(1, raw.shape[1] + 1, device=raw.device) * _GOLDEN
    return _mix(_mix(raw + place).sum(1))
