"""Residual networks for small images (He et al. 2016, "Deep residual learning", arXiv:1512.03385, section 4)."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from robustlab.base.errors import UserError


class Block(nn.Module):
    """Two 3x3 convolutions beside a shortcut; a 1x1 convolution where the shape changes (the paper's option B)."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(outputs)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu = nn.ReLU()
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return cast(Tensor, self.relu(y + self.shortcut(x)))


def resnet20(
    classes: int, shape: tuple[int, int, int], *, width: int = 16, depth: int = 3, dropout: float = 0.0
) -> nn.Sequential:
    """The CIFAR ResNet of 6 `depth` + 2 layers; `depth` = 3 blocks in each of three scales is ResNet-20.

    shape: (C, H, W), any size. width: channels of the first scale, then 2 and 4 times as many. dropout: before the
    linear layer. 272,864 parameters for 3 x 32 x 32 and 16 classes.

    >>> sum(p.numel() for p in resnet20(16, (3, 32, 32)).parameters())
    272864
    """
    return _resnet("resnet20", classes, shape, width, (depth,) * 3, dropout)


def resnet18(classes: int, shape: tuple[int, int, int], *, width: int = 64, dropout: float = 0.0) -> nn.Sequential:
    """ResNet-18 with a stem for small images: a 3x3 convolution and no pooling, where the paper's takes 224 x 224.

    Two blocks in each of four scales. shape, width, dropout: as for `resnet20`. 11,177,040 parameters for 3 x 32 x 32
    and 16 classes; a quarter of the width has a sixteenth of them.

    >>> sum(p.numel() for p in resnet18(16, (3, 32, 32)).parameters())
    11177040
    """
    return _resnet("resnet18", classes, shape, width, (2, 2, 2, 2), dropout)


def _resnet(
    name: str, classes: int, shape: tuple[int, int, int], width: int, depths: tuple[int, ...], dropout: float
) -> nn.Sequential:
    """Stem, `depths` blocks a scale (each after the first halves the sides and doubles the channels), mean, linear."""
    channels, *sides = shape
    least = 2 ** (len(depths) - 1)
    if min(sides) < least:
        raise UserError(f"{name} needs images of at least {least} x {least} pixels, got {sides[0]} x {sides[1]}.")
    layers: list[nn.Module] = [nn.Conv2d(channels, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
    inputs = width
    for scale, depth in enumerate(depths):
        outputs = width * 2**scale
        for i in range(depth):
            layers.append(Block(inputs, outputs, 2 if scale and i == 0 else 1))
            inputs = outputs
    layers += [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(dropout), nn.Linear(inputs, classes)]
    net = nn.Sequential(*layers)
    for layer in net.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu")
    return net
