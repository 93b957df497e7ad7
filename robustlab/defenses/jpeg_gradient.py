"""JPEG as a function that torch can differentiate: for the gradient of an attack that knows of it."""

from __future__ import annotations

import io
import math
from functools import cache

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

BLOCK = 8
# from red, green, blue to brightness and two colour differences (JFIF)
COLOURS = ((0.299, 0.587, 0.114), (-0.168736, -0.331264, 0.5), (0.5, -0.418688, -0.081312))


def soft_round(v: Tensor) -> Tensor:
    """The nearest integer plus the cube of what is left, whose slope is 3 (v - round(v))**2.

    Shin and Song 2017, JPEG-resistant Adversarial Images (NIPS workshop on machine learning and security).

    >>> soft_round(torch.tensor([1.0, 1.5, 2.25])).tolist()
    [1.0, 1.875, 2.015625]
    """
    nearest = v.detach().round()
    return nearest + (v - nearest) ** 3


def soft_jpeg(x: Tensor, quality: int) -> Tensor:
    """About what Pillow makes of images (N, C, H, W) in [0, 1] at a quality, C 1 or 3; differentiable.

    Colours at half the resolution, blocks of 8 by 8, cosine transform, division by Pillow's tables, `soft_round`, and
    back. What is left out: rounding to 8 bits, clipping, and the coding, which loses nothing.
    """
    high, wide = x.shape[2:]
    grey = x.shape[1] == 1
    block = BLOCK if grey else 2 * BLOCK
    x = F.pad(x, (0, -wide % block, 0, -high % block), mode="replicate")
    bright, colour = (table.to(x) for table in tables(quality))
    if grey:
        return _coded(x, bright)[:, :, :high, :wide]
    mix = torch.tensor(COLOURS, device=x.device, dtype=x.dtype)
    parts = torch.einsum("ij,njhw->nihw", mix, x)
    differences = _coded(F.avg_pool2d(parts[:, 1:] + 0.5, 2), colour) - 0.5
    larger = F.interpolate(differences, scale_factor=2, mode="bilinear")
    coded = torch.cat([_coded(parts[:, :1], bright), larger], 1)
    return torch.einsum("ij,njhw->nihw", torch.linalg.inv(mix), coded)[:, :, :high, :wide]


def _coded(x: Tensor, table: Tensor) -> Tensor:
    """Planes (N, C, H, W), whose sides are multiples of 8, with rounded coefficients."""
    n, c, high, wide = x.shape
    blocks = x.reshape(n, c, high // BLOCK, BLOCK, wide // BLOCK, BLOCK).transpose(3, 4) * 255 - 128
    turn = cosines().to(x)
    back = turn.T @ (soft_round(turn @ blocks @ turn.T / table) * table) @ turn
    return ((back + 128) / 255).transpose(3, 4).reshape(n, c, high, wide)


def cosines() -> Tensor:
    """(8, 8): the orthonormal cosine transform of type II.

    >>> bool(torch.allclose(cosines() @ cosines().T, torch.eye(8), atol=1e-6))
    True
    """
    at = torch.arange(BLOCK)
    waves = torch.cos((2 * at + 1) * at[:, None] * math.pi / (2 * BLOCK)) / 2
    return torch.cat([waves[:1] / math.sqrt(2), waves[1:]])


@cache
def tables(quality: int) -> tuple[Tensor, Tensor]:
    """(8, 8) each: what Pillow divides the coefficients of brightness and of colour by."""
    file = io.BytesIO()
    Image.new("RGB", (16, 16)).save(file, "JPEG", quality=quality)
    found = Image.open(file).quantization  # type: ignore[attr-defined]
    bright, colour = (torch.tensor(found[at], dtype=torch.float32).view(BLOCK, BLOCK) for at in (0, 1))
    return bright, colour
