"""A small vision transformer (Dosovitskiy et al. 2021, "An image is worth 16x16 words", arXiv:2010.11929)."""

from __future__ import annotations

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from robustlab.base.errors import UserError


class Layer(nn.Module):
    """Self-attention and a two-layer perceptron, each behind a LayerNorm and beside a shortcut (pre-norm)."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.mix = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(self.norm1(x)).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4).unbind(0)
        seen = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2)
        x = x + self.mix(seen)
        return cast(Tensor, x + self.mlp(self.norm2(x)))


class ViT(nn.Module):
    """A vision transformer for small images: no convolution but the one that cuts the patches, no BatchNorm.

    Patches are tokens with learned positions; `depth` layers follow, and a linear layer on the mean of the tokens, not
    on a class token, which small sets train better (Beyer et al. 2022, arXiv:2205.01580). shape: (C, H, W), sides that
    `patch` divides. width: of a token, a multiple of `heads`. dropout: before the last layer. 683,632 parameters for
    3 x 32 x 32 and 16 classes.

    >>> sum(p.numel() for p in ViT(16, (3, 32, 32)).parameters())
    683632
    """

    def __init__(
        self,
        classes: int,
        shape: tuple[int, int, int],
        *,
        width: int = 96,
        depth: int = 6,
        heads: int = 3,
        patch: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        channels, high, wide = shape
        if min(high, wide) < patch or high % patch or wide % patch:
            raise UserError(
                f"vit cuts images into patches of {patch} x {patch} pixels, so their sides must be multiples of"
                f" {patch}; got {high} x {wide}. Scale the images, or choose another patch."
            )
        if width % heads:
            raise UserError(f"vit needs a width that its heads divide, got width {width} and {heads} heads.")
        self.patches = nn.Conv2d(channels, width, patch, patch)
        self.positions = nn.Parameter(torch.randn(1, high // patch * (wide // patch), width) * 0.02)
        self.layers = nn.Sequential(*(Layer(width, heads) for _ in range(depth)))
        self.norm, self.dropout = nn.LayerNorm(width), nn.Dropout(dropout)
        self.head = nn.Linear(width, classes)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2) + self.positions
        return cast(Tensor, self.head(self.dropout(self.norm(self.layers(tokens)).mean(1))))
