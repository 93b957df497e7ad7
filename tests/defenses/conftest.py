"""Small images that a net learns within seconds."""

from __future__ import annotations

import pytest
import torch

from robustlab.data import Data
from robustlab.threat.model import ThreatModel
from robustlab.training import Recipe

SMALL = Recipe(epochs=3, batch_size=16, lr=0.05, shift=0, check_size=8)


def stripes(n: int, split: str) -> Data:
    """Two classes of 1 x 8 x 8 images, horizontal and vertical stripes with noise."""
    generator = torch.Generator().manual_seed(n)
    labels = torch.arange(n) % 2
    i, j = torch.meshgrid(torch.arange(8), torch.arange(8), indexing="ij")
    patterns = torch.stack([i % 2, j % 2]).float()
    images = 0.1 + 0.8 * patterns[labels][:, None] + 0.1 * torch.randn(n, 1, 8, 8, generator=generator)
    ids, names = torch.arange(n), ("flat", "upright")
    return Data("stripes", split, images.clamp(0, 1), labels, ids, names, f"s-{split}", ThreatModel(eps=0.05))


@pytest.fixture(scope="module")
def data() -> tuple[Data, Data]:
    return stripes(96, "train"), stripes(30, "val")
