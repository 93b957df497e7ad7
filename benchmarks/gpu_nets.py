"""The networks of gpu.py: the zoo's robust ResNet-20, and larger ones with random weights."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from robustlab import load_data, load_model
from robustlab.models.resnet import resnet18

CLASSES = 16  # as many as road-signs has


class Wide(nn.Module):
    """A block of a wide residual network: batch norm and ReLU come before each convolution."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2, self.relu = nn.BatchNorm2d(inputs), nn.BatchNorm2d(outputs), nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False)
        self.conv2 = nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False)
        same = inputs == outputs
        self.shortcut: nn.Module = nn.Identity() if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.bn1(x))
        return cast(Tensor, self.conv2(self.relu(self.bn2(self.conv1(y)))) + self.shortcut(y))


def wide_resnet(classes: int, depth: int = 28, width: int = 10) -> nn.Sequential:
    """WRN-depth-width (Zagoruyko and Komodakis 2016, arXiv:1605.07146), without dropout; 36.5 million parameters."""
    layers: list[nn.Module] = [nn.Conv2d(3, 16, 3, 1, 1, bias=False)]
    inputs = 16
    for scale in range(3):
        outputs = 16 * width * 2**scale
        for i in range((depth - 4) // 6):
            layers.append(Wide(inputs, outputs, 2 if scale and i == 0 else 1))
            inputs = outputs
    layers += [nn.BatchNorm2d(inputs), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(inputs, classes)]
    return nn.Sequential(*layers)


def torchvision_resnet50() -> nn.Module:
    from torchvision.models import resnet50

    return cast(nn.Module, resnet50())


@dataclass(frozen=True)
class Net:
    """A network and the batch in which it is attacked. make: None for a network of the zoo, called by its name."""

    name: str
    side: int
    batch: int
    make: Callable[[], nn.Module] | None = None


NETS = {
    net.name: net
    for net in (
        Net("road-signs/resnet20-robust", 32, 1024),
        Net("resnet18", 32, 512, lambda: resnet18(CLASSES, (3, 32, 32))),
        Net("wrn-28-10", 32, 256, lambda: wide_resnet(CLASSES)),
        Net("resnet50", 224, 128, torchvision_resnet50),
    )
}


def prepared(net: Net, n: int, device: torch.device) -> tuple[nn.Module, Tensor, Tensor]:
    """The network in eval mode, n images and their labels; those of random weights are the network's own answers."""
    if net.side == 32:
        data = load_data("road-signs", "test", limit=n)
        images, labels = data.images.to(device), data.labels.to(device)
    else:
        images = torch.rand(n, 3, net.side, net.side, generator=torch.Generator().manual_seed(0)).to(device)
    if net.make is None:
        return load_model(net.name).to(device).eval(), images, labels
    with torch.random.fork_rng([device] if device.type == "cuda" else []), torch.no_grad():
        torch.manual_seed(0)
        model = net.make().to(device).train()
        model(images[:64])  # gives batch norm its statistics
        model.eval()
        return model, images, torch.cat([model(part).argmax(1) for part in images.split(64)])
