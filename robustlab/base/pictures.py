"""Images and heatmaps as the bytes of PNG files."""

from __future__ import annotations

import io
from collections.abc import Sequence
from functools import cache

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

# Dark violet over red and orange to pale yellow, in steps of 11 of the CIE lightness L* from 8 to 96: the order of the
# colours is that of their lightness, so colour-blind readers and a grey print see the same order.
_ANCHORS = ("171237", "411b61", "771b7e", "ac2d71", "d94954", "f2743d", "fea132", "f9cf74", "faf6b8")


def to_picture(image: Tensor) -> Image.Image:
    """An image (C, H, W) in [0, 1] in 8 bits: one channel is grey, three are RGB, others are shown as their mean."""
    shown = image if len(image) in (1, 3) else image.mean(0, keepdim=True)
    pixels = shown.clamp(0, 1).mul(255).round().byte().cpu().permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[:, :, 0] if len(shown) == 1 else pixels)


def png(image: Tensor) -> bytes:
    """An image (C, H, W) in [0, 1] as a PNG; see `to_picture`."""
    return packed(to_picture(image))


def sheet(rows: Sequence[Tensor], scale: int | None = None) -> Tensor:
    """Rows of images (n, C, H, W) as one picture, enlarged by `scale` (None: small ones to about 96 pixels)."""
    large = [enlarged(images, scale) for images in rows]
    return torch.cat([torch.cat(list(images), 2) for images in large], 1)


def enlarged(images: Tensor, scale: int | None = None) -> Tensor:
    """Images (N, C, H, W) with each pixel as a square of `scale` pixels (None: small ones to about 96 pixels).

    >>> enlarged(torch.zeros(1, 3, 32, 32)).shape
    torch.Size([1, 3, 96, 96])
    """
    k = scale or max(1, 96 // images.shape[-1])
    return images.repeat_interleave(k, 2).repeat_interleave(k, 3)


def outlined(images: Tensor, inside: Tensor) -> Tensor:
    """Images (N, C, H, W) in [0, 1], in RGB and enlarged, with a light blue line around a region (N, H, W) bool.

    >>> outlined(torch.zeros(1, 1, 32, 32), torch.zeros(1, 32, 32, dtype=torch.bool)).shape
    torch.Size([1, 3, 96, 96])
    """
    shown = images if images.shape[1] == 3 else images.mean(1, keepdim=True).expand(-1, 3, -1, -1)
    region = enlarged(inside[:, None].float())
    line = F.max_pool2d(region, 5, 1, 2) > region
    return torch.where(line, torch.tensor([0.35, 0.9, 1.0])[:, None, None], enlarged(shown.cpu()))


def heat_png(heat: Tensor, scale: float) -> bytes:
    """A heatmap (H, W) of values >= 0 as a PNG in colour: dark is 0, pale yellow is `scale` and more.

    A scale of 0 (a map that is zero everywhere) is all dark.
    """
    share = heat.clamp(0, scale) / scale if scale > 0 else heat * 0
    shown = Image.fromarray(share.mul(255).round().byte().cpu().numpy())
    shown.putpalette(palette().tobytes())  # the colours of a palette image: a third of the size of RGB
    return packed(shown)


def coloured(maps: Tensor, scale: float) -> Tensor:
    """Heatmaps (N, H, W) of values >= 0 as images (N, 3, H, W) in [0, 1], in the colours of `heat_png`.

    >>> coloured(torch.ones(2, 4, 4), 1.0).shape
    torch.Size([2, 3, 4, 4])
    """
    shares = maps.detach().cpu().clamp(0, scale) / scale if scale > 0 else maps.detach().cpu() * 0
    return torch.from_numpy(palette())[shares.mul(255).round().long()].permute(0, 3, 1, 2) / 255


def blended(heat: Tensor, scale: float, image: Tensor) -> Tensor:
    """A heatmap (H, W) of values >= 0 over an image (C, H, W) in [0, 1], as (3, H, W): grey without heat, then colour.

    The image is shown in grey, and darker than it is, so that all lightness and colour beyond that is heat.

    >>> blended(torch.zeros(4, 4), 1.0, torch.ones(3, 4, 4)).unique()
    tensor([0.7000])
    """
    grey = 0.7 * image.detach().cpu().clamp(0, 1).mean(0, keepdim=True)
    share = heat.detach().cpu().clamp(0, scale) / scale if scale > 0 else heat.detach().cpu() * 0
    return torch.lerp(grey.expand(3, -1, -1), coloured(heat[None], scale)[0], 0.8 * share)


@cache
def palette() -> np.ndarray:
    """The (256, 3) uint8 colours of heatmaps, from dark to light."""
    anchors = np.array([list(bytes.fromhex(anchor)) for anchor in _ANCHORS])
    at, places = np.linspace(0, 1, 256), np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(at, places, channel) for channel in anchors.T], 1).round().astype(np.uint8)


def packed(shown: Image.Image) -> bytes:
    """The bytes of a PNG file."""
    buffer = io.BytesIO()
    shown.save(buffer, format="PNG", optimize=True)
    return buffer.getvalue()
