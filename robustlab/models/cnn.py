"""A small convolutional network for small images, cheap enough to train on two CPU cores."""

from __future__ import annotations

from torch import nn

from robustlab.base.errors import UserError


def block(inputs: int, outputs: int) -> list[nn.Module]:
    return [nn.Conv2d(inputs, outputs, 3, padding=1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]


def cnn(classes: int, shape: tuple[int, int, int], *, width: int = 32, dropout: float = 0.0) -> nn.Sequential:
    """Five 3x3 convolutions with BatchNorm in three scales, then one linear layer on a 4x4 grid.

    The grid keeps where things are: a pooled-away "30" looks like a "80". shape: (C, H, W), sides of at least 8.
    width: channels of the first scale, then 2 and 4 times as many. dropout: before the linear layer.
    172,528 parameters for 3 x 32 x 32 and 16 classes.

    >>> sum(p.numel() for p in cnn(16, (3, 32, 32)).parameters())
    172528
    """
    channels, *sides = shape
    if min(sides) < 8:
        raise UserError(f"cnn needs images of at least 8 x 8 pixels, got {sides[0]} x {sides[1]}.")
    a, b, c = width, 2 * width, 4 * width
    return nn.Sequential(
        *block(channels, a),
        *block(a, a),
        nn.MaxPool2d(2),
        *block(a, b),
        *block(b, b),
        nn.MaxPool2d(2),
        *block(b, c),
        nn.AdaptiveAvgPool2d(4),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(16 * c, classes),
    )
